"""The number of words that a question allows for its whole answer, in ten languages.

A number of words is a limit where its sentence says so: "in 300 words", "max. 300 words", "a 300-word answer". In doubt
there is none: limits for each point, numbers of words that a question is about, and texts that it quotes do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from skeleton_of_thought.routers.instructions import instruction_lines, sentences
from skeleton_of_thought.routers.question import find_question

__all__ = ["read_limit"]

_HIGHEST = 100_000
"""Words of the longest answer that a question can mean."""
_READ = 400
"""Characters that are read at either end of a longer sentence."""
_ALIKE = 1.25
"""Two limits are one ("in about 300 words, max. 350") if the higher is at most this many times the lower."""

# --- numbers ----------------------------------------------------------------------------------------

_ATOMS = {
    word: value
    for value, words in {
        1: "one 一 一",
        2: "two zwei deux dos due dois duas twee 二 两 兩",
        3: "three drei trois tres tre três drie 三",
        4: "four vier quatre quattro quatro 四",
        5: "five fünf cinq cinco cinque vijf 五",
        6: "six sechs sei zes 六",
        7: "seven sieben sette zeven 七",
        8: "eight acht huit otto 八",
        9: "nine neun neuf nove negen 九",
        10: "ten zehn dix diez dieci dez tien",
        20: "twenty zwanzig vingt veinte venti vinte twintig двадцати двадцать",
        30: "thirty dreißig dreissig trente treinta trenta trinta dertig тридцати тридцать",
        40: "forty vierzig quarante cuarenta quaranta quarenta veertig сорока сорок",
        50: "fifty fünfzig cinquante cincuenta cinquanta cinquenta vijftig пятидесяти пятьдесят",
        60: "sixty sechzig soixante sesenta sessanta sessenta zestig шестидесяти шестьдесят",
        70: "seventy siebzig setenta settanta zeventig семидесяти семьдесят",
        75: "soixante-quinze",
        80: "eighty achtzig quatre-vingt quatre-vingts ochenta ottanta oitenta tachtig восьмидесяти восемьдесят",
        90: "ninety neunzig quatre-vingt-dix noventa novanta negentig девяноста девяносто",
        200: "doscientas doscientos duzentas duzentos двухсот двести двухстах",
        300: "trescientas trescientos trezentas trezentos трехсот трёхсот триста трехстах трёхстах",
        400: "cuatrocientas cuatrocientos quatrocentas quatrocentos четырехсот четырёхсот четыреста",
        500: "quinientas quinientos quinhentas quinhentos пятисот пятьсот пятистах",
        600: "seiscientas seiscientos seiscentas seiscentos шестисот шестьсот",
        700: "setecientas setecientos setecentas setecentos семисот семьсот",
        800: "ochocientas ochocientos oitocentas oitocentos восьмисот восемьсот",
        900: "novecientas novecientos novecentas novecentos девятисот девятьсот",
    }.items()
    for word in words.split()
}
_TIMES = {
    **dict.fromkeys(
        ("hundred", "hundert", "cent", "cents", "cien", "ciento", "cento", "cem", "honderd", "сто", "ста", "百"), 100
    ),
    **dict.fromkeys(
        ("thousand", "tausend", "mille", "mil", "mila", "duizend", "тысяча", "тысячи", "тысячу", "тысяч", "千"), 1000
    ),
    **dict.fromkeys("十", 10),
    **dict.fromkeys("万萬", 10_000),
}
_ATOM = "|".join(sorted((*_ATOMS, *_TIMES), key=len, reverse=True))
_NUMBER = (
    r"(?:\d{1,3}(?:[., '\u00a0\u202f]\d{3})+|\d{1,9}|"
    rf"(?:{_ATOM})(?:(?:[\s-]|and|und|y|e|et|en)*(?:{_ATOM})){{0,7}})(?!\d)"
)
_EACH_ATOM = re.compile(_ATOM)


def _value(number: str) -> int:
    """The value of a number in digits or words."""
    if number[0].isdigit():
        return int(re.sub(r"\D", "", number))
    total = hundreds = ones = 0
    for atom in _EACH_ATOM.findall(number.lower()):
        times = _TIMES.get(atom, 0)
        if times >= 1000:
            total, hundreds, ones = total + max(hundreds + ones, 1) * times, 0, 0
        elif times:
            hundreds, ones = hundreds + max(ones, 1) * times, 0
        else:
            ones += _ATOMS[atom]
    return total + hundreds + ones


# --- languages with spaces ----------------------------------------------------------------------------

_UNIT = r"(?:words?|wörtern?|woertern?|worten?|mots?|palabras?|parole|palavras?|woorden|слов(?:а|ах|ами)?)"
_WHOLE = (
    r"(?:answers?|response|reply|essay|article|summary|explanation|overview|text|report|(?:blog )?post|story|"
    r"description|"
    r"comparison|analysis|review|speech|letter|e-?mail|guide|paragraph|piece|output|length|note|it|this|everything|"
    r"antwort\w*|text\w*|aufsatz|artikel\w*|zusammenfassung|bericht|beitrag|erklärung|überblick|länge|"
    r"réponse|texte|essai|résumé|rapport|explication|dissertation|rédaction|longueur|"
    r"respuesta|texto|ensayo|artículo|resumen|informe|explicación|redacción|longitud|"
    r"risposta|testo|saggio|articolo|riassunto|tema|relazione|spiegazione|lunghezza|"
    r"resposta|ensaio|artigo|resumo|redação|relatório|explicação|tamanho|"
    r"antwoord|tekst|artikel|opstel|samenvatting|verslag|uitleg|lengte|"
    r"ответ\w*|текст\w*|эссе|стать[яюи]|сочинение|рассказ|обзор|объ[её]м\w*|отч[её]т)"
)
_IN = (
    r"(?:in|within|using|into|innerhalb von|binnen|en|dans|em|dentro de|entro(?: le)?|в|в пределах|"
    r"(?:a |the )?(?:word )?(?:limit|count|length)(?: is| of| to)?:?|auf|aim for|umfang|объ[её]мом(?: в)?)"
)
_ABOUT = (
    r"(?:about|around|approximately|approx|roughly|some|circa|ca|c|etwa|rund|ungefähr|zirka|knapp|environ|à peu près|"
    r"unas|unos|alrededor de|aproximadamente|cerca de|all'incirca|più o meno|ongeveer|около|примерно|"
    r"приблизительно|~|≈|"
    r"exactly|precisely|just|only|genau|exakt|exactement|exactamente|esattamente|exatamente|precies|ровно|"
    r"an?|one|eine[mnr]?|une?|una?|uma?|een|between|zwischen|entre|tra|fra|tussen|from|entre|de|от)"
)
_MOST = (
    r"(?:max|máx|maximum|(?:an? |the )?maximum of|at (?:the )?most|(?:no|not|never|"
    r"\w{2,6}n't) (?:\w+ ){0,2}(?:more|longer) than|"
    r"(?:not?|never|\w{2,6}n't|without) (?:to )?(?:exceed(?:ing)?|go(?:ing)? over)|no longer than|"
    r"maximal|höchstens|nicht (?:mehr|länger) als|(?:au )?maximum|au plus|pas plus de|(?:sans |ne )?dépass(?:er|e|"
    r"ez)(?: pas)?(?: les)?|"
    r"(?:como |un )?máximo(?: de)?|no más de|sin (?:pasar|exceder) (?:de )?|al massimo|(?:un )?massimo(?: di)?|"
    r"non più di|"
    r"no máximo|não mais (?:do )?(?:que|de)|(?:um )?máximo de|maximaal|hooguit|hoogstens|ten hoogste|niet meer dan|"
    r"не (?:более|больше|длиннее)(?: чем)?|не (?:должен |должна )?превыша(?:ть|й|йте|ет)|максимум)"
)
_UNDER = (
    r"(?:under|below|less than|fewer than|up to|unter|weniger als|bis zu|moins de|jusqu'à|menos de|hasta|meno di|"
    r"fino a|até|minder dan|tot|до|менее|меньше)"
)
_TO = r"(?:\s*[-–—~]\s*|\s+(?:to|or|and|bis|und|oder|à|et|ou|a|y|o|e|até|tot|en|of|до|и|или)\s+)"
_COUNT = rf"(?P<low>{_NUMBER})(?:\s*{_UNIT})?(?:{_TO}(?P<high>{_NUMBER}))?"
_LIMIT = re.compile(
    rf"(?<![\w-])(?:(?:(?P<in>{_IN})|(?P<most>{_MOST})|(?P<under>{_UNDER})|{_ABOUT})(?!\w)[\s.:(]*|[~≈]\s*|"
    rf"(?P<less>[<≤])\s*){{0,5}}"
    rf"(?<![\w.,]){_COUNT}(?P<unit>[\s-]*{_UNIT})(?!\w)",
    re.I,
)
_TOTAL = re.compile(
    r"[\s,(]*(?:in total|total|altogether|overall|all in all|insgesamt|au total|en total|in totale|no total|ao todo|"
    r"in totaal|всего|в сумме)\b",
    re.I,
)
_LESS = re.compile(
    r"[\s,(]*(?:max|at (?:the )?most|tops\b|or (?:less|fewer|under|below)|limit\b|höchstens|oder weniger|"
    r"ou moins|au plus|o menos|como máximo|máximo|al massimo|massimo|o meno|no máximo|ou menos|hooguit|of minder|"
    r"максимум|или меньше|не больше|не более)",
    re.I,
)
_NO_LIMIT = re.compile(
    r"\s*(?:or|and|oder|ou|o|of|или)\s+(?:more|longer|mehr|plus|más|più|mais|meer|больше|более)\b"
    r"|\s*\(?(?:at least|minimum|min\b|mindestens|au moins|al menos|como mínimo|almeno|pelo menos|minstens|минимум)"
    r"|\s*(?:per|pro|par|por|al|a|an)\s+(?!favor)\w+"
    r"|\s*(?:that|which|who|whose|most|from|of(?! (?:text|prose|plain|simple|your own))|below|above|i\b|you\b|we\b)\b",
    re.I,
)
_EACH = re.compile(
    r"\b(?:each|every|apiece|respectively|individually|jeweils|jede\w*|chaque|chacune?|cada|ogni|ognun\w+|ciascun\w*|"
    r"elke?|ieder\w*|кажд\w+)\b|\b(?:je|по)\s*$",
    re.I,
)
_ITEMS = re.compile(
    r"\b(?:points?|bullets|paragraphs|sections|sentences|items|tips|lines|steps|reasons|slides|answers|stories|titles|"
    r"headings|headlines|captions|chapters|arguments|examples|ideas|names|essays|articles|posts|"
    r"sätzen?|punkten?|absätzen?|abschnitten?|stichpunkten?|phrases|paragraphes|frases|puntos|párrafos|oraciones|frasi|"
    r"punti|paragrafi|parágrafos|pontos|zinnen|punten|alinea's|предложени\w+|пункт\w*|абзац\w*)"
    r"(?:\s+(?:of|with|at|are|that are|to|long|von|mit|zu|de|avec|con|di|com|van|met|из|в|на))?\s*$",
    re.I,
)
_PART = re.compile(
    r"\b(?:with|including|include|add|start\w*|begin\w*|end\w*|finish\w*|conclude\w*|plus|and|then|followed|mit|"
    r"und|dann|"
    r"avec|et|puis|con|y|e|luego|poi|com|met|en|dan|с|и|затем)\s(?:\w+\s){0,3}"
    r"(?:summary|introduction|intro|conclusion|abstract|title|headline|caption|slogan|overview|recap|zusammenfassung|"
    r"einleitung|fazit|résumé|resumen|introducción|conclusión|riassunto|introduzione|conclusione|resumo|introdução|"
    r"conclusão|samenvatting|inleiding|conclusie|резюме|введение\w*|вывод\w*|заключение\w*)\W+$",
    re.I,
)
_NOT = re.compile(
    r"(?:\b(?:not|never|without|no need to|rather than|instead of|nicht|kein\w*|pas|non|no|não|niet|geen|не)|n't)"
    r"\W+(?:\w+\W+){0,4}$",
    re.I,
)
_OF_OTHERS = re.compile(
    r"\b(?:know|knows|learn\w*|memori[sz]e\w*|understands?|vocabular\w+|contains?|has|have|had|uses|reads?|spoke|"
    r"speaks?|"
    r"says?|said|dictionary|lists?|languages?|kenn\w+|lern\w+|wortschatz|connaî\w+|apprend\w+|conoc\w+|aprend\w+|"
    r"conosc\w+|impar\w+|leer|leren|знает|знают|выучи\w*)\W+(?:\w+\W+){0,2}$",
    re.I,
)
_ASKS = re.compile(
    r"\W*(?:how|why|what|which|where|when|who|is|are|was|were|do|does|did|should|has|have|(?:can|could|would|"
    r"may)\s+(?!you\b|u\b)|wie|warum|was|welche\w*|"
    r"comment|pourquoi|qu\w+|est-ce|cómo|por qué|qué|cuánt\w+|come|perché|cosa|quant\w+|como|por que|hoe|waarom|wat|"
    r"как|почему|что|сколько)\b",
    re.I,
)
_OF_WRITING = re.compile(
    r"\b(?:writ|essay|abstract|speech|read|learn|memori|told|tell a|said|say|blog|article|paper|cv\b|resume|typ|"
    r"fit|cover letter|schreib|"
    r"aufsatz|lern|les|écri|rédig|lire|escrib|redact|leer|scriv|legg|escrev|ler\b|schrijf|schrijv|lez|написать|писать|"
    r"прочитать|выучить|эссе)|\b(?:many|long|viele|lange|combien|сколько)\b",
    re.I,
)
_SITUATION = re.compile(
    r"\b(?:I|we)(?:'ve|'m| have| had| need| am| was| were)\s+(?:just\s+|only\s+)?(?:to\b|got to|supposed|told|asked|"
    r"written|writing|required)|(?<!do )\b(?:I|we)\s+(?:wrote|write|must|should)\b"
    r"|\b(?:my|our)\s+(?:teacher|professor|boss|editor|school|assignment|essay|homework|client|thesis|article|text)\b"
    r"|\bich\s+(?:muss|soll|habe)\b|\bmein\w*\s+(?:lehrer|chef|text|aufsatz)|\bje dois\b|\bmon prof|"
    r"\b(?:tengo que|debo|mi profesor)\b|\b(?:devo|il mio prof\w*)\b|\b(?:tenho que|preciso|meu professor)\b|"
    r"\bik moet\b|\bmijn leraar|\bмне (?:нужно|надо) написать\b|\bя долж"
    # A statement about somebody: "Lincoln gave his speech in 272 words."
    r"|\A(?-i:[A-Z])\w+(?:\s(?-i:[A-Z])\w+)*\s+(?<!answer )(?<!response )(?:gave|told|said|wrote|spoke|was|were|"
    r"\w{3,}ed)\b"
    r"|\A(?:he|she|they|the\s+(?!answer|response|reply)\w+)\s+(?:gave|told|said|wrote|spoke|was|were|has|had|"
    r"\w{3,}ed)\b",
    re.I,
)
"""What the user has to do, or somebody did."""
_GIVEN = re.compile(
    r"\W*(?:please\s+|can you\s+|could you\s+)?(?:summari[sz]e|translate|improve|proofread|read|edit|rewrite|correct|"
    r"paraphrase|review|shorten|expand|analy[sz]e|fasse|übersetze|verbessere|korrigiere|kürze|traduis|traduisez|"
    r"corrige\w*|"
    r"résume[zr]?|traduce|traduzca|resume|resuma|traduci|riassumi|traduza|corrija|vertaal|verbeter|переведи\w*|"
    r"сократи\w*|"
    r"исправь\w*|прочитай\w*)\b",
    re.I,
)
_THIS = (
    r"(?:this|that|these|those|the|my|following|below|given|dies\w+|mein\w*|folgend\w+|cet(?:te)?|ce|ces|mon|ma|le|la|"
    r"est[ea]|es[ea]|mi|el|quest[oa]|mio|il|meu|minha|deze|dit|mijn|эт\w+|мо[йяюе]\w*)"
)
_START = re.compile(r"(?:^|[,;:(.!?–—-])\W*(?:(?:and|please|but|und|bitte|et|y|e|en|и)\s+)?$", re.I)
_OF_ANSWER = re.compile(
    rf"(?<![\w-])(?:(?P<this>{_THIS}\s+(?:\w+\s+)?))?{_WHOLE}\W*(?:(?:should|must|to|may|can|soll|muss|doit|debe|"
    rf"deve|moet)\s+)?"
    r"(?:(?:of|with|in|at|to|be|is|stay|that is|short|brief|concise|not|von|mit|de|di|van|met|con|com|avec|на|в|из|до|"
    r"auf|à|a|op|être|ser|essere|zijn|sein|have|contain)\s+|d'){0,2}$",
    re.I,
)
_KEEP = re.compile(
    rf"(?:\b(?:limit|limited|keep|restrict|shorten|cut|condense|make it|limite[zr]?|limita|limítate|beperk|ограничь\w*)"
    rf"(?:\s+(?:\w+\s+)?(?:{_WHOLE}|yourself|things))?(?:\s+(?:short|brief|concise))?"
    rf"(?:\s+(?:to|at|down to|and|à|a|op|до))?|\b(?:short|brief|concise|be|answer|reply|respond|(?:^|"
    rf"[,;.!] ?)(?:use|write))"
    rf"(?:\s+(?:and|with))?)[\s,(]*$",
    re.I,
)
_WRITE = re.compile(
    r"(?:^|[.,;:!?]\s*|\b(?:please|you|bitte)\s+)(?:write|compose|draft|produce|give me|schreib\w*|écri\w+|"
    r"rédige\w*|escrib\w+|redacta|scriv\w+|escrev\w+|schrijf|"
    r"напиш\w+)(?:\s+me|\s+mir)?\s*$",
    re.I,
)
_ABOUT_IT = re.compile(r"\s+(?:about|on|explain|describ|über|sur|sobre|su\b|sul|over|о\b|об\b|про\b)", re.I)
_FORM = re.compile(rf"[\s-]*(?:\w+[\s-]+){{0,2}}?{_WHOLE}(?!\w)", re.I)


def _limits(sentence: str) -> Iterator[tuple[int, bool]]:
    """The limits that a sentence sets, and whether each is said to be one of the whole."""
    situation, asks = _SITUATION.search(sentence) is not None, _ASKS.match(sentence) is not None
    given = asks or _GIVEN.match(sentence) is not None
    for found in _LIMIT.finditer(sentence):
        before, after = sentence[max(0, found.start() - 100) : found.start()], sentence[found.end() :][:60]
        words = _words(found)
        if words is None:
            continue
        if _TOTAL.match(after):
            yield words, True
        elif not situation and not _no_limit(before, after, asks=asks) and _sets(found, before, after, asks, given):
            yield words, False


def _words(found: re.Match[str]) -> int | None:
    """The higher number of a range; None where no answer has so many words."""
    words = max(_value(found[name]) for name in ("low", "high") if found[name])
    return words if 0 < words <= _HIGHEST else None


def _no_limit(before: str, after: str, *, asks: bool) -> bool:
    """Whether the words around a number of words say that it is no limit of the whole answer."""
    return bool(
        _EACH.search(f"{before} ")
        or _EACH.search(after)
        or _NO_LIMIT.match(after)
        or _NOT.search(before)
        or _PART.search(before)
        or (asks and _OF_WRITING.search(before))
    )


def _sets(found: re.Match[str], before: str, after: str, asks: bool, given: bool) -> bool:
    """Whether a number of words is a limit by the words before or after it.

    Args:
        found: The match of `_LIMIT`.
        before: The text before it.
        after: The text after it.
        asks: Whether the sentence is a question.
        given: Whether it is one, or wants something done with a text that there is already.
    """
    if found["in"]:
        return not (found[0].lower().startswith("using") and after.startswith(":"))
    if _ITEMS.search(before) or _OF_OTHERS.search(before):
        return False
    if re.search(rf"\b{_THIS}\W*$", before, re.I):
        return False
    if found["most"] or found["less"] or _LESS.match(after):
        return True
    if _START.search(before):
        about = found.start("low") > found.start()
        if found["under"] or re.match(r"[\s).!]*$", after) or (about and re.match(r"\s*[:,]", after)):
            return True
    if found["unit"].strip(" -").lower() in ("word", "wörter", "wort"):
        return _FORM.match(after) is not None and not (given or re.search(r"\bwith\W*$", before, re.I))
    if not asks and _KEEP.search(before):
        return True
    answer = _OF_ANSWER.search(before)
    if answer is not None and not answer["this"] and not given:
        return True
    return bool(_WRITE.search(before) and _ABOUT_IT.match(after) and not asks)


# --- Chinese and Japanese -------------------------------------------------------------------------------

_DENSE_NUMBER = r"(?:\d{1,3}(?:[,，]\d{3})+|\d{1,9}|[一二三四五六七八九十百千万两兩]{1,9})"
_DENSE = re.compile(
    rf"(?P<pre>用|以|在|约|約|大约|不超过|不超過|不要超过|不多于|最多|至多|最大|少于|不到|控制在|限制在|限制为|限定|限|字数|字數|"
    rf"字数[为是：:]|篇幅|文字数)?(?:[为为是：:约約於于]|大约|大概|\s)*(?<![\d一二三四五六七八九十百千万两])(?P<low>{_DENSE_NUMBER})\s*"
    rf"(?:个?字)?(?:[-–—~〜～到至から]+\s*(?P<high>{_DENSE_NUMBER}))?\s*(?:[个個]?(?:字|词|詞|单词|單詞)|文字|語|単語|ワード)"
    r"(?P<post>以内|以內|之内|之內|内|內|以下|左右|上下|程度|ほど|くらい|ぐらい|前後|まで|で(?!き)|(?:来|來)?(?:回答|说明|說明|介绍|介紹|"
    r"解释|解釋|描述|概括)|的?(?:文章|作文|回答|短文|答案|介绍|介紹|说明|說明))?(?=(?P<after>.{0,8}))"
)
_DENSE_NOT = re.compile(r"[这這该該]|以上|至少|不少于|(?<!不)(?<!不要)(?<!不得)(?<!不能)超过|下面|常用|少なくとも")

_DENSE_EACH = re.compile(r"[每各]|ずつ|それぞれ|ごと")
_LEAST_DENSE = 10
"""Characters of the shortest limit: fewer make a word, such as one of three characters."""
_DENSE_TOTAL = re.compile(r"(?:[总總]?共(?:计|計)?|[总總]字[数數][为為是]?|合計|全体で|全部で)\s*约?$")


def _dense_limits(sentence: str) -> Iterator[tuple[int, bool]]:
    end = 0
    for found in _DENSE.finditer(sentence):
        near = sentence[max(end, found.start() - 8) : found.end()]
        end = found.end()
        words = _words(found)
        if words is None or words < _LEAST_DENSE:
            continue
        total = _DENSE_TOTAL.search(sentence[: found.start("low")]) is not None
        each = _DENSE_EACH.search(sentence, max(0, found.start() - 20), found.end())
        if not total and (each or _DENSE_NOT.search(near)):
            continue
        alone = re.search(r"(?:^|[，,。；;：:（(\s])$", sentence[: found.start("low")]) and re.match(
            r"[。．.，,）)！!\s]|$", found["after"]
        )
        if total or found["pre"] or found["post"] or alone:
            yield words, total


_LABELLED = re.compile(
    r"(?:^|[.;,(。，；（])\s*(?:word (?:count|limit)|(?:max(?:imum)? |number of )?words|wort(?:an)?zahl|wörter|"
    r"nombre de mots|mots|"
    r"(?:número de )?palabras|(?:numero di )?parole|(?:número de )?palavras|(?:aantal )?woorden|(?:количество )?слов|"
    rf"字数|字數|文字数)\s*[:=：]\s*(?:{_ABOUT}\s+|[~≈<≤]|"
    rf"约)?(?P<low>{_DENSE_NUMBER})(?:\s*[-–—~〜～]\s*(?P<high>{_DENSE_NUMBER}))?"
    r"\s*(?=$|[.,;!?)。，；！？）])",
    re.I,
)
"""The number behind a label: "Word count: 500"."""


def _labelled(sentence: str) -> Iterator[tuple[int, bool]]:
    for found in _LABELLED.finditer(sentence):
        if (words := _words(found)) is not None:
            yield words, False


# --- the question -------------------------------------------------------------------------------------

_QUOTED = re.compile(
    r"\"[^\"\n]{0,400}\"|“[^”\n]{0,400}”|„[^“”\n]{0,400}[“”]|«[^»\n]{0,400}»|「[^」\n]{0,400}」|`[^`\n]{0,400}`"
)
_SHORTENED = re.compile(r"\b(max|máx|min|mín|approx|ca|c|env|aprox|circa|ung|mind)\.(?=\s*\d)", re.I)


@lru_cache(maxsize=8)
def read_limit(question: str) -> int | None:
    """The limit of a question, as `skeleton_of_thought.text.length.word_limit` describes it."""
    if not question.strip():
        return None
    lines = instruction_lines(question)
    asked = find_question(question)
    if asked != question:
        lines = (*lines, *instruction_lines(asked))
    found = [
        limit
        for sentence in sentences(
            tuple(_SHORTENED.sub(r"\1", _QUOTED.sub('""', line.replace("’", "'"))) for line in lines)
        )
        for read in (_limits, _dense_limits, _labelled)
        for limit in read(
            sentence.strip() if len(sentence) <= 2 * _READ else f"{sentence[:_READ]}\n{sentence[-_READ:]}"
        )
    ]
    if totals := [words for words, total in found if total]:
        return max(totals)
    limits = [words for words, _ in found]
    return max(limits) if limits and max(limits) <= _ALIKE * min(limits) else None
