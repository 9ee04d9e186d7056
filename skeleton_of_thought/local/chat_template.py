"""Chats as text: through the tokenizer's chat template, or as a transcript where it has none.

Templates differ in what they take and in where they begin an answer. A chat that a template renders whole stays as
transformers renders it. Others are put into the nearest form that the template takes (`_forms`). The start of an answer
never lands inside reasoning that the template opens (`_answer_start`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.errors import EngineForked, EngineReentered, InvalidInput
from skeleton_of_thought.parsing.reasoning_marks import REASONING_MARKS

__all__ = ["FIRST_OF_MARKS", "OPENING", "ChatTemplate", "RenderedChat"]

logger = logging.getLogger(__name__)

Chat = list[dict[str, Any]]

_INSTRUCTIONS = ("system", "developer")
"""Roles of instructions, which many templates do not take, and some drop in silence."""

_KINDS = [kind for kind in REASONING_MARKS if not (kind.before_capital or kind.keeps_unclosed)]
"""Those whose marks are no words that other text has."""
OPENING = {mark: kind.closes for kind in _KINDS for mark in kind.opens}
"""Marks that open reasoning, with those that close it."""
FIRST_OF_MARKS = frozenset(mark[0] for mark in OPENING)
_CLOSING = tuple({mark for kind in _KINDS for mark in kind.closes})
_MARKS = frozenset(mark for kind in _KINDS for mark in (*kind.opens, *kind.closes, *kind.answer_opens))

_SWITCH = re.compile(r"(?<![\w.'\"])\w*(?:think|reason)\w*", re.I)
"""Names in a template that may be variables which switch reasoning on and off."""
_OFF: tuple[Any, ...] = (False, "none", "off", 0)
"""Values that switch reasoning off."""
_PROBE = "Answer7begins"
"""A text that no template changes or contains."""
_HELLO: Chat = [{"role": "user", "content": "Hello"}]

_TURNS = {"user": "User", "assistant": "Assistant", "tool": "Tool", "system": "System", "developer": "System"}
_PLAIN_STOPS = ("\nUser:",)


@dataclass(frozen=True)
class RenderedChat:
    """A chat as text.

    Attributes:
        text: All of it, the start of the answer included.
        continued: Whether the model continues a text, rather than beginning its turn.
        thought_ends: The marks that end the reasoning in which the text ends; empty if it ends in none.
        reasons: Whether the model may reason before it answers.
        stops: Strings with which a model without a template goes on to the next turn.
    """

    text: str
    continued: bool = False
    thought_ends: tuple[str, ...] = ()
    reasons: bool = False
    stops: tuple[str, ...] = ()


@dataclass
class _TemplateTraits:
    """What is known of a template.

    Attributes:
        template: The template, or several by name.
        reasons: Whether it has any mark of reasoning.
        tail: What it writes after a question of the user's; None until it is needed.
        hello: The rendering of a short question; None until it is needed.
        switches: The variables that switch this off, for chats without and with tools; None where there are none.
    """

    template: Any
    reasons: bool
    tail: str | None = None
    hello: RenderedChat | None = None
    switches: dict[bool, dict[str, Any] | None] = field(default_factory=dict)


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: A Hugging Face tokenizer.
        exclusively: Calls a function while no other thread uses the tokenizer.
        variables: Extra variables for the template, which take precedence over all others.
    """

    def __init__(
        self, tokenizer: Any, exclusively: Callable[[Callable[[], str]], str], variables: Mapping[str, Any]
    ) -> None:
        self._tokenizer = tokenizer
        self._exclusively = exclusively
        self._variables = dict(variables)
        self._plain_is_logged = False
        self._known: _TemplateTraits | None = None

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a template."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    @property
    def source(self) -> str:
        """The text of the template; empty without one."""
        return _source(self._tokenizer.chat_template) if self.exists else ""

    @property
    def reasons(self) -> bool:
        """Whether the model may reason before it answers, where its answer has no given start."""
        return self.exists and self._traits().reasons and self._hello().reasons

    @property
    def takes_prefill(self) -> bool:
        """Whether an answer can have a given start without harm.

        False if the answer begins with reasoning that nothing switches off, or that the user has switched on.
        """
        if not self.reasons:
            return True
        if any(_SWITCH.fullmatch(name) and value not in (None, *_OFF) for name, value in self._variables.items()):
            return False
        return not self._hello().thought_ends or self._switch_off(_HELLO, ()) is not None

    def _hello(self) -> RenderedChat:
        """The rendering of a chat as simple as can be."""
        traits = self._traits()
        if traits.hello is None:
            try:
                traits.hello = self.render(_HELLO, "", ())
            except InvalidInput:
                traits.hello = RenderedChat("")  # a call will say what is wrong
        return traits.hello

    def render(
        self, chat: Chat, prefill: str, tools: Sequence[Mapping[str, Any]], *, at_once: bool = False
    ) -> RenderedChat:
        """The text of a chat that the assistant answers.

        Args:
            chat: Messages in the form of chat templates, at least one. The last is not the assistant's.
            prefill: The start of the answer.
            tools: Descriptions of the functions that the model may call.
            at_once: Whether the answer has to begin at once, without reasoning, even if `prefill` is empty.

        Raises:
            InvalidInput: The template does not take the chat.
        """
        if not self.exists:
            return self._plain(chat, prefill, tools)
        chat, text = self._accepted(chat, tools)
        if not self._traits().reasons:
            return RenderedChat(text + prefill, bool(prefill))
        opened, closes = self._open_thought(text, chat)
        if (own := _own_thought(prefill, opened, closes)) is not None:
            return RenderedChat(text + own.text, True, own.thought_ends, bool(own.thought_ends))
        if prefill or at_once:
            start = self._answer_start(chat, text, tools, opened=bool(opened))
            if start is not None:
                return RenderedChat(start + prefill, bool(prefill))
        if not prefill:
            return RenderedChat(text, False, closes, bool(opened) or not text.rstrip().endswith(_CLOSING))
        raise InvalidInput(
            f"The model's chat template begins each answer with reasoning ({opened}), so no text can be put at the "
            "start of the answer: leave the prefill, or the last message of the assistant, out."
        )

    # --- where an answer starts ---

    def _traits(self) -> _TemplateTraits:
        """What is known of the template, until the tokenizer gets another one."""
        template = self._tokenizer.chat_template
        if self._known is None or self._known.template != template:
            source = _source(template)
            self._known = _TemplateTraits(template, any(mark in source for mark in _MARKS))
        return self._known

    def _open_thought(self, text: str, chat: Chat) -> tuple[str, tuple[str, ...]]:
        """The mark of the reasoning in which a text ends, and the marks that close it; empty if it ends in none."""
        traits = self._traits()
        if traits.tail is None:
            try:
                traits.tail = self._apply([{"role": "user", "content": _PROBE}], ()).rpartition(_PROBE)[2]
            except InvalidInput:
                traits.tail = ""
        if traits.tail and text.endswith(traits.tail):
            return _last_thought(traits.tail, 0)
        # Most texts end as they do after any question. For others the words of the last message are looked for, since
        # messages may speak of marks, too.
        body, last = text.rstrip(), chat[-1]["content"].strip()
        found = body.rfind(last) if last else -1
        if 0 <= found < len(body) - len(last):
            return _last_thought(text, found + len(last))
        at_end = [len(body) - len(mark) for mark in OPENING if body.endswith(mark)]
        return _last_thought(text, min(at_end, default=len(text)))

    def _answer_start(self, chat: Chat, text: str, tools: Sequence[Mapping[str, Any]], *, opened: bool) -> str | None:
        """The text up to the start of the answer: behind any reasoning; None if there is no such place."""
        if opened and (off := self._switch_off(chat, tools)) is not None:
            return off
        # Where the template itself puts the text of an assistant's turn: behind an empty block, or in the channel of
        # the answer.
        try:
            whole = self._apply([*chat, {"role": "assistant", "content": _PROBE}], tools, turn=False)
        except InvalidInput:
            whole = ""
        start = whole[: whole.rfind(_PROBE)] if _PROBE in whole else ""
        if opened:
            return start if start and not self._open_thought(start, chat)[0] else None
        added = start.removeprefix(text) if start.startswith(text) else ""
        return start if any(mark in added for mark in _MARKS) and not self._open_thought(start, chat)[0] else text

    def _switch_off(self, chat: Chat, tools: Sequence[Mapping[str, Any]]) -> str | None:
        """The chat with the template's reasoning switched off; None if nothing switches it off."""
        switches, key = self._traits().switches, bool(tools)
        if key not in switches:
            found = (switch for switch in self._candidates() if self._closed(chat, tools, switch) is not None)
            switches[key] = next(found, None)
        switch = switches[key]
        return None if switch is None else self._closed(chat, tools, switch)

    def _candidates(self) -> Iterator[dict[str, Any]]:
        names = dict.fromkeys(("enable_thinking", "thinking", "reasoning_effort"))
        names |= dict.fromkeys(_SWITCH.findall(_source(self._tokenizer.chat_template)))
        for name in names:
            if name.isidentifier() and name not in self._variables:
                yield from ({name: value} for value in _OFF)

    def _closed(self, chat: Chat, tools: Sequence[Mapping[str, Any]], switch: Mapping[str, Any]) -> str | None:
        try:
            text = self._apply(chat, tools, switch)
        except InvalidInput:
            return None
        return None if self._open_thought(text, chat)[0] else text

    # --- what the template takes ---

    def _accepted(self, chat: Chat, tools: Sequence[Mapping[str, Any]]) -> tuple[Chat, str]:
        """The chat in the first form that the template renders whole, and its text.

        Raises:
            InvalidInput: There is none.
        """
        refusal: InvalidInput | None = None
        accepted: tuple[Chat, str] | None = None
        for form in _forms(chat):
            try:
                text = self._apply(form, tools)
            except InvalidInput as error:
                refusal = refusal or error
                continue
            if not self._loses(form, text, tools):
                return form, text
            accepted = accepted or (form, text)
        if accepted is not None:  # the text of the instructions is in no rendering: the template writes it differently
            return accepted
        assert refusal is not None
        raise refusal

    def _loses(self, chat: Chat, text: str, tools: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the template drops instructions: the text is then the same without their words."""
        for at, message in enumerate(chat):
            own = message["content"].strip()
            if message["role"] in _INSTRUCTIONS and own and own not in text:
                other = [*chat[:at], {**message, "content": _PROBE}, *chat[at + 1 :]]
                try:
                    if _PROBE not in self._apply(other, tools):
                        return True
                except InvalidInput:
                    return False
        return False

    def _apply(
        self,
        chat: Chat,
        tools: Sequence[Mapping[str, Any]],
        switch: Mapping[str, Any] | None = None,
        *,
        turn: bool = True,
    ) -> str:
        variables: dict[str, Any] = {"tools": [dict(tool) for tool in tools]} if tools else {}
        variables |= {"add_generation_prompt": turn, **(switch or {}), **self._variables}
        try:
            return self._exclusively(
                lambda: str(self._tokenizer.apply_chat_template(chat, tokenize=False, **variables))
            )
        except (ImportError, EngineForked, EngineReentered):
            raise
        except Exception as error:
            # Templates raise errors of their author's choice, of jinja2's types or of Python's.
            roles = ", ".join(message["role"] for message in chat)
            first = "; begin the chat with a message of the user" if chat[0]["role"] == "assistant" else ""
            raise InvalidInput(
                f"The model's chat template rejects messages with roles {roles}: {error}{first}."
            ) from error

    # --- without a template ---

    def _plain(self, chat: Chat, prefill: str, tools: Sequence[Mapping[str, Any]]) -> RenderedChat:
        if tools:
            raise InvalidInput(
                "The model has no chat template, so nothing shows it tools: use a model that was trained to call them, "
                "or set tokenizer.chat_template."
            )
        if not self._plain_is_logged:
            self._plain_is_logged = True
            logger.warning(
                "The model has no chat template (base models have none): messages become a plain transcript, which it "
                "continues. Pass text (a string) to have the text itself continued."
            )
        turns = [f"{_TURNS.get(message['role'], message['role'])}: {message['content']}" for message in chat]
        if all(message["role"] in _INSTRUCTIONS for message in chat[:-1]):
            turns[:-1] = [message["content"] for message in chat[:-1]]
        start = f"Assistant: {prefill}" if prefill else "Assistant:"
        return RenderedChat("\n\n".join([*turns, start]), bool(prefill), stops=_PLAIN_STOPS)


def _source(template: Any) -> str:
    """The text of a template; a tokenizer may have several by name."""
    return "\n".join(map(str, template.values())) if isinstance(template, Mapping) else str(template)


def _last_thought(text: str, begin: int) -> tuple[str, tuple[str, ...]]:
    """The last mark from a position on that opens reasoning, and those that close it; empty if one of them follows."""
    at, mark = max((text.rfind(mark, begin), mark) for mark in OPENING)
    if at < begin or any(text.find(end, at + len(mark)) >= 0 for end in OPENING[mark]):
        return "", ()
    return mark, OPENING[mark]


def _own_thought(prefill: str, opened: str, closes: Sequence[str]) -> RenderedChat | None:
    """The start of a turn in which the caller gives the reasoning itself, or its end; None for any other.

    Args:
        prefill: The start of the turn.
        opened: The mark with which the template has opened the reasoning; empty if it has not.
        closes: The marks that close it.
    """
    own = prefill.lstrip()
    mark = next((mark for mark in OPENING if own.startswith(mark)), "")
    if not mark:
        return RenderedChat(prefill) if any(end in prefill for end in closes) else None
    if mark == opened:
        prefill = own.removeprefix(mark).lstrip("\n")
    ends = OPENING[mark]
    return RenderedChat(prefill, thought_ends=() if any(end in own for end in ends) else ends)


def _forms(chat: Chat) -> Iterator[Chat]:
    """The chat, then the forms of it that stricter templates take, without changing what it says.

    Templates may take no two turns of one role in a row, or no instructions: these are then put before the text of the
    user's turn.
    """
    yield chat
    yielded = [chat]
    named = [{**m, "role": "system"} if m["role"] == "developer" else m for m in chat]
    asked = [{**m, "role": "user"} if m["role"] in _INSTRUCTIONS else m for m in chat]
    for form in (named, _merged(named), _merged(asked)):
        if form not in yielded:
            yielded.append(form)
            yield form


def _merged(chat: Iterable[dict[str, Any]]) -> Chat:
    merged: Chat = []
    for message in chat:
        plain = message.keys() == {"role", "content"}
        if merged and plain and merged[-1].keys() == message.keys() and merged[-1]["role"] == message["role"]:
            parts = (merged[-1]["content"], message["content"])
            merged[-1] = {**message, "content": "\n\n".join(part for part in parts if part)}
        else:
            merged.append(message)
    return merged
