"""Whether a question asks for a text that repeats itself, such as "Write 'I will not lie' 100 times"."""

from __future__ import annotations

import re

__all__ = ["asks_to_repeat"]

_LONGEST = 4_000
"""Of a longer question its beginning and its end are read."""

_QUOTED = re.compile(
    r"\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|«[^»\n]{1,400}»|「[^」\n]{1,400}」|(?<!\w)'[^\n]{1,400}?'(?!\w)"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")

# Who asks how, why or whether asks for no repetition; "Can you ..." is a request.
_ASKS = re.compile(
    r"\W*(?:(?:and|but|so|und|et|y|e)\s+)?(?:"
    r"how|what|why|where|which|who|whom|whose|is|are|was|were|am|does|did|should|shall|might|"
    r"when(?:ever)?\s+(?:do|does|did|is|are|was|were|should|will|can)|do\s+(?:i|you|we|they|people|the|my|your)|"
    r"(?:can|could|would|will|may)\s+(?!you\b)|(?:has|have|had)\s+(?:i|you|we|they|there)|"
    r"wie|warum|wieso|wann|welche\w*|wer|wo|woran|comment|pourquoi|quand|combien|quel(?:le)?s?|est-ce|"
    r"c[oó]mo|por\s+qu[eé]|qu[eé]|cu[aá]ndo|cu[aá]nt\w+|quando|quant\w+|perch[eé]|come\s+(?:si|posso|faccio|mai)|"
    r"hoe|waarom|wanneer|как|почему|зачем|что|сколько|когда)\b"
    r"|.*(?:为什么|為什麼|怎|如何|什么|什麼|多少|几[次遍回]|幾[次遍回]|なぜ|どう|何回|왜|어떻게|몇\s*번)",
    re.IGNORECASE | re.DOTALL,
)

_NUMBERS = (
    r"(?:\d[\d.,]{0,9}|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|"
    r"seventy|eighty|ninety|(?:a|one|\w+)\s+hundred|(?:a|one|\w+)\s+thousand|hundreds\s+of|thousands\s+of|"
    r"(?:a|two)\s+dozen|dozens\s+of|a\s+million|a\s+lot\s+of|many|several|countless|"
    r"drei|vier|fünf|sechs|sieben|acht|neun|zehn|zwölf|zwanzig|dreißig|fünfzig|hundert|tausend|viele|"
    r"trois|quatre|cinq|six|sept|huit|neuf|dix|quinze|vingt|trente|cinquante|cent|mille|plusieurs|"
    r"tres|cuatro|cinco|seis|siete|ocho|nueve|diez|veinte|cincuenta|cien|mil|muchas|varias|"
    r"três|sete|oito|nove|dez|vinte|cem|muitas|várias|tre|quattro|cinque|sei|sette|otto|dieci|venti|cento|molte|"
    r"drie|vijf|zes|zeven|acht|negen|tien|twintig|honderd|duizend|vele|"
    r"три|четыре|пять|шесть|семь|восемь|девять|десять|двадцать|пятьдесят|сто|тысячу|много|несколько)"
)
# "Three times a week" is how often, and "ten times faster" how much.
_NO_COUNT = (
    r"(?!\s+(?:an?|per|each|every|as|more|less|fewer|better|worse|than|when|that|tables?|daily|weekly|\w{2,}er|"
    r"the\s+(?:size|speed|price|cost|amount|number|weight|length|height|rate|value)|"
    r"am|pro|im|in\s+der|täglich|so|mehr|par|plus|moins|al|por|más|menos|à|ao|mais|al|più|meno|в|больше|meer)\b)"
)
_COUNT = (
    rf"(?:\b{_NUMBERS}[\s-]*(?:times|mal|fois|veces|vezes|volte|keer|раза?)\b{_NO_COUNT}"
    r"|\b\d[\d.,]{0,9}\s?x(?=\s*(?:$|[.,;:!?)\n]))"
    r"|\b(?:over\s+and\s+over|again\s+and\s+again|repeatedly|endlessly|forever|non-?stop|immer\s+wieder|"
    r"encore\s+et\s+encore|una\s+y\s+otra\s+vez))"
)
_SAY = (
    r"(?:say|write|repeat|repeated|loop|give|print|type|tell|output|sing|chant|recite|copy|echo|spell|generate|produce|"
    r"schreib\w*|sag\w*|sprich|wiederhol\w*|nenn\w*|sing\w*|écri\w+|dis|dites|répète\w*|copie\w*|chante\w*|"
    r"escrib\w+|escrev\w+|diga|di|dime|copia\w*|repit\w+|scriv\w+|dimmi|ripet\w+|schrijf|zeg|herhaal|"
    r"напиш\w+|скаж\w+|повтор\w+)"
)
_NO_SAYING = r"(?:why|how|about|when|whether|because|who|warum|wie|pourquoi|comment|cómo|perché|waarom|почему|как)"
_TIMES = re.compile(
    rf"(?<!\bI )(?<!\bwe )(?<!\bthey )\b{_SAY}\b(?:(?!\b{_NO_SAYING}\b).){{0,120}}?{_COUNT}"
    rf"|^\W*{_COUNT}\s*[,:]",
    re.IGNORECASE | re.DOTALL,
)

_REPEAT = re.compile(
    r"^\W*(?:please\s+)?repeat\b(?!\s+(?:customer|client|buyer|visit|business|order|purchase|prescription|offen[cds]|"
    r"sale|sign|measure|infection|exposure|test|win|loser))"
    r"|^\W*(?:please\s+)?keep\s+(?:on\s+)?(?:saying|writing|repeating|singing|printing)\b"
    r"|(?:^|[,:;]|\b(?:please|now|then|just|simply|and|you\s+to|you\s+must|(?:can|could|would|will)\s+you))"
    r"\s*[\"'“(*]*\s*(?:please\s+)?"
    r"repeat(?:\s*[:\"'“‘«*]|\s+(?:after|this|that|the|it|these|those|my|what|every\w*|all|your\w*|back|exactly|over|"
    r"until|\d+|[\"'“‘«]))"
    r"|(?:^|[,:;]|\bbitte)\s*wiederhol(?:e|t|en\s+sie)?\b|\bsprich\s+mir\s+nach\b"
    r"|(?:^|[,:;])\s*(?:r[ée]p[éèe]te[zr]?|repite|repitan?|repete|ripeti|ripeta|ripetete|herhaal|повтори(?:те)?|"
    r"повторяй(?:те)?)\b"
    r"|(?:请|請)[^，。\s]{0,6}(?:重[复複]|跟我)|(?:^|[，：])\s*重[复複](?:说|說|写|寫|念|这|這|以下|下面|我|：|:)"
    r"|繰り返し(?:て(?:ください|下さい|$)|言|書|唱)|(?:반복|따라)\s*(?:해\s*(?:줘|주세요|서)|하세요|하시오)"
    r"|[写寫说說念读讀唱抄喊][^。！？\n]{0,60}[\d一二三四五六七八九十百千万萬两]{1,9}\s*[遍次回]"
    r"|[\d一二三四五六七八九十百千万]{1,9}\s*[回度]\s*(?:書|言|唱|歌|繰)|(?:\d{1,9}|세|네|다섯|열|백)\s*번\s*(?:써|쓰|말|적|반복|외)",
    re.IGNORECASE,
)


def asks_to_repeat(question: str) -> bool:
    """Whether the question asks for a text that says the same again and again.

    Example:
        >>> asks_to_repeat("Write 'I will not lie' 100 times."), asks_to_repeat("How do I stop repeating mistakes?")
        (True, False)
    """
    if len(question) > _LONGEST:
        question = f"{question[: _LONGEST // 2]}\n{question[-_LONGEST // 2 :]}"
    for sentence in _SENTENCE.split(_QUOTED.sub('""', question)):
        asked = sentence.strip()
        if asked and not _ASKS.match(asked) and (_REPEAT.search(asked) or _TIMES.search(asked)):
            return True
    return False
