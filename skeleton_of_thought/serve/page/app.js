// The page: a question, two answers, and what they took.

import { Column, textOf } from "./columns.js";
import { copy, plural } from "./dom.js";
import { showExamples } from "./examples.js";
import { download } from "./export.js";
import { showFigures, verdictOf } from "./figures.js";
import { HistoryDialog, keepComparison } from "./history.js";
import { askForKey } from "./key.js";
import { endSide, newComparison, takeChunk } from "./record.js";
import { complete, models, ServerError } from "./server.js";
import { Settings } from "./settings.js";
import { showTimeline } from "./timeline.js";

/** Milliseconds between two drawings of the time line and the figures while answers grow. */
const REDRAW = 120;

const byId = (id) => document.getElementById(id);
const form = byId("ask");
const question = byId("question");
const columns = { normal: new Column(byId("normal")), sot: new Column(byId("sot")) };
const settings = new Settings(form);
const history = new HistoryDialog(byId("history"), (comparison) => {
  question.value = comparison.question;
  fitQuestion();
  present(comparison);
});

let comparison = null; // what is shown
let stopping = null; // the AbortController of the answers that are being written
const began = { normal: 0, sot: 0 };
let drawn = 0;
let chosen = false; // whether the reader has chosen what a narrow screen shows

// --- asking ---

async function run() {
  const text = question.value.trim();
  if (stopping) return;
  if (!text || !settings.model) {
    say(text ? "There is no model to ask." : "Write a question first.");
    question.focus();
    return;
  }
  const { model, order, options } = settings;
  stopping = new AbortController();
  present(newComparison({ question: text, model, order, options }));
  setRunning(true);
  say(order === "together" ? "Both answers begin." : "Normal decoding begins.");
  requestAnimationFrame(frame);
  const refused = order === "together" ? await together() : await oneAfterTheOther();
  stopping = null;
  setRunning(false);
  draw(true);
  if (refused) {
    if (await askForKey(byId("key"))) await loadModels().then(run);
    return;
  }
  keepComparison(comparison);
  say(summary());
}

async function together() {
  const refused = await Promise.all([answer("normal"), answer("sot")]);
  return refused.some(Boolean);
}

async function oneAfterTheOther() {
  comparison.sot.status = "queued";
  if (await answer("normal")) return true;
  if (!stopping.signal.aborted) {
    say("Skeleton-of-Thought begins.");
    return answer("sot");
  }
  endSide(comparison.sot, "stopped", null);
  return false;
}

/** Asks for one answer, and takes it in; says whether the server refused for want of a key. */
async function answer(kind) {
  const side = comparison[kind];
  const { question: content, model, options } = comparison;
  const body = { model: kind === "sot" ? model.id : model.name, messages: [{ role: "user", content }] };
  if (kind === "sot") body.sot = { ...options, events: true };
  began[kind] = performance.now();
  side.status = "open";
  if (!chosen) showColumn(kind);
  try {
    for await (const piece of complete(body, stopping.signal)) {
      const points = side.points.length;
      const planned = Boolean(side.stages.skeleton?.end);
      takeChunk(side, piece, elapsed(kind));
      if (!planned && side.stages.skeleton?.end && points) say(`The skeleton has ${plural(points, "point")}.`);
    }
    endSide(side, "done", elapsed(kind));
  } catch (error) {
    const stopped = stopping.signal.aborted;
    endSide(side, stopped ? "stopped" : "failed", elapsed(kind), stopped ? null : error.message);
    if (!stopped && !(error instanceof ServerError)) console.error(error);
    return error.status === 401;
  }
  return false;
}

function setRunning(running) {
  byId("run").disabled = running;
  byId("stop").hidden = !running;
  byId("open-history").disabled = running;
  // The button that had the focus may be gone now.
  if (!running && document.activeElement === document.body) byId("run").focus({ preventScroll: true });
}

function stop() {
  stopping?.abort();
}

const elapsed = (kind) => (performance.now() - began[kind]) / 1000;

function summary() {
  const { headline, text } = verdictOf(comparison);
  return `Done. ${headline} ${text}`;
}

// --- showing ---

/** Shows a comparison from its beginning, or one of the history. */
function present(shown) {
  comparison = shown;
  document.body.classList.add("asked");
  fold("examples", false);
  byId("result").hidden = false;
  for (const column of Object.values(columns)) column.reset();
  draw(true);
}

/** Chooses what a narrow screen shows: "normal", "sot" or "both". A wide one shows both. */
function showColumn(which) {
  byId("columns").dataset.shown = which;
  document.querySelector(`input[name=shown][value=${which}]`).checked = true;
}

function frame() {
  if (!stopping) return;
  draw(false);
  requestAnimationFrame(frame);
}

function draw(all) {
  const now = { normal: elapsed("normal"), sot: elapsed("sot") };
  for (const kind of ["normal", "sot"]) columns[kind].show(comparison[kind], now[kind]);
  const time = performance.now();
  if (!all && time - drawn < REDRAW) return;
  drawn = time;
  const growing = stopping !== null;
  showTimeline(byId("timeline"), comparison, now, growing);
  showFigures(byId("figures"), comparison, now);
  for (const button of document.querySelectorAll("[data-copy]")) button.disabled = !textOf(comparison[button.dataset.copy]);
  byId("export").disabled = growing;
}

/** Tells readers of the screen what happens; not every token. */
function say(text) {
  byId("said").textContent = text;
}

function fitQuestion() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

// --- the server ---

async function loadModels() {
  const trouble = byId("trouble");
  trouble.hidden = true;
  try {
    settings.setModels(await models());
    if (!settings.models.length) fail("The server has no model that answers by points.");
    document.body.dataset.models = String(settings.models.length);
  } catch (error) {
    if (error.status === 401 && (await askForKey(byId("key")))) return loadModels();
    fail(error.message);
  }
  return undefined;

  function fail(message) {
    trouble.querySelector("span").textContent = message;
    trouble.hidden = false;
  }
}

// --- the controls ---

/** Opens or closes what a button shows. */
function fold(id, open) {
  byId(id).hidden = !open;
  document.querySelector(`[aria-controls=${id}]`).setAttribute("aria-expanded", String(open));
}

for (const button of document.querySelectorAll(".fold")) {
  const id = button.getAttribute("aria-controls");
  button.addEventListener("click", () => fold(id, byId(id).hidden));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
question.addEventListener("input", fitQuestion);
byId("stop").addEventListener("click", stop);
byId("retry").addEventListener("click", loadModels);
byId("open-history").addEventListener("click", () => history.show());
byId("export").addEventListener("click", () => {
  download(comparison, [byId("columns"), byId("timeline"), byId("figures")]);
});
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const done = await copy(textOf(comparison[button.dataset.copy]));
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
for (const choice of document.querySelectorAll("input[name=shown]")) {
  choice.addEventListener("change", () => {
    chosen = true;
    showColumn(choice.value);
  });
}
document.addEventListener("keydown", (event) => {
  const inDialog = document.querySelector("dialog[open]") !== null;
  if (inDialog || event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
  } else if (event.key === "Escape" && stopping) {
    event.preventDefault();
    stop();
  }
});
window.addEventListener("resize", () => comparison && draw(true));

showExamples(byId("examples"), (text) => {
  question.value = text;
  fitQuestion();
  question.focus();
  window.scrollTo({ top: 0 });
});
if (/Mac|iP/.test(navigator.platform)) for (const key of document.querySelectorAll(".ctrl")) key.textContent = "⌘";
loadModels();
