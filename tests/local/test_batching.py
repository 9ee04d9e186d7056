"""The demo model is decoded in one batch, with any installed versions. `make test-newest` runs this first."""

from __future__ import annotations

import pytest

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.types import Hints, Message, Prompt

pytestmark = pytest.mark.model

LENGTHS = (24, 7, 15, 3)


def test_the_demo_model_is_batched(demo_engine: LocalEngine) -> None:
    stats = demo_engine.stats()
    assert (stats.cache_kind, stats.reason) == ("batched", "")
    assert demo_engine.parallel_rows > 1
    assert demo_engine.optimization == "lean"


def test_a_batch_takes_as_many_steps_as_its_longest_row(demo_engine: LocalEngine) -> None:
    prompts = [
        Prompt((Message("user", f"Tell me the story of number {n}."),), hints=Hints(min_tokens=n, max_tokens=n))
        for n in LENGTHS
    ]
    before = demo_engine.stats()
    done = demo_engine.generate(prompts)
    after = demo_engine.stats()
    assert [len(completion.token_ids) for completion in done] == list(LENGTHS)
    # The run of a row's prompt may give its first token.
    assert after.steps - before.steps <= max(LENGTHS)
    assert after.decode_tokens - before.decode_tokens == sum(LENGTHS)
