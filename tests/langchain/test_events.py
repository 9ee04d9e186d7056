"""Custom events on the answer's own run, and the calls in a trace."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from always import skeleton_chain
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableLambda

from langchain_sot import custom_events
from langchain_sot.entry import _reporter

TITLES = ["Take breaks", "Move"]
SKELETON = ("sot_skeleton", {"titles": TITLES})
STARTS = [
    ("sot_point_start", {"index": 1, "title": "Take breaks", "attempt": 1}),
    ("sot_point_start", {"index": 2, "title": "Move", "attempt": 1}),
]
ENDS = [
    ("sot_point_end", {"index": 1, "title": "Take breaks", "text": "All about take breaks.", "error": None}),
    ("sot_point_end", {"index": 2, "title": "Move", "text": "All about move.", "error": None}),
]
MERGE = [("sot_merge_start", {"attempt": 1}), ("sot_merge_end", {"text": "All in one.", "error": None})]


class Heard(BaseCallbackHandler):
    """The custom events, in order, with their run, tags and metadata."""

    run_inline = True

    def __init__(self):
        self.events = []
        self.about = []

    def on_custom_event(self, name, data, *, run_id, tags=None, metadata=None, **kwargs):
        self.events.append((name, data))
        self.about.append((run_id, tags, metadata))


class HeardAsync(AsyncCallbackHandler):
    def __init__(self):
        self.events = []

    async def on_custom_event(self, name, data, *, run_id, tags=None, metadata=None, **kwargs):
        self.events.append((name, data))


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


def by_index(events):
    return sorted(events, key=lambda event: event[1]["index"])


async def test_every_method_emits_the_events(kit, way, llm):
    heard, runs = Heard(), kit.Runs()
    config = {"callbacks": [heard, runs], "tags": ["mine"], "metadata": {"user": "ada"}}
    await way(skeleton_chain(llm=llm, merge=True), "Q", config)
    assert heard.events[:3] == [SKELETON, *STARTS]
    assert by_index(heard.events[3:5]) == ENDS
    assert heard.events[5:] == MERGE
    (root,) = runs.roots
    for run_id, tags, metadata in heard.about:
        assert run_id == root.id
        assert "mine" in tags
        assert metadata["user"] == "ada"


async def test_the_chat_model_emits_the_same_events_on_its_own_run(kit, way, llm):
    heard, runs = Heard(), kit.Runs()
    await way(skeleton_chain(llm=llm).as_chat_model(), "Q", {"callbacks": [heard, runs]})
    assert heard.events[:3] == [SKELETON, *STARTS]
    assert by_index(heard.events[3:]) == ENDS
    (root,) = runs.roots
    assert {run_id for run_id, _, _ in heard.about} == {root.id}


async def test_async_handlers_receive_the_same_events(way, llm):
    heard = HeardAsync()
    await way(skeleton_chain(llm=llm), "Q", {"callbacks": [heard]})
    assert heard.events[:3] == [SKELETON, *STARTS]
    assert by_index(heard.events[3:]) == ENDS


async def test_events_are_emitted_at_once(kit, llm):
    """The skeleton's event comes before any point has text, a point's end while another point is written."""
    heard = Heard()
    ended = kit.Gate(lambda: any(name == "sot_point_end" for name, _ in heard.events))
    skeleton = kit.Gate(lambda: any(name == "sot_skeleton" for name, _ in heard.events))
    script = llm.script

    def waiting(seen):
        return [skeleton, *([ended] if seen.point == 1 else []), *script(seen)] if seen.point else script(seen)

    llm.script = waiting
    await skeleton_chain(llm=llm).ainvoke("Q", {"callbacks": [heard]})
    assert [data["index"] for name, data in heard.events if name == "sot_point_end"] == [2, 1]


async def test_each_question_of_a_batch_has_its_own_events(kit, llm):
    for is_async in (False, True):
        heard, runs = Heard(), kit.Runs()
        chain, config = skeleton_chain(llm=llm), {"callbacks": [heard, runs]}
        if is_async:
            await chain.abatch(["A?", "B?", "C?"], config)
        else:
            chain.batch(["A?", "B?", "C?"], config)
        counts = Counter(run_id for run_id, *_ in heard.about)
        assert counts == {root.id: 5 for root in runs.roots}
        assert len(counts) == 3


async def test_an_unreadable_input_does_not_affect_the_others(kit, llm):
    heard, runs = Heard(), kit.Runs()
    chain = skeleton_chain(llm=llm)
    chain.batch(["", "B?"], {"callbacks": [heard, runs]}, return_exceptions=True)
    assert {run_id for run_id, *_ in heard.about} == {runs.roots[1].id}


async def test_failures_are_emitted(kit, way):
    written = kit.answering([*TITLES, "Rest"])

    def failing(seen):
        if seen.stage == "merge":
            return [OSError("down")]
        return [OSError("lost")] if seen.point == 2 else written(seen)

    heard = Heard()
    settings = {"backoff": 0, "on_point_error": "placeholder", "placeholder": "(gap)"}
    chain = skeleton_chain(llm=kit.Chat(script=failing), merge=True, **settings)
    await way(chain, "Q", {"callbacks": [heard]})
    starts = [data for name, data in heard.events if name == "sot_point_start" and data["index"] == 2]
    assert [data["attempt"] for data in starts] == [1, 2]
    ends = {data["index"]: data for name, data in heard.events if name == "sot_point_end"}
    assert ends[2] == {"index": 2, "title": "Move", "text": "(gap)", "error": "OSError: lost"}
    assert [data["attempt"] for name, data in heard.events if name == "sot_merge_start"] == [1, 2]
    assert heard.events[-1] == ("sot_merge_end", {"text": "", "error": "OSError: down"})


async def test_astream_events_yields_the_custom_events(llm):
    chain = RunnableLambda(lambda q: q) | skeleton_chain(llm=llm)
    events = [event async for event in chain.astream_events("Q", version="v2")]
    custom = [event for event in events if event["event"] == "on_custom_event"]
    assert [(e["name"], e["data"]) for e in custom][:3] == [SKELETON, *STARTS]
    assert by_index((e["name"], e["data"]) for e in custom[3:]) == ENDS
    root = next(e for e in events if e["event"] == "on_chain_start" and e["name"] == "SkeletonOfThoughtChain")
    assert {e["run_id"] for e in custom} == {root["run_id"]}
    assert all(e["parent_ids"] == root["parent_ids"] for e in custom)


async def test_without_handlers_no_event_is_made(kit, way, llm, monkeypatch):
    class Deaf(BaseCallbackHandler):
        ignore_custom_event = True

    def never(*args, **kwargs):
        raise AssertionError("an event was dispatched")

    for name in ("custom_event", "dispatch_custom_event", "adispatch_custom_event"):
        monkeypatch.setattr(custom_events, name, never)
    for callbacks in ([], [Deaf()]):
        await way(skeleton_chain(llm=llm), "Q", {"callbacks": callbacks})
    with pytest.raises(AssertionError, match="dispatched"):
        await way(skeleton_chain(llm=llm), "Q", {"callbacks": [Raising(), kit.Runs()]})
    assert _reporter({}) is None


class Raising(BaseCallbackHandler):
    """A handler whose errors reach the caller."""

    raise_error = True
    run_inline = True

    def on_custom_event(self, name, data, **kwargs):
        raise RuntimeError(f"no {name}, please")


async def test_a_handler_that_raises_leaves_nothing_running(kit, way, llm):
    runs = kit.Runs()
    with pytest.raises(RuntimeError, match="no sot_skeleton, please"):
        await way(skeleton_chain(llm=llm), "Q", {"callbacks": [Raising(), runs]})
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_direct_answers_and_single_points_emit_only_the_events_that_apply(kit, way, llm):
    heard = Heard()
    await way(skeleton_chain(llm=llm, router=lambda q: False), "Q", {"callbacks": [heard]})
    routed = ("sot_route", {"use_skeleton": False, "score": None, "reason": ""})
    assert heard.events == [routed]
    heard.events.clear()
    await way(skeleton_chain(llm=llm).expansion(TITLES), "Q", {"callbacks": [heard]})
    assert heard.events[:3] == [SKELETON, *STARTS]
    assert by_index(heard.events[3:]) == ENDS


# --- one run per call ---


class Words(BaseLLM):
    """A string LLM that writes a skeleton, points, and a merge of them."""

    @property
    def _llm_type(self):
        return "words"

    def _text(self, prompt):
        if "were written separately" in prompt:
            return "All in one."
        return "Text." if "under the heading" in prompt else "1. Take breaks\n2. Move"

    def _generate(self, prompts, stop=None, run_manager=None, **kwargs):
        return LLMResult(generations=[[Generation(text=self._text(prompt))] for prompt in prompts])

    def _stream(self, prompt, stop=None, run_manager=None, **kwargs):
        yield GenerationChunk(text=self._text(prompt))


class Started(BaseCallbackHandler):
    """The names of all runs, by kind."""

    run_inline = True

    def __init__(self):
        self.models = Counter()
        self.others = Counter()
        self._lock = threading.Lock()

    def on_chat_model_start(self, serialized, messages, *, name=None, **kwargs):
        with self._lock:
            self.models[name] += 1

    def on_llm_start(self, serialized, prompts, *, name=None, **kwargs):
        with self._lock:
            self.models[name] += len(prompts)

    def on_chain_start(self, serialized, inputs, *, name=None, **kwargs):
        with self._lock:
            self.others[name] += 1

    def on_tool_start(self, serialized, text, *, name=None, **kwargs):
        with self._lock:
            self.others[name] += 1


@pytest.mark.parametrize("kind", ["chat model", "string LLM"])
async def test_each_call_is_one_run_below_the_root(kit, way, llm, kind):
    started = Started()
    model = llm if kind == "chat model" else Words()
    await way(skeleton_chain(llm=model, merge=True), "Q", {"callbacks": [started]})
    assert started.models == {"skeleton": 1, "point 1: Take breaks": 1, "point 2: Move": 1, "merge": 1}
    assert started.others == {"SkeletonOfThoughtChain": 1}
