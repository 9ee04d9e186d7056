"""One sentence of instructions to a model: whether it commands something else than an answer.

The words are in `tasks.txt`. English is read by the order of its words, other languages by the words of a clause.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from skeleton_of_thought.routers.question import WORD, lexicon_words

__all__ = ["FEW_WORDS", "FILE", "read_sentence"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILE = "tasks.txt"
"""The words."""
_NONE: frozenset[str] = frozenset()
_WORDS = 60
"""The most words of a sentence that are read."""
_PAIR = re.compile(
    r"\b(?:english|german|french|spanish|italian|portuguese|dutch|russian|chinese|japanese|korean|arabic|polish|"
    r"hindi|turkish|"
    r"swedish|latin)(?: in)?,? ?(?:to|into|->|→|in,) ?(?:\w+ )?(?:english|german|french|spanish|italian|"
    r"portuguese|dutch|russian|"
    r"chinese|japanese|korean|arabic|polish|hindi|turkish|swedish|latin)\b",
    re.I,
)
"""From one language to another."""

_IS_ONLY = re.compile(
    r"\b(?:your|the|each|every) (?:answer|reply|output|response)s? (?:is|are|must be|should be|has to be|"
    r"consists? of|will be) "
    r"(?:always |only |just |exactly )*(?:a|an|one|the)\b(?! (?:helpful|detailed|full|complete|long|good|friendly))|"
    r"^\W*(?:(?!english|german|french|spanish|facts|text|plain|adults|prose)\w+ ){0,2}"
    r"(?!english|german|french|spanish|italian|documents?|context|sources?|passages?|excerpts?|notes|records|"
    r"above|article|facts|text|adults|prose|users|members)\w+ only\W*$|"
    r"^\W*(?:only|just) (?:the|a|an|one) \w+(?: \w+)?\W*$|[{\[]\s*[\"'<][^\n]{0,200}[}\]].*\b(?:return|output)|"
    r"\b(?:return|output|format|reply|respond|answer|keys)\b[^\n]{0,60}\{\s*[\"'<]|\bis to be (?:put|turned|"
    r"sent|brought) |"
    r"^\W*given (?:a|an|the|some|two|one|any)\b[^.]*?, (?!answer|explain|help|respond|reply|use|provide|give|describe|"
    r"discuss|create a final|please|you|write a (?:helpful|detailed)|and\b|or\b|not\b)\w+|"
    r"^\W*(?:just |only |always )?(?:say|return|answer|output|reply|respond|print|write|put)\b(?: with| only)?"
    r"[^.,\"]{0,20}[\"“'][\w ]{1,20}[\"”'] ?(?:or|/|,) ?(?:or )?[\"“']\w",
    re.I,
)
"""An output that is one thing: "your answer is a category", "letter only"."""

FEW_WORDS = 14
"""Words of instructions whose language is not certain."""


def read_sentence(sentence: str, language: str, *, prompt: bool) -> set[str]:
    """The signs of one sentence, and "form" if it speaks of the form of the whole answer.

    Args:
        sentence: The sentence.
        language: A language with spaces between words.
        prompt: Whether the sentence stands around a question.
    """
    words = WORD.findall(sentence.casefold().replace("’", "'"))[:_WORDS]
    if not words:
        return set()
    return _Sentence(sentence, words, _classes(words, language), language == "en", prompt).signs()


_STOPS = frozenset(",;:.!?()-–—•*|，。；：、\n")
_SKIPPED = _words(
    "please always then first instead now just only simply kindly also next finally never-mind carefully strictly you "
    "your task is must should will shall to and or be sure the ai assistant 1 2 3 4 5 6 7 8 9 directly explicitly "
    "then once so but i want need would like can bitte immer dann nur und du zuerst toujours puis et tu vous "
    "seulement siempre luego y solo sempre poi e altijd dan en alleen всегда затем и только ты пожалуйста"
)
_LEADS = _words("to and or must should will shall can please you then only always just first also simply either")
_NOT = _words(
    "not never no don't avoid without cannot shouldn't mustn't nicht nie keine kein niemals ne n pas jamais "
    "sans non mai senza "
    "não nunca jamás sin sem niet nooit geen zonder не никогда без"
)
_IF = _words(
    "if when whenever unless where case wenn falls sofern si quand lorsque cuando se quando als wanneer "
    "indien если когда"
)
_ELSE = _words("otherwise else sonst andernfalls sinon altrimenti anders иначе")
_THIRD = _words("that who which and or assistant model bot")
_GERUND = _words("of for in by at with is and or on")
_AID = _words(
    "help helps helping assist assists teach teaches guide guides advise advises encourage encourages support "
    "supports allow "
    "want wants like likes love loves need needs way ways how able learn learns know knows trying"
)
_DETERMINERS = _words("the this that each every any all my their his her whatever everything following user user's")
_SENT = _words(
    "message messages question questions query queries input inputs text sentence sentences prompt utterance request"
)
_INPUT = _SENT - {"sentences"}
_POLITE = _words("please now then first next just only also always - * • # 1 2 3 4 5 6 7 8 9 . )")
_PLAIN = _words(
    "the a an this that these those any all each in on at for if when with from by as given based to it here "
    "below above "
    "there however my our their his her who what which how why is are was were not no users user question after before "
    "while since because although unless until about note important given during per like unlike both most many some "
    "do don't does did never regarding every first second third one two three make"
)
_STYLE = _words("short simple plain clear full complete brief long varied concise")
_MODES = _words(
    "as in into valid return returns output outputs only to produce strictly pure raw a an with using using"
)
_FILE_WORDS = _words("object objects only format array output schema list string blob document response")
_KNOWS = _words("expert experience experienced knowledge skilled fluent specialist background know knows developers")
_PROFESSIONS = _words(
    "specialist engineer expert researcher teacher professor scientist enthusiast laureate consultant student "
    "historian "
    "veteran developer architect coach manager author librarian lawyer doctor nurse person"
)
_FEW_WORDS = re.compile(
    r"\b(?:ten|twelve|fifteen|twenty|thirty|forty|fifty|sixty|eighty|hundred|fünf|zehn|zwanzig|dreißig|fünfzig|"
    r"cinq|dix|vingt|cinco|"
    r"diez|veinte|cinque|dieci|venti|dez|vinte|vijf|tien|twintig|пят\w+|десят\w+|двадцат\w+) (?:words|wörter\w*|"
    r"mots|palabras|"
    r"parole|palavras|woorden|слов\w*)\b|\b\d+ ?(?:characters|chars|zeichen|caractères|caracteres|caratteri|"
    r"tekens|символ\w*)\b",
    re.I,
)
_BOUND = _words("more longer máximo más mais over exceed above just only plus meer più")
"""After "no" or "not" these make a bound: "no more than one sentence"."""
_ONE = re.compile(
    r"(?<!not )\b(?:one|single|exactly one|only a|just a)[\s-](?:[\w-]+ ){0,2}"
    r"(?:lines?|sentence|word|phrase|number|letter|digit|emoji|character)\b(?! per\b| for each\b| of context)",
    re.I,
)
_PARTS = _words("terms jargon idioms units abbreviations foreign latin technical")
"""Parts of an answer: "translate Latin terms" is no task."""
_BEYOND = _words("as in with below where when if so because while before after")
"""Words after which a verb's object has ended."""
_OF_OUTPUT = _words("to should is are must in language languages will")
_LIMITS = _words("about if on outside with in that when unless from")
"""After "do not answer it" these say which questions are meant."""
_ANSWERS = _words("answer answers response responses reply replies")
_STYLE_OF_SENTENCES = re.compile(
    r"\b(?:keep|each|every|write|with|of) (?:your |the )?(?:short )?(?:sentences?|paragraphs?)\b", re.I
)
_CAPITALS = re.compile(r"\b[A-Z][A-Z_]+\b")
_SAYS = _words("return returns answer respond reply output say print write choose either label")
_ACTS = re.compile(
    r"\b(?:you are|you're|act as|acts as|behave as|function as|serve as|acting as|this is|you will be|role of|"
    r"work as|pretend to be|pretend you are|imagine you are|play|simulate|emulate|be a|be an|respond as|"
    r"reply as|answer as)\s+"
    r"([^.,;:!?]*?)(?=$|[.,;:!?(]| that | who | which | whose )"
)
_BE_DONE = re.compile(r"\b(?:be|being|get|gets|is|are)\s+(?:\w+ly\s+)?(\w+ed|rewritten|put)\b")


def _classes(words: list[str], language: str) -> list[Set[str]]:
    """The classes of the words and phrases that begin at each word."""
    table = lexicon_words(language, FILE)
    found = list[Set[str]]()
    for i, word in enumerate(words):
        here: set[str] | frozenset[str] = _NONE
        for stem, name in table.stems.get(word[:3], ()):
            if word.startswith(stem):
                here = here | {name}
        for phrase, name in table.phrases.get(word, ()):
            if len(phrase) == 1 or tuple(words[i : i + len(phrase)]) == phrase:
                here = here | {name}
        found.append(here)
    return found


@dataclass
class _Sentence:
    """A sentence of instructions.

    Attributes:
        text: The sentence.
        words: Its words in lower case.
        classes: The classes that begin at each word.
        english: Whether it is English, whose word order is read more closely.
        prompt: Whether it stands around a question, where any command but to answer is another task.
    """

    text: str
    words: list[str]
    classes: list[Set[str]]
    english: bool
    prompt: bool

    def signs(self) -> set[str]:
        """The signs of the sentence."""
        every = set[str]().union(*self.classes)
        start = next((i for i, word in enumerate(self.words) if word not in _SKIPPED and word not in _STOPS), 0)
        told = bool(every & {"duty", "you"}) or bool(
            self.classes[start] & {"task", "unless", "make", "back", "fine", "judge"}
        )
        if "others" in self.classes[start] and "duty" not in every and not self.english:
            return set()
        wished = self.prompt and self.words[0] in ("i", "we")
        about_others = self.english and not wished and "others" in self.classes[0] and "duty" not in every
        hedged = not _IF.isdisjoint(self.words) and "asks" in every and not self._otherwise()
        hedged = hedged or "refuse" in every
        signs = set[str]()
        if self._passive(every) or self._role(start):
            signs.add("task")
        if about_others:
            pairs = zip(self.words, self.classes[1:], strict=False)
            return signs | ({"task"} if any(word == "you" and "task" in then for word, then in pairs) else set())
        asks = self.text.rstrip().endswith("?") and not _INPUT.isdisjoint(self.words)
        if self.english and (asks or _PAIR.search(self.text) or _IS_ONLY.search(self.text)):
            signs.add("task")
        if "field" in every and len(self.words) < FEW_WORDS // 2:
            signs.add("task")
        if "output" in every and not hedged and "aside" not in every:
            signs.add("task")
        if self._verdicts(every) or self._commands(start, told, hedged):
            signs.add("task")
        if (
            not hedged
            and "aside" not in every
            and (told or self.prompt or len(self.words) <= (9 if self.english else FEW_WORDS) or "answer" in every)
        ):
            if not _STYLE_OF_SENTENCES.search(self.text):
                signs.add("form")
            signs |= self._form()
        elif not hedged and "shape" in every and (told or self.prompt):
            signs |= self._form() & {"format around"}
        return signs

    def _otherwise(self) -> bool:
        """Whether a rule for the other cases follows; "nothing else" begins none."""
        pairs = zip(["", *self.words], self.words, strict=False)
        return any(word in _ELSE and not before.endswith(("thing", "one")) for before, word in pairs)

    def _form(self) -> set[str]:
        signs = set[str]()
        negated = False
        if (self.english and _NOT.isdisjoint(self.words[:2]) and _ONE.search(self.text)) or _FEW_WORDS.search(
            self.text
        ):
            signs.add("short around")
        for i, (word, classes) in enumerate(zip(self.words, self.classes, strict=True)):
            if word in _STOPS:
                negated = False
            if "short" in classes and not negated:
                signs.add("short around")
            if "shape" in classes and (not negated or word in _NOT) and self.words[i + 2 : i + 3] != ["of"]:
                signs.add("format around")
            if "filetype" in classes and not negated and _KNOWS.isdisjoint(self.words):
                before, after = self.words[max(0, i - 1)], self.words[min(i + 1, len(self.words) - 1)]
                if before in _MODES or after in _FILE_WORDS or len(self.words) <= 4:
                    signs.add("format around")
            negated = negated or (word in _NOT and " ".join(self.words[i + 1 : i + 2]) not in _BOUND)
        return signs

    def _passive(self, every: set[str]) -> bool:
        """Whether something is to be done to the input: "the message is to be translated"."""
        if not self.english or "input" not in every or not (_NOT | _IF).isdisjoint(self.words):
            return False
        for done in _BE_DONE.finditer(" ".join(self.words)):
            if _classes([done[1]], "en")[0] & {"task", "unless"}:
                return True
        return False

    def _role(self, start: int) -> bool:
        """Whether the model is a tool for another task: "you are a translation engine"."""
        if self.english:
            for role in _ACTS.finditer(" ".join(self.words)):
                words = role[1].split()[:9]
                for cut in ("for", "with", "in", "at", "from", "of", "by", "and"):
                    if cut in words[1:]:
                        words = words[: words.index(cut, 1)]
                found = _classes(words, "en")
                if any("role" in one for one in found) and not (words and words[-1] in _PROFESSIONS):
                    # "A translator who loves questions" is a person.
                    return " who " not in self.text and "by profession" not in self.text
            return False
        duty = next((i for i, found in enumerate(self.classes) if "duty" in found), None)
        return duty is not None and any("role" in found for found in self.classes[duty : duty + 9])

    def _verdicts(self, every: set[str]) -> bool:
        """Whether the answer is one of several words in capitals: "answer YES or NO"."""
        if _SAYS.isdisjoint(self.words) and "back" not in every and "fine" not in every:
            return False
        found = list(dict.fromkeys(_CAPITALS.findall(self.text)))
        if len(found) < 2:
            return False
        between = self.text[self.text.find(found[0]) + len(found[0]) : self.text.find(found[1])]
        return bool(
            re.fullmatch(
                r"[\"'`*)\]]*\s*(?:/|\||,|\bor\b|,?\s*\b(?:if|when|and)\b.*|\).*\()\s*(?:or\s*)?[\"'`*(\[]*",
                between,
                re.S,
            )
        )

    def _commands(self, start: int, told: bool, hedged: bool) -> bool:
        command, negated, helped, after_if = True, False, False, False
        aided = False
        for i, (word, classes) in enumerate(zip(self.words, self.classes, strict=True)):
            if word in _STOPS:
                command, negated, helped, aided = True, False, False, False
                continue
            after_if = after_if or word in _IF
            if word in _NOT:
                negated = True
                if self._unanswered(i, hedged):
                    return True
                continue
            helped = helped or word in _AID
            aided = helped and (aided or "others" in classes or word in ("how", "able"))
            if not self.english and classes & {"task", "make", "back"} and self._negated(i):
                continue
            if not negated and not aided and self._is_command(i, command, told, i == start):
                part = not _PARTS.isdisjoint(self.words[i + 1 : i + 5]) or self.words[i + 1 : i + 4] == [
                    "at",
                    "the",
                    "end",
                ]
                if "task" in classes and not part and not (hedged and after_if) and not self._if_needed(hedged):
                    return True
                if not hedged and self._asks_for_text(i, classes):
                    return True
                if self.english and i == start and self._unknown(i, classes):
                    return True
            command = command and word in _SKIPPED
        return False

    def _is_command(self, i: int, command: bool, told: bool, first: bool) -> bool:
        word, before = self.words[i], self.words[i - 1] if i else ""
        if not self.english:
            return command or told
        if word.endswith("ing") and len(word) > 5:
            return told and (before in _GERUND or "duty" in set().union(*self.classes[:i]) or first)
        if word.endswith("s") and not word.endswith("ss"):
            return told and before in _THIRD and not first
        if word.endswith("ed") or word.endswith("ion"):
            return False
        if first or (command and (told or self._has_object(i) or "back" in self.classes[i])):
            return True
        return told and before in _LEADS

    def _has_object(self, i: int) -> bool:
        after = self.words[i + 1] if i + 1 < len(self.words) else ""
        return (
            after in _DETERMINERS or after in ("it", "into", "to", "a", "an", "only") or "input" in self._class(i + 1)
        )

    def _if_needed(self, hedged: bool) -> bool:
        """Whether a part of the answer is treated so: "translate technical terms where needed"."""
        return hedged and not {"where", "if", "when"}.isdisjoint(self.words[-3:])

    def _negated(self, i: int) -> bool:
        """Whether the clause of a word is negated: in some languages the word for "not" comes after the verb."""
        begin = next((k for k in range(i, -1, -1) if self.words[k] in _STOPS), -1)
        end = next((k for k in range(i, len(self.words)) if self.words[k] in _STOPS), len(self.words))
        return not _NOT.isdisjoint(self.words[begin + 1 : end])

    def _class(self, i: int) -> Set[str]:
        return self.classes[i] if i < len(self.classes) else _NONE

    def _unanswered(self, i: int, hedged: bool) -> bool:
        """Whether the question must not be answered: "do not answer the question, only rephrase it"."""
        after = self.words[i + 1 : i + 6]
        if hedged or not after or after[0] not in ("answer", "respond", "reply"):
            return False
        if len(after) == 1 or after[1] in _STOPS:
            return "you" in self.words[:i]
        rest = after[1:] if after[0] == "answer" else after[2:]
        if not rest or rest[0] not in ("the", "it", "this", "user's", "any", "them"):
            return False
        at = next(
            (k for k, word in enumerate(self.words[i + 2 : i + 8], i + 2) if word in _SENT or word in ("it", "them")), 0
        )
        following = self.words[at + 1] if at and at + 1 < len(self.words) else ""
        return bool(at) and following not in _LIMITS

    def _asks_for_text(self, i: int, classes: Set[str]) -> bool:
        """Whether the verb at a word has an object that is no answer."""
        if "aside" in set().union(*self.classes):
            return False
        if "back" in classes:
            return self._returns(i)
        if "make" in classes:
            after = self.words[i + 1] if i + 1 < len(self.words) else ""
            if after in ("in", "for", "at", "with", "like", "as", "clearly", "to", "from", "about", "your"):
                return False
            for k in range(i + 1, min(i + 13, len(self.words))):
                if (self.words[k] in _STOPS and self.words[k] not in "-()") or (k > i + 2 and self.words[k] in _BEYOND):
                    break
                if "text" in self.classes[k]:
                    return not (self.words[k - 1] in _STYLE and self.words[k] in ("sentences", "words", "paragraphs"))
                if "answer" in self.classes[k] and self.words[k - 1] != "-" and "text" not in self._class(k + 1):
                    return False
        if "judge" in classes or "unless" in classes:
            for k in range(i + 1, min(i + 9, len(self.words))):
                if self.words[k] in _STOPS:
                    return False
                if self.words[k] == "into" and "answer" not in self._class(k + 1) | self._class(k + 2):
                    return True
                if "judge" in classes and self.words[k] in _ANSWERS:
                    return True
                if "input" in self.classes[k] and (k == i + 1 or self.words[k] != "it"):
                    return True
        return False

    def _returns(self, i: int) -> bool:
        """Whether something else than an answer is to be returned."""
        if "".join(self.words[i + 1 : i + 2]) in _OF_OUTPUT:
            return False
        if set(self.words[i + 1 :]) <= _STOPS:
            return False  # a label: "Output:"
        for k in range(i + 1, min(i + 10, len(self.words))):
            if self.words[k] in ".;" and k > i + 1:
                break
            if "text" in self.classes[k]:
                return True
            if "answer" in self.classes[k]:
                return False
        return True

    def _unknown(self, i: int, classes: Set[str]) -> bool:
        """Whether an unknown verb does something to the input: "reverse the user's message"."""
        word = self.words[i]
        if not set(self.words[:i]) <= _POLITE or self.words[i + 1 : i + 2] == []:
            return False
        if self.prompt and "unless" in classes and self.words[i + 1] in _DETERMINERS:
            return not any("answer" in self._class(k) for k in range(i + 1, i + 6))
        if classes or word in _PLAIN or word.endswith("ing") or not word.isalpha():
            return False
        return self.words[i + 1] in _DETERMINERS
