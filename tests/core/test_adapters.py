"""Helpers that the adapters of all frameworks share."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
from types import SimpleNamespace

import pytest

from skeleton_of_thought.adapters.adoption import Adoptions, NotAdopted, library_class, overridden
from skeleton_of_thought.adapters.hints import engine_settings, token_limit
from skeleton_of_thought.adapters.replies import (
    _RECORDS,
    FinishReasons,
    ReplyEnd,
    aclosing_stream,
    closing_stream,
    completion_metadata,
    read_decoding,
    read_finish_reason,
    read_usage,
)
from skeleton_of_thought.types import Call, Completion, Decoding, Hints, Message, Prompt, Reply, Usage

# --- the end of a reply ---


@pytest.mark.parametrize(
    ("data", "usage"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3}, Usage(7, 3)),
        ({"input_tokens": 7, "output_tokens": 3, "input_token_details": {"cache_read": 5}}, Usage(7, 3, 5)),
        (SimpleNamespace(prompt_tokens=7, completion_tokens=None, prompt_tokens_details=None), Usage(7, 0)),
        ({"input_tokens": 7, "input_tokens_details": SimpleNamespace(cached_tokens=5)}, Usage(7, 0, 5)),
        ({"prompt_token_count": 7, "candidates_token_count": 3}, Usage(7, 3)),
        ({"prompt_eval_count": 7, "eval_count": 3}, Usage(7, 3)),
        ({"total_tokens": 10}, None),
        (None, None),
    ],
    ids=str,
)
def test_token_counts_are_read_by_the_names_of_every_provider(data, usage):
    assert read_usage(data) == usage


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"finish_reason": None, "stop_reason": "max_tokens"}, "length"),
        ({"done_reason": "load"}, "load"),
        (SimpleNamespace(finish_reason="MAX_TOKENS"), "length"),
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({}, None),
        (None, None),
    ],
    ids=str,
)
def test_a_token_limit_is_called_length_whatever_the_provider_calls_it(data, reason):
    assert read_finish_reason(data) == reason


def test_a_reply_that_broke_off_is_an_error_unless_its_usage_came():
    with pytest.raises(ConnectionError, match="ended before its answer was complete"):
        ReplyEnd(cut=True).reply()
    assert ReplyEnd(Usage(1, 2), cut=True).reply() == Reply(usage=Usage(1, 2))
    assert ReplyEnd(finish_reason="stop").reply(("Rain",)) == Reply(finish_reason="stop", titles=("Rain",))


def test_a_reply_without_an_end_is_whole_where_its_model_never_gives_a_reason():
    reasons = FinishReasons()
    ends = [ReplyEnd(cut=True, reasons=reasons).reply() for _ in range(3)]
    assert ends == [Reply(doubtful=True), Reply(), Reply()]
    ReplyEnd(finish_reason="stop", streamed=False, reasons=reasons).reply()
    assert ReplyEnd(cut=True, reasons=reasons).reply() == Reply()
    ReplyEnd(finish_reason="stop", reasons=reasons).reply()
    with pytest.raises(ConnectionError):
        ReplyEnd(cut=True, reasons=reasons).reply()
    assert ReplyEnd(Usage(1, 2), cut=True, reasons=reasons).reply() == Reply(usage=Usage(1, 2))


def test_a_models_record_lives_as_long_as_the_model():
    class Model:
        pass

    one, other = Model(), Model()
    FinishReasons.of(one).seen = True
    assert [FinishReasons.of(model).seen for model in (one, other, one)] == [True, False, True]
    assert FinishReasons.of(()).seen is False, "an object that cannot be referred to weakly has no lasting record"
    key = id(one)
    assert key in _RECORDS
    del one
    gc.collect()
    assert key not in _RECORDS


@pytest.mark.parametrize(
    ("chunks", "seen", "streamed", "cut"),
    [
        ([{"model_provider": "openai"}], False, True, True),
        ([{"model_provider": "openai"}, {"finish_reason": "stop"}], False, True, False),
        ([{"model_provider": "openai", "finish_reason": None}], True, False, False),
        ([{"model_provider": "openai"}], True, False, True),
        ([{"model_provider": "anthropic"}], False, True, False),
        ([{"model_provider": "anthropic"}], True, True, True),
        ([{"model_provider": "anthropic"}], True, False, False),
        ([{"model_name": "m"}], True, True, False),
        ([{}], True, True, False),
    ],
)
def test_the_metadata_of_langchains_messages_say_whether_an_end_is_missing(chunks, seen, streamed, cut):
    end = ReplyEnd(reasons=FinishReasons(seen=seen), streamed=streamed)
    for metadata in chunks:
        end.read_metadata(metadata)
    assert end.cut is cut


def test_an_engines_record_is_read_back_from_its_metadata():
    decoding = Decoding(steps=3, output_tokens=3)
    metadata = completion_metadata(Completion("abc", (1, 2, 3), "length", Usage(1, 3), decoding))
    assert read_finish_reason(metadata) == "length"
    assert read_decoding(metadata["decoding"]) == decoding
    assert completion_metadata(Completion("", (), "stop", Usage())) == {"finish_reason": "stop"}
    assert read_decoding({"steps": 3}) is None


# --- hints ---


def _call(stage, **hints):
    return Call(1, stage, Prompt((Message("user", "Why?"),), hints=Hints(**hints)))


@pytest.mark.parametrize(
    ("stage", "wanted", "chosen", "limit"),
    [
        ("point", None, False, 512),
        ("point", 80, False, 80),
        ("point", 900, False, 512),
        ("merge", 900, False, 900),
        ("merge", 900, True, 512),
        ("merge", None, False, 512),
    ],
)
def test_a_default_limit_does_not_cut_a_merge(stage, wanted, chosen, limit):
    assert token_limit(_call(stage, max_tokens=wanted), 512, chosen=chosen) == limit


def test_hints_are_settings_of_the_engine_by_its_names():
    assert engine_settings(Hints(("\n",), 9, 2, 0.3, 0.1)) == {
        "stop_after_text": ("\n",),
        "min_new_tokens": 2,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.1,
    }


# --- streams ---


async def test_streams_are_closed_where_they_can_be():
    closed = []

    def items():
        try:
            yield 1
        finally:
            closed.append("sync")

    async def aitems():
        try:
            yield 1
        finally:
            closed.append("async")

    with closing_stream(items()) as stream:
        assert next(stream) == 1
    async with aclosing_stream(aitems()) as astream:
        assert await anext(astream) == 1
    assert closed == ["sync", "async"]
    with closing_stream(iter([1])) as stream:
        assert next(stream) == 1


# --- adoption ---


class Library:
    def generate(self):
        return "theirs"


class Subclass(Library):
    def generate(self):
        return "mine"


def test_a_library_class_is_recognized_by_name_and_package():
    assert library_class(Subclass(), "Library", (__name__,)) is Library
    assert library_class(Subclass(), "Library", ("elsewhere",)) is None
    assert library_class(object(), "Library", (__name__,)) is None
    assert overridden(Subclass(), Library, ["generate"]) == "generate"
    assert overridden(Library(), Library, ["generate", "missing"]) is None


def test_each_reason_is_logged_once_per_object_and_forgotten_with_it(caplog):
    adoptions = Adoptions(logging.getLogger("adapters"))
    objects = [Library(), Library()]

    def refuse():
        raise NotAdopted("It has beams.")

    def fail():
        raise KeyError("beams")

    for each in (objects[0], objects[0], objects[1]):
        assert adoptions.attempt(each, "Library", refuse) is None
        assert adoptions.attempt(each, "Library", fail) is None
    assert adoptions.attempt(objects[0], "Library", lambda: "adopted") == "adopted"
    reasons = [record.message.partition(": ")[2] for record in caplog.records]
    assert reasons == ["It has beams.", "KeyError: 'beams'"] * 2
    del objects, each
    gc.collect()
    assert not adoptions._records


# --- streams that are closed early ---


class ClientStream:
    """A stream as openai's client has it: it and its iterator refer to each other."""

    def __init__(self) -> None:
        self.response = object()
        self.closed = 0
        self._iterator = self._pieces()

    def _pieces(self):
        yield from self.response and "abc"

    def __iter__(self):
        yield from self._iterator

    def close(self):
        self.closed += 1


class AsyncClientStream(ClientStream):
    async def __aiter__(self):
        for piece in self._iterator:
            yield piece

    async def close(self):
        await asyncio.sleep(0)
        self.closed += 1


def wrapped(stream):
    def inner():
        for piece in stream:  # noqa: UP028 - `yield from` would close the stream
            yield piece

    pieces = inner()
    return (piece for piece in pieces)


async def awrapped(stream):
    async def inner():
        async for piece in stream:
            yield piece

    async for piece in inner():
        yield piece


@pytest.mark.parametrize("layers", [1, 2])
def test_a_generator_that_is_left_early_leaves_no_clients_stream_open(layers):
    client = ClientStream()
    stream = wrapped(client) if layers == 1 else wrapped(wrapped(client))
    with closing_stream(stream):
        assert next(stream) == "a"
        assert client.closed == 0
    assert client.closed == 1


@pytest.mark.parametrize("layers", [1, 2])
async def test_an_async_generator_that_is_left_early_leaves_no_clients_stream_open(layers):
    client = AsyncClientStream()
    stream = awrapped(client) if layers == 1 else awrapped(awrapped(client))
    async with aclosing_stream(stream):
        assert await anext(stream) == "a"
        assert client.closed == 0
    assert client.closed == 1


async def test_a_cancellation_on_its_way_does_not_keep_a_clients_stream_open():
    client = AsyncClientStream()

    async def leave():
        async with aclosing_stream(awrapped(client)) as stream:
            await anext(stream)
            asyncio.current_task().cancel()  # raised at the next wait, which is in the client's `close`

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(leave())
    await asyncio.sleep(0.01)
    assert client.closed == 1


def test_only_streams_of_clients_are_closed_with_a_generator():
    file = io.StringIO("a\nb\n")
    stream = wrapped(file)
    with closing_stream(stream):
        assert next(stream) == "a\n"
    assert not file.closed


def test_a_generator_that_was_read_to_its_end_is_not_searched():
    client = ClientStream()
    stream = wrapped(client)
    with closing_stream(stream):
        assert list(stream) == ["a", "b", "c"]
    assert client.closed == 0


@pytest.mark.parametrize("count", [-5, "many", 1.5, None, {"a": 1}])
def test_a_count_of_tokens_that_is_none_is_ignored(count):
    details = {"prompt_tokens_details": {"cached_tokens": count}}
    assert read_usage({"prompt_tokens": count, "completion_tokens": 7, **details}) == Usage(0, 7)
    assert read_usage({"prompt_tokens": count, "completion_tokens": count}) is None
