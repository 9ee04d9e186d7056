"""The `sot` command's backend for a model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._cli.backend import Baseline, ModelBackend, Prefill, prefilled_stages
from skeleton_of_thought.types import Call, Reply

if TYPE_CHECKING:
    from skeleton_of_thought.local import CompletionStream, LocalEngine
    from skeleton_of_thought.local.plain_generate import GenerateStream

__all__ = ["DEMO", "TINY", "local_backend"]

DEMO = "demo"
"""The name of the embedded model."""

TINY = "a tiny model (135M): its speed is the point, not what it says"
"""What readers of its answers need to know."""


def local_backend(
    engine: LocalEngine,
    *,
    name: str = "local model",
    prefill: Prefill = "auto",
    raw: bool = False,
    **settings: Any,
) -> ModelBackend:
    """A backend on a loaded engine.

    Args:
        engine: The engine.
        name: The model's name.
        prefill: Whether the model gets the start of its turns; "auto" for yes, unless its answers begin with reasoning.
        raw: Whether the model continues the text of the question, without a chat around it.
        settings: Settings of `LocalEngine.stream`.
    """

    def open_call(call: Call, index: int) -> _EngineCall:
        assert call.prompt is not None
        return _EngineCall(engine.stream(call.prompt.messages[-1].text if raw else call.prompt, **settings))

    return ModelBackend(
        name,
        open_call,
        prefill=prefilled_stages(prefill == "yes" or (prefill == "auto" and engine.takes_prefill)),
        takes_limits=True,
        remark=TINY if name == DEMO else None,
        stop_loops=True,
        eager_pays=False,
        close=engine.close,
        baselines=_baselines(engine, settings),
        checkpoint=engine.checkpoint,
        notice=lambda: engine.stats().reason,
    )


class _EngineCall:
    """A completion of the engine as a stream for `drive.run`."""

    def __init__(self, stream: CompletionStream) -> None:
        self._stream = stream
        self.cancel = stream.close
        self.close = stream.close

    def __iter__(self) -> Iterator[str | Reply]:
        yield from self._stream
        # A cancelled completion ends here too, so that its tokens are counted.
        done = self._stream.completion
        yield Reply(done.usage, done.finish_reason, decoding=done.decoding)


def _baselines(engine: LocalEngine, settings: dict[str, Any]) -> Sequence[Baseline]:
    """`model.generate`, which users have without this package, and one row, which shows what the engine alone gains."""
    # The prompt of a comparison sets its length; --max-tokens limits the calls of the answer only.
    unlimited = {name: value for name, value in settings.items() if name != "max_new_tokens"}

    def generate(call: Call, index: int) -> GenerateStream:
        from skeleton_of_thought.local.plain_generate import GenerateStream

        assert call.prompt is not None
        sampling = {name: value for name, value in settings.items() if name in ("temperature", "seed")}
        return GenerateStream(engine, call.prompt, **sampling)

    def single_row(call: Call, index: int) -> _EngineCall:
        assert call.prompt is not None
        return _EngineCall(engine.stream(call.prompt, **unlimited))

    return Baseline("model.generate", generate), Baseline("the engine's single row", single_row)
