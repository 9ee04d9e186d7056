"""The words of a plan, as data: what a point builds on, how long it is, and titles that sum up other points."""

from __future__ import annotations

import re

__all__ = [
    "ABOVE",
    "ALL",
    "AND",
    "ARTICLES",
    "BEFORE",
    "BEHIND",
    "BEHIND_ALONE",
    "COUNTED",
    "FLAGS",
    "FREE",
    "LABELS",
    "LAST",
    "NONE",
    "NOUNS",
    "OTHERS",
    "ROUGHLY",
    "STRONG",
    "SUMMARIES",
    "TO",
    "WORDS",
]

FLAGS = re.IGNORECASE
"""How all these words are found."""

BEFORE = (
    # English
    r"(?:comes? |directly )?after|(?:is |are )?(?:based|building|builds?|built) (?:up)?on(?: top of)?"
    r"|(?:is )?depend(?:s|ing|ent)? (?:up)?on|depends|dependenc(?:y|ies)|deps?|requires?|required|needs?"
    r"|follow(?:s|ing)?(?: from)?|us(?:es|ing)|draw(?:s|ing) (?:up)?on|rel(?:ies|ying) (?:up)?on|prerequisites?"
    r"|parents?"
    r"|combin(?:es|ing)|compar(?:es|ing)|weigh(?:s|ing)|summari[sz](?:es|ing)|sums? up|in (?:the )?light of"
    # German
    r"|(?:erst |kommt )?nach|(?:basiert|basierend|gestützt|stützt sich|beruht|fußt) auf"
    r"|(?:baut|aufbauend|aufgebaut) auf"
    r"|auf (?:der )?(?:basis|grundlage) (?:von|der)|(?:hängt|abhängig) (?:ab )?von|hängt ab von|folgt (?:auf|aus)"
    r"|(?:be)?nötigt|braucht|erfordert|(?:setzt|voraussetzung(?:en)?)|abhängigkeit(?:en)?|benutzt|nutzt|vergleicht|auf"
    # French
    r"|après|(?:basée?s?|fondée?s?|appuyée?s?) sur|(?:se base|se fonde|s['’]appuie|repose|en s['’]appuyant) sur"
    r"|dépend(?:ante?)? (?:de|des|du)|à partir (?:de|des|du)|d['’]après|nécessite|requiert|suit|dépendances?"
    r"|sur la base (?:de|des)"
    # Spanish, Portuguese
    r"|(?:después|luego|depois) (?:de|del|dos|das|do|da)|tras|após"
    r"|(?:basad[oa]s?|apoyad[oa]s?|se basa|se apoya|con base) en"
    r"|(?:basead[oa]s?|baseia-se|se baseia|apoia-se|com base) (?:em|nos|nas|no|na)"
    r"|depende (?:de|del|dos|das|do|da)|dependiente de|a partir (?:de|del|dos|das|do|da)|requiere|requer|necesita"
    r"|precisa de"
    r"|sigue a|segue a|dependencias?|dependências?"
    # Italian
    r"|dopo(?: (?:il|i|la|le|gli))?|(?:basat[oaie]|fondat[oaie]|si basa|si fonda|si appoggia) (?:su|sul|sui|sulle)"
    r"|in base a[il]?|sulla base (?:di|dei)"
    r"|dipende da[il]?|a partire da[il]?|richiede|segue(?: a[il]?)?|dipendenz[ae]"
    # Dutch
    r"|na|(?:gebaseerd|steunt|berust|bouwt|bouwt voort|voortbouwend) op|(?:hangt af|afhankelijk) van|op basis van"
    r"|vereist"
    r"|volgt (?:op|uit)|heeft nodig|afhankelijkheden"
    # Russian
    r"|после|на (?:основе|основании|базе)|(?:основан[оаы]?|основывается|опирается|опираясь|базируется) на"
    r"|зависит от|исходя из|по итогам|требует|нужны|следует из|зависимост[ьи]"
    # Chinese, Japanese
    r"|基于|基於|根据|根據|依赖于?|依賴於?|依据|依據|取决于|取決於|建立在|承接|需要|参考|參考|在|依存|前提"
)
"""Words before the numbers of the points that a point builds on."""

STRONG = (
    r"based on|building on|builds? (?:up)?on|depend(?:s|ing|ent)? on|after points?"
    r"|(?:basiert|basierend|aufbauend|baut) auf|nach punkt(?:en)?|basée?s? sur|s['’]appuie sur|dépend de"
    r"|après les points"
    r"|basad[oa]s? en|se basa en|basead[oa]s? (?:em|nos)|com base (?:em|nos)|basat[oaie] su(?:i)?|gebaseerd op"
    r"|bouwt voort op"
    r"|на основе|основан[оаы]? на|基于|根据"
)
"""Those of them that need no sign before them."""

BEHIND = r"auf|ab|voraus|aufbauend|basierend|vorausgesetzt|nodig|required|needed"
BEHIND_ALONE = (
    r"(?:的|之)?(?:基础|基礎)?(?:之上|上)|的?(?:基础|基礎)|(?:之|以|的)?(?:后|後)(?:面)?|完成(?:之|以)?(?:后|後)"
    r"|(?:の|した)?(?:後|あと)(?:に|で)?|の次|に(?:基づ|もとづ)(?:く|き|いて)|を踏まえ(?:て|る|た)?|に依存(?:する|して)?|が必要"
    r"|を(?:もと|元|基)に(?:して|した)?|を(?:参照|使う|比較)|が?前提"
)
"""Words behind these numbers; the latter need no word before the numbers."""

NOUNS = (
    r"points?|items?|parts?|sections?|steps?|numbers?|nos?\.?|nr\.?|tasks?|topics?|ideas?|punkte?n?|teile?n?"
    r"|abschnitte?n?|schritte?n?|nummern?"
    r"|étapes?|parties?|numéros?|puntos?|pasos?|partes?|secciones|sección|pontos?|passos?|etapas?|punt[oi]|pass[oi]"
    r"|parti"
    r"|punt(?:en)?|stap(?:pen)?|del(?:en)?|deel|пункт(?:ам?|ах|ов|ы|у|е)?|шаг(?:ам?|ах|ов|и|у|е)?"
    r"|част(?:ям?|ях|ей|и|ь)|тезис(?:ам?|ах|ов|ы)?"
    r"|第|要点|要點|步骤|步驟|部分|点|點|ポイント|項目|項|手順|ステップ|番号|番"
)
"""Words for a point, before its number."""

COUNTED = r"[点點步章节節条條项項部]|部分|要点|步骤|番目?|つ目|点目|個目"
"""Words behind a number in Chinese and Japanese."""

ARTICLES = (
    r"the|both|den|die|der|dem|les?|la|las?|los|el|i|il|lo|gli|os?|as?|de|del|des|du|het|my|its|von|zu|aus|with|mit|to"
)

AND = r"and|as well as|or|und|sowie|oder|et|ou|y|e|ed|o|en|of|и|или|和|与|與|及|以及|跟|と|および|及び|や"
"""Words between two numbers."""

TO = r"to|through|thru|till|until|bis|à|a|al|au|hasta|ate|até|tot(?: en met)?|t/m|до|по|到|至|から"
"""Words of a range."""

ALL = (
    r"all|everything|every|alle[nmrs]?|allem|tou(?:te)?s|tout|tod[oa]s?|tudo|tutt[ioea]|alles|все(?:х|го|ми?|м)?|всё"
    r"|所有|全部|以上|上述|前面|すべて|全て|全部|上記|これまで"
)
"""Words for all the points before one."""

OTHERS = (
    r"of|the|above|other|others|previous|preceding|earlier|prior|points?|ones|before|it|these|those|else|them|that"
    r"|anderen?|vorherigen?|vorigen?"
    r"|obigen|den|die|punkte?n?|davor|les|des|autres?|points|précédents?|los|las|demás|otros|anteriores|puntos|os"
    r"|outros|pontos"
    r"|gli|altri|i|precedenti|punti|andere|vorige|punten|eerdere|предыдущ(?:их|ие|его)|остальных|пунктов|этого|的|点|之|の"
    r"|ポイント|項目"
)
"""Words that may follow one of `ALL`."""

ABOVE = (
    r"(?:the )?(?:above|others)|(?:the )?(?:previous|preceding|earlier|other|foregoing)"
    r" (?:points|parts|sections|steps|ones|items)"
    r"|(?:den |die )?(?:vorherigen|vorigen|anderen|obigen) punkten?|(?:les )?(?:autres )?points précédents"
    r"|(?:los )?puntos anteriores"
    r"|(?:os )?pontos anteriores|(?:i )?punti precedenti|(?:de )?(?:vorige|eerdere) punten"
    r"|предыдущ(?:их|ие) пункт(?:ов|ы)"
)
"""Other words for all of them."""

LAST = (
    r"(?:the |its )?(?:previous|preceding|last)(?: (?:point|part|section|step|one|item))?"
    r"|the (?:one|point) before(?: it)?"
    r"|(?:dem |den )?(?:vorherigen|vorigen|vorherigem)(?: punkt)?|(?:le )?(?:point )?précédent"
    r"|(?:el |al )?(?:punto )?anterior"
    r"|(?:o |ao )?(?:ponto )?anterior|(?:il |al )?(?:punto )?precedente|(?:het )?vorige(?: punt)?"
    r"|предыдущ(?:ий|его|ем)(?: пункт[ае]?)?"
    r"|上一[点點步]|前一[点點步]|前の(?:ポイント|項目|点)"
)
"""Words for the point before."""

NONE = (
    r"none|nothing|no one|nil|n/a|no other|keine[nmrs]?|kein|nichts|niemand|aucune?|rien|ningun[oa]|ninguno|nada"
    r"|nessun[oa]?|niente"
    r"|nenhuma?|geen|niets|ничего|нет|ни от чего|无|無|没有|なし|∅|-|–|—|\[\]"
)
"""Words for no point at all."""

FREE = (
    r"no (?:dependenc(?:y|ies)|prerequisites?|parents?)|independent(?: of (?:all )?(?:the )?others?)?|stand-?alone"
    r"|unabhängig|keine abhängigkeiten"
    r"|indépendante?|independiente|independente|indipendente|onafhankelijk|независим(?:о|ый|ая)|独立|無依存|无依赖"
)
"""Words of a point that builds on none."""

LABELS = (
    r"(?:it )?(?:covers?|covering)|scope|notes?|focus(?:es on)?|content|umfang|inhalt|behandelt|notiz|couvre|contenu"
    r"|cubre|contenido|alcance|cobre"
    r"|conteúdo|escopo|copre|contenuto|ambito|behandelt|inhoud|охват|содержание|范围|内容|涵盖|範囲"
)
"""Words before a note, with a colon."""

ROUGHLY = (
    r"about|approx\.?|approximately|around|roughly|circa|ca\.?|some|max\.?|maximum|at most|up to|under|no more than"
    r"|etwa|ungefähr|rund|höchstens"
    r"|maximal|bis zu|environ|au plus|unas?|unos|aproximadamente|alrededor de|como máximo|cerca de|no máximo"
    r"|al massimo|ongeveer|hoogstens"
    r"|около|примерно|до|约|約|大约|大約|大概|およそ|[~≈∼〜～±<≤]"
)
"""Words before a number of words."""

WORDS = r"words?|wörtern?|worte?n?|mots|palabras|parole|palavras|woorden|слов[оа]?|字|词|詞|個字|个字|語|文字|単語"
"""Words for words."""

SUMMARIES = {
    "first": (
        # English
        "summary|conclusions?|comparisons?|recommendations?|verdict|synthesis|takeaways?|wrap-?up|wrapping up"
        "|in conclusion"
        "|in summary|summing up|to sum up|bottom line|final thoughts|final words|final choice|closing thoughts"
        "|final remarks|concluding remarks"
        "|which (?:one |option |of them |way )?(?:to (?:choose|pick|buy|take|use)|is (?:best|better|right))"
        "|which (?:one |option |of them |way )?should (?:you|i|we) (?:choose|pick|buy|take)"
        "|how to (?:choose|decide) between|how they compare|making (?:the|your) (?:choice|decision)"
        "|pulling it (?:all )?together"
        "|putting it (?:all )?together"
        # German
        "|zusammenfassung|fazit|schlussfolgerung(?:en)?|schlusswort|schluss|abschluss|ergebnis|resümee|vergleich"
        "|gegenüberstellung"
        "|gesamtvergleich|empfehlung(?:en)?|kaufempfehlung|abwägung|gesamturteil|urteil"
        "|welche[rsn]? .{0,30}(?:wählen|nehmen|kaufen)"
        # French
        "|résumé|conclusions?|comparaison|comparatif|recommandations?|synthèse|bilan|verdict|en conclusion|en résumé"
        "|pour conclure|lequel choisir"
        "|laquelle choisir|que choisir"
        # Spanish, Portuguese
        "|resumen|conclusi[oó]n(?:es)?|comparaci[oó]n|comparativa|recomendaci[oó]n(?:es)?|síntesis|en resumen"
        "|en conclusión|cuál elegir|veredicto"
        "|resumo|conclus(?:ão|ões)|comparação|comparativo|recomendaç(?:ão|ões)|síntese|em resumo|em conclusão"
        "|qual escolher|veredito"
        # Italian
        "|riassunto|riepilogo|sintesi|conclusion[ei]|confronto|paragone|comparazione|raccomandazion[ei]|in conclusione"
        "|in sintesi|quale scegliere|verdetto"
        # Dutch
        "|samenvatting|conclusies?|vergelijking|aanbeveling(?:en)?|slotsom|tot slot|eindoordeel|welke (?:te )?kiezen"
        # Russian
        "|итоги?|вывод(?:ы)?|заключение|резюме|сравнение|рекомендаци[яи]|вердикт|сопоставление|что (?:лучше )?выбрать"
        "|какой выбрать|подведение итогов"
    ),
    "before": (
        "the|a|an|our|my|your|final|overall|short|brief|direct|general|quick|concluding|side-by-side|head-to-head|key"
        "|main|closing"
        "|das|die|der|eine?|unser|unsere|abschließende[rs]?|kurze[rs]?|direkter?|finale|allgemeine[rs]?|gesamt"
        "|le|la|les|une?|notre|brève|el|los|las|una|nuestra|breve|os?|as?|uma|nossa|il|lo|una|nostra|breve|een|de|het"
        "|onze|korte|directe"
        "|общее|общий|наша|краткое|краткий|прямое|итоговое|итоговая|окончательный"
    ),
    "last": (
        "summary|comparison|verdict|recommendations?|conclusion|zusammenfassung|vergleich|empfehlung|fazit|comparée"
        "|finale?|finali"
    ),
    "within": (
        "总结|總結|小结|結論|结论|比较|比較|对比|對比|推荐|推薦|综合建议|最终建议|如何选择|如何選擇|综上"
        "|まとめ|総括|おすすめ|お勧め|推奨|どれを選ぶ|どちらを選ぶ"
    ),
}
"""Words of titles that sum up, compare or weigh the points before them.

`first` begin a title, perhaps behind words of `before`; `last` end a title of two or three words; Chinese and Japanese
titles begin or end with those `within`.
"""
