"""The task around a question, read off the instructions to the model: system messages, and the text of a prompt.

"Translate the user's sentence" asks for another kind of text than an answer, "you are a patient teacher" does not.
Instructions are read sentence by sentence; retrieved documents, examples and earlier turns among them do not count.
The words are in `tasks.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from skeleton_of_thought.routers.question import WORD, lexicon, lexicon_words, read_question

__all__ = ["Instructions", "instruction_lines", "read_instructions"]

_FILE = "tasks.txt"
_BEGINNING, _END = 5000, 2500
"""The numbers of first and last characters that are read of a longer text: instructions stand at either end."""
_LINES = 400
_SENTENCES = 120
_WORDS = 60
"""The most words of a sentence that are read."""


@dataclass(frozen=True)
class Instructions:
    """What instructions ask for.

    Attributes:
        signs: "task" for another kind of text than an answer, "short around" for a short answer, "format around" for a
            form of answer that a list would break.
        form: The sentences that speak of the form of the whole answer.
    """

    signs: frozenset[str] = frozenset()
    form: str = ""


@lru_cache(maxsize=64)
def read_instructions(text: str, question: str = "") -> Instructions:
    """What the instructions in a text ask for.

    Args:
        text: A system message, or a prompt.
        question: The question in the prompt, which is no instruction.

    Example:
        >>> sorted(read_instructions("Translate the user's sentence into French.").signs)
        ['task']
        >>> sorted(read_instructions("You are a patient teacher. Always answer in French.").signs)
        []
    """
    lines = instruction_lines(text, question)
    whole = " ".join(lines)
    language = read_question(whole).language
    signs, form = set[str](), list[str]()
    if question and _ends_with_label(text):
        signs.add("task")
    for number, sentence in enumerate(_sentences(lines)):
        if number == _SENTENCES:
            break
        found = _read_sentence(sentence, language)
        signs |= found
        if "form" in found:
            form.append(sentence)
    return Instructions(frozenset(signs), "\n".join(form))


# --- which lines are instructions -----------------------------------------------------------------

_DOCUMENTS = (
    r"context|documents?|passages?|excerpts?|extracts?|snippets?|articles?|notes|manuals?|handbook|faq|knowledge(?: base)?|"
    r"transcripts?|(?:chat |conversation )?history|conversation|data|records?|(?:pieces|portions?) of|sources?|results?|"
    r"information|facts|text|profile|summar(?:y|ies)|reports?|kontext\w*|dokument\w*|auszüg\w*|quellen|wissen|verlauf|texte?|"
    r"contextes?|documents|extraits|informations|contexto|documentos?|fragmentos|información|contesto|documenti|"
    r"estratti|informazioni|trechos|informações|documenten|fragmenten|informatie|контекст\w*|документ\w*|"
    r"фрагмент\w*|информаци\w*|отрывк\w*"
)
_ANNOUNCES = re.compile(
    rf"\b(?:{_DOCUMENTS})\b.*(?:[:：]$|\b(?:below|follow\w*|provided|given|retrieved|here|unten|folgend\w*|suivant\w*|"
    r"ci-dessous|siguientes?|seguenti?|seguintes?|volgende|onderstaande|ниже|следующ\w*)\b)|"
    rf"\b(?:below|follow\w*|provided|given|retrieved|these|this|folgend\w*|suivant\w*|siguientes?|seguenti?|seguintes?|"
    rf"volgende|onderstaande|следующ\w*|dem|les|los|le|os|de)\b[^.!?]*\b(?:{_DOCUMENTS})\b|"
    r"(?:上下文|文档|资料|参考|背景|文脈|文書|資料|情報|コンテキスト).*(?:[:：]$|以下|如下|下面|次の)|(?:以下|如下|下面|次の).*"
    r"(?:上下文|文档|资料|参考|背景|文脈|文書|資料|情報|コンテキスト)",
    re.I,
)
_DOCUMENT_LABEL = re.compile(
    r"[>#*\[\s]*(?:(?:the |retrieved |relevant |provided |reference |background |chat |conversation |current |new )*"
    rf"(?:{_DOCUMENTS}|content|doc|memory|memories|background|title|url|page|上下文|文档|资料|参考资料|背景|文脈|文書|資料|"
    r"参考情報|コンテキスト|examples?|beispiele?|exemples?|ejemplos?|esempi\w*|exemplos?|voorbeeld\w*|пример\w*|示例|例)"
    r"(?:[ \t]*[#(\[]?\d+[)\]]?)?(?: information| begins?| start| \([^)]*\))?[\]* \t]*[:：=]|\[\d+\]|doc(?:ument)?[ \t]*\d+\b)|"
    r"#+\s*(?:" + _DOCUMENTS + r"|background|memory)\b[^.:]{0,30}$",
    re.I,
)
_LABEL = re.compile(
    r"[>#*\[\s]*(?:(?:the |your |user(?:'s)? |final |important |output |response |answer |follow[- ]up |original )*"
    r"(?:tasks?|instructions?|rules?|guidelines?|role|persona|style|tone|(?:output )?format|goals?|objectives?|constraints?|"
    r"notes?|important|reminder|requirements|question|query|input|answer|response|output|aufgabe|anweisung\w*|regeln|frage|"
    r"antwort|tâche|consignes?|instructions|règles|réponse|tarea|instrucciones|reglas|pregunta|respuesta|compito|istruzioni|"
    r"regole|domanda|risposta|tarefa|instruções|regras|pergunta|resposta|taak|instructies|regels|vraag|antwoord|задача|"
    r"задание|инструкци\w*|правила|вопрос|ответ|任务|指令|规则|要求|问题|回答|答案|指示|タスク|ルール|質問)[\]* \t]*(?:[:：]|$))",
    re.I,
)
_TURN = re.compile(
    r"[>*\s]*(?:q|a|user|human|assistant|ai|question|answer|helpful answer|final answer|customer|agent|frage|antwort|"
    r"question|réponse|pregunta|respuesta|domanda|risposta|pergunta|resposta|vraag|antwoord|вопрос|ответ|问|答|问题|回答|质問|質問)"
    r"[* \t]*\d*[:：]",
    re.I,
)
_RESUMES = re.compile(
    r"(?:based on|using|given|use|answer|with|from|now|according|please|only|your|you|always|never|do not|don't|respond|"
    r"reply|return|output|keep|task|remember|if|in|write|provide|generate|translate|summari[sz]e|classify|rewrite|rephrase|"
    r"extract|make|be|cite|the answer|decide|is|does|list|create|beantworte|antworte|nutze|verwende|basierend|auf|réponds|"
    r"répondez|utilise|en |à partir|responde|utiliza|usa|basándote|rispondi|in base|responda|use|com base|beantwoord|"
    r"gebruik|op basis|ответь|отвечай|используй|на основе)\b.{0,200}\b(?:answers?|respon[ds]\w*|repl\w+|questions?|query|"
    r"context|above|output|users?|messages?|json|frage\w*|antwort\w*|kontext|pregunta|respuesta|contexto|domanda|risposta|"
    r"contesto|pergunta|resposta|vraag|antwoord\w*|question|réponse|contexte|вопрос\w*|ответ\w*|контекст\w*|documents?|"
    r"passage|information|facts)\b|.{0,80}(?:问题|回答|上下文|質問|答え|文脈)",
    re.I,
)
_RULE = re.compile(r"(?:[-=_*#~+—]{3,}|[>\"'<]{3,})(?:\s*[\w ]{1,20}\s*[-=_*#~+]{3,})?")
_TAG = re.compile(r"<([a-z][\w-]*)(?: [^>]*)?>", re.I)
_INSTRUCTION_TAGS = frozenset(
    ("instructions", "instruction", "rules", "task", "role", "guidelines", "system", "persona", "format", "output", "s",
     "output_format", "style", "tone", "goal", "constraints", "prompt", "system_prompt", "policy", "inst", "sys")
)  # fmt: skip


@lru_cache(maxsize=64)
def instruction_lines(text: str, question: str = "") -> tuple[str, ...]:
    """The lines of a text that instruct the model, without documents, examples, earlier turns and the question."""
    seen = text if len(text) <= _BEGINNING + _END else f"{text[:_BEGINNING]}\n…\n{text[-_END:]}"
    if question:
        seen = seen.replace(question, "\n")
    lines: list[str] = []
    inside, blank, announced = "", False, False
    for line in seen.split("\n", _LINES)[:_LINES]:
        line = line.strip()[:2000]
        if inside == "document":
            resumes = _LABEL.match(line) or (blank and _RESUMES.match(line)) or _RULE.fullmatch(line)
            if not resumes or _DOCUMENT_LABEL.match(line):
                blank = not line or (blank and line == "…")
                continue
            inside = ""
            if _RULE.fullmatch(line):
                inside = "" if not announced else "rule"
                announced = False
                continue
        elif inside:
            end = _end(inside, line)
            if end < 0:
                continue
            inside, line = "", line[end:].strip()
        if not line:
            if announced:
                inside, blank, announced = "document", True, False
            lines.append("")
        elif line.startswith(("```", "~~~", '"""')):
            inside = line[:3] if line.count(line[:3]) < 2 else ""
        elif _RULE.fullmatch(line):
            inside, announced = ("rule" if announced else ""), False
        elif (tag := _TAG.match(line)) and tag[1].casefold() not in _INSTRUCTION_TAGS:
            inside = f"</{tag[1]}>"
            if (end := _end(inside, line)) >= 0:
                inside = ""
                lines.append(line[end:].strip())
        elif _DOCUMENT_LABEL.match(line):
            inside, blank, announced = "document", False, line.endswith((":", "："))
        elif not _TURN.match(line):
            if lines and lines[-1] and (line[0].islower() or lines[-1][-1] in ",;") and not lines[-1].endswith(":"):
                lines[-1] += f" {line}"
            else:
                lines.append(line)
            announced = announced or bool(_ANNOUNCES.search(line))
    return tuple(line for line in lines if line)


def _end(inside: str, line: str) -> int:
    """The place in the line where the document ends; -1 if it goes on."""
    if inside == "rule":
        return len(line) if _RULE.fullmatch(line) else -1
    at = line.find(inside)
    return -1 if at < 0 else at + len(inside)


_ANSWER_LABELS = re.compile(
    r"(?:^|\b)(?:answers?|response|reply|assistant|ai|bot|question|query|input|user|human|here|follows|below|antwort|frage|"
    r"réponse|question|respuesta|pregunta|risposta|domanda|resposta|pergunta|antwoord|vraag|ответ|вопрос)\b[^:]*$|"
    r"(?:回答|答案|回复|答え|問題|问题|質問|答)$",
    re.I,
)
_LAST_LABEL = re.compile(r"(?:^|\n)[^\w\n]*([^\n:：]{2,60})[:：][\s\"'`*\[({>]*$")


def _ends_with_label(text: str) -> bool:
    """Whether a prompt ends with the label of the text to be written, and that is no answer: "Summary:"."""
    label = _LAST_LABEL.search(text[-200:])
    return label is not None and not _ANSWER_LABELS.search(label[1].strip(" *_#"))


def _sentences(lines: tuple[str, ...]) -> Iterator[str]:
    for line in lines:
        yield from filter(None, re.split(r"(?<=[.!?;])\s+|(?<=[。！？；])", line))


# --- what a sentence asks for ---------------------------------------------------------------------

_STOPS = frozenset(",;:.!?()-–—•*|，。；：、\n")
_SKIPPED = frozenset(
    "please always then first instead now just only simply kindly also next finally never-mind carefully strictly you "
    "your task is must should will shall to and or be sure the ai assistant 1 2 3 4 5 6 7 8 9 directly explicitly "
    "then once so but i want need would like can bitte immer dann nur und du zuerst toujours puis et tu vous "
    "seulement siempre luego y solo sempre poi e altijd dan en alleen всегда затем и только ты пожалуйста".split()
)
_LEADS = frozenset("to and or must should will shall can please you then only always just first also simply either".split())
_NOT = frozenset(
    "not never no don't avoid without cannot shouldn't mustn't nicht nie keine kein niemals ne n pas jamais sans non mai senza "
    "não nunca jamás sin sem niet nooit geen zonder не никогда без".split()
)
_IF = frozenset(
    "if when whenever unless where wenn falls sofern si quand lorsque cuando se quando als wanneer indien если когда".split()
)
_ELSE = frozenset("otherwise else sonst andernfalls sinon altrimenti anders иначе".split())
_THIRD = frozenset("that who which and or assistant model bot".split())
_GERUND = frozenset("of for in by at with is and or on".split())
_AID = frozenset(
    "help helps helping assist assists teach teaches guide guides advise advises encourage encourages support supports allow "
    "want wants like likes love loves need needs way ways how able learn learns know knows trying".split()
)
_DETERMINERS = frozenset("the this that each every any all my their his her whatever everything following user user's".split())
_SENT = frozenset(
    "message messages question questions query queries input inputs text sentence sentences prompt utterance request".split()
)
_PLAIN = frozenset(
    "the a an this that these those any all each in on at for if when with from by as given based to it here below above "
    "there however my our their his her who what which how why is are was were not no users user question after before "
    "while since because although unless until about note important given during per like unlike both most many some "
    "do don't does did never regarding every first second third one two three make".split()
)
_STYLE = frozenset("short simple plain clear full complete brief long varied concise".split())
_MODES = frozenset("as in into valid return returns output outputs only to produce strictly pure raw a an with using using".split())
_FILE_WORDS = frozenset("object objects only format array output schema list string blob document response".split())
_KNOWS = frozenset("expert experience experienced knowledge skilled fluent specialist background know knows developers".split())
_CAPITALS = re.compile(r"\b[A-Z][A-Z_]+\b")
_SAYS = frozenset("return returns answer respond reply output say print write choose either label".split())
_ACTS = re.compile(
    r"\b(?:you are|you're|act as|acts as|behave as|function as|serve as|acting as|this is|you will be|role of|work as)\s+"
    r"([^.,;:!?]*?)(?=$|[.,;:!?(]| that | who | which | whose )"
)
_BE_DONE = re.compile(r"\b(?:be|being|get|gets|is|are)\s+(?:\w+ly\s+)?(\w+ed|rewritten|put)\b")


def _read_sentence(sentence: str, language: str) -> set[str]:
    """The signs of one sentence, and "form" if it speaks of the form of the whole answer."""
    if language in ("zh", "ja"):
        return _read_unspaced(sentence, language)
    words = WORD.findall(sentence.casefold().replace("’", "'"))[:_WORDS]
    if not words:
        return set()
    classes = _classes(words, "en" if language in ("", "en") else language)
    return _Sentence(sentence, words, classes, language in ("", "en")).signs()


def _classes(words: list[str], language: str) -> list[set[str]]:
    """The classes of the words and phrases that begin at each word."""
    table = lexicon_words(language, _FILE)
    found = list[set[str]]()
    for i, word in enumerate(words):
        here = {name for stem, name in table.stems.get(word[:3], ()) if word.startswith(stem)}
        for phrase, name in table.phrases.get(word, ()):
            if tuple(words[i : i + len(phrase)]) == phrase:
                here.add(name)
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
    """

    text: str
    words: list[str]
    classes: list[set[str]]
    english: bool

    def signs(self) -> set[str]:
        """The signs of the sentence."""
        every = set[str]().union(*self.classes)
        start = next((i for i, word in enumerate(self.words) if word not in _SKIPPED and word not in _STOPS), 0)
        told = bool(every & {"duty", "you"}) or bool(
            self.classes[start] & {"task", "unless", "make", "back", "fine", "judge"}
        )
        if "others" in self.classes[start] and "duty" not in every and not self.english:
            return set()
        about_others = self.english and "others" in self.classes[start] and "duty" not in every and start == 0
        hedged = not _IF.isdisjoint(self.words) and "asks" in every and _ELSE.isdisjoint(self.words)
        signs = set[str]()
        if self._passive(every) or self._role(start):
            signs.add("task")
        if about_others:
            return signs
        if self._verdicts(every) or self._commands(start, told, hedged):
            signs.add("task")
        if not hedged and "aside" not in every and (told or len(self.words) <= 9 or every & {"answer"}):
            signs.add("form")
            signs |= self._form()
        return signs

    def _form(self) -> set[str]:
        signs = set[str]()
        negated = False
        for i, (word, classes) in enumerate(zip(self.words, self.classes, strict=True)):
            if word in _STOPS:
                negated = False
            if "short" in classes and not negated:
                signs.add("short around")
            if "shape" in classes and (not negated or word in _NOT):
                signs.add("format around")
            if "filetype" in classes and not negated and _KNOWS.isdisjoint(self.words):
                before, after = self.words[max(0, i - 1)], self.words[min(i + 1, len(self.words) - 1)]
                if before in _MODES or after in _FILE_WORDS or len(self.words) <= 4:
                    signs.add("format around")
            negated = negated or word in _NOT
        return signs

    def _passive(self, every: set[str]) -> bool:
        """Whether something is to be done to the input: "the message is to be translated"."""
        if not self.english or "input" not in every or not _NOT.isdisjoint(self.words):
            return False
        for done in _BE_DONE.finditer(" ".join(self.words)):
            if "task" in _classes([done[1]], "en")[0]:
                return True
        return False

    def _role(self, start: int) -> bool:
        """Whether the model is a tool for another task: "you are a translation engine"."""
        if self.english:
            for role in _ACTS.finditer(" ".join(self.words)):
                words = role[1].split()[:9]
                for cut in ("for", "with", "in", "at", "from", "of"):
                    if cut in words[1:]:
                        words = words[: words.index(cut, 1)]
                if any("role" in found for found in _classes(words, "en")):
                    return True
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
        return bool(re.fullmatch(r"[\"'`*)\]]*\s*(?:/|\||,|\bor\b|,?\s*\b(?:if|when|and)\b.*)\s*(?:or\s*)?[\"'`*(\[]*", between, re.S))

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
            aided = helped and (aided or "others" in classes or word == "how")
            before = self.words[i - 1] if i else ""
            if not negated and not aided and self._is_command(i, word, before, command, told, i == start):
                if "task" in classes and not (hedged and after_if):
                    return True
                if not hedged and self._asks_for_text(i, classes):
                    return True
                if self.english and i == start and self._unknown(i, classes):
                    return True
            command = command and word in _SKIPPED
        return False

    def _is_command(self, i: int, word: str, before: str, command: bool, told: bool, first: bool) -> bool:
        if not self.english:
            return command or told
        if word.endswith("ing") and len(word) > 5:
            return told and (before in _GERUND or "duty" in set().union(*self.classes[:i]) or first)
        if word.endswith("s") and not word.endswith("ss"):
            return told and before in _THIRD and not first
        if word.endswith("ed") or word.endswith("ion"):
            return False
        return first or (command and (told or self._has_object(i))) or (told and before in _LEADS)

    def _has_object(self, i: int) -> bool:
        after = self.words[i + 1] if i + 1 < len(self.words) else ""
        return after in _DETERMINERS or after in ("it", "into", "to", "a", "an", "only") or "input" in self._class(i + 1)

    def _class(self, i: int) -> set[str]:
        return self.classes[i] if i < len(self.classes) else set()

    def _unanswered(self, i: int, hedged: bool) -> bool:
        """Whether the question must not be answered: "do not answer the question, only rephrase it"."""
        after = self.words[i + 1 : i + 6]
        if hedged or not after or after[0] not in ("answer", "respond", "reply"):
            return False
        rest = after[1:] if after[0] == "answer" else after[2:]
        if not rest or rest[0] not in ("the", "it", "this", "user's", "any", "them"):
            return False
        at = next((k for k, word in enumerate(self.words[i + 2 : i + 8], i + 2) if word in _SENT or word in ("it", "them")), 0)
        following = self.words[at + 1] if at and at + 1 < len(self.words) else ""
        return bool(at) and following not in ("about", "if", "on", "outside", "with", "in", "that", "when", "unless", "from")

    def _asks_for_text(self, i: int, classes: set[str]) -> bool:
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
                if self.words[k] in _STOPS and self.words[k] not in "-()":
                    return False
                if "text" in self.classes[k]:
                    return self.words[k - 1] not in _STYLE
                if "answer" in self.classes[k]:
                    return False
        if "judge" in classes or "unless" in classes:
            for k in range(i + 1, min(i + 9, len(self.words))):
                if self.words[k] in _STOPS:
                    return False
                if "input" in self.classes[k] or ("judge" in classes and "answer" in self.classes[k]):
                    return True
                if "answer" in self.classes[k]:
                    return False
        return False

    def _returns(self, i: int) -> bool:
        """Whether something else than an answer is to be returned."""
        if self.words[i + 1 : i + 2] == ["to"]:
            return False
        for k in range(i + 1, min(i + 10, len(self.words))):
            if self.words[k] in ".;" and k > i + 1:
                break
            if "text" in self.classes[k]:
                return True
            if "answer" in self.classes[k]:
                return False
        return True

    def _unknown(self, i: int, classes: set[str]) -> bool:
        """Whether an unknown verb does something to the input: "reverse the user's message"."""
        word = self.words[i]
        if classes or word in _PLAIN or not word.isalpha() or self.words[i + 1 : i + 2] == []:
            return False
        if self.words[i + 1] not in _DETERMINERS:
            return False
        return not _SENT.isdisjoint(self.words[i + 1 : i + 6])


# --- Chinese and Japanese -------------------------------------------------------------------------


@cache
def _patterns(language: str) -> Mapping[str, re.Pattern[str]]:
    """The patterns of a language without spaces, by class."""
    lines = (line.partition(":") for line in lexicon(_FILE)[language])
    return {name: re.compile(pattern.strip(), re.I) for name, _, pattern in lines}


def _read_unspaced(sentence: str, language: str) -> set[str]:
    patterns = _patterns(language)
    found = {name for name, pattern in patterns.items() if pattern.search(sentence)}
    if found & {"asks", "fine"}:
        return set()
    signs = {"task"} if found & {"task", "role", "make", "back"} and "aside" not in found else set[str]()
    if "aside" not in found:
        signs.add("form")
        signs |= {name for name, of in (("short around", "short"), ("format around", "shape")) if of in found}
    return signs
