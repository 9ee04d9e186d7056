"""The gate moved to `skeleton_of_thought.routers.gate` in 0.2.0; this module keeps the documented import working."""

from __future__ import annotations

from skeleton_of_thought.routers.gate import RULES, Gate

__all__ = ["RULES", "Gate"]
