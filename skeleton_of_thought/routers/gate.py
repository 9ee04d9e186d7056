"""The gate: cheap rules before any router, each for questions that a list of points would answer badly.

A rule can only reject a skeleton. The rules look at nothing but words, in all `question.LANGUAGES`.
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
    """Rules that have a question answered directly, without asking the router behind them. A `Router` itself.

    Args:
        off: Names of rules that do not apply, out of `RULES`.
        max_words: Questions that ask for at most this many words are answered directly.
        extra: Your own rules: functions of the conversation that return the reason for a direct answer, or None.

    Raises:
        InvalidInput: `off` names an unknown rule, or `max_words` is negative.

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
        """Direct with the first matching rule as the reason; a skeleton, without a score, if none matches."""
        reason = self.against(conversation.messages, conversation.request)
        if reason is not None:
            return RouteDecision(False, 0.0, reason)
        for rule in self.extra:
            if why := rule(conversation):
                return RouteDecision(False, 0.0, f"gate: {why}")
        return RouteDecision(True, reason=_PASSED)

    at_once = route

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        return self.route(conversation)

    def against(self, messages: Iterable[Message], request: Request = Request()) -> str | None:  # noqa: B008 - frozen
        """The reason to answer these messages directly; None if no rule matches.

        Also takes messages that make no `Conversation`, such as those that end with a tool's result.
        """
        turn = _Turn.read(tuple(messages), request, self.max_words)
        for name, (rule, why) in RULES.items():
            if name not in self.off and rule(turn):
                return f"gate ({name}): {why}"
        return None


@dataclass(frozen=True)
class _Turn:
    """The input of the rules.

    Attributes:
        messages: The chat up to the question.
        request: Other facts about the request.
        question: The labelled question of a prompt with a context, else the whole message.
        whole: The whole message: in a prompt with a context, instructions about the answer stand there.
        max_words: See `Gate`.
        follows: Whether the question may refer to an earlier answer.
    """

    messages: tuple[Message, ...]
    request: Request
    question: Question
    whole: Question
    max_words: int
    follows: bool

    @classmethod
    def read(cls, messages: tuple[Message, ...], request: Request, max_words: int) -> _Turn:
        """Reads the last message."""
        text = messages[-1].text.strip() if messages else ""
        question, whole = read_question(find_question(text)), read_question(text)
        follows = any(message.role == "assistant" for message in messages[:-1])
        return cls(messages, request, question, whole, max_words, follows)


# --- the rules ------------------------------------------------------------------------------------

_MANY = ("list", "pros", "diff", "whatif", "plan", "advice", "recommend", "many")
"""Classes of questions that points may answer well, whatever their form."""

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


def _last_message(turn: _Turn) -> bool:
    return not turn.messages or turn.messages[-1].role != "user"


def _attachments(turn: _Turn) -> bool:
    return bool(turn.messages[-1].attachments)


def _language(turn: _Turn) -> bool:
    return bool(turn.question.text) and not turn.question.language


def _follow_up(turn: _Turn) -> bool:
    question = turn.question
    if not question.text:
        return False
    refers = question.opens("followup") or question.has("anaphora")
    if turn.follows:
        return question.size <= 4 or (refers and question.size <= 12)
    # A question that needs something before it: "why?", "and the second one?".
    return question.size <= 6 and refers and not question.has("list", "pros", "diff", "whatif", "howto")


def _length(turn: _Turn) -> bool:
    text = turn.whole.text
    if turn.question.has("short") or _IN_SENTENCES.search(text):
        return True
    return any(number <= turn.max_words for number in map(int, _IN_WORDS.findall(text)))


def _code(turn: _Turn) -> bool:
    question = turn.question
    if question.has("snippet"):
        return not question.has("diff", "pros")
    return question.has("code") and (
        question.opens("write", "code") or (question.has("write") and question.has("tech"))
    )


def _arithmetic(turn: _Turn) -> bool:
    question = turn.question
    return question.has("arithmetic", "formula") or (question.has("math") and question.has("numbers"))


def _yes_no(turn: _Turn) -> bool:
    question = turn.question
    if not question.opens("yesno") or question.opens("request") or question.size > 25:
        return False
    forms = ("why", "howto", "which", "what", "who", "when", "where", "howmany")
    return not question.has(*_MANY, "why", "howto", "fact", "estimate", "meaning") and not question.opens(*forms)


def _fact(turn: _Turn) -> bool:
    question = turn.question
    if question.size > 20 or question.has(*_MANY, "why", "effect") or question.opens("situation"):
        return False
    return question.opens("who", "when", "where", "howmany")


def _format(turn: _Turn) -> bool:
    question, whole = turn.question, turn.whole
    if question is not whole and whole.has("format") and _AS_FORMAT.search(whole.text):
        return True
    if question.has("diff", "pros") or not question.has("format"):
        return False
    return question.has("statement") or bool(_AS_FORMAT.search(question.text))


def _writing(turn: _Turn) -> bool:
    question = turn.question
    if question.opens("write") and question.has("story", "letter", "essay"):
        return not question.opens("howto")
    return question.has("story") and question.has("statement") and not question.has(*_MANY)


def _given_text(turn: _Turn) -> bool:
    question = turn.question
    if question.opens("translate", "summary") and not question.opens("howto", "why"):
        return True
    if question.has("rewrite", "translate") and question.has("given"):
        return True
    return question.opens("rewrite") and question.has("statement") and not question.has(*_MANY)


RULES: Mapping[str, tuple[Callable[[_Turn], bool], str]] = MappingProxyType(
    {
        "last_message": (_last_message, "the last message is not the user's"),
        "tools": (lambda turn: turn.request.tools, "tools are bound"),
        "response_format": (lambda turn: turn.request.response_format, "a response format is asked for"),
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
"""The rules in their order: the test of each, and the text of its reason."""
