
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
const cards = document.getElementById("cards");
const pagers = [...document.querySelectorAll(".pager")];
const PAGE = 10;
let found = data.cards;
let start = 0;
let waiting = 0;

// What models wrote is only ever set as text.
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function options(name, values) {
  const select = form.elements[name];
  for (const value of values) select.append(new Option(value, value));
  select.closest("label").hidden = values.length === 0;
}

function list(items, name) {
  const element = make("ul", name);
  for (const item of items) element.append(make("li", "", item));
  return element;
}

function facts(answer) {
  const told = [];
  if (answer.seconds !== undefined) told.push(`${answer.seconds.toFixed(2)} s`);
  if (answer.tokens) told.push(`${answer.tokens} tokens out`);
  if (answer.calls) told.push(answer.calls === 1 ? "1 call" : `${answer.calls} calls`);
  if (answer.route) told.push(answer.reason ? `${answer.route} (${answer.reason})` : answer.route);
  if (answer.merged) told.push("merged");
  return told.join(" · ");
}

function side(way, answer) {
  const element = make("article", `side ${data.colours[way] || ""}`);
  element.append(make("h4", "", way));
  if (answer.error) {
    element.append(make("p", "error", `Failed: ${answer.error}`));
    return element;
  }
  element.append(make("p", "soft", facts(answer)));
  if (answer.busy) element.append(make("p", "soft", answer.busy));
  if (answer.troubles) element.append(list(answer.troubles, "error"));
  const text = make("div", "text");
  text.dir = "auto";
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", `Answer of ${way}`);
  for (const [part, mark] of answer.parts) {
    if (!part) continue;
    const piece = mark ? make("mark", mark, part) : document.createTextNode(part);
    if (mark) piece.title = "cut at the limit of tokens";
    text.append(piece);
  }
  element.append(text);
  return element;
}

function verdict(each) {
  const result = each.winner === "tie" ? "a tie" : each.winner ? `${each.winner} won` : "none";
  const first = each.first ? `, ${each.first} first` : "";
  const why = each.reason || each.error;
  return `${each.judge}, ${each.form}${first}: ${result}${why ? `. ${why}` : ""}`;
}

function card(each) {
  const element = make("article", "card");
  const heading = make("h3", "", each.question);
  heading.dir = "auto";
  element.append(heading);
  const told = [each.id];
  if (each.category) told.push(each.category);
  if (each.repeat > 1) told.push(`repeat ${each.repeat}`);
  element.append(make("p", "soft", told.join(" · ")));
  const sides = make("div", "sides");
  const way = form.elements.way.value;
  for (const name of data.ways) {
    if (each.answers[name] && (!way || way === name)) sides.append(side(name, each.answers[name]));
  }
  element.append(sides);
  if (each.verdicts.length) {
    const details = make("details");
    details.append(make("summary", "", each.verdicts.length === 1 ? "1 verdict" : `${each.verdicts.length} verdicts`));
    // Most are never opened.
    details.addEventListener("toggle", () => {
      if (details.children.length === 1) details.append(list(each.verdicts.map(verdict)));
    });
    element.append(details);
  }
  return element;
}

function lowered(answer) {
  answer.lowered ??= answer.parts.map((part) => part[0]).join("").toLowerCase();
  return answer.lowered;
}

function passes(each) {
  const { text, way, category, winner, state } = Object.fromEntries(new FormData(form));
  const answers = Object.entries(each.answers).filter(([name]) => !way || way === name).map((entry) => entry[1]);
  if (!answers.length) return false;
  if (category && each.category !== category) return false;
  if (winner && !each.verdicts.some((one) => (one.winner || "none") === winner)) return false;
  if (state === "failed" && !answers.some((answer) => answer.error)) return false;
  if (state === "trouble" && !answers.some((answer) => answer.troubles)) return false;
  const wanted = text.trim().toLowerCase();
  const head = `${each.id}\n${each.question}`.toLowerCase();
  return head.includes(wanted) || answers.some((answer) => lowered(answer).includes(wanted));
}

function show() {
  const end = Math.min(start + PAGE, found.length);
  cards.replaceChildren(...found.slice(start, end).map(card));
  for (const pager of pagers) {
    const [back, told, on] = pager.children;
    back.disabled = start === 0;
    on.disabled = end === found.length;
    told.textContent = found.length ? `${start + 1} to ${end} of ${found.length}` : "No answers like that.";
    pager.hidden = data.cards.length === 0;
  }
}

function search() {
  clearTimeout(waiting);
  found = data.cards.filter(passes);
  start = 0;
  show();
}

for (const pager of pagers) {
  pager.addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step);
    if (!step) return;
    start = Math.min(Math.max(start + step * PAGE, 0), found.length - 1);
    show();
    document.getElementById("answers").scrollIntoView();
  });
}
const winners = new Set(data.cards.flatMap((each) => each.verdicts.map((one) => one.winner || "none")));
options("way", data.ways);
options("category", [...new Set(data.cards.map((each) => each.category).filter(Boolean))]);
options("winner", [...data.ways, "tie", "none"].filter((name) => winners.has(name)));
// While a text is typed, the search waits for a pause.
form.elements.text.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(search, 120);
});
form.addEventListener("change", search);
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = data.cards.length === 0;
show();
