"""Items on the local engine: one batch, with the texts that separate calls have."""

from __future__ import annotations

import pytest

from skeleton_of_thought.drive import run
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.types import Conversation, Prompt, Reply

QUESTION = (
    "Translate each of these sentences into French:\n"
    "1. The ferry leaves at noon.\n2. Our oven is broken again.\n3. She paints birds.\n4. My uncle repairs violins."
)


@pytest.mark.model
def test_items_are_one_batch_and_their_texts_are_those_of_separate_calls(demo_engine: LocalEngine) -> None:
    prompts: list[Prompt] = []

    def opened(call, _):
        prompts.append(call.prompt)
        with demo_engine.stream(call.prompt, max_new_tokens=24) as stream:
            yield from stream
        yield Reply(usage=stream.completion.usage, finish_reason=stream.completion.finish_reason)

    flow = AnswerFlow(Conversation.of(QUESTION), router=AutoRouter())
    for _ in run([flow], opened):
        pass
    assert flow.answer.route == "items"
    separate = {p.messages[-1].text: demo_engine.generate([p], max_new_tokens=24)[0].text for p in prompts}
    assert len(separate) == 4
    for expansion in flow.answer.expansions:
        (text,) = [text for asked, text in separate.items() if asked.endswith(expansion.point.title)]
        assert expansion.text == text.strip()
    assert flow.answer.usage_by_stage["point"].cached_tokens > 0
