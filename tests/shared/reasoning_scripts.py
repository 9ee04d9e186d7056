"""Chat templates that open the model's reasoning, and the replies of a scripted model to their prompts."""

from __future__ import annotations

import re

_BODY = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
OPENS = _BODY + "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
"""Opens the reasoning in every prompt."""
SWITCHED = (
    _BODY + "{% if add_generation_prompt %}<assistant>"
    "{{ '<think>\n' if enable_thinking | default(true) else '<think>\n\n</think>\n\n' }}{% endif %}"
)
"""Has a variable that closes it."""

TITLES = ("Move", "Drink much cold water", "Sleep", "Go out")
_LIST = "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
_THOUGHT = "<think>\nA list is wanted.\n\n1. Weigh it\n2. Decide\n\nSo I write it.\n</think>\n\n"


def reasoning(prompt: str) -> str:
    """The turn of a model that reasons: the lists in its reasoning are none of its answer."""
    return _THOUGHT + _answer(prompt)


def switched_off(prompt: str) -> str:
    """The turn of a model whose reasoning is switched off."""
    return "<think>\n\n</think>\n\n" + _answer(prompt)


def _answer(prompt: str) -> str:
    last = re.findall(r"<user>(.*?)</s>", prompt, re.S)[-1]
    if point := re.search(r", explain: (.*)$", last):
        return f'"{point[1]}" - All about {point[1].lower()}.'
    if point := re.search(r'under the heading "(.*?)"', last):
        return f"All about {point[1].lower()}."
    return _LIST if "headings" in last else "Just so."
