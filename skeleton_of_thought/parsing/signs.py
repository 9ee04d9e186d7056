"""The signs and words of list marks, as data."""

from __future__ import annotations

__all__ = [
    "ALPHABETS",
    "ANNOUNCING",
    "ANNOUNCING_ANYWHERE",
    "BOLD_LEVEL",
    "CJK",
    "CJK_NUMBER",
    "CJK_ORDINAL",
    "COUNT",
    "COUNTERS",
    "DASHES",
    "DEFINITION_LEVEL",
    "DOTS",
    "EMOJI_LEVEL",
    "FORMAL",
    "INTRODUCTIONS",
    "ORDINAL_ENDS",
    "ORDINAL_LEVEL",
    "PICTURES",
    "ROUND",
    "SEQUENCES",
    "SEQUENCE_LEVEL",
    "SIGNS",
    "STEP",
    "TWINS",
    "WORDS",
]

BOLD_LEVEL = 7
"""The heading level of a line that is bold as a whole: deeper than the six levels of Markdown."""

EMOJI_LEVEL, ORDINAL_LEVEL, SEQUENCE_LEVEL, DEFINITION_LEVEL = 8, 9, 10, 11
"""The heading levels of marks that single lines of prose have, too: no list has just one of them."""

DASHES = "-–—‐‑−"
DOTS = "•●∙⦁·・‧"
SIGNS = "◦○■□▪▫►▶▸‣⁃➢➤➔→⇒✓✔☑✅★☆⭐◆◇❖🔹🔸🔷🔶👉❌❎✗✘✖"
TWINS = str.maketrans("🔸🔶☑❌❎✗✘✖", "🔹🔷✅✅✅✓✔✔")
"""Signs that models use in turn within one list, each with the one that stands for both."""

PICTURES = frozenset("✅⭐🔹🔷👉")
"""Signs beside which other emoji number the same list."""

ROUND = "①-⑳⑴-⒇⒈-⒛⓪-⓿❶-❿➀-➓㈠-㈩㊀-㊉"
"""Ranges of numbers that are one sign."""

CJK = "一二三四五六七八九十壹贰貳叁參参肆伍陆陸柒捌玖拾"
FORMAL = str.maketrans("壹贰貳叁參参肆伍陆陸柒捌玖拾", "一二二三三三四五六六七八九十")
"""Numerals of contracts, and the common ones."""

CJK_UNITS = (
    "部分|阶段|階段|步骤|步驟|要点|要點|方面|[点點步章节節条條项項部课課回編编篇話话幕歩题題讲講层層]|[个個段]|に"
)
"""Nouns after an ordinal such as 第一."""

WORDS = (
    "step|point|key point|main point|body paragraph|part|section|chapter|tip|phase|stage|idea|item|reason|rule|topic"
    "|paragraph|argument|aspect|factor|strategy|method|day|week|lesson|principle|question|option|example|benefit|myth"
    "|fact|habit|way|task|trick|mistake|theme|bullet|goal|action|element|pillar|number|module|unit|act|block|appendix"
    "|schritt|punkt|teil|abschnitt|kapitel|tipp|stufe|regel|grund|thema|idee|etappe"
    "|étape|etape|partie|chapitre|conseil|astuce|règle|raison|thème|idée"
    "|paso|punto|parte|sección|seccion|capítulo|capitulo|consejo|etapa|fase|razón|regla|clave"
    "|passo|ponto|seção|secção|dica|regra|razão|tópico|passaggio|sezione|capitolo|consiglio|regola|motivo"
    "|stap|deel|hoofdstuk|sectie|regel|reden|krok|bod|část|kapitola|część|rozdział|sekcja|zasada|porada"
    "|adım|bölüm|madde|kısım|aşama|ipucu|langkah|bagian|bab|poin|tahap|seksi|bước|phần|chương|điểm|mục"
    "|steg|avsnitt|kapittel|del|sektion|seksjon|afsnit|trin|vaihe|kohta|luku|osa|osio|lépés|rész|fejezet|szakasz|pasul"
    "|punctul|partea|capitolul|secțiunea|sekce|oddíl|sekcija|odjeljak"
    "|шаг|пункт|этап|часть|глава|раздел|тезис|совет|правило|причина|крок|розділ|частина|секція|секция|стъпка|точка"
    "|βήμα|σημείο|μέρος|κεφάλαιο|ενότητα|שלב|נקודה|פרק|חלק|צעד|סעיף"
    "|步骤|步驟|要点|要點|部分|阶段|階段|方面|建议|建議|章节|ステップ|ポイント|手順|その|要素|セクション|パート"
    "|단계|요점|포인트|장|섹션|파트"
    "|चरण|बिंदु|भाग|अध्याय|खंड|अनुभाग|ধাপ|বিভাগ|অংশ|الخطوة|خطوة|نقطة|النقطة|الجزء|القسم|الفصل|المرحلة|مرحله|گام|بخش|فصل|نکته"
    "|ขั้นตอนที่|ขั้นที่|ข้อที่|ข้อ|บทที่|ส่วนที่"
)
"""Words before a number, as in `Step 1:`."""

_ENGLISH = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COUNT = {word: number for number, word in enumerate(_ENGLISH, 1)}

_NUMERAL = f"[{CJK}]{{1,3}}"
CJK_NUMBER = rf"(?:(?P<n>{_NUMERAL})[、．.:：)）]|[(（](?P<m>{_NUMERAL})[)）][、:：]?)"
CJK_ORDINAL = rf"第\s?(?P<n>\d{{1,3}}|{_NUMERAL})\s?(?:{CJK_UNITS})?[*_]{{0,3}}(?:[、，,：:．.]|\s|$)"
STEP = rf"""(?P<w>{WORDS.replace(" ", "[ ]")})\s?[#№]?(?P<n>\d{{1,3}}|{_NUMERAL}|(?<=\s)(?:{"|".join(COUNT)}
            |[IVX]{{1,5}}))(?P<inner>[*_]{{0,3}})
            (?:\s?/\s?\d{{1,3}}|\s(?:of|von|de|sur|di|из)\s\d{{1,3}})?
            (?:\s?[:：.．)、](?!\d)|\s*[{DASHES}](?=\s)|\s*$)"""
"""Patterns of the marks 一、 and 第一, and of "Step 1:" (spaces do not count in the last)."""

COUNTERS = "단계|번째|단원|장|절|부|편|조|과|강|항|일차|주차|つ目|つめ|番目|点目|個目|歩目|章|節|部|회차|步|點"
"""Words after a number, as in `1단계`."""

ORDINAL_ENDS = "st|nd|rd|th|\\.?[ºª°]|er|ère|ere|re|ème|eme|e|de|nde|ος|η|ο|-?[йяе]"
"""Endings that make a number an ordinal, as in `1st`."""

ALPHABETS = (
    "αβγδεζηθικλμνξοπρστυφχψω",
    "абвгдежзиклмнопрстуфхцчшщэюя",
    "абвгґдеєжзиіїйклмнопрстуфхцчшщюя",
    "אבגדהוזחטיכלמנסעפצקרשת",
    "أبجدهوزحطيكلمنسعفصقرشت",
    "أبتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "ابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی",
    "الفبجدهوز",
    "가나다라마바사아자차카타파하",
    "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊㅋㅌㅍㅎ",
    "アイウエオカキクケコサシスセソ",
    "あいうえおかきくけこさしすせそ",
    "イロハニホヘト",
    "いろはにほへと",
    "甲乙丙丁戊己庚辛壬癸",
    "कखगघङचछजझञ",
    "कखगघचछजझटठ",
    "অআইঈউঊঋএঐও",
    "কখগঘঙচছজঝঞ",
    "กขคงจฉชซฌญ",
    "աբգդեզէըթժ",
    "აბგდევზთიკ",
    "ⓐⓑⓒⓓⓔⓕⓖⓗⓘⓙ",
    "⒜⒝⒞⒟⒠⒡⒢⒣⒤⒥",
    "🅐🅑🅒🅓🅔🅕",
)
"""The letters that number a list, each alphabet in its order."""

SEQUENCES = (
    # The first point.
    "first|firstly|first of all|first and foremost|to begin with|to start with|erstens|zuerst|zunächst|als erstes"
    "|premièrement|tout d'abord|d'abord|en premier lieu|primero|en primer lugar|primeramente|primeiro"
    "|em primeiro lugar"
    "|primeiramente|primo|in primo luogo|innanzitutto|prima di tutto|per prima cosa|ten eerste|eerst|allereerst"
    "|во-первых|сначала|прежде всего|по-перше|спочатку|po pierwsze|najpierw|ilk olarak|öncelikle|birincisi|önce"
    "|đầu tiên|trước hết|thứ nhất|pertama|pertama-tama|för det första|först|for det første|ensinnäkin|în primul rând"
    "|首先|第一に|まず|まずは|最初に|はじめに|첫째|첫번째|첫 번째|먼저|우선|أولاً|أولا|اولاً|पहला|पहले"
    "|सबसे पहले|ראשית|πρώτον|πρώτα",
    # The second, or any next one.
    "second|secondly|next|then|after that|zweitens|dann|danach|anschließend|als nächstes|deuxièmement|ensuite|puis"
    "|en second lieu|en deuxième lieu|segundo|en segundo lugar|luego|después|a continuación|em segundo lugar|depois"
    "|em seguida|secondo|in secondo luogo|poi|dopo|ten tweede|vervolgens|daarna|во-вторых|затем|потом|далее"
    "|по-друге|потім|po drugie|następnie|potem|ikinci olarak|ikincisi|sonra|thứ hai|tiếp theo|sau đó|kedua|kemudian"
    "|selanjutnya|för det andra|sedan|for det andre|toiseksi|în al doilea rând|其次|然后|然後|接着|接下来"
    "|第二に|次に|続いて"
    "|つぎに|둘째|두번째|두 번째|다음으로|다음은|그다음|ثانياً|ثانيا|ثم|दूसरा|दूसरे|फिर|שנית|δεύτερον|μετά",
    "third|thirdly|drittens|troisièmement|en troisième lieu|tercero|en tercer lugar|terceiro|em terceiro lugar|terzo"
    "|in terzo luogo|ten derde|в-третьих|по-третє|po trzecie|üçüncü olarak|üçüncüsü|thứ ba|ketiga|för det tredje"
    "|for det tredje|kolmanneksi|再次|再者|此外|另外|第三に|さらに|셋째|세번째|세 번째|ثالثاً|ثالثا|तीसरा|तीसरे"
    "|שלישית|τρίτον",
    "fourth|fourthly|viertens|quatrièmement|cuarto|en cuarto lugar|quarto|em quarto lugar|in quarto luogo|ten vierde"
    "|в-четвёртых|в-четвертых|по-четверте|po czwarte|dördüncü olarak|thứ tư|keempat|för det fjärde|第四に|넷째|네번째"
    "|네 번째|رابعاً|رابعا|चौथा|चौथे|רביעית|τέταρτον",
    "fifth|fifthly|fünftens|cinquièmement|quinto|en quinto lugar|em quinto lugar|ten vijfde|в-пятых|по-п'яте|po piąte"
    "|beşinci olarak|thứ năm|kelima|för det femte|第五に|다섯째|خامساً|خامسا|पाँचवाँ|חמישית|πέμπτον",
    # The last one.
    "finally|lastly|last|last but not least|in conclusion|to conclude|schließlich|zuletzt|abschließend|zum schluss"
    "|als letztes|enfin|finalement|pour finir|en dernier lieu|por último|finalmente|por fim|infine|per finire"
    "|tot slot"
    "|ten slotte|tenslotte|наконец|в конце|в заключение|нарешті|на завершення|na koniec|wreszcie|son olarak|cuối cùng"
    "|terakhir|akhirnya|slutligen|till sist|til slutt|lopuksi|în final|最后|最後|最终|最后一点|最後に|終わりに"
    "|마지막으로|마지막은"
    "|끝으로|أخيراً|أخيرا|अंत में|अंततः|לבסוף|τέλος",
)
"""Words that number the paragraphs of a text: for the first, second, third, fourth, fifth and last point."""

INTRODUCTIONS = (
    "introduction|introductory|intro|overview|summary|preface|foreword|preamble|opening|background|einleitung|einführung|vorwort"
    "|hintergrund|avant-propos|préface|introducción|prefacio|introdução|introduzione|premessa|inleiding|voorwoord"
    "|введение|вступление|предисловие|вступ|wprowadzenie|wstęp|giriş|önsöz|mở đầu|giới thiệu|pendahuluan|inledning"
    "|innledning|indledning|johdanto|úvod|引言|导言|導言|前言|引子|绪论|緒論|导论|はじめに|序論|導入|序章|서론"
    "|도입|머리말|들어가며"
    "|مقدمة|مقدمه|परिचय|प्रस्तावना|מבוא|הקדמה|εισαγωγή"
)
"""Words of a line that opens an essay, with bullets that are no points of the whole."""

ANNOUNCING = (
    "skeletons?|outlines?|points?|plans?|structure|lists?|steps?|ideas|tips|ways|reasons|topics|sections"
    "|headings|bullets?"
    "|bullet points|key|answer|response|following|follows|below|here|here's|here’s|sure|certainly"
    "|of course|okay|ok|absolutely|gliederung|punkte|stichpunkte|folgende[nr]?|hier|skelett|liste|schritte"
    "|natürlich|gerne|aufbau|voici|suivante?s?|squelette|étapes|bien sûr|idées|conseils|esquema|esqueleto|puntos|aquí"
    "|siguientes?|lista|pasos|claro|consejos|esboço|pontos|aqui|seguintes?|passos|dicas|schema|scaletta"
    "|scheletro|punti"
    "|ecco|seguenti|elenco|certo|passi|schets|punten|volgende|lijst|stappen|план|плана|пункты|пунктов|вот"
    "|следующи[ейхм]+|список|скелет|структура|тезисы|конечно|шаги|основные|punkty|oto|następując[aey]|szkielet"
    "|zarys|kroki"
    "|taslak|maddeler|işte|aşağıda|iskelet|adımlar|dàn ý|sau đây|danh sách|dưới đây|kerangka|poin|berikut|daftar"
)
ANNOUNCING_ANYWHERE = (
    "提纲|大纲|提綱|要点|要點|如下|以下|骨架|框架|列表|步骤|步驟|结构|結構|好的|当然|概要|アウトライン|ポイント"
    "|構成|骨子|はい|です[。：:]"
    "|개요|요점|다음|목록|아래|뼈대|단계|구조|مخطط|النقاط|التالي|قائمة|إليك|هيكل|الخطوات|रूपरेखा|बिंदु|निम्न"
    "|सूची|यहाँ|चरण"
    "|ראשי פרקים|נקודות|הנה|רשימה|โครงร่าง|ประเด็น|ต่อไปนี้|ขั้นตอน"
)
"""Words of a line that announces the list of the points; the latter are found within words, too."""
