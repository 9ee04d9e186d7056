"""Text for a terminal, for JSON and for TOML; addresses without passwords."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_of_thought._cli.terminal_text import json_text, printable, toml_text
from skeleton_of_thought.errors import error_text, without_secrets

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"]
DIRECTIONS = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x2070))]
TAGS = [chr(code) for code in range(0xE0000, 0xE0080)]
HOSTILE = {*CONTROLS, *DIRECTIONS, *TAGS, *map(chr, range(0xD800, 0xE000))}
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"

anything = st.text(
    st.one_of(st.characters(categories=None), st.sampled_from(sorted(HOSTILE)), st.sampled_from("\x1b[0;m"))
)


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines\tand a tab",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \u2764\ufe0f",
        f"{WALES} wins",
        "\u05e9\u05dc\u05d5\u05dd \u200f(1)\u200e \u0645\u0631\u062d\u0628\u0627 \u061c\u0646\u0639\u0645",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "e\u0301 n\u0303 \u0915\u094d\u0937 \u0e01\u0e33",
        "\u65e9\u5b89 \u845b\U000e0100 \uac00",
        "\u00a0soft\u00adhyphen \ufeff",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", "�]52;c;aGk=�"),
        ("\x1b]0;title\x1b\\", "�]0;title�\\"),
        ("\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\", "�]8;;http://evil�\\here�]8;;�\\"),
        ("\x1b[31mred\x1b[0;1m", "red"),
        ("\x1b[2J\x1b[10;1H", "�[2J�[10;1H"),
        ("\x9b2J\x9d0;x\x9c\x90q\x9f", "�2J�0;x��q�"),
        ("\x1b\x1b[0m[31m", "�[31m"),
        ("\x1bP+q\x1b\\ \x1b_x\x1b\\ \x1bc \x1b", "�P+q�\\ �_x�\\ �c �"),
        ("a\x00b\x08c\x7fd\x0ce", "a�b�c�d�e"),
        ("right\rwrong\r\n", "rightwrong\n"),
        ("\u202egnp.exe\u202c \u2066x\u2069", "gnp.exe x"),
        ("\U000e0068\U000e0069\U000e007f!", "!"),
        (WALES[:3] + " cut", WALES[0] + " cut"),
        ("\ud800 half", "� half"),
    ],
)
def test_what_controls_a_terminal_is_shown_or_dropped(text, shown):
    assert printable(text) == shown


@given(anything)
def test_nothing_printable_controls_a_terminal(text):
    shown = printable(text)
    assert not {*CONTROLS, *DIRECTIONS} & set(shown)
    assert not set(TAGS) & set(shown) or "\U0001f3f4" in shown
    assert shown.encode().decode() == shown
    assert printable(shown) == shown
    assert not HOSTILE & set("".join(map(printable, text)))


@given(anything.filter(lambda text: not any("\ud800" <= char < "\ue000" for char in text)))
def test_escapes_of_json_and_toml_stand_for_the_same_text(text):
    document = json.dumps({text: [text]}, ensure_ascii=False)
    escaped = json_text(document)
    assert json.loads(escaped) == {text: [text]}
    assert not {*HOSTILE, "\u200e", "\u200f", "\u061c", "\u2028", "\u2029"} & set(escaped)
    assert tomllib.loads(f"x = {toml_text(json.dumps(text, ensure_ascii=False))}")["x"] == text


def test_json_keeps_half_a_surrogate_pair_and_readable_text():
    assert json_text(json.dumps("\ud800é早👍", ensure_ascii=False)) == '"\\ud800é早👍"'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET http://me:hunter2@host:80/v1", "GET http://***@host:80/v1"),
        ("'openai:m@https://token@host/v1'", "'openai:m@https://***@host/v1'"),
        ("http://me:hun@ter2@host", "http://***@host"),
        ("http://me:hun/ter2@host and http://me:hun?ter2#@host", "http://***@host and http://***@host"),
        ("url: /v1/x?api_key=hunter2&n=1", "url: /v1/x?api_key=***&n=1"),
        ("https://host/?n=1&key=hunter2&X-Amz-Signature=hunter2", "https://host/?n=1&key=***&X-Amz-Signature=***"),
        ("https://host/?access_token=hunter2'", "https://host/?access_token=***'"),
        ("PASSWORD?Password=hunter2", "PASSWORD?Password=***"),
        ("http://[::1]:8000/v1 and https://host/@user/x?n=1", "http://[::1]:8000/v1 and https://host/@user/x?n=1"),
        ("mail me@host, max_tokens=5", "mail me@host, max_tokens=5"),
    ],
)
def test_addresses_are_shown_without_passwords_and_keys(text, shown):
    assert without_secrets(text) == shown
    assert error_text(ValueError(text)) == f"ValueError: {shown}"


def test_hostile_addresses_take_linear_time():
    for piece in ("://a:", "?key", "://", "&key=", "?" + "a" * 39):
        assert len(without_secrets(piece * 50_000)) >= 50_000
