"""The gate moved to `skeleton_of_thought.routers.gate` in 0.2.0; this name stays for those who import it."""

from __future__ import annotations

from skeleton_of_thought.routers.gate import RULES, Gate

__all__ = ["RULES", "Gate"]
