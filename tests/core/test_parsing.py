"""Skeletons as models write them, and the points that a person reads in them."""

from __future__ import annotations

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.parsing.parser import ReasoningFilter, SkeletonParser, parse_skeleton
from skeleton_of_thought.types import Point

ABC = ["Apples", "Bananas", "Cherries"]


def listing(*marks: str) -> str:
    return "\n".join(mark + title for mark, title in zip(marks, ABC, strict=True))


MARKS = {
    "dot": listing("1. ", "2. ", "3. "),
    "parenthesis": listing("1) ", "2) ", "3) "),
    "dot and parenthesis": listing("1.) ", "2.) ", "3.) "),
    "parentheses": listing("(1) ", "(2) ", "(3) "),
    "brackets": listing("[1] ", "[2] ", "[3] "),
    "colon": listing("1: ", "2: ", "3: "),
    "cjk comma": listing("1、", "2、", "3、"),
    "fullwidth dot": listing("1．", "2．", "3．"),
    "fullwidth digits": listing("１．", "２．", "３．"),
    "fullwidth parentheses": listing("（1）", "（2）", "（3）"),
    "dash": listing("1 - ", "2 - ", "3 - "),
    "dash at the number": listing("1- ", "2- ", "3- "),
    "en dash": listing("1 – ", "2 – ", "3 – "),
    "slash": listing("1/ ", "2/ ", "3/ "),
    "sharp": listing("#1 ", "#2 ", "#3 "),
    "sharp and colon": listing("#1: ", "#2: ", "#3: "),
    "leading zero": listing("01. ", "02. ", "03. "),
    "escaped dot": listing("1\\. ", "2\\. ", "3\\. "),
    "arabic-indic": listing("١. ", "٢. ", "٣. "),
    "devanagari": listing("१. ", "२. ", "३. "),
    "bengali parenthesis": listing("১) ", "২) ", "৩) "),
    "circled": listing("①", "②", "③"),
    "circled and space": listing("① ", "② ", "③ "),
    "negative circled": listing("❶ ", "❷ ", "❸ "),
    "number with full stop": listing("⒈", "⒉", "⒊"),
    "keycap": listing("1️⃣ ", "2️⃣ ", "3️⃣ "),
    "chinese numerals": listing("一、", "二、", "三、"),
    "chinese numerals in parentheses": listing("（一）", "（二）", "（三）"),
    "chinese numerals in ascii parentheses": listing("(一) ", "(二) ", "(三) "),
    "chinese ordinals": listing("第一，", "第二，", "第三，"),
    "chinese steps": listing("第1步：", "第2步：", "第3步："),
    "chinese steps, word first": listing("步骤1：", "步骤2：", "步骤3："),
    "roman": listing("I. ", "II. ", "III. "),
    "small roman": listing("i) ", "ii) ", "iii) "),
    "capital letters": listing("A. ", "B. ", "C. "),
    "small letters": listing("a) ", "b) ", "c) "),
    "letters in parentheses": listing("(a) ", "(b) ", "(c) "),
    "hyphen": listing("- ", "- ", "- "),
    "hyphen without space": listing("-", "-", "-"),
    "asterisk": listing("* ", "* ", "* "),
    "plus": listing("+ ", "+ ", "+ "),
    "bullet": listing("• ", "• ", "• "),
    "bullet without space": listing("•", "•", "•"),
    "middle dot": listing("· ", "· ", "· "),
    "em dash": listing("— ", "— ", "— "),
    "square": listing("▪ ", "▪ ", "▪ "),
    "tick": listing("✔️ ", "✔️ ", "✔️ "),
    "emoji": listing("👉 ", "👉 ", "👉 "),
    "checkbox": listing("- [ ] ", "- [x] ", "- [ ] "),
    "bullet and number": listing("- 1. ", "- 2. ", "- 3. "),
    "bold number": listing("**1.** ", "**2.** ", "**3.** "),
    "bold digits only": listing("**1**. ", "**2**. ", "**3**. "),
    "underscored number": listing("__1.__ ", "__2.__ ", "__3.__ "),
    "numbered heading": listing("### 1. ", "### 2. ", "### 3. "),
    "numbered heading, bold": listing("## **1.** ", "## **2.** ", "## **3.** "),
    "numbered heading without space": listing("##1. ", "##2. ", "##3. "),
    "heading": listing("## ", "## ", "## "),
    "step": listing("Step 1: ", "Step 2: ", "Step 3: "),
    "step and dash": listing("Step 1 - ", "Step 2 - ", "Step 3 - "),
    "step and dot": listing("Step 1. ", "Step 2. ", "Step 3. "),
    "step in words": listing("Step One: ", "Step Two: ", "Step Three: "),
    "part in roman": listing("Part I: ", "Part II: ", "Part III: "),
    "bold step": listing("**Step 1:** ", "**Step 2:** ", "**Step 3:** "),
    "bold step, colon outside": listing("**Step 1**: ", "**Step 2**: ", "**Step 3**: "),
    "step heading": listing("### Step 1: ", "### Step 2: ", "### Step 3: "),
    "point": listing("Point 1: ", "Point 2: ", "Point 3: "),
    "point in capitals": listing("POINT #1: ", "POINT #2: ", "POINT #3: "),
    "schritt": listing("Schritt 1: ", "Schritt 2: ", "Schritt 3: "),
    "no space": listing("1.", "2.", "3."),
    "no space, parenthesis": listing("1)", "2)", "3)"),
    "tab": listing("1.\t", "2.\t", "3.\t"),
    "many spaces": listing("1.    ", "2.    ", "3.    "),
    "all indented": listing("   1. ", "   2. ", "   3. "),
    "all bullets indented": listing("\t- ", "\t- ", "\t- "),
    "no-break spaces": listing("\u00a01.\u00a0", "\u00a02.\u00a0", "\u00a03.\u00a0"),
    "ideographic spaces": listing("　　1. ", "　　2. ", "　　3. "),
    "first line was stripped": listing("1. ", "   2. ", "   3. "),
    "one column off": listing("1. ", " 2. ", " 3. "),
    "right-aligned": listing(" 9. ", "10. ", "11. "),
    "byte order mark": "\ufeff" + listing("1. ", "2. ", "3. "),
    "quoted": listing("> 1. ", "> 2. ", "> 3. "),
    "gaps": listing("1. ", "4. ", "9. "),
    "begins late": listing("5. ", "6. ", "7. "),
    "begins at zero": listing("0. ", "1. ", "2. "),
    "lazy": listing("1. ", "1. ", "1. "),
    "restarts": listing("1. ", "2. ", "1. "),
    "mixed number styles": listing("1. ", "2) ", "3. "),
    "dotted as a whole": listing("1.1 ", "1.2 ", "1.3 "),
    "dotted with a dot": listing("1.1. ", "1.2. ", "1.3. "),
    "prefill": "1." + " Apples\n2. Bananas\n3. Cherries",
    "prefill echoed": "1." + "1. Apples\n2. Bananas\n3. Cherries",
    "prefill echoed after a space": "1. " + "1. Apples\n2. Bananas\n3. Cherries",
    "prefill echoed on a new line": "1." + "\n1. Apples\n2. Bananas\n3. Cherries",
    "prefill echoed with emphasis": "1." + "**1. Apples**\n**2. Bananas**\n**3. Cherries**",
    "prefill, then parentheses": "1." + "1) Apples\n2) Bananas\n3) Cherries",
    "prefill, then a fence": "1." + "```\n1. Apples\n2. Bananas\n3. Cherries\n```",
    "prefill, bold from the second": "1." + " **Apples**\n**2. Bananas**\n**3. Cherries**",
}


@pytest.mark.parametrize("text", MARKS.values(), ids=MARKS.keys())
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n \t\r\n"], ids=repr)
def test_list_marks_are_read(text: str, end: str) -> None:
    assert list(parse_skeleton(text.replace("\n", end)).titles) == ABC


TEXTS: list[tuple[str, str, list[str]]] = [
    # nothing usable
    ("empty", "", []),
    ("blank", " \n\t\n\r\n", []),
    ("prose", "I cannot help with that.", []),
    ("prose in lines", "Here are 3 tips:\nBe kind.\nBe bold.", []),
    ("label", "Skeleton:", []),
    ("a lone number", "2.", []),
    ("numbers only", "1.\n2.\n3.\n", []),
    ("numbers only on one line", "1. 2. 3. 4.", []),
    ("rules only", "---\n***\n* * *\n===", []),
    ("copied template", "1. ...\n2. ...\n3. ...", []),
    ("a lone heading", "## Skeleton\nnothing here", []),
    ("lone bullets", "-\n-\n- ", []),
    ("unclosed reasoning", "<think>1. a\n2. b", []),
    ("decimal", "3.5 tips for you", []),
    ("dotted prose", "1.5 million people live there.\n1.1 billion too.", []),
    ("price", "$5. That is all.", []),
    ("year", "2024. A good year", []),
    ("year in prose", "2024 was a good year.", []),
    ("time", "10:30 we meet.", []),
    ("ratio", "3 - 5 people", []),
    ("hyphenated", "1-on-1 meetings help.\n3-day trips too.", []),
    ("shop", "7 - Eleven is open.", []),
    ("version", "Version 2. 0", []),
    ("negative number", "-5 degrees is cold.", []),
    ("ellipsis", "3... 2... 1... go", []),
    ("emphasis", "*Note* this.", []),
    ("reference link", "[1](https://example.org) says so", []),
    # around the list
    ("prose before", "Here are 3 tips:\n\n1. A\n2. B\n3. C", ["A", "B", "C"]),
    ("label before", "Skeleton:\n1. A\n2. B", ["A", "B"]),
    ("label on the first line", "Skeleton: 1. Apples\n2. Bananas", ["Apples", "Bananas"]),
    ("prose after", "1. A\n2. B\n\nLet me know if you want more!", ["A", "B"]),
    ("bold label", "**Skeleton:**\n\n1. A\n2. B", ["A", "B"]),
    ("heading label", "## Skeleton\n1. A\n2. B", ["A", "B"]),
    ("heading label and bullets", "## Skeleton\n- A\n- B", ["A", "B"]),
    ("bold label and bullets", "**Outline:**\n* A\n* B", ["A", "B"]),
    ("rule before", "---\n1. A\n2. B\n---", ["A", "B"]),
    ("decimal before", "3.5 tips:\n1. A\n2. B", ["A", "B"]),
    ("year before", "2024. It was good.\n1. A\n2. B", ["A", "B"]),
    ("year within", "1. A\n2024. It was good.\n2. B", ["A", "B"]),
    ("wars and races", "World War 1: an overview\n1. A\n2. B", ["A", "B"]),
    ("dash before", "7 - Eleven:\n1. A\n2. B", ["A", "B"]),
    ("bullet before a list", "- A note.\n\n1. A\n2. B", ["A note", "A", "B"]),
    ("initial before a list", "A. Smith writes of fruit.\n\n1. A\n2. B", ["A", "B"]),
    ("bullets after a list", "1. A\n2. B\n\nNotes:\n- x\n- y", ["A", "B"]),
    # titles
    ("bold title", "1. **Apples**\n2. __Bananas__", ["Apples", "Bananas"]),
    ("italic title", "1. *Apples*\n2. _Bananas_", ["Apples", "Bananas"]),
    ("bold italic title", "1. ***Apples***", ["Apples"]),
    ("bold line", "**1. Apples**\n**2. Bananas**", ["Apples", "Bananas"]),
    ("bold line and colon", "**1. Apples:**\n**2. Bananas**:", ["Apples", "Bananas"]),
    (
        "bold head",
        "1. **Apples**: red or green\n2. **Bananas:** yellow",
        ["Apples: red or green", "Bananas: yellow"],
    ),
    (
        "bold with the number",
        "**1. Apples**: red\n**2. Bananas** - yellow",
        ["Apples: red", "Bananas - yellow"],
    ),
    ("bold within", "1. Use **strong** verbs", ["Use strong verbs"]),
    ("bold within chinese", "1. 请**注意**安全", ["请注意安全"]),
    ("bold around code", "1. **Use `a_b`**", ["Use `a_b`"]),
    ("code is left alone", "1. The `**kwargs` and `__init__`.", ["The `**kwargs` and `__init__`"]),
    ("snake case", "1. my_snake_case and 2*3*4", ["my_snake_case and 2*3*4"]),
    ("open emphasis", "1. **Apples\n2. Bananas**", ["Apples", "Bananas"]),
    (
        "closing marks",
        "1. A.\n2. B:\n3. C;\n4. D,\n5. 苹果。\n6. 香蕉；",
        ["A", "B", "C", "D", "苹果", "香蕉"],
    ),
    ("question and exclamation", "1. Why?\n2. Now!", ["Why?", "Now!"]),
    ("ellipses", "1. And so on...\n2. More…", ["And so on...", "More…"]),
    ("abbreviations", "1. Pears, plums, etc.\n2. The U.S.", ["Pears, plums, etc", "The U.S."]),
    ("closing dash", "1. Apples -\n2. Bananas –", ["Apples", "Bananas"]),
    ("inner space", "1.  Red \t apples  \n2. B", ["Red apples", "B"]),
    (
        "decimals",
        "1. 3.5 tips\n2. Costs of $3.5 in 2024\n3. 2024. A year",
        ["3.5 tips", "Costs of $3.5 in 2024", "2024. A year"],
    ),
    ("symbols", "1. C++\n2. 🎉", ["C++", "🎉"]),
    ("leaked end of turn", "1. A\n2. B</s>\n3. C<|im_end|>", ["A", "B", "C"]),
    ("own letters", "1. a) x\n2. b) y", ["a) x", "b) y"]),
    ("twins", "1. A\n2. A\n3. A", ["A", "A", "A"]),
    ("mark in the title", "1. - Apples\n2. • Bananas", ["Apples", "Bananas"]),
    ("surrogate and control", "1. A\ud800\x00B\n2. C", ["A\ufffdB", "C"]),
    ("closed heading", "## 1. Apples ##\n## 2. Bananas ##", ["Apples", "Bananas"]),
    # several lines, nested lists
    (
        "explanation below",
        "1. Apples\n   They are red.\n2. Bananas\nThey are yellow.\n",
        ["Apples", "Bananas"],
    ),
    ("dotted below", "1. A\n1.1. x\n1.2 y\n2. B\n2.1) z", ["A", "B"]),
    ("dotted letters below", "1. A\n1a. x\n1.b) y\n2. B", ["A", "B"]),
    ("letters below", "1. A\na) x\nb) y\n2. B\n(a) z", ["A", "B"]),
    ("indented numbers below", "1. A\n   1. x\n   2. y\n2. B\n   1. z", ["A", "B"]),
    ("barely indented numbers below", "1. A\n  1. x\n  2. y\n2. B", ["A", "B"]),
    ("indented bullets below", "1. A\n   - x\n   - y\n2. B", ["A", "B"]),
    ("bullets below", "1. A\n- x\n- y\n2. B\n- z", ["A", "B"]),
    ("nested bullets", "- A\n  - x\n  - y\n- B\n    * z", ["A", "B"]),
    ("nested bullets of another kind", "• A\n- x\n- y\n• B", ["A", "B"]),
    ("numbers below bullets", "- A\n  1. x\n  2. y\n- B", ["A", "B"]),
    ("tight numbers below bullets", "- A\n1. x\n2. y\n- B", ["A", "B"]),
    ("parentheses below", "1. A\n(1) x\n(2) y\n2. B", ["A", "B"]),
    ("numbers below chinese", "一、A\n1. x\n2. y\n二、B\n1. z\n2. w", ["A", "B"]),
    ("numbers below steps", "Step 1: A\n1. x\n2. y\nStep 2: B", ["A", "B"]),
    ("steps below phases", "Phase 1: A\nStep 1: x\nStep 2: y\nPhase 2: B", ["A", "B"]),
    ("letters below roman", "I. A\nA. x\nB. y\nC. z\nII. B\nA. w", ["A", "B"]),
    ("numbers below letters", "A. Alpha\n1. x\n2. y\nB. Beta", ["Alpha", "Beta"]),
    ("numbers below bold numbers", "**1. A**\n1. x\n2. y\n**2. B**\n1. z", ["A", "B"]),
    ("lists below numbered headings", "### 1. A\n- x\n1. y\n2. z\n### 2. B", ["A", "B"]),
    (
        "headings below numbered headings",
        "## 1. A\n### 1.1 x\n### Notes\n## 2. B\n## Conclusion",
        ["A", "B", "Conclusion"],
    ),
    ("three levels", "1. A\n   1. x\n      1. xx\n      2. xy\n   2. y\n2. B\n", ["A", "B"]),
    # headings
    ("headings with prose", "## A\nabout a\n## B\nabout b\n", ["A", "B"]),
    ("headings with bullets", "## A\n- x\n- y\n## B\n- z", ["A", "B"]),
    ("title above headings", "# Fruit\n## A\n## B\n", ["A", "B"]),
    ("headings with sections", "## A\n### x\n### y\n## B\n", ["A", "B"]),
    ("label above headings", "## Outline\n### A\n### B\n", ["A", "B"]),
    ("bold lines", "**Intro**\nsome text\n\n**Body**\n- x\n", ["Intro", "Body"]),
    ("headings between numbers", "## One\n1. A\n2. B\n## Two\n3. C", ["A", "B", "C"]),
    # one line
    ("one line", "1. a 2. b 3. c", ["a", "b", "c"]),
    ("one line, capitals", "1. Apples 2. Bananas", ["Apples", "Bananas"]),
    ("one line, parentheses", "(1) Apples (2) Bananas (3) Cherries", ABC),
    ("one line, prose-like", "1) apples, 2) bananas, and 3) plums", ["apples", "bananas", "plums"]),
    ("one line, circled", "①苹果②香蕉③樱桃", ["苹果", "香蕉", "樱桃"]),
    ("one line, chinese", "1、苹果；2、香蕉；3、樱桃。", ["苹果", "香蕉", "樱桃"]),
    ("one line, bold", "**1. Apples** **2. Bananas** **3. Cherries**", ABC),
    ("one line, steps", "Step 1: Apples Step 2: Bananas Step 3: Cherries", ABC),
    ("one line, no space", "1.Apples 2.Bananas 3.Cherries", ABC),
    ("one line, behind a colon", "The points are: 1. Apples 2. Bananas 3. Cherries", ABC),
    ("one line, behind a bold label", "**Skeleton:** 1. Apples 2. Bananas 3. Cherries", ABC),
    ("one line, line breaks of html", "1. Apples<br>2. Bananas<br/>3. Cherries", ABC),
    ("one line, chinese, tight", "1.苹果2.香蕉3.樱桃", ["苹果", "香蕉", "樱桃"]),
    ("a sum", "1. What is 2 + 2. Answer", ["What is 2 + 2. Answer"]),
    ("one line, digits", "1. 2 eggs 2. 3 pears 3. 4 plums", ["2 eggs", "3 pears", "4 plums"]),
    ("two lines", "1. Aa 2. Bb\n3. Cc 4. Dd", ["Aa", "Bb", "Cc", "Dd"]),
    ("a law", "1. Rule 2. of thermodynamics", ["Rule 2. of thermodynamics"]),
    ("a version", "1. Version 2. 0 is out", ["Version 2. 0 is out"]),
    ("a version, tight", "1. Version 2.0\n2. Python 3.12", ["Version 2.0", "Python 3.12"]),
    ("number in a later title", "1. Intro\n2. World War 3. Maybe", ["Intro", "World War 3. Maybe"]),
    ("wrong order", "1. Foo 3. Bar 5. Baz", ["Foo 3. Bar 5. Baz"]),
    # without a title
    ("title on the next line", "1.\nApples\n2.\n\n**Bananas**", ["Apples", "Bananas"]),
    ("title on the next line, step", "### Step 1\nApples\n### Step 2\nBananas", ["Apples", "Bananas"]),
    ("missing title", "1. A\n2.\n3. C", ["A", "C"]),
    ("missing last title", "1. A\n2.", ["A"]),
    ("bullet for a title", "1.\n - Apples\n2.\n - Bananas", ["Apples", "Bananas"]),
    # fences
    ("fenced", "Sure:\n```\n1. A\n2. B\n```\nThese are:\n1. x", ["A", "B"]),
    ("fenced markdown", "```markdown\n1. A\n2. B\n```", ["A", "B"]),
    ("fence with tildes", "~~~\n- A\n- B\n~~~", ["A", "B"]),
    ("unclosed fence", "```\n1. A\n2. B", ["A", "B"]),
    ("code below a point", "1. A\n```python\n# x\n1. no\n```\n2. B", ["A", "B"]),
    ("indented code below a point", "1. A\n   ```\n   2. no\n   ```\n2. B", ["A", "B"]),
    ("code before the list", "```python\n# x\n1. no\n```\n1. A\n2. B", ["A", "B"]),
    ("shorter fence inside", "1. A\n````\n```\n2. no\n````\n2. B", ["A", "B"]),
    # reasoning
    ("thinking", "<think>1. no\n2. no</think>\n1. A\n2. B", ["A", "B"]),
    ("thinking, capitals", "<Thinking>\n- no\n</THINKING>\n1. A", ["A"]),
    ("reasoning", "<reasoning>1. no\n</reasoning>1. A\n2. B", ["A", "B"]),
    ("only the closing tag", "First I consider the user.\nThen\n</think>\n\n1. A\n2. B", ["A", "B"]),
    ("closing tag on the line", "1. no</think>1. A\n2. B", ["A", "B"]),
    ("closing tag after points", "1. A\n</think>\n2. B", ["B"]),
    ("a tag within a title", "1. Ap<think>ples\n2. B", ["Ap<think>ples", "B"]),
    ("no tag", "1. a < b <thin\n2. <b>", ["a < b <thin", "<b>"]),
    # JSON
    ("json", '["A", "B."]', ["A", "B"]),
    ("json in a fence", '```json\n{"points": ["1. A", "2. B"]}\n```', ["A", "B"]),
    ("json objects", '[{"id": 1, "title": "A"}, {"id": 2, "title": "B"}]', ["A", "B"]),
    ("json by number", '{"1": "A", "2": "B"}', ["A", "B"]),
    ("broken json", '["A", "B', []),
    # as models write
    (
        "gpt-4",
        "Certainly! Here's a skeleton for the answer:\n\n1. **Understand the Basics**: Learn the key terms\n"
        "   - Definitions\n   - Scope\n\n2. **Set Clear Goals**: Know what you want\n\n"
        "3. **Practice (20 min/day)**\n\nFeel free to ask for more!",
        [
            "Understand the Basics: Learn the key terms",
            "Set Clear Goals: Know what you want",
            "Practice (20 min/day)",
        ],
    ),
    (
        "llama",
        " 1. Active listening\n 2. Identify issues\n 3. Compromise\n\nNote: I provided 3 points. Let me know.</s>",
        ["Active listening", "Identify issues", "Compromise"],
    ),
    (
        "qwen",
        "<think>\n好的，用户想要一个提纲。\n1. 首先\n</think>\n\n以下是回答的提纲：\n\n1. **明确目标**：确定方向；\n"
        "2. **制定计划**（3-5步）。\n3、坚持执行\n\n希望对您有帮助！",
        ["明确目标：确定方向", "制定计划（3-5步）", "坚持执行"],
    ),
    (
        "chinese outline",
        "提纲：\n一、引言\n（一）背景\n（二）意义\n二、正文\n三、结论",
        ["引言", "正文", "结论"],
    ),
    (
        "claude",
        "# Skeleton\n\n## 1. Core Idea\n- What it is\n- Why it matters\n\n"
        "## 2. Trade-offs\n- Cost: $3.5\n\n## 3. Outlook\n",
        ["Core Idea", "Trade-offs", "Outlook"],
    ),
    ("tiny model in a loop", "1. Eat.\n2. Sleep.\n" * 3 + "1. Ea", ["Eat", "Sleep"] * 3 + ["Ea"]),
    (
        "essay outline",
        "I. Introduction\n   A. Hook\n   B. Thesis\nII. Body\n   A. First\nIII. Conclusion",
        ["Introduction", "Body", "Conclusion"],
    ),
]


@pytest.mark.parametrize(("text", "titles"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS])
def test_the_parser_reads_the_points_of_a_skeleton(text: str, titles: list[str]) -> None:
    skeleton = parse_skeleton(text)
    assert list(skeleton.titles) == titles
    assert [point.index for point in skeleton.points] == list(range(1, len(titles) + 1))
    assert skeleton.text == text


def test_ids_of_the_table_are_unique() -> None:
    assert len({case[0] for case in TEXTS}) == len(TEXTS)


TRUNCATED: list[tuple[str, str, list[str]]] = [
    ("cut point", "1. A\n2. B\n3. Che", ["A", "B"]),
    ("the only point", "1. App", ["App"]),
    ("complete lines", "1. A\n2. B\n", ["A", "B"]),
    ("cut number", "1. A\n2. B\n3.", ["A", "B"]),
    ("cut explanation", "1. A\n2. B\n   because", ["A", "B"]),
    ("cut on one line", "1. a 2. b 3. che", ["a", "b"]),
    ("cut bullet below a heading", "## S\n- A\n- B\n- Che", ["A", "B"]),
    ("cut heading", "## A\nx\n## B\ny\n## Con", ["A", "B"]),
    ("cut second heading", "## A\nx\n## Bo", ["A"]),
    ("cut title of a number", "1. A\n2.\nBan", ["A"]),
    ("cut tag", "1. A\n2. B\n3. C</thin", ["A", "B"]),
    ("carriage return", "1. A\r2. B\r", ["A", "B"]),
]


@pytest.mark.parametrize(("text", "titles"), [c[1:] for c in TRUNCATED], ids=[c[0] for c in TRUNCATED])
def test_point_whose_line_was_cut_is_dropped(text: str, titles: list[str]) -> None:
    parser = SkeletonParser()
    parser.feed(text)
    assert list(parser.close(truncated=True).titles) == titles


def test_points_are_returned_when_their_line_ends() -> None:
    parser = SkeletonParser()
    assert parser.feed("1. App") == []
    assert parser.feed("les") == []
    assert parser.feed("\n2. Ban") == [Point(1, "Apples")]
    assert parser.feed("anas\r") == [Point(2, "Bananas")]
    assert parser.feed("\n\n3. C\n4. D\n5. E") == [Point(3, "C"), Point(4, "D")]
    assert parser.points == (Point(1, "Apples"), Point(2, "Bananas"), Point(3, "C"), Point(4, "D"))
    assert parser.close().titles == ("Apples", "Bananas", "C", "D", "E")
    assert parser.points[-1] == Point(5, "E")


def test_bullets_below_a_single_heading_wait_for_the_end() -> None:
    parser = SkeletonParser()
    assert parser.feed("## Plan\n- A\n- B\n") == []
    assert parser.close().titles == ("A", "B")


def test_numbers_below_a_heading_do_not_wait() -> None:
    parser = SkeletonParser()
    assert parser.feed("## Plan\n1. A\n") == [Point(1, "A")]


def test_points_after_the_limit_are_ignored() -> None:
    parser = SkeletonParser(max_points=2)
    assert not parser.full
    assert parser.feed("1. A\n2. B") == [Point(1, "A")]
    assert not parser.full
    assert parser.feed("\n3. C\n4. D\n") == [Point(2, "B")]
    assert parser.full
    assert parser.feed("5. E\n") == []
    skeleton = parser.close()
    assert skeleton.titles == ("A", "B")
    assert skeleton.text == "1. A\n2. B\n3. C\n4. D\n5. E\n"


def test_limit_holds_within_one_line_and_for_held_points() -> None:
    assert parse_skeleton("1. a 2. b 3. c", max_points=2).titles == ("a", "b")
    assert parse_skeleton("## S\n- A\n- B", max_points=1).titles == ("A",)
    assert parse_skeleton("1. A\n2. B", max_points=1).titles == ("A",)


def test_text_after_close_is_ignored() -> None:
    parser = SkeletonParser()
    parser.feed("1. A\n")
    skeleton = parser.close()
    assert parser.feed("2. B\n") == []
    assert parser.close() is skeleton
    assert skeleton.text == "1. A\n"


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(InvalidInput, match=f"max_points must be at least 1.*{limit}"):
        SkeletonParser(limit)
    with pytest.raises(InvalidInput):
        parse_skeleton("1. A", limit)


def test_a_late_closing_tag_voids_the_points_that_were_returned() -> None:
    parser = SkeletonParser()
    assert parser.feed("1. thought\n") == [Point(1, "thought")]
    assert not parser.restarted
    assert parser.feed("</think>\n1. A\n") == [Point(1, "A")]
    assert parser.restarted
    assert parser.feed("2. B\n") == [Point(2, "B")]
    assert not parser.restarted
    assert parser.close().titles == ("A", "B")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>b</think>c", "c"),
        ("<THINK>b</tHiNk>c", "c"),
        (" <thinking>b</think>c</thinking>d", " d"),
        ("\n<reasoning>b\n</reasoning>\nc", "\n\nc"),
        ("<think>b", ""),
        ("<think>b</thi", ""),
        ("a</think>b", "b"),
        ("a<thin", "a<thin"),
        ("a<think>b</think>c", "a<think>b</think>c"),
        ("a<think>b", "a<think>b"),
        ("a<<think>b</think>", "a<<think>b</think>"),
        ("a <b> </p> <thinker>", "a <b> </p> <thinker>"),
        ("<think><think>a</think>b", "b"),
        ("a<th\u0130nk>", "a<th\u0130nk>"),
        ("", ""),
    ],
)
def test_reasoning_is_removed_from_any_chunking(text: str, left: str) -> None:
    for size in (1, 2, 3, 7, 100):
        reasoning, out = ReasoningFilter(), ""
        for piece in (text[at : at + size] for at in range(0, len(text), size)):
            shown = reasoning.feed(piece)
            out = shown if reasoning.restarted else out + shown
        rest = reasoning.close()
        assert (rest if reasoning.restarted else out + rest) == left


def test_filter_holds_back_only_what_may_be_a_tag() -> None:
    reasoning = ReasoningFilter()
    assert reasoning.feed("a < b") == "a < b"
    assert reasoning.feed("c <th") == "c "
    assert reasoning.feed("e") == "<the"
    assert reasoning.feed("</think") == ""
    assert reasoning.close() == "</think"
    assert reasoning.feed("new") == "new"
