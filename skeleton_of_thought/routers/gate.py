"""The gate: cheap rules before any router, each for questions that a list of points would answer badly.

A rule can only reject a skeleton. The rules look at the words of the question, in all `question.LANGUAGES`, and at the
task that `tasks.read_instructions` finds around it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.comparisons import GRAPH, asks_for_graph
from skeleton_of_thought.routers.question import find_question, read_question
from skeleton_of_thought.routers.tasks import Instructions, read_instructions
from skeleton_of_thought.types import Conversation, Message, Request, RouteDecision

__all__ = ["RULES", "Gate"]

_PASSED = "no rule of the gate is against a skeleton"
_NOT_OF_GRAPHS = ("yes_no", "fact")
"""Rules for questions that lack a list of points. An answer that compares has points, whatever the question's form."""


@dataclass(frozen=True)
class Gate:
    """Rules that reject a skeleton before the router is asked. A `Router` itself.

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
        """Direct with the first matching rule as the reason; a skeleton, without a score, if none matches.

        Where points may build on each other (`Request.graph`), an answer that compares, recommends, ranks or concludes
        gets a graph of points (`planning="graph"`), also if its question has the form of a yes or no question or of one
        for a fact.
        """
        reason = self.against(conversation.messages, conversation.request)
        if reason is not None:
            return RouteDecision(False, 0.0, reason)
        for rule in self.extra:
            if why := rule(conversation):
                return RouteDecision(False, 0.0, f"gate: {why}")
        if conversation.request.graph and asks_for_graph(conversation.question):
            return GRAPH
        return RouteDecision(True, reason=_PASSED)

    at_once = route

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        return self.route(conversation)

    def against(self, messages: Iterable[Message], request: Request = Request()) -> str | None:  # noqa: B008 - frozen
        """The reason to answer these messages directly; None if no rule matches.

        Also takes messages that make no `Conversation`, such as those that end with a tool's result.
        """
        signs, size = _signs(messages := tuple(messages), request, self.max_words)
        off = self.off
        if request.graph and messages and asks_for_graph(messages[-1].text):
            off = {*off, *_NOT_OF_GRAPHS}
        for name, (forms, why) in RULES.items():
            if name in off:
                continue
            for form in forms:
                if (
                    size <= form.size
                    and form.all_of <= signs
                    and not (form.any_of and form.any_of.isdisjoint(signs))
                    and form.none_of.isdisjoint(signs)
                ):
                    return f"gate ({name}): {why}"
        return None


# --- signs ----------------------------------------------------------------------------------------

_NUMBER = r"\d+|one|two|three|four|five|six|zwei|drei|deux|trois|dos|tres|due|tre|dois|duas|três|twee|drie|两|三"
_IN_WORDS = re.compile(
    r"(\d+)[\s-]*(?:words?|wörtern?|worten?|mots|palabras|parole|palavras|woorden|слов\w*|字|語|文字)(?!\w*[-\s]+essay)",
    re.I,
)
_IN_SENTENCES = re.compile(
    rf"\b(?:{_NUMBER})[\s-]*(?:short\s+)?(?:sentences?|lines?|sätzen?|zeilen|phrases|lignes|frases|oraciones|"
    rf"líneas|frasi|righe|"
    r"linhas|zinnen|regels|предложени\w+|строк\w*)\b|[一二两三\d](?:句话|行|文で)",
    re.I,
)
_AS_FORMAT = re.compile(
    r"\b(?:as|in|into|als|en|au format|in formato|formato|em|como|naar|в формате|в виде|returns?|outputs?)\s+"
    r"(?:(?:an?|eine[rmn]?|une?|una|um|uma|een|valid|the form of a)\s+)*"
    r"(json|csv|yaml|xml|html|latex|markdown|table|tabelle|tableau|tabla|tabella|tabela|tabel|таблиц\w*)\b",
    re.I,
)


def _signs(messages: tuple[Message, ...], request: Request, max_words: int) -> tuple[set[str], int]:
    """The signs that the rules look for, and the question's size in words.

    A sign is a class of the question's words, a class of its first words after "^" (as in the lexicon), or a fact about
    the request. In a prompt that presents a question, only the question has classes. The instructions around it and in
    system messages add signs of another task or form.
    """
    text = messages[-1].text.strip() if messages else ""
    asked = find_question(text)
    question = read_question(asked)
    signs = {*question.classes, *map("^{}".format, question.opening)}
    instructions, form = Instructions(), question.text
    systems = [message.text for message in messages[:-1] if message.role == "system"]
    around = text if asked != text or text.endswith((":", "：")) else ""
    if systems or around:
        instructions = read_instructions(*systems, prompt=around, question=asked if around else "")
        signs |= instructions.signs
        form += f"\n{instructions.form}"
    facts = {
        "no user message": not messages or messages[-1].role != "user",
        "tools bound": request.tools,
        "response format": request.response_format,
        "with attachments": messages and messages[-1].attachments,
        "unknown language": question.text and not question.language,
        "after an answer": question.text and "assistant" in map(attrgetter("role"), messages[:-1]),
        "in sentences": _IN_SENTENCES.search(form if instructions.signs else question.text),
        "in few words": min(map(int, _IN_WORDS.findall(form)), default=math.inf) <= max_words,
        "as a format": "format" in question.classes and _AS_FORMAT.search(question.text),
    }
    for sign, shows in facts.items():
        if shows:
            signs.add(sign)
    return signs, question.size


# --- the rules ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """A form of question, by its signs.

    Attributes:
        all_of: Signs that it must all have.
        any_of: Signs of which it must have at least one, if any are named.
        none_of: Signs of which it may have none.
        size: The most words.
    """

    all_of: Set[str] = frozenset()
    any_of: Set[str] = frozenset()
    none_of: Set[str] = frozenset()
    size: float = math.inf


_MANY = {"list", "pros", "diff", "whatif", "plan", "advice", "recommend", "many"}
"""Classes of questions that points may answer well, whatever their form."""
_REFERS = {"^followup", "anaphora"}
"""Words that refer to something said before."""
_FACT = {"^who", "^when", "^where", "^howmany"}
_OPEN = {"^why", "^howto", "^which", "^what", *_FACT}

RULES: Mapping[str, tuple[tuple[_Form, ...], str]] = MappingProxyType(
    {
        "last_message": ((_Form({"no user message"}),), "the last message is not the user's"),
        "tools": ((_Form({"tools bound"}),), "tools are bound"),
        "response_format": ((_Form({"response format"}),), "a response format is asked for"),
        "attachments": ((_Form({"with attachments"}),), "there is more than text to look at"),
        "language": ((_Form({"unknown language"}),), "a language whose questions are not known"),
        "follow_up": (
            (
                _Form({"after an answer"}, size=4),
                _Form({"after an answer"}, _REFERS, size=12),
                # Without an answer before it, such a question lacks its subject: "why?", "and the second one?".
                _Form(any_of=_REFERS, none_of={"after an answer", "list", "pros", "diff", "whatif", "howto"}, size=6),
            ),
            "it follows on what was said before",
        ),
        "length": (
            (_Form(any_of={"short", "short around", "in sentences", "in few words"}),),
            "a short answer is asked for",
        ),
        "code": (
            (
                _Form({"snippet"}, none_of={"diff", "pros"}),
                _Form({"code"}, {"^write", "^code"}, {"snippet"}),
                _Form({"code", "write", "tech"}, none_of={"snippet"}),
            ),
            "code to read or to write",
        ),
        "arithmetic": (
            (_Form(any_of={"arithmetic", "formula"}), _Form({"math", "numbers"})),
            "something to be calculated",
        ),
        "format": (
            (_Form({"format around"}), _Form({"format"}, {"statement", "as a format"}, {"diff", "pros"})),
            "a format that a list would break",
        ),
        "task": ((_Form({"task"}),), "the instructions ask for something else than an answer to the question"),
        "writing": (
            (
                _Form({"^write"}, {"story", "letter", "essay"}, {"^howto"}),
                _Form({"story", "statement"}, none_of={*_MANY, "^write"}),
            ),
            "a text in one piece",
        ),
        "given_text": (
            (
                _Form(any_of={"^translate", "^summary"}, none_of={"^howto", "^why"}),
                _Form({"given"}, {"rewrite", "translate"}),
                _Form({"^rewrite", "statement"}, none_of=_MANY),
            ),
            "a given text is to be worked on",
        ),
        "yes_no": (
            (
                _Form(
                    {"^yesno"},
                    none_of={*_MANY, "why", "howto", "fact", "estimate", "meaning", "^request", *_OPEN},
                    size=25,
                ),
            ),
            "a yes or no question",
        ),
        "fact": (
            (_Form(any_of=_FACT, none_of={*_MANY, "why", "effect", "^situation"}, size=20),),
            "one fact is asked for",
        ),
    }
)
"""The rules in their order: the forms of question that each rejects, and the text of its reason."""
