"""The gate: cheap rules before any router, each for questions that a list of points would answer badly.

A rule speaks against a skeleton, never for one. All look at the words alone, in all `question.LANGUAGES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.question import Question, find_question, read_question
from skeleton_of_thought.types import Conversation, Message, Request, RouteDecision

__all__ = ["RULES", "Gate"]

_PASSED = "no rule of the gate is against a skeleton"


@dataclass(frozen=True)
class Gate:
    """Rules that send a question the direct way before a router is asked. A `Router` itself.

    Args:
        off: Rules that do not apply; see `RULES` for all names.
        max_words: A length that the question asks for in words sends it the direct way up to this many.
        extra: Rules of one's own: functions of the conversation that return why it goes the direct way, or None.

    Raises:
        InvalidInput: A rule that there is not, or a length below 0.

    Example:
        >>> gate = Gate(off=["yes_no"], extra=[lambda c: "it is about us" if "Acme" in c.question else None])
        >>> gate.route(Conversation.of("Is a tomato a fruit?")).use_skeleton
        True
        >>> gate.route(Conversation.of("What are the benefits of tea? Answer in one sentence.")).reason
        'gate (length): a short answer is asked for'
        >>> gate.route(Conversation.of("What are the strengths of Acme?")).reason
        'gate: it is about us'
    """

    off: Collection[str] = ()
    max_words: int = 120
    extra: Collection[Callable[[Conversation], str | None]] = ()

    def __post_init__(self) -> None:
        if isinstance(self.off, str) or not set(self.off) <= RULES.keys():
            raise InvalidInput(f"off must be names of rules out of {', '.join(RULES)}, not {self.off!r}.")
        if self.max_words < 0:
            raise InvalidInput(f"max_words must be 0 or more, not {self.max_words!r}.")

    def route(self, conversation: Conversation) -> RouteDecision:
        """Direct with the rule as the reason, or a skeleton where no rule speaks against it (without a score)."""
        reason = self.against(conversation.messages, conversation.request)
        if reason is None:
            own = filter(None, (rule(conversation) for rule in self.extra))
            reason = next((f"gate: {why}" for why in own), None)
        return RouteDecision(True, reason=_PASSED) if reason is None else RouteDecision(False, 0.0, reason)

    at_once = route

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        return self.route(conversation)

    def against(self, messages: Iterable[Message], request: Request = Request()) -> str | None:  # noqa: B008 - frozen
        """Why these messages go the direct way; None where no rule says so.

        Takes messages that are no `Conversation` too, such as those that end with a tool's result.
        """
        asked = _Asked.of(tuple(messages), request, self.max_words)
        for name, (rule, why) in RULES.items():
            if name not in self.off and rule(asked):
                return f"gate ({name}): {why}"
        return None


@dataclass(frozen=True)
class _Asked:
    """What the rules look at."""

    messages: tuple[Message, ...]
    request: Request
    question: Question
    whole: Question
    """The whole message: where a question stands in a prompt with a context, what is said about the answer is there."""
    max_words: int

    @classmethod
    def of(cls, messages: tuple[Message, ...], request: Request, max_words: int) -> _Asked:
        text = messages[-1].text.strip() if messages else ""
        whole, asked = read_question(text), find_question(text)
        return cls(messages, request, whole if asked is text else read_question(asked), whole, max_words)

    @property
    def follows(self) -> bool:
        """Whether there is an answer that the question may refer to."""
        return any(message.role == "assistant" for message in self.messages[:-1])


# --- the rules ------------------------------------------------------------------------------------

_MANY = ("list", "pros", "diff", "whatif", "plan", "advice", "recommend", "many")
"""Classes of questions whose answer may well be points, whatever their form."""

_NUMBER = r"(?P<number>\d+)|one|two|three|four|five|six|zwei|drei|deux|trois|dos|tres|due|tre|dois|três|twee|drie|两|三"
_IN_WORDS = re.compile(
    r"(\d+)[\s-]*(?:words?|wörtern?|worten?|mots|palabras|parole|palavras|woorden|слов\w*|字|語|文字)(?!\w*[-\s]+essay)",
    re.I,
)
_IN_SENTENCES = re.compile(
    rf"\b(?:{_NUMBER})[\s-]*(?:short\s+)?(?:sentences?|lines?|sätzen?|zeilen|phrases|lignes|frases|oraciones|líneas|frasi|righe|"
    r"linhas|zinnen|regels|предложени\w+|строк\w*)\b|[一二两三\d](?:句话|行|文で)",
    re.I,
)
_AS_FORMAT = re.compile(
    r"\b(?:as|in|into|als|en|au format|in formato|formato|em|como|naar|в формате|в виде|returns?|outputs?)\s+"
    r"(?:(?:an?|eine[rmn]?|une?|una|um|uma|een|valid|the form of a)\s+)*"
    r"(?:json|csv|yaml|xml|html|latex|markdown|table|tabelle|tableau|tabla|tabella|tabela|tabel|таблиц\w*)\b",
    re.I,
)


def _last_message(asked: _Asked) -> bool:
    return not asked.messages or asked.messages[-1].role != "user"


def _attachments(asked: _Asked) -> bool:
    return bool(asked.messages[-1].attachments)


def _language(asked: _Asked) -> bool:
    return bool(asked.question.text) and not asked.question.language


def _follow_up(asked: _Asked) -> bool:
    question = asked.question
    if not question.text:
        return False
    refers = question.opens("followup") or question.has("anaphora")
    if asked.follows:
        return question.size <= 4 or (refers and question.size <= 12)
    # What only makes sense after something: "why?", "and the second one?".
    return question.size <= 6 and refers and not question.has("list", "pros", "diff", "whatif", "howto")


def _length(asked: _Asked) -> bool:
    text = asked.whole.text
    words = [int(number) for number in _IN_WORDS.findall(text)]
    return (
        any(number <= asked.max_words for number in words)
        or asked.question.has("short")
        or bool(_IN_SENTENCES.search(text))
    )


def _code(asked: _Asked) -> bool:
    question = asked.question
    if question.has("snippet"):
        return not question.has("diff", "pros")
    return question.has("code") and (
        question.opens("write", "code") or (question.has("write") and question.has("tech"))
    )


def _arithmetic(asked: _Asked) -> bool:
    question = asked.question
    return question.has("arithmetic", "formula") or (question.has("math") and question.has("numbers"))


def _yes_no(asked: _Asked) -> bool:
    question = asked.question
    if not question.opens("yesno") or question.opens("request") or question.size > 25:
        return False
    forms = ("why", "howto", "which", "what", "who", "when", "where", "howmany")
    return not question.has(*_MANY, "why", "howto", "fact", "estimate", "meaning") and not question.opens(*forms)


def _fact(asked: _Asked) -> bool:
    question = asked.question
    if question.size > 20 or question.has(*_MANY, "why", "effect") or question.opens("situation"):
        return False
    return question.opens("who", "when", "where", "howmany")


def _format(asked: _Asked) -> bool:
    question, whole = asked.question, asked.whole
    if question is not whole and whole.has("format") and _AS_FORMAT.search(whole.text):
        return True
    if question.has("diff", "pros") or not question.has("format"):
        return False
    return question.has("statement") or bool(_AS_FORMAT.search(question.text))


def _writing(asked: _Asked) -> bool:
    question = asked.question
    if question.opens("write") and question.has("story", "letter", "essay"):
        return not question.opens("howto")
    return question.has("story") and question.has("statement") and not question.has(*_MANY)


def _given_text(asked: _Asked) -> bool:
    question = asked.question
    if question.opens("translate", "summary") and not question.opens("howto", "why"):
        return True
    if question.has("rewrite", "translate") and question.has("given"):
        return True
    return question.opens("rewrite") and question.has("statement") and not question.has(*_MANY)


RULES: Mapping[str, tuple[Callable[[_Asked], bool], str]] = MappingProxyType(
    {
        "last_message": (_last_message, "the last message is not the user's"),
        "tools": (lambda asked: asked.request.tools, "tools are bound"),
        "response_format": (lambda asked: asked.request.response_format, "a response format is asked for"),
        "attachments": (_attachments, "there is more than text to look at"),
        "language": (_language, "a language whose questions are not known"),
        "follow_up": (_follow_up, "it follows on what was said before"),
        "length": (_length, "a short answer is asked for"),
        "code": (_code, "code to read or to write"),
        "arithmetic": (_arithmetic, "something to be calculated"),
        "format": (_format, "a format that a list would break"),
        "writing": (_writing, "a text in one piece"),
        "given_text": (_given_text, "a given text is to be worked on"),
        "yes_no": (_yes_no, "a yes or no question"),
        "fact": (_fact, "one fact is asked for"),
    }
)
"""The rules in the order in which they are asked: what they look for, and what their reason says."""
