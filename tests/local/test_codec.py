"""Prompts become tokens with exactly one BOS; tokens become text in whole characters and without stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.codec import Detokenizer, StopStrings, TextCodec
from skeleton_of_thought.types import Message, Prompt

CHAT = [Message("system", "Be brief."), Message("user", "Hello")]
PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
WITH_BOS = "{{ bos_token }}" + PLAIN


@pytest.mark.parametrize("template", [PLAIN, WITH_BOS])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_prompt_has_one_bos_if_the_model_has_it(tiny: Any, template: str, adds_bos: bool) -> None:
    tokenizer = tiny.make_tokenizer(template=template, adds_bos=adds_bos)
    ids = TextCodec(tokenizer).encode(CHAT, prefill="1.").ids
    expected = 1 if adds_bos or template == WITH_BOS else 0
    assert ids.count(tokenizer.bos_token_id) == expected
    assert ids[:1] == (tokenizer.bos_token_id,) * expected or not expected
    assert tokenizer.decode(ids, skip_special_tokens=True).endswith("Hello1.")


@pytest.mark.parametrize("text", ["Hello", "<s>Hello"])
def test_raw_text_has_one_bos(tiny: Any, text: str) -> None:
    tokenizer = tiny.make_tokenizer(adds_bos=True)
    assert TextCodec(tokenizer).encode(text).ids.count(tokenizer.bos_token_id) == 1


def test_an_appended_end_token_is_removed(tiny: Any) -> None:
    from tokenizers import processors

    tokenizer = tiny.make_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    ids = TextCodec(tokenizer).encode("Hello").ids
    assert ids[0] == 1
    assert 2 not in ids


def test_messages_of_every_type_are_rendered(tokenizer: Any) -> None:
    codec = TextCodec(tokenizer)
    blocks = Message("user", ({"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}))
    ways = [
        codec.encode([Message("user", "Hello")]),
        codec.encode(Prompt((Message("user", "Hello"),))),
        codec.encode([{"role": "user", "content": "Hello"}]),
        codec.encode([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]),
        codec.encode([blocks]),
    ]
    assert len({way.ids for way in ways}) == 1


def test_token_counts_include_the_template(engine: LocalEngine) -> None:
    assert engine.count_tokens([Message("user", "Hello")]) > engine.count_tokens("Hello")
    assert engine.count_tokens("Hello", prefill=" you") > engine.count_tokens("Hello")


def test_template_variables_reach_the_template(tiny: Any) -> None:
    tokenizer = tiny.make_tokenizer(template=PLAIN + "{% if tone %}({{ tone }}){% endif %}")
    ids = TextCodec(tokenizer, {"tone": "warm"}).encode(CHAT).ids
    assert tokenizer.decode(ids).endswith("(warm)")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        ([], "no messages"),
        ([Message("assistant", "1.")], "no messages"),
        (["Hello"], "it has 'Hello'"),
        ([{"role": "user"}], "it has"),
        (None, "not None"),
        (7, "not 7"),
        ("caf\udce9", "Character 4 of the prompt, .* surrogate"),
        ([Message("user", "a \ud83d")], "Character .* surrogate"),
        ([Message("user", ({"type": "image", "url": "x"},))], "type image"),
    ],
)
def test_invalid_prompts_are_refused(engine: LocalEngine, prompt: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        engine.stream(prompt)
    assert engine.stats().forwards == 0


def test_a_long_prompt_is_counted_without_a_warning(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.model_max_length = 8
    assert len(TextCodec(tokenizer).encode("river " * 50).ids) > 8
    assert not caplog.records


# --- from tokens to text ---------------------------------------------------------------------------

WORDS = ["▁Hello", "▁world", "▁a", "b", "▁", "1", ".", "Hello"]
TEXTS = ["你好，世界！", "🙂🚀 ok", "a\u200d👩‍🚀b", "Käfer\n\n1. Straße", "\u0bb5\u0ba3", ""]


def fallback_tokenizer() -> Tokenizer:
    """A tokenizer like those of sentencepiece models: spaces as `▁`, unknown characters as bytes."""
    pieces = [*WORDS, *(f"<0x{byte:02X}>" for byte in range(256))]
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return core


FALLBACK = fallback_tokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_characters_are_never_split(text: str, tokenizer: Any) -> None:
    ids = tokenizer(text).input_ids
    detokenizer = Detokenizer(tokenizer.decode)
    pieces = [detokenizer.push(token) for token in ids]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + detokenizer.flush() == text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(5, 399), max_size=40))
def test_the_pieces_of_any_tokens_join_to_their_text(ids: list[int]) -> None:
    tokenizer = SHARED["tokenizer"]
    detokenizer = Detokenizer(tokenizer.decode)
    text = "".join([detokenizer.push(token) for token in ids]) + detokenizer.flush()
    assert text == tokenizer.decode(ids)


SHARED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _share(tokenizer: Any) -> None:
    SHARED["tokenizer"] = tokenizer


def test_fallback_bytes_wait_for_their_character() -> None:
    core = fallback_tokenizer()
    ids = [core.token_to_id("▁Hello"), core.token_to_id("▁world"), core.token_to_id("▁")]
    ids += [core.token_to_id(f"<0x{byte:02X}>") for byte in "你好🙂".encode()]
    ids += [core.token_to_id("▁a"), core.token_to_id("b")]
    detokenizer = Detokenizer(core.decode)
    pieces = [detokenizer.push(token) for token in ids]
    assert pieces[:2] == ["Hello", " world"]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + detokenizer.flush() == "Hello world 你好🙂 ab"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, *"你好🙂é"]), max_size=30), st.integers(0, 4))
def test_the_pieces_of_fallback_bytes_join_to_their_text(parts: list[str], context: int) -> None:
    core = FALLBACK
    ids: list[int] = []
    for part in parts:
        known = core.token_to_id(part)
        ids += [known] if known is not None else [core.token_to_id(f"<0x{byte:02X}>") for byte in part.encode()]
    before = [core.token_to_id(piece) for piece in ("▁Hello", "▁", "1", ".")][:context]
    detokenizer = Detokenizer(core.decode, before)
    text = "".join([detokenizer.push(token) for token in ids]) + detokenizer.flush()
    assert core.decode(before) + text == core.decode([*before, *ids])


def test_a_token_costs_little_more_than_one_decoding(tokenizer: Any) -> None:
    ids = tokenizer("The leaves of a tree change their colour in autumn; bread needs flour and water. " * 5).input_ids
    decoded: list[int] = []

    def decode(some: Sequence[int]) -> str:
        decoded.append(len(some))
        return str(tokenizer.decode(some))

    detokenizer = Detokenizer(decode)
    for token in ids:
        detokenizer.push(token)
    assert len(decoded) <= 1.25 * len(ids)
    assert max(decoded) <= 8


def test_text_that_continues_a_prompt_keeps_its_leading_space() -> None:
    core = fallback_tokenizer()
    one, dot, hello = (core.token_to_id(piece) for piece in ("1", ".", "▁Hello"))
    assert Detokenizer(core.decode, [one, dot]).push(hello) == " Hello"
    assert Detokenizer(core.decode).push(hello) == "Hello"


def test_an_unfinished_character_is_shown_once_nothing_follows(tokenizer: Any) -> None:
    ids = tokenizer("🐙").input_ids
    detokenizer = Detokenizer(tokenizer.decode)
    assert detokenizer.push(ids[0]) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


def test_invalid_bytes_do_not_hold_the_text_back(tokenizer: Any) -> None:
    broken = tokenizer("🐙").input_ids[0]
    detokenizer = Detokenizer(tokenizer.decode)
    assert any(detokenizer.push(broken) for _ in range(100))


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "met"),
    [
        (["one", " two"], [], "one two", False),
        (["one\n", "\ntwo"], ["\n\n"], "one", True),
        (["one\n", "two"], ["\n\n"], "one\ntwo", False),
        (["a", "b", "c", "d"], ["bcx", "cd"], "ab", True),
        (["ababac"], ["abac"], "ab", True),
        (["ab", "abac"], ["abac", "b"], "a", True),
        (["xx", "STOP more"], ["STOP"], "xx", True),
        (["S", "T", "O"], ["STOP"], "STO", False),
    ],
)
def test_stop_strings_are_found_across_pieces(pieces: list[str], stops: list[str], text: str, met: bool) -> None:
    watch, got = StopStrings(stops), ""
    for piece in pieces:
        out, stopped = watch.push(piece)
        got += out
        if stopped:
            break
    else:
        stopped = False
        got += watch.flush()
    assert (got, stopped) == (text, met)


@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_first_complete_stop_string_ends_the_text(text: str, stops: list[str]) -> None:
    watch, got, met = StopStrings(stops), "", False
    for character in text:
        out, met = watch.push(character)
        got += out
        if met:
            break
    if not met:
        got += watch.flush()
    assert met == any(stop in text for stop in stops)
    assert text.startswith(got)
    assert not any(stop in got for stop in stops)


@given(
    st.text("ab", max_size=20),
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
    st.lists(st.integers(1, 4), min_size=20, max_size=20),
)
def test_text_is_held_back_only_while_it_may_begin_a_stop_string(text: str, stops: list[str], sizes: list[int]) -> None:
    watch, got, at = StopStrings(stops), "", 0
    for size in sizes:
        out, met = watch.push(text[at : at + size])
        got, at = got + out, min(len(text), at + size)
        if met:
            break
        ends = [n for stop in stops for n in range(1, len(stop)) if text[:at].endswith(stop[:n])]
        assert len(text[:at]) - len(got) == max(ends, default=0)


@pytest.mark.parametrize(
    ("pieces", "text", "met"),
    [
        (["\n", "one", "\n", "two"], "\none", True),
        ([" \n\n", "one\ntwo"], " \n\none", True),
        (["one", "\n"], "one", True),
        (["\n", "\n"], "\n\n", False),
    ],
)
def test_stops_after_text_do_not_end_a_text_that_has_not_begun(pieces: list[str], text: str, met: bool) -> None:
    watch, got, stopped = StopStrings((), after_text=("\n",)), "", False
    for piece in pieces:
        out, stopped = watch.push(piece)
        got += out
        if stopped:
            break
    else:
        got += watch.flush()
    assert (got, stopped) == (text, met)
