"""Special tokens of chat models in text that a model wrote or a retriever found.

Servers read special tokens wherever their text stands in a prompt. So a title such as `<|im_end|><|im_start|>system`
would begin a turn of its own. Titles lose such texts; in other texts a space breaks them: `< |im_end|>`. A local engine
knows its own tokenizer, so it gets such texts unchanged and reads no special token in them.

Tokenizers may drop invisible characters and read full-width ones as ASCII, so both are seen through here.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable

from skeleton_of_thought.parsing.mark import pattern

__all__ = ["MAY_BE_SPECIAL", "SPECIAL", "break_special_tokens", "drop_special_tokens"]

MAY_BE_SPECIAL = re.compile("[<\uff1c\ufe64\u226e\\[\uff3b\ufe47\\]\uff3d\ufe48|\uff5c]")
"""A character with which a special token may begin."""

_TURNS = "start|end|begin|bos|eos|eot|eom|eoh|eoa|eop|sop|bot|pad|unk|sep|cls|mask|s"
_WORDS = (
    r"(?:start|end|begin)_of_\w{1,20}|tool_call|tool_response|tool_calls|tool_code|tool_output"
    r"|fim_(?:prefix|middle|suffix|pad)|extra_id_\d{1,4}|unused_?\d{1,5}|reserved_?\d{1,5}|SPECIAL_\d{1,5}"
    r"|(?:seed|minimax):\w{1,20}"
)
_SQUARE = (
    r"INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|MODEL_SETTINGS|CALL_ID|ARGS"
    r"|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|BOS|EOS|gMASK|sMASK|UNUSED_TOKEN_\d{1,4}"
)
SPECIAL = pattern(
    # ChatML, Llama 3, Phi, Harmony, Command R, Granite, Kimi, Yi, GLM: `<|im_end|>`; `a <| b |> c` is code.
    r"<\|(?!\s)[^<>|\r\n]{1,60}(?<!\s)\|>"
    # Gemma 4: `<|turn>`, `<turn|>`. EXAONE: `[|user|]`. DeepSeek: `<|DSML|...>`.
    r"|<\|\w{2,30}>|<\w{2,30}\|>|\[\|(?!\s)[^\[\]|\r\n]{1,40}(?<!\s)\|\]|\|DSML\|"
    # Llama 2 and Mistral: `<s>`, `[INST]`, `<<SYS>>`. Gemma: `<start_of_turn>`. MiniMax: `]~b]`, `[e~[`.
    rf"|</?(?:{_TURNS}|{_TURNS.upper()}|{_WORDS})>|<</?SYS>>|\[/?(?:{_SQUARE})\]|\]~!?b[\[\]]|\[e~\["
)
"""The text of a special token of any known family, as `_folded` shows it."""

_CODE = re.compile(r"`[^`]*`")
_FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters that show nothing."""
_ROUNDS = 8
"""How deep special tokens within others leave a title; a space breaks those around them."""
_MOST_FOLDS = 20_000
"""The most characters whose visible forms are kept."""


def break_special_tokens(text: str) -> str:
    """The text with a space in each special token, behind its first character. Invisible characters in it are gone."""
    return _replaced(text, lambda token, _: _broken(token))


def drop_special_tokens(title: str) -> str:
    """A title without special tokens: in code in backticks a space breaks them, elsewhere a space stands for each."""
    code = [found.span() for found in _CODE.finditer(title)]

    def replaced(token: str, at: int) -> str:
        before = bisect_left(code, (at, 0))
        return _broken(token) if before and at < code[before - 1][1] else " "

    return _replaced(title, replaced)


def _broken(token: str) -> str:
    return f"{token[0]} {token[1:]}"


def _replaced(text: str, replacement: Callable[[str, int], str]) -> str:
    """The text with another one in place of each special token; `replacement` gets its visible text and its place."""
    # What stands around a token may be one without it: `<|im_<s>end|>`.
    rounds = 0
    while SPECIAL.search(text.translate(_FOLDED)):
        rounds += 1
        shown, places = [], []
        for at, char in enumerate(text):
            for each in char.translate(_FOLDED):
                shown.append(each)
                places.append(at)
        pieces, end = [], 0
        for found in SPECIAL.finditer("".join(shown)):
            start, stop = places[found.start()], places[found.end() - 1] + 1
            token = "".join([char for char in text[start:stop] if char.translate(_FOLDED)])
            # What stands around a broken token is none: tokens within tokens take no time of their square.
            pieces += [text[end:start], replacement(token, start) if rounds <= _ROUNDS else _broken(token)]
            end = stop
        text = "".join([*pieces, text[end:]])
    return text


class _Folds(dict[int, str]):
    """What a tokenizer may see of a character: compatible forms as the common ones, invisible characters as nothing."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = char if char in "\t\n\r" else "".join(map(_visible, unicodedata.normalize("NFKD", char)))
        if len(self) < _MOST_FOLDS:
            self[code] = plain
        return plain


def _visible(char: str) -> str:
    return "" if unicodedata.category(char) in ("Cc", "Cf", "Mn", "Me") or char in _FILLERS else char


_FOLDED = _Folds()
