"""A tokenizer that other code uses at the same time neither cuts nor pads our prompts, and stays as it was left."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.codec import TextCodec
from skeleton_of_thought.local.private_tokenizer import PrivateTokenizer, private_copy

STORY = "The small boat crossed the wide river before the evening came."


@pytest.fixture
def shared(tiny: Any) -> Any:
    return tiny.make_tokenizer()


def ids(tokenizer: PrivateTokenizer) -> list[int]:
    return tokenizer.ids(STORY, special=True)


def test_settings_on_the_backend_do_not_reach_prompts_and_stay(shared: Any, llama: Any) -> None:
    with LocalEngine(llama, shared) as engine:
        count = engine.count_tokens(STORY)
        shared.backend_tokenizer.enable_truncation(5)
        shared.backend_tokenizer.enable_padding(length=300)
        assert engine.count_tokens(STORY) == count
        assert engine.tokenizer is shared
    assert shared.backend_tokenizer.truncation["max_length"] == 5
    assert shared.backend_tokenizer.padding["length"] == 300
    with LocalEngine(llama, shared) as engine:
        assert engine.count_tokens(STORY) == count


def test_another_thread_that_cuts_and_pads_changes_no_prompt(shared: Any) -> None:
    codec, over = TextCodec(shared), threading.Event()
    wanted = codec.encode(STORY).ids

    def other() -> None:
        while not over.is_set():
            shared(["a", "a b c"], padding=True, truncation=True, max_length=2)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert {codec.encode(STORY).ids for _ in range(500)} == {wanted}
    finally:
        over.set()
        thread.join()


def test_the_copy_follows_its_owner(shared: Any) -> None:
    mine = PrivateTokenizer(shared)
    before, first = ids(mine), mine.latest
    assert ids(mine) == before
    assert mine.latest is first
    shared.add_tokens([" boat crossed"])
    added = ids(mine)
    assert added == shared(STORY)["input_ids"] != before
    assert mine.latest.decode(added) == shared.decode(added)
    shared.add_special_tokens({"additional_special_tokens": ["river"]})  # text of the vocabulary becomes a token
    assert ids(mine) == shared(STORY)["input_ids"] != added
    shared.backend_tokenizer.post_processor = None
    assert ids(mine) == shared(STORY)["input_ids"]


def test_a_template_that_is_set_later_is_used(tiny: Any, llama: Any) -> None:
    shared = tiny.make_tokenizer(template=None)
    with LocalEngine(llama, shared) as engine:
        assert not engine.has_chat_template
        shared.chat_template = "{% for m in messages %}{{ m.content }}!{% endfor %}"
        assert engine.render([{"role": "user", "content": "Why"}]) == "Why!"


def test_a_copy_shares_the_vocabulary_with_ids_of_its_own_kind(shared: Any) -> None:
    mine = private_copy(shared)
    assert mine is not shared
    assert mine.backend_tokenizer is not shared.backend_tokenizer
    assert mine.get_vocab() == shared.get_vocab()
    assert mine.all_special_ids == shared.all_special_ids
    mine.add_special_tokens({"pad_token": "<mine>"})
    assert "<mine>" not in shared.get_vocab()
    assert shared.pad_token == "</s>"


def test_a_tokenizer_that_cannot_be_copied_is_watched(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *args: Any) -> Any:
        raise TypeError("no copies")

    kind = type("Single", (type(shared),), {"__reduce_ex__": refuse})
    shared.__class__ = kind
    with pytest.raises(TypeError):
        copy.copy(shared)
    mine, whole = PrivateTokenizer(shared), shared(STORY)["input_ids"]
    assert mine.latest is shared
    assert ids(mine) == whole
    meant, calls = kind.__call__, []

    def cut(self: Any, text: str, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            kwargs.update(truncation=True, max_length=3)
        return meant(self, text, **kwargs)

    monkeypatch.setattr(kind, "__call__", cut, raising=False)
    assert ids(mine) == whole
    assert len(calls) == 3
    monkeypatch.setattr(kind, "__call__", lambda self, text, **kw: meant(self, text, truncation=True, max_length=3))
    with pytest.raises(InvalidInput, match="tokenizer of its own"):
        ids(mine)
