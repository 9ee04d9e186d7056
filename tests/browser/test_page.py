"""The page, as a person uses it: questions, answers that grow, stops, faults, keys, narrow screens, the keyboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

SHIFTS = "How can I sleep better when I work in shifts?"


def test_a_question_is_answered_in_both_columns_with_figures(open_tab, scripted):
    tab = open_tab()
    tab.ask(SHIFTS)
    tab.await_end()
    assert tab.texts("#sot .point h3") == [*scripted.POINTS]
    assert "Bright light at the start of a shift" in tab.text("#sot .point:first-child .prose strong")
    assert "Light and darkness" in tab.text("#normal .answer")
    assert "the embedded router takes it for independent points" in tab.text("#sot .remark")
    assert "0.92" in tab.text("#sot .remark")
    assert all(state.startswith("done in ") for state in tab.texts("#sot .point .word"))
    rows = {row[0]: row[1:] for row in _table(tab)}
    assert [*rows] == ["First text", "Whole answer", "Tokens out", "Tokens in", "Tokens a second", "Calls"]
    assert rows["Calls"][:2] == ["1", str(1 + len(scripted.POINTS))]
    assert all("–" not in cell for row in rows.values() for cell in row)
    assert tab.text(".headline").endswith("×")
    labels = tab.texts("#timeline .calls bdi")
    assert labels == ["Normal decoding", "Skeleton", *scripted.POINTS]
    assert tab.model.open == 0
    tab.photograph("answered")


def _table(tab):
    return [row.split("\t") for row in tab.text("#figures tbody").split("\n")]


def test_points_grow_at_the_same_time_in_their_places(open_tab, scripted):
    tab = open_tab(model=scripted.ScriptedModel(pace=0.012))
    tab.page.check("input[value=together]", force=True)
    tab.page.evaluate(
        """() => {
          window.peak = 0;
          const count = () => document.querySelectorAll('.point[data-state=writing] .prose p').length;
          new MutationObserver(() => (window.peak = Math.max(window.peak, count())))
            .observe(document.querySelector('.points'), {childList: true, subtree: true, attributes: true});
        }"""
    )
    tab.ask(SHIFTS)
    tab.page.wait_for_function("count => window.peak >= count", arg=len(scripted.POINTS))
    assert tab.page.get_attribute("#sot", "aria-busy") == "true"
    tab.page.wait_for_selector(f"#timeline .calls li:nth-child({2 + len(scripted.POINTS)})")
    tab.photograph("mid-stream")
    tab.await_end()
    assert tab.page.get_attribute("#sot", "aria-busy") == "false"


BARS = """async (now) => {
  const {newComparison, takeChunk, endSide} = await import('/page/record.js');
  const {barsOf, ticksOf, axisOf} = await import('/page/timeline.js');
  const comparison = newComparison({question: 'q', model: {id: 'm-sot', name: 'm'}, order: 'together', options: {}});
  const {normal, sot} = comparison;
  normal.status = sot.status = 'open';
  const take = (event, at) => takeChunk(sot, {chunk: {choices: [{delta: {}}], sot: {...event, at}}}, at);
  const point = {index: 1, title: 'One'};
  takeChunk(normal, {chunk: {choices: [{delta: {content: 'a'}}]}}, 0.5);
  take({event: 'Routed', decision: {use_skeleton: true, reason: 'r', score: 1}}, 0);
  take({event: 'PointFound', point}, 1);
  take({event: 'SkeletonDone', skeleton: ['One']}, 2);
  take({event: 'PointStarted', point, attempt: 1}, 2);
  if (now > 4) take({event: 'PointDelta', point, text: 'x'}, 4);
  if (now > 6) endSide(sot, 'stopped', 6);
  const bars = barsOf(comparison, {normal: now, sot: now});
  return bars.map(({kind, start, first, end, open}) => [kind, start, first, end, open]);
}"""


PASSED = """async (route) => {
  const {newComparison, takeChunk, endSide} = await import('/page/record.js');
  const {sot} = newComparison({question: 'q', model: {id: 'm-sot', name: 'm'}, order: 'together', options: {}});
  sot.status = 'open';
  const take = (chunk, now) => takeChunk(sot, {chunk, route, reason: 'why'}, now);
  take({choices: [{delta: {role: 'assistant', content: ''}}]}, 0.1);
  take({choices: [{delta: {content: 'All of '}}]}, 0.5);
  take({choices: [{delta: {content: 'it.'}, finish_reason: 'stop'}]}, 1);
  take({choices: [], usage: {prompt_tokens: 3, completion_tokens: 2}}, 1);
  endSide(sot, 'done', 1);
  const {text, first, finish, reason, calls, points, usage} = sot;
  return {route: sot.route, text, first, finish, reason, calls, points: points.length, tokens: usage.output};
}"""


@pytest.mark.parametrize("route", ["passed", "direct"])
def test_an_answer_that_passes_through_has_no_events_and_is_shown_all_the_same(open_tab, route):
    shown = open_tab().page.evaluate(PASSED, route)
    told = {"route": "direct", "text": "All of it.", "first": 0.5, "finish": "stop", "reason": "why"}
    assert shown == {**told, "calls": 1, "points": 0, "tokens": 2}


@pytest.mark.parametrize(("now", "point"), [(3, [2, None, 3, True]), (5, [2, 4, 5, True]), (7, [2, 4, 6, False])])
def test_the_bars_grow_with_the_calls(open_tab, now, point):
    bars = open_tab().page.evaluate(BARS, now)
    assert bars == [["normal", 0, 0.5, now, True], ["skeleton", 0, 1, 2, False], ["point", *point]]


def test_ticks_are_round_and_few(open_tab):
    ticks = """async ([length, most]) => {
      const {ticksOf} = await import('/page/timeline.js');
      return ticksOf(length, most).map((tick) => tick.label);
    }"""
    page = open_tab().page
    assert page.evaluate(ticks, [14.4, 9]) == ["0", "2", "4", "6", "8", "10", "12", "14"]
    assert page.evaluate(ticks, [0.1, 5]) == ["0.00", "0.05", "0.10"]
    assert page.evaluate(ticks, [600, 5]) == ["0", "200", "400", "600"]


def test_one_after_the_other_keeps_the_second_answer_waiting(open_tab, scripted):
    tab = open_tab(model=scripted.ScriptedModel(local=True, pace=0.02, remark="a small model: often wrong"))
    assert tab.page.is_checked("input[value=sequence]")
    assert "slow each other" in tab.text("#order-note")
    assert tab.text("#model-note") == "A small model: often wrong."
    tab.ask(SHIFTS)
    tab.page.wait_for_selector("#sot[data-status=queued]")
    assert tab.page.get_attribute("#normal", "data-status") == "open"
    tab.page.wait_for_selector("#sot[data-status=open]")
    assert tab.page.get_attribute("#normal", "data-status") == "done"
    tab.await_end()


@pytest.mark.parametrize("by", ["button", "escape"])
def test_stop_ends_all_calls_at_the_server(open_tab, eventually_so, by):
    tab = open_tab()
    tab.page.check("input[value=together]", force=True)
    tab.ask("How can I sleep better in endless shifts?")
    tab.page.wait_for_selector(".point:nth-child(6)[data-state=writing] .prose p")
    eventually_so(lambda: tab.model.open == 7, "six points and the normal answer are open")
    if by == "button":
        tab.page.click("#stop")
    else:
        tab.page.keyboard.press("Escape")
    tab.await_end()
    eventually_so(lambda: tab.model.open == 0, "no call is open")
    assert tab.model.cancelled == 7
    assert tab.page.get_attribute("#sot", "data-status") == "stopped"
    assert set(tab.texts("#sot .point .word")) == {"stopped"}
    assert "stopped before its end" in tab.text(".sentence")
    assert tab.page.is_hidden("#stop")
    tab.photograph(f"stopped-by-{by}")


def test_a_fault_in_mid_stream_keeps_the_text_and_names_the_fault(open_tab):
    tab = open_tab()
    tab.ask("How can I sleep better when my work breaks the night?")
    tab.await_end()
    assert tab.page.get_attribute("#normal", "data-status") == "failed"
    assert "The model broke off." in tab.text("#normal > .error")
    assert "Sleep in shifts" in tab.text("#normal .answer")
    failed = tab.page.locator("#sot .point[data-state=failed]")
    assert failed.count() == 1
    assert "the connection was lost" in failed.inner_text()
    assert tab.page.locator("#sot .point[data-state=done]").count() == 5
    assert "No speed-up: normal decoding failed" in tab.text(".sentence")
    assert tab.page.is_hidden(".headline")
    assert failed.locator(".word").inner_text() == "failed after 2 attempts"
    tab.photograph("failed-in-mid-stream")


def test_a_fault_before_the_first_text_is_told_in_both_columns(open_tab):
    tab = open_tab()
    tab.ask("What should I do when my visa is refused?")
    tab.await_end()
    assert "The model's server cannot be reached: start it." in tab.text("#normal > .error")
    assert "the model is not there" in tab.text("#sot > .error")
    tab.photograph("failed-before")
    tab.ask(SHIFTS)
    tab.await_end()
    assert tab.page.is_hidden("#sot > .error")


def test_a_server_that_is_gone_is_told(open_tab):
    tab = open_tab()
    tab.page.route("**/v1/chat/completions", lambda route: route.abort())
    tab.ask(SHIFTS)
    tab.await_end()
    assert "cannot be reached" in tab.text("#sot > .error")
    tab.faults[:] = [fault for fault in tab.faults if "net::ERR_FAILED" not in fault]


def test_a_stream_that_ends_too_early_is_no_whole_answer(open_tab):
    tab = open_tab()
    half = 'data: {"choices": [{"index": 0, "delta": {"content": "Half an"}}]}\n\n'
    tab.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=half, content_type="text/event-stream"))
    tab.ask(SHIFTS)
    tab.await_end()
    assert tab.text("#normal .answer") == "Half an"
    assert "ended before the answer did" in tab.text("#normal > .error")


def test_a_point_that_is_written_again_says_so(open_tab):
    tab = open_tab()
    tab.ask("How can I sleep better again?")
    tab.await_end()
    assert tab.text(".point:nth-child(2) .word").endswith("written again")
    assert tab.page.get_attribute(".point:nth-child(2)", "data-state") == "done"
    assert tab.text("#figures tbody tr:last-child td:nth-child(3)") == "8"


def test_a_text_that_was_cut_says_so(open_tab):
    tab = open_tab()
    tab.ask("How can I sleep better when my hours are cut?")
    tab.await_end()
    assert tab.text(".point:nth-child(5) .word").endswith(", cut at the longest length")
    assert tab.text("#sot .state").startswith("done, cut at the longest length")
    assert tab.text("#normal .state").startswith("done · first text after")


def test_a_direct_route_says_why_and_shows_the_direct_answer(open_tab):
    tab = open_tab()
    tab.ask("What is the capital of Mongolia?")
    tab.await_end()
    assert tab.text("#sot .remark").startswith("Answered directly, without a skeleton: the embedded router")
    assert tab.text("#sot .answer") == "The capital of Mongolia is Ulaanbaatar."
    assert tab.page.locator(".point").count() == 0
    assert tab.text(".headline") == "Direct"
    assert tab.texts("#figures tbody td:last-child") == [""] * 6
    assert tab.texts("#timeline .calls bdi") == ["Normal decoding", "Direct answer"]
    tab.photograph("direct")


def test_a_request_that_passes_through_reads_as_a_direct_answer(open_tab):
    tab = open_tab()
    chunk = 'data: {"choices": [{"index": 0, "delta": {"content": "Short."}}]}'
    text = "\r\n\r\n".join([chunk, ": keep-alive", "data: [DONE]", ""])
    headers = {"content-type": "text/event-stream", "x-sot-route": "passed", "x-sot-reason": "has tools"}
    tab.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=text, headers=headers))
    tab.ask(SHIFTS)
    tab.await_end()
    assert tab.text("#sot .remark") == "Answered directly, without a skeleton: has tools"
    assert tab.text("#sot .answer") == tab.text("#normal .answer") == "Short."


def test_settings_reach_the_server_and_a_merge_shows_one_text(open_tab):
    tab = open_tab()
    sent = []
    tab.page.on("request", lambda request: sent.append(request.post_data) if "completions" in request.url else None)
    tab.page.click("[aria-controls=settings]")
    tab.page.select_option("[name=merge]", "yes")
    tab.page.select_option("[name=join]", "headings")
    tab.page.select_option("[name=router]", "always")
    tab.page.fill("[name=max_points]", "4")
    tab.ask(SHIFTS)
    tab.await_end()
    (body,) = [json.loads(one) for one in sent if '"demo-sot"' in one]
    assert body["sot"] == {"router": "always", "max_points": 4, "join": "headings", "merge": True, "events": True}
    assert tab.text("#sot .answer").startswith("One text.")
    assert not tab.page.evaluate("document.querySelector('#sot details').open")
    assert tab.page.locator(".point").count() == 4
    assert "Merge" in tab.texts("#timeline .calls bdi")
    tab.page.reload()
    tab.page.wait_for_selector("body[data-models]")
    assert tab.text("#settings-count") == "4 changed"


def test_html_of_a_model_is_text_and_nothing_runs(open_tab):
    tab = open_tab()
    foreign = []
    tab.page.on("request", lambda request: foreign.append(request.url) if "127.0.0.1" not in request.url else None)
    tab.ask("Which kinds of markup should I know?")
    tab.await_end()
    for column in ("#normal .answer", "#sot .point:first-child .prose"):
        assert "<script>window.ran = 'script'</script>" in tab.text(column)
        assert "<img src=x onerror=" in tab.text(column)
        assert tab.page.locator(f"{column} :is(script, img, iframe, svg)").count() == 0
        assert tab.page.locator(f"{column} a").count() == 0
    assert tab.text(".point:first-child h3").startswith("<img src=x")
    assert tab.page.evaluate("window.ran") is None
    assert foreign == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (820, "light"), (1440, "dark")])
def test_no_screen_scrolls_sideways(open_tab, width, scheme):
    tab = open_tab(width=width, color_scheme=scheme)
    scrolls = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
    tab.photograph(f"start-{width}-{scheme}")
    assert not tab.page.evaluate(scrolls)
    tab.page.click("[aria-controls=settings]")
    assert not tab.page.evaluate(scrolls)
    tab.page.click("[aria-controls=settings]")
    tab.ask(SHIFTS + " " + "W" * 90)
    tab.await_end()
    tab.photograph(f"answered-{width}-{scheme}")
    assert not tab.page.evaluate(scrolls)


def test_a_narrow_screen_shows_one_column_at_a_time(open_tab):
    tab = open_tab(width=360, height=740)
    tab.ask(SHIFTS)
    tab.await_end()
    assert tab.page.is_visible("#sot")
    assert tab.page.is_hidden("#normal")
    tab.page.check("input[name=shown][value=normal]", force=True)
    assert tab.page.is_visible("#normal")
    assert tab.page.is_hidden("#sot")


def test_a_narrow_screen_shows_the_answer_that_is_written(open_tab, scripted):
    tab = open_tab(width=360, height=740, model=scripted.ScriptedModel(local=True, pace=0.02))
    tab.ask(SHIFTS)
    tab.page.wait_for_selector("#sot[data-status=queued]", state="attached")
    assert tab.page.is_visible("#normal")
    tab.page.wait_for_selector("#sot[data-status=open]", state="visible")
    assert tab.page.is_hidden("#normal")
    tab.await_end()
    tab.page.check("input[name=shown][value=both]", force=True)
    tab.ask(SHIFTS)
    tab.page.wait_for_selector("#sot[data-status=queued]")
    assert tab.page.is_visible("#normal")


def test_the_keyboard_alone_is_enough(open_tab):
    tab = open_tab()
    press = tab.page.keyboard.press
    press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    press("Enter")
    press("Tab")
    reached = set()
    for _ in range(30):
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.name"))
        press("Tab")
    assert {"model", "order", "run"} <= reached
    tab.page.focus("#question")
    tab.page.keyboard.type(SHIFTS)
    press("Control+Enter")
    tab.await_end()
    assert tab.page.locator(".point").count() == 6
    tab.page.focus("#open-history")
    assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("Enter")
    tab.page.wait_for_selector("dialog#history[open]")
    press("Escape")
    assert tab.page.locator("dialog[open]").count() == 0


def test_readers_of_the_screen_hear_steps_and_not_tokens(open_tab, scripted):
    tab = open_tab(model=scripted.ScriptedModel(local=True))
    tab.page.evaluate(
        """() => {
          window.said = [];
          const node = document.getElementById('said');
          new MutationObserver(() => window.said.push(node.textContent)).observe(node, {childList: true});
        }"""
    )
    tab.ask(SHIFTS)
    tab.await_end()
    said = tab.page.evaluate("window.said")
    assert said[:3] == ["Normal decoding begins.", "Skeleton-of-Thought begins.", "The skeleton has 6 points."]
    assert len(said) == 4
    assert said[3].startswith("Done. ")
    for selector in ("main", "header", "nav", "form[aria-label]", "label[for=question]", "#timeline[aria-labelledby]"):
        assert tab.page.locator(selector).count() >= 1, selector


LOOK = """(selector) => {
  const {font, color, fontVariantNumeric} = getComputedStyle(document.querySelector(selector));
  return [font, color, fontVariantNumeric];
}"""


def test_the_exported_file_opens_by_itself_and_has_the_texts(open_tab, scripted, tmp_path: Path):
    tab = open_tab()
    tab.page.click("[aria-controls=settings]")
    tab.page.select_option("[name=router]", "always")
    tab.ask(SHIFTS + " <b>&amp;</b>")
    tab.await_end()
    with tab.page.expect_download() as waiting:
        tab.page.click("#export")
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    html = file.read_text(encoding="utf-8")
    assert file.name.startswith("skeleton-of-thought-")
    assert html.startswith("<!doctype html>")
    assert "<script" not in html
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in html
    page = tab.page.context.new_page()
    loaded, faults = [], []
    page.on("request", lambda request: loaded.append(request.url))
    page.on("console", lambda said: faults.append(said.text))
    page.goto(file.as_uri())
    assert loaded == [file.as_uri()]
    assert faults == []
    text = page.inner_text("body")
    assert SHIFTS + " <b>&amp;</b>" in text
    assert "router = always" in text
    assert all(title in text for title in scripted.POINTS)
    assert "Sleep in shifts is a matter of light" in text
    assert "as fast" in text
    assert page.locator("button").count() == 0
    for selector in (".clock", ".headline", ".point > .number", ".axis text", ".prose", ".column h2"):
        assert page.evaluate(LOOK, selector) == tab.page.evaluate(LOOK, selector), selector
    page.screenshot(path=Path(__file__).parents[2] / "build" / "screenshots" / "exported.png", full_page=True)


def test_copy_gives_the_answers_text(open_tab):
    tab = open_tab(permissions=["clipboard-read", "clipboard-write"])
    tab.ask("What is the capital of Mongolia?")
    tab.await_end()
    tab.page.click("[data-copy=sot]")
    tab.page.wait_for_selector("[data-copy=sot]:text('Copied')")
    assert tab.page.evaluate("navigator.clipboard.readText()") == "The capital of Mongolia is **Ulaanbaatar**."


def test_the_history_stays_in_the_browser_and_can_be_cleared(open_tab):
    tab = open_tab()
    for question in (SHIFTS, "What is the capital of Mongolia?"):
        tab.ask(question)
        tab.await_end()
    asked = len(tab.model.asked)
    tab.page.reload()
    tab.page.wait_for_selector("body[data-models]")
    tab.page.click("#open-history")
    assert tab.texts("#history .asked") == ["What is the capital of Mongolia?", SHIFTS]
    direct, by_points = tab.texts("#history li .soft")
    assert direct.endswith("demo · direct")
    assert re.search(r"demo · 6 points · [\d.]+×$", by_points)
    tab.photograph("history")
    tab.page.click(f"#history li button:has-text('{SHIFTS}')")
    assert tab.page.locator(".point").count() == 6
    assert tab.page.input_value("#question") == SHIFTS
    assert tab.text(".headline").endswith("×")
    assert len(tab.model.asked) == asked
    tab.page.click("#open-history")
    tab.page.click("#history .clear")
    assert tab.page.is_visible("#history .empty")
    assert tab.page.evaluate("localStorage.getItem('sot.history')") is None


def test_the_history_is_bounded_and_survives_foreign_data(open_tab):
    tab = open_tab()
    kept = """async (texts) => {
      const history = await import('/page/history.js');
      const side = (text) => ({text, points: [], status: 'done'});
      texts.forEach((size, place) => {
        const sides = {normal: side('x'.repeat(size)), sot: side('')};
        history.keepComparison({question: `q${place}`, asked: String(place), model: {name: 'm'}, ...sides});
      });
      return [history.readHistory().map((entry) => entry.question), localStorage.getItem('sot.history')?.length ?? 0];
    }"""
    questions, _ = tab.page.evaluate(kept, [10] * 40)
    assert questions == [f"q{place}" for place in range(39, 9, -1)]
    questions, size = tab.page.evaluate(kept, [700_000] * 5)
    assert questions == ["q4", "q3"]
    assert size <= 1_500_000
    for foreign in ("not JSON", "{}", "[1, null]"):
        tab.page.evaluate("text => localStorage.setItem('sot.history', text)", foreign)
        assert tab.page.evaluate(kept, []) == [[], len(foreign)]


def test_a_server_with_a_key_asks_for_it_and_the_tab_keeps_it(open_tab):
    tab = open_tab(key="open sesame")
    tab.page.wait_for_selector("dialog#key[open]")
    tab.photograph("key")
    tab.page.fill("#key input", "wrong")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#key .wrong:visible")
    tab.page.fill("#key input", "open sesame")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("body[data-models]")
    tab.ask(SHIFTS)
    tab.await_end()
    assert tab.page.locator(".point").count() == 6
    assert tab.page.evaluate("JSON.stringify(localStorage).includes('sesame')") is False
    tab.page.reload()
    tab.page.wait_for_selector("body[data-models]")
    assert tab.page.locator("dialog[open]").count() == 0


def test_an_example_fills_the_question(open_tab):
    tab = open_tab()
    first = tab.text(".example >> nth=0")
    tab.page.click(".example >> nth=0")
    assert tab.page.input_value("#question") == first
    assert tab.page.evaluate("document.activeElement.id") == "question"


def test_the_theme_can_be_switched_and_is_kept(open_tab):
    tab = open_tab()
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    light = tab.page.evaluate(paper)
    for word in ("light", "dark"):
        tab.page.click("#theme")
        assert tab.text("#theme") == f"Theme: {word}"
    dark = tab.page.evaluate(paper)
    assert dark != light
    tab.page.reload()
    assert tab.page.evaluate(paper) == dark


def test_a_browser_that_keeps_nothing_can_still_ask(chromium, serve_app, scripted):
    model = scripted.ScriptedModel()
    page = chromium.new_page()
    page.add_init_script(
        """for (const name of ['localStorage', 'sessionStorage']) {
          Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError'); }});
        }"""
    )
    page.goto(serve_app(scripted.server(model, "sk-of-the-page")))
    page.fill("#key input", "sk-of-the-page")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-models]")
    page.fill("#question", SHIFTS)
    page.click("#run")
    page.wait_for_selector("#sot[data-status=done]")
    page.close()


HOSTILE = """async () => {
  const {newComparison, takeChunk} = await import('/page/record.js');
  const {normal, sot} = newComparison({question: 'q', model: {id: 'm-sot', name: 'm'}, order: 'together', options: {}});
  const points = [{index: 1, title: 'Forged'}];
  takeChunk(normal, {chunk: {choices: [], sot: {event: 'PointFound', point: points[0]}}}, 1);
  for (const event of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'Unheard']) {
    takeChunk(sot, {chunk: {choices: [], sot: {event, point: points[0]}}}, 1);
  }
  const forged = '{"__proto__": {"forged": 1}, "choices": [{"delta": {"__proto__": {"forged": 1}}}]}';
  takeChunk(sot, {chunk: JSON.parse(forged)}, 1);
  return [normal.points.length, sot.points.length, ({}).forged ?? null];
}"""


def test_fields_of_a_foreign_server_change_nothing(module_tab):
    assert module_tab.page.evaluate(HOSTILE) == [0, 0, None]
