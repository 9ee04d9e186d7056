"""Judges that follow a rule: as a model that gets the prompt, or at once from the two texts."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought.types import Call, Reply, Usage

_TEXTS = re.compile(r"<<<(\w+)\n(.*?)\n\1>>>", re.DOTALL)
Rule = Callable[[str, str], str | Exception]
"""From the text shown first and the one shown second: the reply, or an error of the call."""


def texts_of(prompt: str) -> tuple[str, str, str]:
    """The question, the first and the second answer in a prompt of a judge."""
    question, first, second = (found[1] for found in _TEXTS.findall(prompt))
    return question, first, second


@dataclass
class ScriptedJudge:
    """A judge that replies by a rule; `prompts` has what it was asked, in order."""

    rule: Rule
    prompts: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open_call(self, call: Call, position: int) -> Iterator[str | Reply]:
        assert call.stage == "direct"
        assert call.prompt is not None
        text = call.prompt.messages[-1].text
        with self.lock:
            self.prompts.append(text)
        reply = self.rule(*texts_of(text)[1:])
        if isinstance(reply, Exception):
            raise reply
        yield reply
        yield Reply(usage=Usage(100, 7, 3), finish_reason="stop")

    def backend(self) -> ModelBackend:
        return ModelBackend("scripted judge", self.open_call)
