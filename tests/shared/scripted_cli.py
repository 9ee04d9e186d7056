"""A scripted backend for the tests of the `sot` command; as a program, the command with that backend.

Usage of the program: scripted_cli.py DELAY ARGUMENT..., with DELAY seconds before each piece of text. If DELAY is
"stdin" or "held", the skeleton comes at once, and every other text stops after a few words: until standard input ends,
or until the call is cancelled. So the middle of an answer can be tested however busy the machine is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought.cli import main
from skeleton_of_thought.types import Call, Decoding, Reply, Usage

TITLES = ("Keep a schedule", "Dim the lights", "Avoid caffeine", "Cool the room", "Put screens away")
SENTENCE = "This helps because the body expects rest at the same hour and slowly learns the habit. "
_HELD = 5
"""Pieces of a text that come before the gate."""


class Script:
    """Streams a skeleton, points, or a direct answer, and records all calls and the number of open ones."""

    def __init__(
        self,
        *,
        delay: float = 0.0,
        skeleton: str = "".join(f"{i}. {title}\n" for i, title in enumerate(TITLES, 1)),
        fail: Callable[[Call], Exception | None] = lambda call: None,
        usage: bool = True,
        decoding: Callable[[Call], Decoding | None] = lambda call: None,
        sentences: int = 3,
        gate: threading.Event | None = None,
    ) -> None:
        self.delay = delay
        self.skeleton = skeleton
        self.fail = fail
        self.usage = usage
        self.decoding = decoding
        self.sentences = sentences
        self.gate = gate
        self.calls: list[Call] = []
        self.open = 0
        self.closed = False

    def backend(self) -> ModelBackend:
        return ModelBackend("scripted", self._open, takes_limits=True, explain=str, close=self._close)

    def _close(self) -> None:
        self.closed = True

    def _open(self, call: Call, index: int) -> ScriptedStream:
        self.calls.append(call)
        return ScriptedStream(self, call)

    def text(self, call: Call) -> str:
        if call.stage == "skeleton":
            return self.skeleton
        if call.point is None:
            return SENTENCE * (self.sentences * len(TITLES))
        return SENTENCE * (self.sentences + call.point.index - 1)


class ScriptedStream:
    def __init__(self, script: Script, call: Call) -> None:
        self._script = script
        self._call = call
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[str | Reply]:
        script, call = self._script, self._call
        pieces = script.text(call).replace(" ", "| ").split("|")
        if call.prompt is not None and call.prompt.hints.max_tokens is not None:
            pieces = pieces[: call.prompt.hints.max_tokens]
        script.open += 1
        try:
            for written, piece in enumerate(pieces):
                if written == _HELD and call.stage != "skeleton" and script.gate is not None:
                    while not self._cancelled.wait(0.01) and not script.gate.is_set():
                        pass
                if self._cancelled.wait(script.delay) if script.delay else self._cancelled.is_set():
                    return
                if written == 2 and (error := script.fail(call)) is not None:
                    raise error
                yield piece
        finally:
            script.open -= 1
        yield Reply(Usage(50, len(pieces)) if script.usage else None, "stop", decoding=script.decoding(call))

    def cancel(self) -> None:
        self._cancelled.set()


def until_stdin_ends() -> threading.Event:
    """An event that is set when standard input ends."""
    ended = threading.Event()

    def wait() -> None:
        # Not `sys.stdin`: a thread that is still reading it would hold its lock while the interpreter exits.
        while os.read(0, 1024):
            pass
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


if __name__ == "__main__":
    # Shells make background processes ignore SIGINT, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gates = {"stdin": until_stdin_ends, "held": threading.Event}
    delay = sys.argv[1]
    script = Script(gate=gates[delay]()) if delay in gates else Script(delay=float(delay))
    sys.exit(main(sys.argv[2:], backend=script.backend()))
