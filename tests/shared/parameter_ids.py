"""Names of parameters."""

from __future__ import annotations

import re


def stable_id(value: object) -> str:
    """The text of a parameter without addresses: workers that run side by side have to agree on the names of tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
