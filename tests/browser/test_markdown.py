"""Markdown on the page: what becomes of a model's text, whole, in pieces, and at length."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

WHOLE = """async (text) => {
  const {markdownNodes} = await import('/page/markdown_view.js');
  const root = document.createElement('div');
  root.append(...markdownNodes(text));
  for (const node of root.querySelectorAll('*'))
    for (const name of ['dir', 'tabindex', 'role', 'aria-label', 'scope', 'rel', 'target']) node.removeAttribute(name);
  return root.innerHTML;
}"""

PIECES = """async ([text, size]) => {
  const {MarkdownView, markdownNodes} = await import('/page/markdown_view.js');
  const root = document.createElement('div');
  const view = new MarkdownView(root);
  for (let end = 0; end < text.length; end += size) view.show(text.slice(0, end), false, Infinity);
  view.show(text, true, Infinity);
  const whole = document.createElement('div');
  whole.append(...markdownNodes(text));
  return [root.innerHTML, whole.innerHTML, view.nodes];
}"""

SECONDS = """async (text) => {
  const {markdownNodes} = await import('/page/markdown_view.js');
  const began = performance.now();
  markdownNodes(text);
  return (performance.now() - began) / 1000;
}"""


CASES = {
    "paragraphs": ("One.\n\nTwo\nlines.", "<p>One.</p><p>Two<br>lines.</p>"),
    "headings": ("# A #\n### B\n#no", "<h3>A</h3><h5>B</h5><p>#no</p>"),
    "underlined heading": ("Title\n===\nText", "<h3>Title</h3><p>Text</p>"),
    "emphasis": (
        "*a* **b** ***c*** ~~d~~ _e_",
        "<p><em>a</em> <strong>b</strong> <em><strong>c</strong></em> <del>d</del> <em>e</em></p>",
    ),
    "no emphasis": ("2 * 3 * 4, snake_case_name, **open", "<p>2 * 3 * 4, snake_case_name, **open</p>"),
    "brackets in emphasis": ("**the interval [0, 1)** is", "<p><strong>the interval [0, 1)</strong> is</p>"),
    "code": ("`a*b*` and ``x`y`` and `open", "<p><code>a*b*</code> and <code>x`y</code> and `open</p>"),
    "fence": (
        "```py\nif a < b:\n\n    *c*\n```\nafter",
        '<pre data-language="py"><code>if a &lt; b:\n\n    *c*</code></pre><p>after</p>',
    ),
    "open fence": ("~~~\nhalf", "<pre><code>half</code></pre>"),
    "list": ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    "numbers": ("3. a\n4. b\n   more", '<ol start="3"><li>a</li><li>b<br>more</li></ol>'),
    "loose list": ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
    "code in a list": (
        "1. Run:\n   ```\n   x\n   ```\n2. Done",
        "<ol><li>Run:<pre><code>x</code></pre></li><li>Done</li></ol>",
    ),
    "bullets in numbers": ("1. a\n  - b\n  - c\n2. d", "<ol><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ol>"),
    "tasks": ("- [ ] a\n- [x] b", "<ul><li>☐ a</li><li>☑ b</li></ul>"),
    "quote": ("> a\n> - b\n\nc", "<blockquote><p>a</p><ul><li>b</li></ul></blockquote><p>c</p>"),
    "rule": ("a\n\n***\n\nb", "<p>a</p><hr><p>b</p>"),
    "table": (
        "| a | b |\n|---|--:|\n| 1 | `x|y` |\n| 2 |",
        '<div class="table"><table><thead><tr><th>a</th><th class="to-right">b</th></tr></thead><tbody><tr><td>1</td>'
        '<td class="to-right"><code>x|y</code></td></tr><tr><td>2</td><td class="to-right"></td></tr></tbody></table>'
        "</div>",
    ),
    "link": ('[a *b*](https://x.example/p_(1) "t")', '<p><a href="https://x.example/p_(1)">a <em>b</em></a></p>'),
    "bare link": (
        "See https://x.example/a_b.",
        '<p>See <a href="https://x.example/a_b">https://x.example/a_b</a>.</p>',
    ),
    "picture": ("![a](https://x.example/i.png)", '<p><a href="https://x.example/i.png">a</a></p>'),
    "script link": ("[a](javascript:alert(1)) [b](data:text/html,x) [c](/local)", "<p>a b c</p>"),
    "hidden script link": (
        "[a](JaVa&#115;cript:alert(1)) <javascript:alert(1)>",
        "<p>a &lt;javascript:alert(1)&gt;</p>",
    ),
    "html": (
        "<b>a</b> <script>1</script>\n\n<img src=x>",
        "<p>&lt;b&gt;a&lt;/b&gt; &lt;script&gt;1&lt;/script&gt;</p><p>&lt;img src=x&gt;</p>",
    ),
    "entities": ("&lt;a&gt; &amp; &#65; &unknown;", "<p>&lt;a&gt; &amp; A &amp;unknown;</p>"),
    "escapes": ("\\*a\\* \\`b\\` 1\\. c", "<p>*a* `b` 1. c</p>"),
    "other scripts": ("**太字**と**「強調」**です", "<p><strong>太字</strong>と<strong>「強調」</strong>です</p>"),
    "no space after": ("**Note:**text", "<p><strong>Note:</strong>text</p>"),
    "nothing": (" \n\n", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_markdown_becomes_elements(module_tab, name):
    text, html = CASES[name]
    assert module_tab.page.evaluate(WHOLE, text) == html


def test_links_tell_the_other_side_nothing(module_tab):
    code = WHOLE.replace("'rel', 'target'", "'x'")
    html = module_tab.page.evaluate(code, "[a](https://x.example)")
    assert 'rel="noopener noreferrer"' in html


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_text_in_pieces_ends_as_the_whole_text_does(module_tab, size):
    text = "\n\n".join(text for name, (text, _) in CASES.items() if name != "open fence")
    pieces, whole, settled = module_tab.page.evaluate(PIECES, [text, size])
    assert pieces == whole
    assert settled > 20 or size == 1000


HOSTILE = {
    "stars": "*" * 100_000,
    "open emphasis": "**a *b " * 30_000,
    "closed emphasis": "*a* **b** " * 20_000,
    "underscores": "_a " * 40_000,
    "brackets": "[" * 100_000,
    "bracket pairs": "](" * 100_000,
    "links": "[a](b" * 40_000,
    "links with spaces": "[a](b" + " " * 100_000,
    "ticks": "".join("`" * (i % 300 + 1) + " " for i in range(1500)),
    "quotes": ">" * 100_000,
    "nested lists": "\n".join(" " * (2 * i) + "- a" for i in range(400)),
    "list": "- a\n" * 30_000,
    "table": "|a|b|\n|-|-|\n" + "|1|2|\n" * 20_000,
    "almost a table": "a|b\n" * 40_000,
    "bars": "|" * 100_000 + "\n" + "|-" * 100_000,
    "ruler of spaces": "a|b\n" + " " * 100_000 + "-x",
    "rules": "- " * 100_000 + "x",
    "hashes": "# " + "a #" * 40_000 + " " * 40_000 + "x",
    "one line": "word " * 40_000,
    "lines": "word\n" * 40_000,
    "addresses": "https://" * 30_000,
    "bad addresses": "http://[" * 30_000,
    "angles": "<http://" * 30_000,
    "entities": "&#" * 100_000,
    "open fences": "```\n" * 50_001,
    "strange lines": "#" + " " * 50_000 + "\u2028x",
    "escapes": "\\" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_more_than_linear_time(module_tab, name):
    # Quadratic time would be minutes for most of these; so the limit is far above what a busy machine needs.
    assert module_tab.page.evaluate(SECONDS, HOSTILE[name]) < 10


GROWING = """async (text) => {
  const {MarkdownView} = await import('/page/markdown_view.js');
  const root = document.createElement('div');
  const view = new MarkdownView(root);
  view.show(text, false, Infinity);
  const growing = root.innerHTML;
  view.show(text, true, Infinity);
  return [growing, root.innerHTML].map((html) => html.replaceAll(' dir="auto"', ''));
}"""


@pytest.mark.parametrize(
    ("text", "growing", "complete"),
    [
        ("a **b c", "<p>a <strong>b c</strong></p>", "<p>a **b c</p>"),
        ("a **b *c* d", "<p>a <strong>b <em>c</em> d</strong></p>", "<p>a **b <em>c</em> d</p>"),
        ("a **", "<p>a </p>", "<p>a **</p>"),
        ("a `b", "<p>a <code>b</code></p>", "<p>a `b</p>"),
        ("- a\n- **b", "<ul><li>a</li><li><strong>b</strong></li></ul>", "<ul><li>a</li><li>**b</li></ul>"),
        ("**a\n\nb", "<p>**a</p><p>b</p>", "<p>**a</p><p>b</p>"),
        ("2 * 3 and *b", "<p>2 * 3 and *b</p>", "<p>2 * 3 and *b</p>"),
    ],
)
def test_open_marks_count_as_closed_while_the_text_grows(module_tab, text, growing, complete):
    assert module_tab.page.evaluate(GROWING, text) == [growing, complete]
