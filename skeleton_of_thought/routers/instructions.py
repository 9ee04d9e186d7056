"""Which lines of a text instruct the model: not its documents, examples, earlier turns, nor the question.

A document begins at a label ("Context:"), a tag, a fence, a dashed line, or in the paragraph after a line that
announces it. It ends where an instruction or another label follows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["ends_with_label", "instruction_lines", "sentences"]

_BEGINNING, _END = 5000, 2500
"""The numbers of first and last characters that are read of a longer text: instructions stand at either end."""
_LINES = 400
_LONG = 1000
"""Characters that are read at either end of a line that is longer than both."""

_DOCUMENTS = (
    r"context|documents?|passages?|excerpts?|extracts?|snippets?|articles?|notes|manuals?|handbook|faq|"
    r"knowledge(?: base)?|"
    r"transcripts?|(?:chat |conversation )?history|conversation|data|records?|(?:pieces|portions?) of|sources?|"
    r"results?|"
    r"information|facts|text|profile|emails?|threads?|letters?|leaflets?|materials?|chunks?|rows|files|table|"
    r"cards?|minutes|"
    r"pages?|papers?|reviews?|lines|diary|diaries|logs?|sheets?|memos?|essays?|chapters?|interviews?|surveys?|"
    r"novels?|brochures?|blogs?|posts|statistics|wiki|"
    r"search results|unterlagen?|protokoll|merkblatt|notiz\w*|bericht\w*|record|records|"
    r"summar(?:y|ies)|reports?|kontext\w*|dokument\w*|auszüg\w*|quellen|wissen|verlauf|texte?|"
    r"contextes?|documents|extraits|informations|contexto|documentos?|fragmentos|información|contesto|documenti|"
    r"estratti|informazioni|trechos|informações|documenten|fragmenten|informatie|контекст\w*|документ\w*|"
    r"bron(?:nen)?|hits?|检索结果|検索結果|вырезк\w*|фрагмент\w*|информаци\w*|отрывк\w*"
)
_ANNOUNCES = re.compile(
    rf"\b(?:{_DOCUMENTS})\b.*(?:[:：]$|\b(?:below|follow\w*|next|provided|given|retrieved|found|here|unten|"
    rf"folgend\w*|suivant\w*|"
    r"ci-dessous|siguientes?|seguenti?|seguintes?|volgende|onderstaande|ниже|следующ\w*)\b)|"
    rf"\b(?:below|follow\w*|provided|given|retrieved|these|this|you have|i have|attached|pasted|collected|"
    r"folgend\w*|suivant\w*|siguientes?|seguenti?|seguintes?|"
    rf"volgende|onderstaande|следующ\w*|dem|les|los|le|os|de)\b[^.!?]*\b(?:{_DOCUMENTS})\b|"
    rf"\b(?:use|using|based on|with|from|given|on)\b[^.!?]{{0,40}}\b(?:{_DOCUMENTS})\b|"
    r"(?:上下文|文档|资料|内容|材料|参考|背景|文脈|文書|資料|情報|コンテキスト).*(?:[:：]$|以下|如下|下面|次の)|(?:以下|如下|下面|次の).*"
    r"(?:上下文|文档|资料|内容|材料|参考|背景|文脈|文書|資料|情報|コンテキスト)",
    re.I,
)
_DOCUMENT_LABEL = re.compile(
    r"[>#*\[\s]*(?:(?:the |retrieved |relevant |provided |reference |background |chat |conversation |current |new )*"
    rf"(?:{_DOCUMENTS}|content|doc|memory|memories|background|title|url|page|上下文|文档|资料|参考资料|背景|文脈|文書|資料|"
    r"参考情報|コンテキスト|内容|正文|材料|原文|本文|記事|検索結果|检索结果|examples?|beispiele?|exemples?|ejemplos?|esempi\w*|exemplos?|"
    r"voorbeeld\w*|"
    r"пример\w*|示例|例)"
    r"(?:[ \t]*(?:[#(\[]?\d+[)\]]?|[a-h]\b))?(?: information| begins?| start| \([^)]*\))?[\]* \t]*[:：=]|\[\d+\]|"
    rf"(?:{_DOCUMENTS}) \d+[.)] |#+\s*(?:available |your )?(?:tools|functions|plugins)\b|"
    r"doc(?:ument)?[ \t]*\d+\b)|"
    r"(?:#+\s*)?(?:"
    + _DOCUMENTS
    + r"|background|memory)(?: start| begins?)?(?: [(\d][^.:]{0,30})?$|#+\s*(?:"
    + _DOCUMENTS
    + r"|background|memory)\b[^.:]{0,30}$|(?:"
    + _DOCUMENTS
    + r") (?:[a-h]|\d+)\b[^?!:]{0,60}$|from: |to: |subject: ",
    re.I,
)
_LABEL = re.compile(
    r"[>#*\[\s]*(?:(?:the |your |user(?:'s)? |final |important |output |response |answer |follow[- ]up |original )*"
    r"(?:tasks?|instructions?|rules?|guidelines?|role|persona|style|tone|(?:output )?format|goals?|objectives?|"
    r"constraints?|"
    r"notes?|important|reminder|requirements|question|query|input|answer|response|output|aufgabe|anweisung\w*|"
    r"regeln|frage|"
    r"antwort|tâche|consignes?|instructions|règles|réponse|tarea|instrucciones|reglas|pregunta|respuesta|"
    r"compito|istruzioni|"
    r"regole|domanda|risposta|tarefa|instruções|regras|pergunta|resposta|taak|instructies|regels|vraag|antwoord|задача|"
    r"задание|инструкци\w*|правила|вопрос|ответ|任务|指令|规则|要求|问题|回答|答案|指示|"
    r"タスク|ルール|質問)[\]* \t]*(?:[:：]|$))",
    re.I,
)
_TURN = re.compile(
    r"[>*\s]*(?:q|a|query|user|human|assistant|ai|question|answer|helpful answer|final answer|customer|agent|"
    r"frage|antwort|"
    r"question|réponse|pregunta|respuesta|domanda|risposta|pergunta|resposta|vraag|antwoord|вопрос|ответ|问|答|问题|"
    r"回答|质問|質問)"
    r"[* \t]*\d*[:：]",
    re.I,
)
_RESUMES = re.compile(
    r"(?:based on|using|given|use|answer|with|from|now|according|please|only|your|you|always|never|do not|don't|"
    r"respond|"
    r"reply|return|output|keep|task|remember|if|in|write|provide|generate|translate|summari[sz]e|classify|"
    r"rewrite|rephrase|"
    r"extract|make|be|cite|which|what|how|rate|score|rank|pick|select|choose|name|sort|compare|the answer|"
    r"decide|is|does|list|create|beantworte|antworte|nutze|verwende|basierend|auf|réponds|"
    r"répondez|utilise|en |à partir|responde|utiliza|usa|basándote|rispondi|in base|responda|use|com base|beantwoord|"
    r"gebruik|op basis|ответь|отвечай|используй|на основе)\b[^.!?]{0,200}\b(?:answers?|respon[ds]\w*|repl\w+|"
    r"questions?|query|"
    r"context|above|output|users?|messages?|json|frage\w*|antwort\w*|kontext|pregunta|respuesta|contexto|"
    r"domanda|risposta|"
    r"contesto|pergunta|resposta|vraag|antwoord\w*|question|réponse|contexte|вопрос\w*|ответ\w*|контекст\w*|documents?|"
    r"passages?|information|facts)\b|.{0,80}(?:问题|回答|上下文|質問|答え|文脈)",
    re.I,
)
_OVER = re.compile(rf"\W*(?:end of (?:the )?(?:{_DOCUMENTS})|(?:{_DOCUMENTS}) ends?)\W*", re.I)
_RULE = re.compile(r"(?:[-=_*#~+—]{3,}|[>\"'<]{3,})(?:\s*[\w ]{1,20}\s*[-=_*#~+]{3,})?")
_QUOTED_LINE = re.compile(r"> ?\w|[-*•>\s]*[\"“„«「『][^\n]{25,}|\|.*\|.*\||[^\n;]*;[^\n;]*;[^\n;]*;|[-\d.]+ \|\| ")
"""Lines that quote, or that are rows of a table."""
_QUOTE = re.compile(r"\"[^\"]{25,}\"|“[^”]{25,}”|„[^“”]{25,}[“”]|«[^»]{25,}»|「[^」]{12,}」|『[^』]{12,}』|“[^”]{12,}”")
_HEADED = re.compile(r"[-=<>*#+~]{2,}[^-=<>*#+~\n].*[-=<>*#+~]{2,}")
"""A heading between marks, with which a document begins."""
_ENDS = re.compile(r"\bend\b", re.I)
_INSTRUCTS = re.compile(
    r"\b(?:questions?|query|instructions?|task|rules?|role|system|prompt|input|message|inst|output|answer|format)\b",
    re.I,
)
_SPEAKER = re.compile(
    r"(?!(?:ROLE|TASK|TONE|RULES?|INPUT|OUTPUT|FORMAT|NOTE|IMPORTANT|AUDIENCE|SYSTEM|STYLE|"
    r"GOAL)\b)[A-ZÄÖÜÉ][A-ZÄÖÜÉ .]{1,20}: "
)
"""A turn of a transcript."""
_SPOKEN = re.compile(r"(?:\[[^\]\n]{1,14}\] ?)?[>*_ ]*(\w[\w .'-]{0,24}?)[*_]*:(?: \S|$)")
"""A line that may be a turn of a transcript; it is one if its speaker has several."""
_NO_SPEAKERS = re.compile(
    r"(?:rule|note|important|task|step|instruction|example|output|input|format|role|tone|if|when|do|don)\b", re.I
)
_TIME = re.compile(r"\[?\d{1,2}:\d\d(?::\d\d)?\]? ")
_WITHIN_LINE = re.compile(
    r"(?<=[.!?:] )(?:context|background|kontext|contexte|contexto|contesto|documents?|passages?|sources?|"
    r"information): .*",
    re.I,
)
"""A document in the line of the instruction before it."""
_TAGS = re.compile(r"</?([a-z]\w*)[^<>\n]{0,40}>[ \t]*", re.I)
_FORBIDS = re.compile(
    r"\b(?:must|should|may|can|do|does|will|shall) ?(?:not|never)\b|n't\b|\bnever\b|\b(?:forbidden|prohibited|"
    r"out of scope|not allowed|off[- ]limits)\b",
    re.I,
)
_ASKED = "\x00"
"""The place of the question."""
_ITEM = re.compile(r"(?:\(?\d{1,2}[.)]|\(?[a-h]\)|[-*•]) +")
_OPENS = re.compile(r"\b(?:begin|start)", re.I)
_TAG = re.compile(r"[<\[]([^\W\d_][\w-]*)(?: [^>\]]*)?([>\]])", re.I)
_INSTRUCTION_TAGS = frozenset(
    ("instructions", "instruction", "rules", "task", "role", "guidelines", "system", "persona", "format", "output", "s",
     "output_format", "style", "tone", "goal", "constraints", "prompt", "system_prompt", "policy", "inst", "sys")
)  # fmt: skip


@lru_cache(maxsize=64)
def instruction_lines(text: str, question: str = "") -> tuple[str, ...]:
    """The lines of a text that instruct the model, without documents, examples, earlier turns and the question."""
    seen = text if len(text) <= _BEGINNING + _END else f"{text[:_BEGINNING]}\n…\n{text[-_END:]}"
    if question:
        seen = re.sub(rf"[\"'“„«「『`]*{re.escape(question)}[\"'”“»」』`]*", f"\n{_ASKED}\n", seen)
    split = [line.strip() for line in seen.split("\n", _LINES)[:_LINES]]
    reader = _Reader(speakers=_speakers(split))
    for line in split:
        reader.read(line if len(line) <= 2 * _LONG else f"{line[:_LONG]} … {line[-_LONG:]}")
    lines = reader.lines
    if sum(map(len, lines)) > _MUCH:
        lines = _addressed(lines)
    return tuple(line for line in lines if line)


def _speakers(lines: list[str]) -> frozenset[str]:
    """The names before a colon that begin several lines."""
    turns = Counter(turn[1].casefold() for turn in map(_SPOKEN.match, lines) if turn is not None)
    return frozenset(name for name, of in turns.items() if of > 1 and not _NO_SPEAKERS.match(name))


@dataclass
class _Reader:
    """Reads a text line by line, and keeps the instructions.

    Attributes:
        speakers: Who speaks in a transcript.
        lines: The instructions, with empty lines between paragraphs.
        inside: The kind of the document that is open: "document" for one that a label or an announcement began, "rule",
            a fence, or a closing tag; "" for none.
        forbidden: Whether the lines say what the model leaves alone: "You must not:", and a list.
        blank: Whether the last line within a document was empty.
        announced: Whether a document may begin with the next line.
    """

    speakers: Set[str] = frozenset()
    lines: list[str] = field(default_factory=list)
    inside: str = ""
    forbidden: bool = False
    blank: bool = False
    announced: bool = False

    def read(self, line: str) -> None:
        """Reads the next line."""
        if line == _ASKED:
            self.announced = False
            return
        if self.forbidden and (_ITEM.match(line) or not line):
            return
        self.forbidden = bool(_FORBIDS.search(line)) and line.endswith((":", "："))
        if self.inside == "document":
            if self._goes_on(line):
                return
        elif self.inside:
            end = self._end(line)
            if end < 0:
                return
            self.inside, line = "", line[end:].strip()
        if not line:
            if self.announced:
                self._open("document", blank=True, announced=True)
            self.lines.append("")
        elif self.announced and _ITEM.match(line) and not _RESUMES.match(_ITEM.sub("", line)):
            self._open("document", blank=True, announced=True)
        elif not self._opens(line) and not self._speaks(line) and not _QUOTED_LINE.match(line):
            self._keep(_QUOTE.sub(" … ", _WITHIN_LINE.sub(" … ", _TAGS.sub(r"\1: ", line))))

    def _speaks(self, line: str) -> bool:
        """Whether the line is a turn of a transcript."""
        turn = _SPOKEN.match(line)
        return bool(_TIME.match(line) or _SPEAKER.match(line) or (turn and turn[1].casefold() in self.speakers))

    def _goes_on(self, line: str) -> bool:
        """Whether the document goes on with this line, or another kind of it begins."""
        headed, rule = _HEADED.fullmatch(line), _RULE.fullmatch(line)
        if _OVER.fullmatch(line) or (headed and _ENDS.search(line)):
            self._open("")
        elif self.announced and (rule or line.startswith(("```", "~~~"))):
            self._open("rule" if rule else line[:3])
        elif (
            headed
            or _DOCUMENT_LABEL.match(line)
            or not (rule or _LABEL.match(line) or (self.blank and _RESUMES.match(line)))
        ):
            self.blank, self.announced = not line, self.announced and not line
        else:
            self._open("")
            return rule is not None
        return True

    def _opens(self, line: str) -> bool:
        """Whether the line begins a document, or is an earlier turn."""
        if line.startswith(("```", "~~~", '"""')):
            self._open(line[:3] if line.count(line[:3]) < 2 else "", announced=self.announced)
        elif _HEADED.fullmatch(line) and not _INSTRUCTS.search(line):
            self._open("document")
        elif _RULE.fullmatch(line):
            self._open("rule" if self.announced or _OPENS.search(line) else "")
        elif (tag := _TAG.match(line)) and tag[1].casefold() not in _INSTRUCTION_TAGS:
            self._open(f"{line[0]}/{tag[1]}{tag[2]}", announced=self.announced)
            if (end := self._end(line)) >= 0:
                self.inside = ""
                self.lines.append(line[end:].strip())
        elif _DOCUMENT_LABEL.match(line):
            if not line.endswith("…"):  # else a template, without its document
                self._open("document", announced=line.endswith((":", "：")))
        elif _TURN.match(line):
            self.announced = True
        else:
            return False
        return True

    def _keep(self, line: str) -> None:
        before = self.lines[-1] if self.lines else ""
        if before and before[-1] != ":" and (line[:1].islower() or before[-1] in ",;"):
            self.lines[-1] += f" {line}"
        else:
            self.lines.append(line)
        self.announced = self.announced or bool(_ANNOUNCES.search(line))
        if self.announced and line.endswith((":", "：")):
            self._open("document", blank=True, announced=True)

    def _open(self, inside: str, *, blank: bool = False, announced: bool = False) -> None:
        self.inside, self.blank, self.announced = inside, blank, announced

    def _end(self, line: str) -> int:
        """The place in the line where the document ends; -1 if it goes on."""
        if self.inside == "rule":
            return len(line) if _RULE.fullmatch(line) else -1
        at = line.find(self.inside)
        return -1 if at < 0 else at + len(self.inside)


_MUCH = 900
"""Characters of instructions from which on most of a text is a document without marks."""
_ADDRESSES = re.compile(
    r"\b(?:your (?:answers?|repl(?:y|ies)|responses?|output|task|job)|the user\b|user's|the (?:question|query|"
    r"message|input)|respond|"
    r"reply|output|return|answers? (?:in|with|only|must|should)|you (?:are|must|should|will|always|only|never|"
    r"translate|write)|"
    r"(?:deine?|ihre?) antwort\w*|antworte|du (?:bist|sollst)|(?:ta|tes|votre|vos) réponses?|répon[ds]\w*|"
    r"tu (?:es|dois)|"
    r"tus? respuestas?|responde|rispond[ai]|la tua risposta|responda|antwoord|отвечай\w*|ответь)|回答|输出|答え|出力",
    re.I,
)


def _addressed(lines: list[str]) -> list[str]:
    """Of a long text, the lines at its beginning and end, and those between that speak to the model."""
    filled = [number for number, line in enumerate(lines) if line]
    ends = {*filled[:2], *filled[-2:]}
    return [line if number in ends or _ADDRESSES.search(line) else "" for number, line in enumerate(lines)]


_ANSWER_LABELS = re.compile(
    r"(?:ии|ассистент|бот|помощник|ki|ia|assistent\w*|asistente|assistente|助手|answer[, ].*)|"
    r"(?:(?:the|my|your|a|an|helpful|final|short|detailed|full|ai|bot|assistant|###|##|#|begin|here is|here's) )*"
    r"(?:answers?|output|result|response|reply|assistant|ai|bot|question|query|input|user|human|you|me|below|follows|"
    r"antwort|frage|meine frage|réponse|ma question|respuesta|mi pregunta|pregunta|risposta|domanda|resposta|pergunta|"
    r"antwoord|vraag|ответ|вопрос)(?: (?:utile|détaillée?|completa|ausführlich|finale|útil|final|hilfreich|"
    r"nuttig|utilmente|текст))?(?: (?:in|"
    r"to|for|is|here|below|as|with|from|of)\b.*)?|.*(?:回答|答案|回复|答え|問題|问题|質問|答)",
    re.I,
)
_LAST_LABEL = re.compile(r"(?:^|\n)[^\w\n]*([^\n:：]{2,60})[:：][\s\"'`*\[({>]*$")


def ends_with_label(text: str) -> bool:
    """Whether a prompt ends with the label of the text to be written, and that is no answer: "Summary:"."""
    label = _LAST_LABEL.search(text[-200:])
    return label is not None and not _ANSWER_LABELS.fullmatch(label[1].strip(" *_#[]<>()"))


def sentences(lines: tuple[str, ...]) -> Iterator[str]:
    """Yields the sentences of the lines."""
    for line in lines:
        yield from filter(None, re.split(r"(?<=[.!?;])(?<!max\.)(?<!Max\.)(?<!e\.g\.)\s+|(?<=[。！？；])", line))
