"""The engine over an LLM alone: all its methods, sync and async, whole and streaming."""

from __future__ import annotations

import asyncio
import inspect
import json
import pydoc
import re
import threading
from functools import partial
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import LLMMetadata, MessageRole
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetryQueryEngine
from llama_index.core.schema import QueryBundle

from llama_index_sot import (
    SkeletonOfThoughtQueryEngine,
    SkeletonOfThoughtSynthesizer,
    SkeletonOfThoughtWorkflow,
    llm_calls,
)
from llama_index_sot.options import AnswerOptions, EngineOptions, SettingsOptions, WorkflowOptions
from skeleton_of_thought import Timeline, settings
from skeleton_of_thought.errors import PointError, ReplyError, SkeletonError

TITLES = ["Move", "Drink water", "Sleep more"]
TEXT = "1. Move: All about move.\n\n2. Drink water: All about drink water.\n\n3. Sleep more: All about sleep more."


# --- the same by every method -------------------------------------------------------------------------


async def test_every_method_gives_the_same_answer(ask, LLMClass, kit):
    llm = LLMClass(script=kit.answering(TITLES))
    response = await ask(llm, "How do I stay awake?")
    assert str(response) == response.response == TEXT
    assert [(p.index, p.title, p.text, p.error) for p in response.points] == [
        (i, title, f"All about {title.lower()}.", None) for i, title in enumerate(TITLES, 1)
    ]
    assert response.source_nodes == []
    assert response.metadata["sot"]["route"] == "skeleton"
    assert len(llm.watch.of("skeleton")) == 1
    assert sorted(seen.point for seen in llm.watch.of("point")) == [1, 2, 3]
    assert llm.watch.open == 0


async def test_a_bundle_is_taken_and_not_changed(ask, kit):
    bundle = QueryBundle("How?", custom_embedding_strs=["a", "b"])
    await ask(kit.ChatLLM(script=kit.answering(TITLES)), bundle)
    assert bundle == QueryBundle("How?", custom_embedding_strs=["a", "b"])


async def test_the_metadata_is_plain_and_small_data(ask, LLMClass, kit):
    response = await ask(LLMClass(script=kit.answering(TITLES)), "How?")
    entry = json.loads(json.dumps(response.metadata))["sot"]
    assert {"route", "reason", "concurrency", "retrieval", "timings", "usage"} <= entry.keys()
    assert "All about" not in json.dumps(entry)
    assert entry["usage"]["total_tokens"] == entry["usage"]["input_tokens"] + entry["usage"]["output_tokens"] > 0
    assert set(entry["timings"]["stages"]) == {"skeleton", "point"}
    assert Timeline.of(entry) == Timeline.of(response)


async def test_every_method_gives_a_time_line(ask, LLMClass, kit):
    response = await ask(LLMClass(script=kit.answering(TITLES)), "How?")
    bars = response.timeline(normal=3.0).bars
    numbered = [f"{number}. {title}" for number, title in enumerate(TITLES, 1)]
    assert [bar.shortened(40) for bar in bars] == ["skeleton", *numbered, "normal decoding"]
    assert response.timeline({"one row": 3.0}).bars[-1].label == "one row"


async def test_a_streamed_answer_has_a_time_line_as_far_as_it_is(kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm=llm, router=None, streaming=True)
    blocking, beside = engine.query("How?"), await engine.aquery("How?")
    assert [len(response.timeline().bars) for response in (blocking, beside)] == [0, 0]
    "".join(blocking.response_gen)
    await beside.get_response()
    assert [len(response.timeline().bars) for response in (blocking, beside)] == [1 + len(TITLES)] * 2


async def test_usage_is_the_same_by_every_method(methods, kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    usages = [(await ask(llm, "How?")).metadata["sot"]["usage"] for ask in methods.values()]
    assert all(usage == usages[0] for usage in usages)


async def test_settings_llm_is_the_default(kit, monkeypatch):
    llm = kit.SyncLLM(script=kit.answering(TITLES))
    monkeypatch.setattr(Settings, "_llm", llm)
    assert str(SkeletonOfThoughtQueryEngine.from_defaults(router=None).query("How?")) == TEXT
    assert len(llm.watch.seen) == 4


async def test_an_answer_without_any_text_is_an_error(ask, LLMClass, kit):
    llm = LLMClass(script=lambda seen: [])
    with pytest.raises(ReplyError, match="The reply is empty"):
        await ask(llm, "How?", backoff=0)
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton"] * 2 + ["direct"] * 2


async def test_a_router_may_choose_a_direct_answer(ask, LLMClass, kit):
    llm = LLMClass(script=kit.answering(TITLES))
    queries = []
    response = await ask(llm, "What is 2 + 2?", router=lambda query: bool(queries.append(query)))
    assert queries == ["What is 2 + 2?"]
    assert str(response) == "Just so."
    assert [seen.stage for seen in llm.watch.seen] == ["direct"]
    assert response.metadata["sot"]["route"] == "direct"


async def test_the_merge_is_the_answer(ask, LLMClass, kit):
    response = await ask(LLMClass(script=kit.answering(TITLES)), "How?", merge=True)
    assert str(response) == "All in one."
    assert [point.text for point in response.points] == [f"All about {title.lower()}." for title in TITLES]


@pytest.mark.parametrize(("stop_loops", "times", "reason"), [(True, 2, "loop"), (False, 40, "stop")])
async def test_a_direct_answer_that_loops_is_ended_where_that_is_wanted(ask, LLMClass, stop_loops, times, reason):
    again = "It is a good day to be outside. "
    llm = LLMClass(script=lambda seen: [again] * 40)
    response = await ask(llm, "Q", router=lambda query: False, stop_loops=stop_loops)
    assert str(response).strip() == (again * times).strip()
    assert response.metadata["sot"].get("finish_reason") == reason
    assert llm.watch.open == 0


async def test_points_may_have_another_llm(ask, kit):
    llm, point_llm = kit.SyncLLM(script=kit.answering(TITLES)), kit.ChatLLM(script=kit.answering(TITLES))
    assert str(await ask(llm, "How?", point_llm=point_llm)) == TEXT
    assert {seen.stage for seen in llm.watch.seen} == {"skeleton"}
    assert {seen.stage for seen in point_llm.watch.seen} == {"point"}


async def test_concurrent_queries_do_not_mix(kit):
    def script(seen):
        name = "crimson" if "crimson" in seen.text else "azure"
        if seen.stage == "skeleton":
            return [f"1. The {name} one\n", f"2. The other {name}"]
        return [f"It is {name}."]

    engine = kit.make(kit.ChatLLM(script=script))
    red, blue = await asyncio.gather(engine.aquery("What is crimson?"), engine.aquery("What is azure?"))
    assert "azure" not in str(red) + repr(red.points)
    assert "crimson" not in str(blue) + repr(blue.points)
    assert len(red.points) == len(blue.points) == 2


# --- what the LLM receives -------------------------------------------------------------------------


async def test_a_chat_model_gets_messages_and_its_system_prompt_once(ask, kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES), system_prompt="Be brief.")
    await ask(llm, "How?")
    for seen in llm.watch.seen:
        assert [message.role for message in seen.messages] == [MessageRole.SYSTEM, MessageRole.USER]
        assert seen.messages[0].content == "Be brief."


async def test_a_text_model_gets_a_formatted_prompt(ask, kit):
    llm = kit.SyncLLM(
        script=kit.answering(TITLES),
        system_prompt="Be brief.",
        completion_to_prompt=lambda text: f"<|user|>{text}<|assistant|>",
        query_wrapper_prompt=PromptTemplate("[{query_str}]"),
    )
    await ask(llm, "How?")
    for seen in llm.watch.seen:
        # As `LLM.predict` formats it.
        assert seen.text.startswith("[Be brief.\n\n<|user|>How?")
        assert seen.text.endswith("<|assistant|>]")
        assert seen.kwargs["formatted"] is True


async def test_a_custom_llm_that_is_a_chat_model_gets_the_text_that_its_chat_would_make(ask, kit):
    llm = kit.SyncLLM(
        script=kit.answering(TITLES),
        meta=LLMMetadata(is_chat_model=True),
        messages_to_prompt=lambda messages: "".join(f"<{m.role.value}>{m.content}" for m in messages) + "<assistant>",
        system_prompt="Be brief.",
    )
    assert str(await ask(llm, "How?")) == TEXT
    for seen in llm.watch.seen:
        assert seen.text.startswith("<system>Be brief.<user>How?")
        assert seen.text.endswith("<assistant>")


async def test_braces_in_the_query_and_in_titles_are_just_text(ask, LLMClass, kit):
    llm = LLMClass(script=kit.answering(["Use {title}", "Avoid {{x}}"]))
    response = await ask(llm, "What of {query_str} and {index}?")
    assert all("What of {query_str} and {index}?" in seen.text for seen in llm.watch.seen)
    assert [point.title for point in response.points] == ["Use {title}", "Avoid {{x}}"]


def test_a_whole_answer_uses_whole_calls_and_a_stream_streams(kit):
    for llm, whole, streamed in (
        (kit.SyncLLM(script=kit.answering(TITLES)), "complete", "stream_complete"),
        (kit.ChatLLM(script=kit.answering(TITLES)), "chat", "stream_chat"),
    ):
        kit.make(llm).query("How?")
        assert {seen.method for seen in llm.watch.seen} == {whole}
        llm.watch.seen.clear()
        kit.make(llm, eager=True).query("How?")
        assert {(seen.stage, seen.method) for seen in llm.watch.seen} == {("skeleton", streamed), ("point", whole)}
        llm.watch.seen.clear()
        list(kit.make(llm, streaming=True).query("How?").response_gen)
        assert {seen.method for seen in llm.watch.seen} == {streamed}


# --- errors ---------------------------------------------------------------------------------------


def failing(kit, error):
    script = kit.answering(TITLES)
    return lambda seen: [error] if seen.point == 2 else script(seen)


async def test_a_failing_point_is_raised_with_the_rest_of_the_answer(ask, LLMClass, kit):
    llm = LLMClass(script=failing(kit, OSError("no route")))
    with pytest.raises(PointError, match=r"Point 2 .'Drink water'. failed") as caught:
        await ask(llm, "How?", max_retries=0)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.point.index == 2
    assert llm.watch.open == 0


async def test_a_failing_point_keeps_its_place_by_policy(ask, LLMClass, kit):
    llm = LLMClass(script=failing(kit, OSError("no route")))
    response = await ask(llm, "How?", on_point_error="placeholder", placeholder="(missing)")
    assert str(response) == TEXT.replace("All about drink water.", "(missing)")
    assert [point.error for point in response.points] == [None, "OSError: no route", None]
    assert len(llm.watch.of("point", 2)) == 2


async def test_an_error_of_the_llm_keeps_its_type(ask, LLMClass, kit):
    class OutOfMemory(RuntimeError):
        pass

    llm = LLMClass(script=lambda seen: [OutOfMemory("no memory is left")])
    with pytest.raises(OutOfMemory, match="no memory is left"):
        await ask(llm, "How?", max_retries=0)


async def test_no_skeleton_is_an_error_where_that_is_wanted(ask, LLMClass, kit):
    llm = LLMClass(script=lambda seen: ["I would rather not."])
    with pytest.raises(SkeletonError):
        await ask(llm, "How?", on_empty_skeleton="raise", min_points=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_points": 0}, "max_points"),
        ({"num_workers": 0}, "num_workers"),
        ({"num_workers": "8"}, "num_workers"),
        ({"point_llm": "gpt"}, "point_llm must be an LLM"),
        ({"concurrency": "fast"}, "concurrency"),
        ({"on_point_error": "ignore"}, "on_point_error"),
        ({"router": 5}, "router"),
        ({"retrieval": "always"}, "retrieval"),
        ({"retrieval": "once"}, "needs a retriever"),
        ({"retriever": "index"}, "retriever"),
        ({"node_postprocessors": [object()]}, "nothing is retrieved"),
        ({"skeleton_template": "Say something."}, "query_str"),
        ({"point_template": "{query_str}"}, "title"),
        ({"context_template": "Look."}, "context_str"),
        ({"merge_template": 5}, "merge_template"),
    ],
)
def test_values_that_cannot_work_are_refused_before_any_call(settings, message, kit):
    llm = kit.SyncLLM(script=kit.answering(TITLES))
    with pytest.raises(ValueError, match=message):
        kit.make(llm, **settings)
    assert llm.watch.seen == []


async def test_an_empty_query_is_refused_before_any_call(ask, LLMClass, kit):
    llm = LLMClass(script=kit.answering(TITLES))
    with pytest.raises(ValueError, match="question is empty"):
        await ask(llm, "  ")
    assert llm.watch.seen == []


# --- other engines around it ----------------------------------------------------------------------


def test_query_works_inside_a_running_loop_again_and_again(kit):
    engine = kit.make(kit.SyncLLM(script=kit.answering(TITLES)))

    async def main():
        return [str(engine.query("How?")), str(engine.query("How?"))]

    assert asyncio.run(main()) == [TEXT, TEXT]
    assert asyncio.run(main()) == [TEXT, TEXT]


def test_prompts_of_an_engine_inside_another_can_be_updated(kit):
    from llama_index.core.evaluation import GuidelineEvaluator

    llm = kit.SyncLLM(script=kit.answering(TITLES))
    outer = RetryQueryEngine(kit.make(llm), GuidelineEvaluator(llm=llm))
    ours = [key for key in outer.get_prompts() if key.startswith("query_engine:")]
    assert "query_engine:skeleton_template" in ours
    outer.update_prompts({key: outer.get_prompts()[key] for key in ours})
    outer.update_prompts({"query_engine:skeleton_template": PromptTemplate("My own headings: {query_str}")})
    outer._query_engine.query("How?")
    assert llm.watch.of("skeleton")[0].text == "My own headings: How?"


def test_nothing_is_left_running(kit):
    before = set(threading.enumerate())
    asyncio.run(kit.make(kit.SyncLLM(script=kit.answering(TITLES))).aquery("How?"))
    kit.make(kit.SyncLLM(script=kit.answering(TITLES))).query("How?")
    assert set(threading.enumerate()) <= before


# --- options ---------------------------------------------------------------------------------------


async def test_each_llm_is_resolved_once_per_answer(ask, kit, monkeypatch):
    resolved: list[Any] = []
    methods: list[str] = []
    resolve, reads = llm_calls.resolve_llm, llm_calls.is_truly_async

    def counted(llm: Any, concurrency: Any) -> Any:
        resolved.append(llm)
        return resolve(llm, concurrency)

    def read(llm: Any, method: str) -> bool:
        methods.append(method)
        return reads(llm, method)

    monkeypatch.setattr(llm_calls, "resolve_llm", counted)
    monkeypatch.setattr(llm_calls, "is_truly_async", read)
    llm, point_llm = kit.ChatLLM(script=kit.answering(TITLES)), kit.ChatLLM(script=kit.answering(TITLES))
    response = await ask(llm, "How?")
    assert len(response.points) == 3
    assert resolved == [llm]
    assert len(methods) <= 2, "each of the two async methods is read once"
    resolved.clear()
    await ask(llm, "How?", point_llm=point_llm)
    assert resolved == [llm, point_llm]


def test_the_typed_options_are_complete():
    assert SettingsOptions.__optional_keys__ == set(settings.Settings.__dataclass_fields__)
    assert EngineOptions.__optional_keys__ == AnswerOptions.__optional_keys__ | {
        *("query_engine", "retrieval", "node_postprocessors", "point_query_template")
    }
    assert WorkflowOptions.__optional_keys__ == EngineOptions.__optional_keys__ | {"llm", "retriever"}
    documented = {
        name for kind in (AnswerOptions, EngineOptions) for name in re.findall(r"^ {8}(\w+): ", kind.__doc__, re.M)
    }
    assert documented == EngineOptions.__optional_keys__ - SettingsOptions.__optional_keys__


@pytest.mark.parametrize(
    ("documented", "options"),
    [
        (SkeletonOfThoughtQueryEngine.from_defaults, EngineOptions),
        (SkeletonOfThoughtSynthesizer, AnswerOptions),
        (SkeletonOfThoughtWorkflow, WorkflowOptions),
    ],
)
def test_help_shows_each_option_with_its_meaning(documented, options):
    shown = pydoc.plain(pydoc.render_doc(documented))
    listed = shown.split("Options:\n")[1]
    meanings = dict(re.findall(r"^[ |]*?(\w+)(?: \(default .*?\))?: (\S.*)$", listed, re.MULTILINE))
    assert options.__optional_keys__ <= meanings.keys()
    assert "max_points (default 10): The most points that are expanded" in listed
    assert "`llama_index_sot.options." in shown.split("Options:\n")[0], "editors show the source without the list"


_TEMPLATE = ("BasePromptTemplate | str | None", None)
_SETTINGS = {
    "max_points": ("int", 10),
    "min_points": ("int", 1),
    "eager": ("bool | Literal['auto']", False),
    "planning": ("Literal['titles', 'scoped', 'graph', 'auto']", "titles"),
    "items": ("Literal['auto', 'off']", "auto"),
    "max_depth": ("int", 2),
    "max_parents": ("int", 8),
    "on_parent_error": ("Literal['write', 'fail']", "write"),
    "opening": ("bool | Literal['restart']", False),
    "closing": ("bool", False),
    "rewrite_overlap": ("bool", False),
    "max_overlap": ("float", 0.3),
    "on_empty_skeleton": ("Literal['direct', 'raise']", "direct"),
    "on_point_error": ("Literal['raise', 'placeholder']", "raise"),
    "placeholder": ("str", "(This point could not be completed.)"),
    "max_retries": ("int", 1),
    "backoff": ("float", 0.5),
    "point_timeout": ("float | None", None),
    "point_words": ("int", 40),
    "join": ("Literal['numbered', 'headings', 'paragraphs']", "numbered"),
    "merge": ("bool", False),
    "max_skeleton_chars": ("int | None", 200_000),
    "max_point_chars": ("int | None", 200_000),
    "max_answer_chars": ("int | None", 1_000_000),
    "stop_loops": ("bool", False),
}
_ANSWER = _SETTINGS | {
    "llm": ("LLM | None", None),
    "point_llm": ("LLM | None", None),
    "router": ("RouterOption", "auto"),
    "streaming": ("bool", False),
    "num_workers": ("int | None", 8),
    "concurrency": ("Concurrency", "auto"),
    "citations": ("bool", False),
    "on_no_nodes": ("OnNoNodes", "empty_response"),
    "empty_response": ("str | None", None),
    "multimodal": ("bool", False),
    "prompts": ("PromptSet | None", None),
    "skeleton_template": _TEMPLATE,
    "scoped_template": _TEMPLATE,
    "graph_template": _TEMPLATE,
    "point_template": _TEMPLATE,
    "item_template": _TEMPLATE,
    "opening_template": _TEMPLATE,
    "closing_template": _TEMPLATE,
    "merge_template": _TEMPLATE,
    "direct_template": _TEMPLATE,
    "context_template": _TEMPLATE,
    "prompt_helper": ("PromptHelper | None", None),
    "callback_manager": ("CallbackManager | None", None),
}
_ENGINE = _ANSWER | {
    "retriever": ("BaseRetriever | None", None),
    "query_engine": ("BaseQueryEngine | None", None),
    "retrieval": ("Retrieval | None", None),
    "node_postprocessors": ("Sequence[BaseNodePostprocessor] | None", None),
    "point_query_template": _TEMPLATE,
}
_WORKFLOW = _ENGINE | {
    "engine": ("SkeletonOfThoughtQueryEngine | None", None),
    "timeout": ("float | None", None),
    "verbose": ("bool", False),
}


@pytest.mark.parametrize(
    ("made", "by_position", "shown"),
    [
        (SkeletonOfThoughtQueryEngine.from_defaults, ["llm"], _ENGINE),
        (
            SkeletonOfThoughtQueryEngine.from_args,
            ["retriever", "llm"],
            _ENGINE | {"retriever": ("BaseRetriever", inspect.Parameter.empty)},
        ),
        (SkeletonOfThoughtSynthesizer, ["llm"], _ANSWER),
        (SkeletonOfThoughtWorkflow, ["engine"], _WORKFLOW),
    ],
)
def test_the_signature_shows_each_option_with_its_type_and_default(made, by_position, shown):
    parameters = inspect.signature(made).parameters
    assert {name: (one.annotation, one.default) for name, one in parameters.items()} == shown
    assert [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD] == by_position
    assert {one.kind for one in parameters.values()} == {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }


def test_the_defaults_in_signatures_are_those_of_the_engine():
    parameters = inspect.signature(SkeletonOfThoughtQueryEngine.__init__).parameters
    for name in ("router", "streaming", "num_workers", "concurrency", "citations", "on_no_nodes", "multimodal"):
        assert parameters[name].default == _ENGINE[name][1]


def test_a_subclass_shows_its_own_constructor():
    class Own(SkeletonOfThoughtSynthesizer):
        def __init__(self, tone: str) -> None:
            super().__init__(MockLLM(), router=None)
            self.tone = tone

    assert list(inspect.signature(Own).parameters) == ["tone"]
    assert Own("dry").tone == "dry"


@pytest.mark.parametrize(
    ("make", "caller", "options"),
    [
        (SkeletonOfThoughtQueryEngine.from_defaults, "SkeletonOfThoughtQueryEngine.from_defaults", _ENGINE),
        (
            partial(SkeletonOfThoughtQueryEngine.from_args, None),
            "SkeletonOfThoughtQueryEngine.from_args",
            _ENGINE,
        ),
        (SkeletonOfThoughtSynthesizer, "SkeletonOfThoughtSynthesizer", _ANSWER),
        (SkeletonOfThoughtWorkflow, "SkeletonOfThoughtWorkflow", _WORKFLOW),
    ],
)
def test_a_misspelt_option_is_named(make, caller, options):
    with pytest.raises(TypeError) as caught:
        make(llm=MockLLM(), max_pionts=3)
    known = ", ".join(sorted(options))
    assert str(caught.value) == f"{caller} has no option max_pionts; its options are {known}."
