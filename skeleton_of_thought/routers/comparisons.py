"""Questions whose answer weighs things against each other: it compares, recommends, ranks or concludes.

Points that are written blind to each other answer such a question badly, because its verdict needs the other points.
Where points may build on each other (`Request.graph`), a graph suits it. The words are looked for in all
`question.LANGUAGES`. A comparison that is one fact ("which is longer, ...?") has none of these words.
"""

from __future__ import annotations

import re
from functools import cache

from skeleton_of_thought.routers.question import Question, find_question, read_question
from skeleton_of_thought.types import RouteDecision

__all__ = ["GRAPH", "asks_for_graph", "weighs"]

GRAPH = RouteDecision(
    True,
    reason="the answer compares, recommends, ranks or concludes: its points may build on each other",
    planning="graph",
)
"""The decision on such a question. It has no score: scores are for points that stand alone."""

_START = r"(?:^|[.!?,;:¿]\s*)"
_VERDICTS = {
    "en": (
        r"\bwhich\b[^.?!;]{0,60}\b(?:better|preferable|more suitable)\b",
        r"\bwh(?:at|o)(?:'s| is| are| was| would be) (?:the )?(?:better|preferable|wiser|smarter)\b(?! way)",
        r"\bwhich\b(?! (?:situation|case|circumstance|condition)s)[^.?!;]{0,60}"
        r"\b(?:is|are|would be|works?|fits?|suits?|serves?)\b(?: (?:me|us))?(?: the)? best\b"
        r"(?!-| (?:way|known|selling|ever))",
        r"(?<!when )(?<!where )\b(?:is|are|be|would)\b[^.?!;]{0,60}\b(?:better|preferable|"
        r"wiser)\b(?! at)[^.?!]*\b(?:or|than)\b",
        r"\b(?:or|vs\.?|versus)\b[^.?!]{1,60}[,:] (?:which|what|who)(?:'s| is| one| would)\b"
        r"[^.?!]{0,20}\bbe(?:st|tter)\b",
        rf"{_START}(?:should|shall) (?:i|we|you|he|she|they|one|(?:my|our|a|the) \w+)\b[^.?!]*\bor\b(?! not)",
        r"\bwhich (?:one|option|of (?:them|these|those|the)[^.?!]{0,20}) (?:do|would|should|will|can) (?:you|i|we)\b",
        r"\bwh(?:at|o|ich)\b[^.?!]{0,40}\b(?:better|best) (?:choice|option|pick|fit|alternative|investment|deal)\b",
        r"\bwho makes (?:a|the) better\b|\bwhich should\b",
        r"\brank (?:the|these|those|them|your|my|our|all|each|\d)",
        r"\bprioriti[sz]e (?:the|these|those|them|my|our)\b",
        r"\b(?:in order of|order (?:them|these) by) (?:importance|priority|preference|usefulness|impact|"
        r"urgency|value)\b",
        r"\b(?:and|then|finally|with|before)\b[^.?!]{0,40}\b(?:recommend|recommending|a recommendation|conclude|"
        r"concluding|a conclusion|a verdict|pick (?:one|a|the)|choose (?:one|a|the)|decide (?:which|between|on one)|"
        r"(?:say|tell me|explain) which (?:one|is|to|i|we|you|suits?|fits?|should|would))\b",
        r"\b(?:draw|reach|come to|give) (?:a|your|some) (?:\w+ )?(?:conclusion|verdict|judg(?:e)?ment)\b",
    ),
    "de": (
        r"\b(?:was|wer) (?:ist|wäre|sind|war) (?:denn |wohl )?(?:besser|sinnvoller|klüger)\b",
        r"\bwelche[rsnm]?\b[^.?!]{0,60}\b(?:ist|sind|wäre|war|passt|eignet|lohnt)\b[^.?!]{0,40}"
        r"\b(?:besser|sinnvoller|geeigneter|am besten|(?:die|der|das) bessere|(?:die|der|das) beste)\b(?! bekannt)",
        r"\b(?:ist|sind|wäre|lohnt)\b[^.?!]{0,80}\b(?:besser|sinnvoller|eher)\b[^.?!]*\b(?:oder|als)\b",
        rf"{_START}soll(?:te)?n? (?:ich|wir|man|er|sie|(?:mein|unser|die|der|das)\w* \w+)\b[^.?!]*\boder\b(?! nicht)",
        r"\bwelche[rsnm]? (?:davon|von beiden|der beiden|von diesen) (?:würde|soll|empf)",
        r"\brangliste\b|\brangfolge\b|\bpriorisiere\b",
        r"\bnach (?:ihrer |der )?(?:wichtigkeit|bedeutung|priorität|dringlichkeit)\b",
        r"\bund\b[^.?!]{0,60}\b(?:empfiehl|empfehlen sie|empfehlung|entscheide|fazit|schlussfolgerung|"
        r"urteil|rate mir)\b",
        r"\bmit (?:einer |deiner )?(?:empfehlung|schlussfolgerung)\b|\bzieh\w* (?:ein(?:e|"
        r"en)? )?(?:fazit|bilanz|schluss)\b",
    ),
    "fr": (
        r"\bvaut(?:-il| il)? mieux\b|\b(?:est-il|est-ce) (?:mieux|préférable)\b|\bqu'est-ce qui (?:est|"
        r"serait) (?:le )?mieux",
        r"\b(?:quel(?:le)?s?|lequel|laquelle)\b[^.?!]{0,60}\b(?:est|serait|convient|vaut|sont)\b[^.?!]{0,30}"
        r"\b(?:mieux|meilleure?s?|préférable)\b(?! (?:moyen|façon|manière|vend))",
        r"\b(?:est|sont)\b[^.?!]{0,60}\b(?:mieux|meilleure?s?|préférable)\b[^.?!]*\b(?:ou|qu)",
        rf"{_START}(?:devrais-je|dois-je|faut-il|devrions-nous|doit-on)\b[^.?!]*\bou\b(?! (?:non|pas))",
        r"\bpar ordre (?:d'importance|de (?:priorité|préférence))\b|\bclasse[rz]?[ -](?:les|ces|par)\b|\bhiérarchise",
        r"\b(?:et|puis)\b[^.?!]{0,40}\b(?:recommande[rz]?|conseille[rz]?|conclu[rst]\w*|tranche[rz]?|recommandation|"
        r"conclusion|verdict|choisis\w*|lequel|laquelle)\b",
    ),
    "es": (
        r"\b(?:qué|cuál(?:es)?)\b[^.?!]{0,60}\b(?:es|sería|son|resulta)\b[^.?!]{0,30}\b(?:mejor|preferible)\b"
        r"(?! (?:manera|forma|modo|vendid))",
        r"\b(?:es|sería) (?:mejor|preferible)\b[^.?!]*\bo\b|\bes\b[^.?!]{0,60}\bmejor que\b|\bconviene (?:más|mejor)\b",
        r"\bconviene\b[^.?!]*\bo\b",
        rf"{_START}(?:debería(?:mos)?|debo|debemos)\b[^.?!]*\bo\b(?! no\b)",
        r"\bpor (?:orden de )?(?:importancia|prioridad|preferencia)\b|\bprioriza\b",
        r"\by\b[^.?!]{0,40}\b(?:recomi\w+|recomendación|aconsej\w+|concluy\w+|conclusión|veredicto|decide|elige)\b",
    ),
    "it": (
        r"\b(?:è|sarebbe) (?:meglio|preferibile)\b",
        r"\b(?:quale?|cosa|chi)\b[^.?!]{0,60}\b(?:è|sarebbe|era|sono)\b[^.?!]{0,30}(?<!modo )(?<!maniera )"
        r"\b(?:meglio|migliore|preferibile)\b(?! (?:modo|maniera))",
        r"\bconviene (?:di più|[^.?!]*\bo\b)",
        rf"{_START}(?:dovrei|dovremmo|devo|dobbiamo)\b[^.?!]*\bo\b(?! no\b)",
        r"\bin ordine (?:di |d')(?:importanza|priorità|preferenza)\b",
        r"\bed?\b[^.?!]{0,40}\b(?:consigli\w*|raccomand\w+|concludi|conclusione|verdetto|scegli(?:ne)?)\b",
    ),
    "pt": (
        r"\b(?:o que|qual|quais|quem)\b[^.?!]{0,60}\b(?:é|seria|são|era)\b[^.?!]{0,30}\b(?:melhor|preferível)\b"
        r"(?! (?:maneira|forma|modo|jeito))",
        r"\b(?:é|seria) (?:melhor|preferível)\b[^.?!]*\bou\b|\bé\b[^.?!]{0,60}\bmelhor (?:do )?que\b|"
        r"\bvale mais a pena\b",
        rf"{_START}(?:devo|devemos|deveria|deveríamos)\b[^.?!]*\bou\b(?! não)",
        r"\bpor (?:ordem de )?(?:importância|prioridade|preferência)\b|\bpriorize\b",
        r"\be\b[^.?!]{0,40}\b(?:recomend\w+|aconselh\w+|conclua|conclusão|veredito|escolha|sugira (?:um|uma))\b",
    ),
    "nl": (
        r"\bwat is (?:er |nu )?(?:beter|verstandiger)\b|\bkan ik beter\b[^.?!]*\bof\b",
        r"\b(?:welke?|wie)\b[^.?!]{0,60}\b(?:is|zijn|past|was)\b[^.?!]{0,40}\b(?:beter|geschikter|"
        r"het beste?|de beste)\b"
        r"(?! (?:manier|bekend|verkocht))",
        r"\b(?:is|zijn)\b[^.?!]{0,60}\bbeter\b[^.?!]*\b(?:of|dan)\b",
        rf"{_START}(?:moet|zal|zullen|moeten) (?:ik|we|wij|men)\b[^.?!]*\bof\b(?! niet)",
        r"\bop volgorde van (?:belang\w*|prioriteit|voorkeur)\b|\brangschik (?:de|deze|ze)\b",
        r"\ben\b[^.?!]{0,40}\b(?:raad|beveel|adviseer|concludeer|aanbeveling|conclusie|oordeel|kies)\b",
    ),
    "ru": (
        r"\b(?:что|какой|какая|какое|какие|какую|кто)\b[^.?!]{0,60}\b(?:лучше|предпочтительнее|выгоднее)\b(?! всего)",
        r"\bлучше\b[^.?!]*\b(?:или|чем)\b|\b(?:стоит|следует)\b[^.?!]*\bили\b(?! нет)",
        r"\bпо (?:степени )?(?:важности|приоритет\w*)\b|\bв порядке (?:важности|предпочтения)\b|\bранжируй",
        r"\bи\b[^.?!]{0,40}\b(?:посовету\w+|порекоменду\w+|рекомендаци\w+|вывод\w*|заключени\w+|реши\w*|выбери\w*)\b",
    ),
    "zh": (
        r"哪(?:一?[个种款家样项所]|者)?(?:会|更|比较|最|才)*(?:好|合适|适合|值得|划算|推荐)",
        r"哪(?!些)[^。？！，]{0,8}[更最](?:好|合适|适合|值得|划算)",
        r"还是[^。？！]*(?:更?好|合适|划算)|(?:好|划算)还是|应?该[^。？！]*还是",
        r"按(?:照)?(?:重要|优先)|排(?:名|序|个序)",
        r"(?:并|再|然后|最后)[^。？！]{0,15}(?:推荐|建议|结论|选出)",
    ),
    "ja": (
        r"ど(?:ちら|っち|れ)(?:の[^。？！、]{0,6})?[がをに][^。？！]{0,20}(?:良|よい|よか|いい|お?すすめ|お?勧め|向い|適し|お得|選|買|べき)",
        r"重要(?:度|な)?順|優先順位|順位を?(?:つけ|付け)|ランク(?:付け|づけ)",
        r"(?:そして|その上で|うえで|上で|して|最後に)、?[^。？！]{0,12}(?:勧めて|すすめて|推薦して|結論|選んで)",
    ),
}
"""Words that ask for a verdict."""

_VERBS = {
    "en": (
        r"(?<!way to )(?<!how to )\b(?:compare|contrast|versus|vs)\b|\bcomparison (?:of|between)\b|"
        r"\bweigh\b[^.?!]*\bagainst\b",
        r"\b(?:should|shall) (?:i|we|you|he|she|they|one|(?:my|our|a|the) \w+)\b[^.?!]{0,20}"
        r"\b(?:choose|pick|prefer|opt for|go (?:for|with)|decide (?:on|for))\b",
        r"\bwhich (?:\w+ ){1,3}(?:should|shall) (?:i|we|(?:my|our) \w+)\b[^.?!]*\b(?:buy|get|take|use|"
        r"rent|learn|adopt|study)\b",
    ),
    "de": (
        r"\bvergleiche?\b(?! zu)|\bvergleichen sie\b|\bgegenüberstell|\bstell\w*\b[^.?!]* gegenüber\b|"
        r"\bwäg\w*\b[^.?!]* ab\b",
        r"\b(?:was|wofür|welche[rsnm]?)\b[^.?!]{0,60}\bsoll(?:te)?n? (?:ich|wir|man|(?:mein|unser)\w* \w+)\b[^.?!]*"
        r"\b(?:wählen|nehmen|kaufen|lernen|aussuchen|mieten|entscheiden)\b",
    ),
    "fr": (
        r"\b(?:compare[rz]?|confronte[rz]?)\b|\bcomparaison (?:de|des|entre)\b",
        r"\b(?:devrais-je|dois-je|devrions-nous|doit-on|faut-il|me conseill\w+)\b[^.?!]*"
        r"\b(?:choisir|opter|préférer|prendre|acheter)\b",
        r"\b(?:lequel|laquelle|que|quel(?:le)? \w+)\b[^.?!]{0,12}\bchoisir\b",
    ),
    "es": (
        r"\b(?:compar(?:a|e|ar|ad|en)|contrast(?:a|e|ar))\b|\bcomparación (?:de|entre)\b",
        r"\b(?:debería(?:mos)?|debo|debemos|me recomiendas|me aconsejas)\b[^.?!]*\b(?:elegir|escoger|optar|comprar)\b",
    ),
    "it": (
        r"\b(?:confront(?:a|are|ate|i)|paragon(?:a|are|ate)|compar(?:a|are))\b|\bconfronto (?:tra|fra)\b",
        r"\b(?:dovrei|dovremmo|devo|dobbiamo|dovrebbe|mi consigli)\b[^.?!]*\b(?:scegliere|optare|comprare|prendere)\b",
    ),
    "pt": (
        r"\b(?:compar(?:e|a|ar|em))\b|\bcomparação (?:de|entre)\b",
        r"\b(?:devo|devemos|deveria|deveríamos|me aconselha)\b[^.?!]*\b(?:escolher|optar|comprar)\b",
    ),
    "nl": (
        r"\bvergelijk(?:en)?\b|\bvergelijking (?:van|tussen)\b|\btegenover elkaar\b",
        r"\b(?:moet|zal|kan) (?:ik|we|wij)\b[^.?!]*\b(?:kiezen|kopen|nemen|huren)\b",
    ),
    "ru": (
        r"\bсравни(?:те)?\b|\bсопоставь(?:те)?\b|\bсравнение\b",
        r"\b(?:что|как(?:ой|ую|ое|ие)|кого)\b[^.?!]{0,40}\b(?:мне|нам)\b[^.?!]{0,30}\b(?:выбрать|купить|"
        r"взять|предпочесть)\b",
    ),
    "zh": (
        r"(?:请|^|[，。；]|帮我)(?:比较|对比)(?![好多大小高])|(?:比较|对比)一下|[和与跟][^。？！]{1,15}的?(?:比较|对比)(?![好多大小高])",
        r"(?:应该|该)(?:选|买)|选(?:择)?哪|推荐哪",
    ),
    "ja": (r"比較して|比べて(?:ください|みて|、|。|$)|[をの]比較",),
}
"""Words that ask for a comparison or a choice, unless the question is how to make one."""

_ADVICE = {
    "en": (r"recommend|advise|(?<!do you )prefer|pick|choose", "or"),
    "de": (r"empf[ei]\w+|rätst|raten|rate mir|bevorzug\w*|wählen", "oder"),
    "fr": (r"recommand\w*|conseill\w*|préfér\w*|choisi\w*", "ou"),
    "es": (r"recomiend\w*|recomendar\w*|aconsej\w*|prefier\w*|elegir\w*", "o"),
    "it": (r"(?:mi|ci|ti) consigli\w*|raccomand\w*|preferi\w*|sceglie\w*", "o"),
    "pt": (r"recomend\w*|aconselh\w*|prefere\w*|escolh\w*", "ou"),
    "nl": (r"raad|raadt|beveel\w*|adviseer\w*|kiezen", "of"),
    "ru": (r"посовету\w*|порекоменду\w*|выбрать|предпочесть", "или"),
}
"""Words for advice, and the word between the options that it is asked on. They may stand in either order."""

_LINE = 300
"""Characters of the longest line that is read as a question with its context."""
_FORM = frozenset(("story", "letter", "essay", "code"))


def asks_for_graph(text: str) -> bool:
    """Whether the question in a message is one whose points should build on each other.

    Example:
        >>> asks_for_graph("Which is better for a balcony, tomatoes or peppers, and why?")
        True
        >>> asks_for_graph("Which is longer, the Nile or the Amazon?")
        False
        >>> asks_for_graph("Write a poem that compares spring and autumn.")
        False
    """
    text = text.strip()
    # In one line, words before a colon belong to the question: "What would you recommend: oak or pine?"
    return weighs(read_question(text if len(text) < _LINE and "\n" not in text else find_question(text)))


def weighs(question: Question) -> bool:
    """Whether a question's answer compares, recommends, ranks or concludes, and is no calculation or fixed form."""
    classes, opening = question.classes, question.opening
    if (
        not classes.isdisjoint(("arithmetic", "formula", "snippet", "short", "translate"))
        or classes >= {"math", "numbers"}
        or ("math" in opening and opening.isdisjoint(("discuss", "explain")))
        or classes >= {"format", "statement"}
        or (classes >= {"story", "statement"} and classes.isdisjoint(("diff", "pros", "recommend")))
        or ("write" in opening and not classes.isdisjoint(_FORM))
    ):
        return False
    patterns = _patterns(question.language)
    if patterns is None:
        return False
    text = question.text.casefold().replace("’", "'")
    verdicts, verbs = patterns
    return bool(verdicts.search(text) or ("howto" not in opening and verbs.search(text)))


@cache
def _patterns(language: str) -> tuple[re.Pattern[str], re.Pattern[str]] | None:
    if language not in _VERDICTS:
        return None
    verbs = list(_VERBS[language])
    if language in _ADVICE:
        advice, between = _ADVICE[language]
        verbs.append(rf"\b(?:{advice})\b[^.?!]*\b{between}\b|\b{between}\b[^.?!]*\b(?:{advice})\b")
    return re.compile("|".join(_VERDICTS[language]), re.M), re.compile("|".join(verbs), re.M)
