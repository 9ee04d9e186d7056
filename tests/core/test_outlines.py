"""Outlines and lists in all the forms that models write them, and prose that is none."""

from __future__ import annotations

import pytest

from skeleton_of_thought.parsing.parser import SkeletonParser, parse_skeleton
from skeleton_of_thought.types import Point

HEADINGS: list[tuple[str, list[str]]] = [
    ("# A\n## A1\n## A2\n# B", ["A", "B"]),
    ("# Title\n## A\n## B", ["A", "B"]),
    ("# T\n## A\n### a\n### b\n## B\n### c", ["A", "B"]),
    ("A\n===\ntext\nB\n===", ["A", "B"]),
    ("Title\n=====\n\nA\n-----\ntext\n\nB\n-----", ["A", "B"]),
    ("# Title\nSome prose here.\n## A\n## B\n## Conclusion", ["A", "B", "Conclusion"]),
    ("## A\n1. x\n2. y\n## B\n1. z\n2. w", ["A", "B"]),
    ("# T\n## A\n1. x\n2. y\n## B\n1. z\n2. w", ["A", "B"]),
    ("## Outline\n1. A\n2. B", ["A", "B"]),
    ("# How to sleep\n1. A\n2. B\n3. C", ["A", "B", "C"]),
    ("**A**\n- x\n- y\n**B**\n- z", ["A", "B"]),
    ("# T\n**A**\n- x\n**B**\n- z", ["A", "B"]),
    ("# Title\n## 1. A\n## 2. B\n## Conclusion", ["A", "B", "Conclusion"]),
    ("## First: A\n## Second: B", ["First: A", "Second: B"]),
    ("Here's the outline:\n---\n1. A\n2. B\n---", ["A", "B"]),
    ("Here's the outline\n---\n- A\n- B\n---", ["A", "B"]),
    ("## Plan\n- A\n  1. x\n- B", ["A", "B"]),
    ("# A\n## A1\n### a\n## A2\n# B\n## B1\n# C", ["A", "B", "C"]),
    ("A\n-----\nx\n\nB\n-----\ny", ["A", "B"]),
    ("**Title**\n\n## A\n- x\n## B\n- y", ["A", "B"]),
    ("# Outline\n\n**A**\n1. x\n2. y\n\n**B**\n1. z", ["A", "B"]),
    ("### A\n1. x\n1. y\n### B\n1. z", ["A", "B"]),
    ("# My Title\n\nHere is the outline:\n\n1. A\n2. B", ["A", "B"]),
    ("## A\nSome text.\n1. x\n2. y\n\n## B\nSome text.", ["x", "y"]),
    ("== A\ntext\n== B\ntext", ["A", "B"]),
    ("= Title\n== A\n== B", ["A", "B"]),
    ("Line one\n---\nLine two\n---", ["Line one", "Line two"]),
]

INTRODUCTIONS: list[tuple[str, list[str]]] = [
    ("Introduction:\n- Hook\n- Thesis\nSection 1: A\n- x\nSection 2: B\n- y", ["A", "B"]),
    ("Introduction\n- Hook\n- Thesis\n\nPart I: A\n- x\nPart II: B", ["A", "B"]),
    ("**Introduction**\n- Hook\n- Thesis\n\n**Section 1: A**\n- x\n**Section 2: B**\n- y", ["A", "B"]),
    ("Einleitung:\n- Aufhänger\n\nPunkt 1: A\nPunkt 2: B", ["A", "B"]),
    ("引言：\n- 背景\n- 意义\n第一部分 A1\n- x\n第二部分 B1", ["A1", "B1"]),
    ("Introduction :\n- x\nÉtape 2 : no", ["no"]),
    ("Introduction :\n- x\nÉtape 1 : A\nÉtape 2 : B", ["A", "B"]),
    ("Введение:\n- x\nШаг 1. Один\nШаг 2. Два", ["Один", "Два"]),
    ("Introducción\n- gancho\nPaso 1: A\nPaso 2: B", ["A", "B"]),
    ("Introduction\n1. Hook\n2. Thesis\n\nSection 1: A\n1. x\nSection 2: B", ["A", "B"]),
    ("Some general remarks first.\n- be kind\n- be short\n\n1. A\n2. B", ["A", "B"]),
    ("Here are the points:\n- A\n- B", ["A", "B"]),
    ("Remarks.\n- A\n- B", ["A", "B"]),
    ("## Introduction\n- hook\n## Section 1: A\n- x\n## Section 2: B\n## Conclusion", ["A", "B", "Conclusion"]),
    ("Overview: we will see.\n- a\n- b\nChapter 1: A\n- x\nChapter 2: B\n- y", ["A", "B"]),
    ("Before we begin\n* a\n* b\n\nChapter 1: A\n* x\nChapter 2: B\n* y", ["A", "B"]),
    ("Intro\n• hook\n\nStep 1 – A\n• x\nStep 2 – B", ["A", "B"]),
    ("## Intro\n- hook\n\n1. A\n2. B", ["A", "B"]),
    ("はじめに\n- 背景\n\n第1章 本論\n- x\n第2章 結論", ["本論", "結論"]),
    ("서론\n- 배경\n1장 본론\n2장 결론", ["본론", "결론"]),
    ("서론:\n- 배경\n\n섹션 1: 빛\n섹션 2: 소리", ["빛", "소리"]),
    ("Introduction:\n1. Hook\n\nBody Paragraph 1: A\nBody Paragraph 2: B", ["A", "B"]),
    ("Inledning:\n- a\n\nDel 1: Ljus\nDel 2: Ljud", ["Ljus", "Ljud"]),
    ("はじめに：\n- 背景\n\nセクション1：光\nセクション2：音", ["光", "音"]),
    ("Indledning:\n- a\n\nAfsnit 1: Lys\nAfsnit 2: Lyd", ["Lys", "Lyd"]),
    ("Úvod:\n- a\n\nSekce 1: Světlo\nSekce 2: Hluk", ["Světlo", "Hluk"]),
    ("Johdanto:\n- a\n\nOsio 1: Valo\nOsio 2: Melu", ["Valo", "Melu"]),
    ("Introducere:\n- a\n\nSecțiunea 1: Lumina\nSecțiunea 2: Zgomotul", ["Lumina", "Zgomotul"]),
]

MARKS: list[tuple[str, list[str]]] = [
    ("1st Apples\n2nd Bananas\n3rd Cherries", ["Apples", "Bananas", "Cherries"]),
    ("1º Manzanas\n2º Peras", ["Manzanas", "Peras"]),
    ("1.º Manzanas\n2.º Peras", ["Manzanas", "Peras"]),
    ("1er point: A\n2e point: B", ["point: A", "point: B"]),
    ("α) Ena\nβ) Dio\nγ) Tria", ["Ena", "Dio", "Tria"]),
    ("а) Один\nб) Два\nв) Три", ["Один", "Два", "Три"]),
    ("א. אחד\nב. שתיים", ["אחד", "שתיים"]),
    ("가. 하나\n나. 둘", ["하나", "둘"]),
    ("1단계 준비\n2단계 실행", ["준비", "실행"]),
    ("1단계: 준비\n2단계: 실행", ["준비", "실행"]),
    ("제1장 서론\n1. x\n제2장 본론", ["서론", "본론"]),
    ("1つ目：リンゴ\n2つ目：バナナ", ["リンゴ", "バナナ"]),
    ("一つ目 リンゴ\n二つ目 バナナ", ["リンゴ", "バナナ"]),
    ("首先，准备材料\n其次，开始\n再次，检查\n最后，总结", ["准备材料", "开始", "检查", "总结"]),
    ("まず、準備する\n次に、始める\n最後に、まとめる", ["準備する", "始める", "まとめる"]),
    ("First, prepare.\nSecond, begin.\nFinally, stop.", ["prepare", "begin", "stop"]),
    ("Erstens: Planen\nZweitens: Handeln\nSchließlich: Ruhen", ["Planen", "Handeln", "Ruhen"]),
    ("壹、甲方\n贰、乙方", ["甲方", "乙方"]),
    ("🍎 Apples\n🍌 Bananas\n🍒 Cherries", ["Apples", "Bananas", "Cherries"]),
    ("✅ A\n✅ B", ["A", "B"]),
    ("🔹 A\n🔸 B", ["A", "B"]),
    ("🎉 Great question!\n1. A\n2. B", ["A", "B"]),
    ("🎉 Great question!\n\n💡 Here is the outline:\n- A\n- B", ["A", "B"]),
    ("#. A\n#. B", ["A", "B"]),
    (". A\n. B", ["A", "B"]),
    ("[1] A\n[2] B", ["A", "B"]),
    ("(i) A\n(ii) B", ["A", "B"]),
    ("Ⅰ. A\nⅡ. B", ["A", "B"]),
    ("๑. A\n๒. B", ["A", "B"]),
    ("* A\n** x\n* B", ["A", "B"]),
    ("Apples\n: red\n\nBananas\n: yellow", ["Apples", "Bananas"]),
    ("1. Mai", ["Mai"]),
    ("Part 1 Apples\nPart 2 Bananas", ["Apples", "Bananas"]),
    ("以下是要点：\n首先准备材料\n其次开始做", ["准备材料", "开始做"]),
    ("Bước 1: A\nBước 2: B", ["A", "B"]),
    ("שלב 1: A\nשלב 2: B", ["A", "B"]),
    ("Chapter 1\nA\nChapter 2\nB", ["A", "B"]),
    ("**1st** Apples\n**2nd** Bananas", ["Apples", "Bananas"]),
    ("1st: Apples\n2nd: Bananas", ["Apples", "Bananas"]),
    ("1st) Apples\n2nd) Bananas", ["Apples", "Bananas"]),
    ("1st - Apples\n2nd - Bananas", ["Apples", "Bananas"]),
    ("1ère partie\n2ème partie", ["partie", "partie"]),
    ("A) Apples\nB) Bananas", ["Apples", "Bananas"]),
    ("А. Яблоки\nБ. Груши\nВ. Сливы", ["Яблоки", "Груши", "Сливы"]),
    ("Α. Μήλα\nΒ. Αχλάδια", ["Μήλα", "Αχλάδια"]),
    ("أ) تفاح\nب) موز\nج) كرز", ["تفاح", "موز", "كرز"]),
    ("أ. تفاح\nب. موز\nت. كرز", ["تفاح", "موز", "كرز"]),
    ("(가) 사과\n(나) 배", ["사과", "배"]),
    ("ㄱ. 사과\nㄴ. 배", ["사과", "배"]),
    ("ア. りんご\nイ. バナナ\nウ. さくらんぼ", ["りんご", "バナナ", "さくらんぼ"]),
    ("イ）りんご\nロ）バナナ", ["りんご", "バナナ"]),
    ("甲、苹果\n乙、香蕉", ["苹果", "香蕉"]),
    ("ก. แอปเปิล\nข. กล้วย", ["แอปเปิล", "กล้วย"]),
    ("क) सेब\nख) केला", ["सेब", "केला"]),
    ("ⓐ Apples\nⓑ Bananas", ["Apples", "Bananas"]),
    ("⓵ Apples\n⓶ Bananas", ["Apples", "Bananas"]),
    ("⑴ Apples\n⑵ Bananas", ["Apples", "Bananas"]),
    ("㈠苹果\n㈡香蕉", ["苹果", "香蕉"]),
    ("1️⃣ Apples\n2️⃣ Bananas", ["Apples", "Bananas"]),
    ("첫째, 사과\n둘째, 배\n셋째, 감", ["사과", "배", "감"]),
    ("첫 번째: 사과\n두 번째: 배", ["사과", "배"]),
    ("먼저, 사과\n다음으로, 배\n마지막으로, 감", ["사과", "배", "감"]),
    ("首先：苹果\n然后：香蕉\n最后：樱桃", ["苹果", "香蕉", "樱桃"]),
    ("第一に、りんご\n第二に、バナナ", ["りんご", "バナナ"]),
    (
        "Firstly, apples\nSecondly, bananas\nThirdly, cherries\nLastly, plums",
        ["apples", "bananas", "cherries", "plums"],
    ),
    ("**First:** Apples\n**Then:** Bananas", ["Apples", "Bananas"]),
    (
        "Premièrement, les pommes\nEnsuite, les bananes\nEnfin, les cerises",
        ["les pommes", "les bananes", "les cerises"],
    ),
    ("En primer lugar, manzanas\nEn segundo lugar, peras\nPor último, ciruelas", ["manzanas", "peras", "ciruelas"]),
    ("Innanzitutto, mele\nPoi, pere\nInfine, prugne", ["mele", "pere", "prugne"]),
    ("Primeiro, maçãs\nSegundo, peras\nPor fim, ameixas", ["maçãs", "peras", "ameixas"]),
    ("Ten eerste, appels\nTen tweede, peren\nTot slot, pruimen", ["appels", "peren", "pruimen"]),
    ("Во-первых, яблоки\nВо-вторых, груши\nНаконец, сливы", ["яблоки", "груши", "сливы"]),
    ("أولاً، تفاح\nثانياً، موز\nأخيراً، كرز", ["تفاح", "موز", "كرز"]),
    ("- First, do this\n- Second, do that", ["First, do this", "Second, do that"]),
    ("1. First, do this\n2. Second, do that", ["First, do this", "Second, do that"]),
    ("🚀 **Apples**: red\n🔥 **Bananas**: yellow", ["Apples: red", "Bananas: yellow"]),
    ("🍎 Apples\n- red\n- sweet\n🍌 Bananas\n- yellow", ["Apples", "Bananas"]),
    ("🎯 A\n🎯 B", ["A", "B"]),
    ("❤️ Love\n👨\u200d👩\u200d👧 Family\n🇫🇷 France", ["Love", "Family", "France"]),
    ("☀️ Sun\n🌧️ Rain", ["Sun", "Rain"]),
    ("👍🏽 Good\n👎🏽 Bad", ["Good", "Bad"]),
    ("✅ Do A\n❌ Avoid B", ["Do A", "Avoid B"]),
    ("🎉 Here's the plan!\n\n1. A\n2. B", ["A", "B"]),
    ("Great question! 🎉\n- A\n- B", ["A", "B"]),
    (". A\n.. x\n. B", ["A", "B"]),
    ("* A\n** x\n** y\n* B", ["A", "B"]),
    ("#. A\n\n   text\n#. B", ["A", "B"]),
    ("Ⅰ、引言\nⅡ、正文", ["引言", "正文"]),
    ("٣. x", ["x"]),
    ("١. تفاح\n٢. موز", ["تفاح", "موز"]),
    ("Question 1: A\nQuestion 2: B", ["A", "B"]),
    ("PART ONE: A\nPART TWO: B", ["A", "B"]),
    ("Part One. A\nPart Two. B", ["A", "B"]),
    ("Section A: Apples\nSection B: Bananas", ["Apples", "Bananas"]),
    ("Pros:\n- x\nCons:\n- y", ["x", "y"]),
]

BOLD_AND_BULLETS: list[tuple[str, list[str]]] = [
    ("Step 1/2: A\nStep 2/2: B", ["A", "B"]),
    ("Step 1 of 2: A\nStep 2 of 2: B", ["A", "B"]),
    ("**Apples**: red\n**Bananas**: yellow", ["Apples: red", "Bananas: yellow"]),
    ("**Apples:** red\n\n**Bananas:** yellow", ["Apples: red", "Bananas: yellow"]),
    ("**Topic**: X\n**Audience**: Y\n\n1. A\n2. B", ["A", "B"]),
    ("- Introduction\n- Section 1: A\n- Section 2: B\n- Conclusion", ["Introduction", "A", "B", "Conclusion"]),
    ("- Step 1: A\n- Step 2: B\n- Conclusion", ["A", "B", "Conclusion"]),
    ("- Step 1: A\n  - x\n- Step 2: B\n  - y", ["A", "B"]),
    ("⭐ A\n🔥 B\n💡 C", ["A", "B", "C"]),
]

HTML: list[tuple[str, list[str]]] = [
    ("<ol><li>A</li><li>B</li></ol>", ["A", "B"]),
    ('<ol class="x">\n  <li>A</li>\n  <li><strong>B</strong>: more &amp; more</li>\n</ol>', ["A", "B: more & more"]),
    ("<ul><li>A<ul><li>x</li></ul></li><li>B</li></ul>", ["A", "B"]),
    ("<ul>\n<li>A\n<ul>\n<li>x</li>\n<li>y</li>\n</ul>\n</li>\n<li>\nB\n</li>\n</ul>", ["A", "B"]),
    ("Here it is: <ol><li>A</li><li>B</li></ol>", ["A", "B"]),
    ("<h2>A</h2>\n<p>text</p>\n<ul><li>x</li></ul>\n<h2>B</h2>\n<ul><li>y</li></ul>", ["A", "B"]),
    ("<h1>T</h1><h2>A</h2><h2>B</h2>", ["A", "B"]),
    (
        "<table><tr><th>#</th><th>Point</th></tr><tr><td>1</td><td>A</td></tr><tr><td>2</td><td>B</td></tr></table>",
        ["A", "B"],
    ),
    ("<p>1. A</p>\n<p>2. B</p>", ["A", "B"]),
    ('<ul>\n  <li><b>A</b></li>\n  <li><a href="x">B</a></li>\n</ul>', ["A", "B"]),
    ("<ul><li>A</li>\n<li>B</li></ul>\nSome text after.", ["A", "B"]),
    ("<ol>\n<li><p>A</p></li>\n<li><p>B</p></li>\n</ol>", ["A", "B"]),
    ("```html\n<ol>\n  <li>A</li>\n  <li>B</li>\n</ol>\n```", ["A", "B"]),
    ("<li>A</li>\n<li>B</li>", ["A", "B"]),
    ("<OL><LI>A<LI>B</OL>", ["A", "B"]),
    ("<ol>\n  <li>A\n    <p>Explanation of a.</p>\n  </li>\n  <li>B<br>more</li>\n</ol>", ["A", "B"]),
    ("<dl><dt>A</dt><dd>x</dd><dt>B</dt><dd>y</dd></dl>", ["A", "B"]),
    ("<h1>Title</h1>\n<ol><li>A</li><li>B</li></ol>", ["A", "B"]),
    ("<h3>1. A</h3>\n<p>x</p>\n<h3>2. B</h3>", ["A", "B"]),
    ("<points>\n<point>A</point>\n<point>B</point>\n</points>", ["A", "B"]),
    ("<outline>\n1. A\n2. B\n</outline>", ["A", "B"]),
    ("<ol>\n<li>A</li>\n<ol><li>x</li></ol>\n<li>B</li>\n</ol>", ["A", "B"]),
    ("<p><strong>A</strong></p><p>text</p><p><strong>B</strong></p>", ["A", "B"]),
]

LATEX: list[tuple[str, list[str]]] = [
    ("\\textbf{1. A}\n\\textbf{2. B}", ["A", "B"]),
    ("\\textbf{A}\n- x\n\n\\textbf{B}\n- y", ["A", "B"]),
    ("\\documentclass{article}\n\\begin{document}\n\\section{A}\n\\section{B}\n\\end{document}", ["A", "B"]),
    ("\\begin{enumerate}\n\\item[1.] A\n\\item[2.] B\n\\end{enumerate}", ["A", "B"]),
    ("\\begin{itemize}\n\\item A\n\\item \\textbf{B} more\n\\item[x] C\n\\end{itemize}", ["A", "B more", "C"]),
    ("\\begin{enumerate} \\item A \\item B \\end{enumerate}", ["A", "B"]),
    (
        "\\begin{itemize}\n\\item A\n  \\begin{itemize}\n  \\item x\n  \\end{itemize}\n\\item B\n\\end{itemize}",
        ["A", "B"],
    ),
    ("\\section{A}\n\\begin{itemize}\n\\item x\n\\end{itemize}\n\\section{B}", ["A", "B"]),
    (
        "Sure:\n\\begin{enumerate}[label=(\\alph*)]\n    \\item A \\& C % comment\n"
        "    \\item $x^2$ is \\emph{fine}\n\\end{enumerate}",
        ["A & C", "$x^2$ is fine"],
    ),
    ("```latex\n\\begin{itemize}\n  \\item A\n  \\item B\n\\end{itemize}\n```", ["A", "B"]),
    (
        "\\begin{description}\n\\item[Apples] are red\n\\item[Bananas] are yellow\n\\end{description}",
        ["Apples: are red", "Bananas: are yellow"],
    ),
    ("\\section{A}\n\\subsection{x}\n\\subsection{y}\n\\section{B}", ["A", "B"]),
    ("\\item A\n\\item B", ["A", "B"]),
    ("\\begin{itemize}\n\\item\nA\n\\item\nB\n\\end{itemize}", ["A", "B"]),
]

DATA: list[tuple[str, list[str]]] = [
    ('{"title": "A"}\n{"title": "B"}', ["A", "B"]),
    ('{"title": "A"}', ["A"]),
    ('[{"title": "A"}]', ["A"]),
    ('{"title": "T", "sections": ["A", "B"]}', ["A", "B"]),
    ('Here: {"title": "T", "sections": ["A", "B"]}', ["A", "B"]),
    ('points = ["A", "B"]', ["A", "B"]),
    ('Here is the outline:\n["A", "B"]', ["A", "B"]),
    ('Here is the outline: {"title": "X", "points": ["A", "B"]}', ["A", "B"]),
    (
        'Sure!\n```json\n{\n  "outline": [\n    {"title": "A", "description": "x"},\n'
        '    {"title": "B", "description": "y"}\n  ]\n}\n```\nDone.',
        ["A", "B"],
    ),
    ('- title: X\n  description: foo\n- title: "Y"\n  description: bar', ["X", "Y"]),
    ("points:\n  - id: 1\n    title: A\n  - id: 2\n    title: B", ["A", "B"]),
    ("- name: A\n- name: B", ["A", "B"]),
    ('{"A": ["x", "y"], "B": ["z"]}', ["A", "B"]),
    ('{"skeleton": {"1": "A", "2": "B"}}', ["A", "B"]),
    ('Here is the outline:\n\n```json\n["A", "B"]\n```\n\nI hope it helps.', ["A", "B"]),
    ('```\n["A", "B"]\n```', ["A", "B"]),
    ('Sure! {"points": [{"title": "A"}, {"title": "B"}]}', ["A", "B"]),
    ('Sure!\n{"skeleton": ["A", "B"]}\nLet me know.', ["A", "B"]),
    ('Here [note] it is:\n[\n  {"name": "A"},\n  {"name": "B"}\n]', ["A", "B"]),
    ('{"title": "T", "outline": {"sections": [{"heading": "A", "points": ["x"]}, {"heading": "B"}]}}', ["A", "B"]),
    ('{"outline": {"A": ["x"], "B": ["y"]}}', ["A", "B"]),
    ('[{"point": {"title": "A"}}, {"point": {"title": "B"}}]', ["A", "B"]),
    ("```yaml\noutline:\n  - title: \"A\"\n    points:\n      - x\n      - y\n  - title: 'B'\n```", ["A", "B"]),
    ("- point: A\n- point: B", ["A", "B"]),
    ('- heading: "A: the start"\n  text: foo\n- heading: B', ["A: the start", "B"]),
    ("- topic: A\n- topic: B", ["A", "B"]),
    ('- "title": "A"\n- "title": "B"', ["A", "B"]),
    ("sections:\n- name: A\n  description: d\n- name: B\n  description: d", ["A", "B"]),
    ("- A: first thing\n- B: second thing", ["A: first thing", "B: second thing"]),
    ("- Title: A\n- Title: B", ["A", "B"]),
    ("- **title**: A\n- **title**: B", ["A", "B"]),
    ("1. **Title:** A\n2. **Title:** B", ["A", "B"]),
    ("1. title: A\n2. title: B", ["A", "B"]),
]

TABLES: list[tuple[str, list[str]]] = [
    ("| code | meaning |\n|---|---|\n| 0 | done |\n| 1 | failed |\n\n- A\n- B", ["A", "B"]),
    ("| code | meaning |\n|---|---|\n| 0 | done |\n| 1 | failed |\n\n1. A\n2. B", ["A", "B"]),
    ("1. A\n| 1 | x |\n| 2 | y |\n2. B", ["A", "B"]),
    ("| # | Point |\n|---|-------|\n| 1 | A |\n| 2 | B |", ["A", "B"]),
    ("| Point | Why |\n|---|-------|\n| A | x |\n| B | y |", ["A", "B"]),
    ("| 1 | A | x |\n| 2 | B | y |", ["A", "B"]),
    ("| No. | Section | Notes |\n|:---:|:--------|-------|\n| 1. | **A** | x |\n| 2. | **B** | y |", ["A", "B"]),
]

PROSE = [
    "**Note**: this matters.",
    'See {"title": "A"} for more.',
    'It sets {"a": ["x"], "b": ["y"]}:\n{"a": ["x"], "b": ["y"]}',
    "It was the best of times,\nfirst, because it was warm,\nsecond, because it was long.",
    "The meeting is on\n1st of May or on\n2nd of May.",
    "🎉 Done!",
    "Step 1 is to rest.\nStep 2 is to wait.",
    "<b>Note:</b> this matters.",
    "\\[ x = 1 \\]",
    "This is about HTML <li> tags.\nAnd more.",
    "Put a <ul> around it and use <li> for items.",
    "We say \\textbf{this} once.",
    "a | b\nc | d",
    "He came.\n---\nShe left.\n---",
    "x = 5\n= 5",
    "1st of May is a holiday.",
    "1st of May is a holiday.\n2nd of June is not.",
    "First, sleep matters.",
    "Second, we go.\nFinally, done.",
    "🎉 Hooray!",
    'In 2024 it was 3.5.\n"Quote", he said.',
    "Step 1 is to think.\nStep 2 is to act.",
    'The function returns {"a": "b", "c": "d"} always.',
    "He said: [sic] yes.",
    "Quick tip: don't.",
    "1 Mai ist frei.\n2 Mai auch.",
    "On the 1st of May\n2nd of June",
    "First, we met in 1999. Then we moved.\n\nThe house was big.",
    '"First," he said.',
    "3.5 is a number\n1.5 too",
    "May 1st",
    "1er janvier 2024",
]


def one_by_one(text: str) -> list[str]:
    parser = SkeletonParser()
    for char in text:
        parser.feed(char)
    return list(parser.close().titles)


@pytest.mark.parametrize(
    ("text", "titles"),
    [*HEADINGS, *INTRODUCTIONS, *MARKS, *BOLD_AND_BULLETS, *HTML, *LATEX, *DATA, *TABLES],
    ids=lambda value: repr(value)[:40],
)
def test_an_outline_is_read_as_a_person_reads_it(text: str, titles: list[str]) -> None:
    assert list(parse_skeleton(text).titles) == titles
    assert list(parse_skeleton(text.replace("\n", "\r\n") + "\n").titles) == titles
    assert one_by_one(text) == titles


@pytest.mark.parametrize("text", PROSE)
def test_prose_has_no_points(text: str) -> None:
    assert parse_skeleton(text).titles == ()
    assert one_by_one(text) == []


@pytest.mark.parametrize("mark", ["{}. ", "- ", "## ", "Step {}: "])
@pytest.mark.parametrize(
    "text",
    [
        "<ul><li>x</li><li>y</li></ul>",
        "<ol><li>x</li><li>y</li></ol>",
        "<ol>\n<li>x</li>\n<li>y</li>\n</ol>",
        "\\begin{itemize}\n\\item x\n\\item y\n\\end{itemize}",
        "\\begin{enumerate}\n\\item x\n\\item y\n\\end{enumerate}",
        "First, x\nThen, y",
        "1st x\n2nd y",
        "🍎 x\n🍌 y",
        "| 1 | x |\n| 2 | y |",
        '["x", "y"]',
        "**x**: why\n**y**: how",
        "x\n: y",
    ],
)
def test_a_list_of_another_kind_below_a_point_is_part_of_it(text: str, mark: str) -> None:
    outline = f"{mark.format(1)}One\n{text}\n{mark.format(2)}Two\n{text}"
    assert parse_skeleton(outline).titles == ("One", "Two")


@pytest.mark.parametrize(
    ("lines", "returned"),
    [
        # Ordinary lists do not wait, with prose above or a heading that announces them.
        (["1. A", "2. B"], [["A"], ["B"]]),
        (["Sure!", "1. A", "2. B"], [[], ["A"], ["B"]]),
        (["Some remarks.", "1. A"], [[], ["A"]]),
        (["# Outline", "1. A"], [[], ["A"]]),
        (["## 提纲", "1. A"], [[], ["A"]]),
        (["# How to sleep", "Here are the steps:", "1. A"], [[], [], ["A"]]),
        (["# How to sleep", "1. A", "2. B"], [[], ["A"], ["B"]]),
        (["# How to sleep", "", "Sleep is good.", "", "1) A"], [[], [], [], [], ["A"]]),
        (["How to sleep", "===", "**1. A**", "text"], [[], [], ["A"], []]),
        (["# Title", "## 1. A", "## 2. B"], [[], ["A"], ["B"]]),
        (["🎉 Great question!", "1. A"], [[], ["A"]]),
        (["😊 Happy to help.", "", "1. A"], [[], [], ["A"]]),
        (["# Title", "Step 1: A"], [[], ["A"]]),
        (["- A", "- B"], [["A"], ["B"]]),
        (["Here are the points:", "- A"], [[], ["A"]]),
        (["Hier sind die Punkte:", "- A"], [[], ["A"]]),
        (["✅ A", "✅ B"], [["A"], ["B"]]),
        (["α) A", "β) B"], [["A"], ["B"]]),
        (["1단계: A"], [["A"]]),
        (["<ol>", "<li>A</li>", "<li>B</li>"], [[], ["A"], ["B"]]),
        (["\\begin{itemize}", "\\item A"], [[], ["A"]]),
        # A second line of the kind.
        (["# A", "# B", "# C"], [[], ["A", "B"], ["C"]]),
        (["1st A", "2nd B", "3rd C"], [[], ["A", "B"], ["C"]]),
        (["First, A", "Then, B"], [[], ["A", "B"]]),
        (["🍎 A", "🍌 B"], [[], ["A", "B"]]),
        (["A", "===", "B", "==="], [[], [], [], ["A", "B"]]),
        # What may be part of a section.
        (["# A", "## A1", "## A2", "# B"], [[], [], [], ["A", "B"]]),
        (["## A", "1. x", "## B", "1. y"], [[], [], [], ["A", "B"]]),
        (["Introduction:", "- x", "Section 1: A"], [[], [], ["A"]]),
        (["Introduction:", "1. x", "Section 1: A"], [[], [], ["A"]]),
        (["Some remarks.", "- x", "", "1. A"], [[], [], [], ["A"]]),
        (["Introduction:", "- x", "", "1. A"], [[], [], [], ["A"]]),
        (["**Introduction**", "- x", "", "**1. A**"], [[], [], [], ["A"]]),
        (["## Introduction", "- x", "", "1. y", "## A", "1. z"], [[], [], [], [], [], ["Introduction", "A"]]),
        (["# Title", "## A", "## B"], [[], [], []]),
        (["## How to sleep", "1. A", "2. B"], [[], [], []]),
        (["🍎 Apples", "1. red", "🍌 Bananas", "1. yellow"], [[], [], [], ["Apples", "Bananas"]]),
        (["Some remarks.", "- A"], [[], []]),
    ],
)
def test_points_are_returned_as_soon_as_they_are_certain(lines: list[str], returned: list[list[str]]) -> None:
    parser = SkeletonParser()
    assert [[point.title for point in parser.feed(line + "\n")] for line in lines] == returned


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("# T\n## A\n## B\n## Con", ["A", "B"]),
        ("## A\n1. x\n2. Ban", ["x"]),
        ("1st A\n2nd B\n3rd Che", ["A", "B"]),
        ("🍎 A\n🍌 B\n🍒 Che", ["A", "B"]),
        ("<ul><li>A</li><li>B</li><li>Che", ["A", "B"]),
        ("<ul><li>A</li><li>B</li>", ["A", "B"]),
        ("\\begin{itemize}\n\\item A\n\\item B\n\\item Che", ["A", "B"]),
        ("| a | b |\n|---|---|\n| A | x |\n| B", ["A"]),
    ],
)
def test_a_title_that_was_cut_off_is_dropped(text: str, titles: list[str]) -> None:
    parser = SkeletonParser()
    parser.feed(text)
    assert list(parser.close(truncated=True).titles) == titles


def test_held_points_are_numbered_from_one() -> None:
    assert parse_skeleton("# T\n## A\n## B").points == (Point(1, "A"), Point(2, "B"))
