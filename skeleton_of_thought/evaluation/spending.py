"""`--budget`: what a command may spend, and what it has spent."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass

from skeleton_of_thought.errors import InvalidInput

__all__ = ["Budget", "Cost", "Spending"]

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM]?)\s*(tokens?|calls?)?", re.I)
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True)
class Cost:
    """What answers or verdicts cost.

    Attributes:
        calls: Calls that were opened.
        tokens: Tokens of prompts and of replies.
    """

    calls: float = 0
    tokens: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.calls + other.calls, self.tokens + other.tokens)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.calls - other.calls, self.tokens - other.tokens)


@dataclass(frozen=True)
class Budget:
    """The most that one command may spend.

    Attributes:
        calls: Calls; None for no limit.
        tokens: Tokens; None for no limit.
    """

    calls: int | None = None
    tokens: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Reads `"500calls"`, `"100k tokens"`, or both with a comma between them; a plain number means calls.

        Raises:
            InvalidInput: The text is none of these.
        """
        found: dict[str, int] = {}
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            if match is None:
                raise InvalidInput(
                    f"A budget is a number of calls or tokens, such as 500calls, 100ktokens or 500calls,1Mtokens, not "
                    f"{text!r}."
                )
            number, factor, unit = match.groups()
            name = "tokens" if (unit or "").lower().startswith("token") else "calls"
            most = int(float(number) * _FACTORS[factor.lower()])
            if most < 1:
                raise InvalidInput(f"A budget of {part.strip()!r} allows nothing: give at least 1.")
            if name in found:
                raise InvalidInput(f"The budget {text!r} has two numbers of {name}.")
            found[name] = most
        return cls(**found)

    def __str__(self) -> str:
        parts = ((self.calls, "calls"), (self.tokens, "tokens"))
        return " and ".join(f"{number:,} {name}" for number, name in parts if number is not None) or "no limit"


class Spending:
    """What a command has spent, and whether its budget allows more. Threads may share it.

    A piece of work is taken to cost what those of its kind have cost on average: `begin` reserves that, and `end`
    replaces it by the true cost. So a run stops before the piece that would probably go past the budget.

    Args:
        budget: The budget; None for no limit.

    Attributes:
        budget: As given.
        spent: What was spent.
        stopped: Whether the budget has refused anything.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.spent = Cost()
        self.stopped = False
        self._lock = threading.Lock()
        self._reserved = Cost()
        self._sums: dict[str, Cost] = {}
        self._counts: Counter[str] = Counter()

    def learn(self, kind: str, cost: Cost) -> None:
        """Takes what a piece has cost in an earlier command, which does not count here."""
        with self._lock:
            self._count(kind, cost)

    def begin(self, kind: str) -> Cost | None:
        """Reserves the cost of a piece of this kind (a way, a judge); None if the budget does not allow it."""
        with self._lock:
            mean = self._mean(kind)
            after = self.spent + self._reserved + mean
            # Where the cost is not known yet, anything that is left is enough.
            for used, most in ((after.calls, self.budget.calls), (after.tokens, self.budget.tokens)):
                if most is not None and (used > most or (not self._counts[kind] and used >= most)):
                    self.stopped = True
                    return None
            self._reserved += mean
            return mean

    def end(self, kind: str, reserved: Cost, cost: Cost | None) -> None:
        """Counts a piece that `begin` allowed, with what it has reserved; a `cost` of None if it was given up."""
        with self._lock:
            self._reserved -= reserved
            if cost is not None:
                self.spent += cost
                self._count(kind, cost)

    def _count(self, kind: str, cost: Cost) -> None:
        self._sums[kind] = self._sums.get(kind, Cost()) + cost
        self._counts[kind] += 1

    def _mean(self, kind: str) -> Cost:
        """The mean cost of a kind; nothing where it is not known."""
        if not (number := self._counts[kind]):
            return Cost()
        total = self._sums[kind]
        return Cost(total.calls / number, total.tokens / number)

    def __str__(self) -> str:
        return f"{self.spent.calls:,.0f} calls and {self.spent.tokens:,.0f} tokens of {self.budget}"
