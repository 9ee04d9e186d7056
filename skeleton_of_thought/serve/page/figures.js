// What the comparison comes to: the speed-up in a sentence, and the figures of both answers in a table.

import { count, el, seconds, setText } from "./dom.js";
import { countPoints } from "./record.js";

/** Ratios this close to 1 are no difference. */
const EVEN = 0.05;
/** From this ratio of lengths on, seconds alone say little. */
const UNEQUAL = 1.3;

/** The speed-up of a comparison: `{ratio, headline, text, notes}`; `ratio` is null where there is none. */
export function verdictOf({ normal, sot }) {
  const ended = [normal, sot].every((side) => ["done", "failed", "stopped"].includes(side.status));
  if (!ended) return { ratio: null, headline: "", text: "", notes: [] };
  const lame = [normal, sot].find((side) => side.status !== "done");
  if (lame) {
    const how = lame.status === "failed" ? "failed" : "was stopped";
    return { ratio: null, headline: "", text: `No speed-up: ${NAMES[lame.kind]} ${how} before its end.`, notes: [] };
  }
  const ratio = normal.seconds / sot.seconds;
  const pair = `${seconds(sot.seconds)} instead of ${seconds(normal.seconds)}`;
  if (sot.route === "direct") {
    const text = "No skeleton: the model answered as it does without one, so the two should take about the same time.";
    return { ratio: null, headline: "Direct", text, notes: [`It took ${pair}.`] };
  }
  return { ratio, headline: `${times(ratio)}×`, text: sentence(ratio, pair), notes: notesOf(normal, sot) };
}

const NAMES = { normal: "normal decoding", sot: "Skeleton-of-Thought" };

function sentence(ratio, pair) {
  if (ratio > 1 + EVEN) return `as fast as normal decoding: the whole answer after ${pair}.`;
  if (ratio < 1 - EVEN) return `as fast, so slower here than normal decoding: the whole answer after ${pair}.`;
  return `about as fast as normal decoding: the whole answer after ${pair}.`;
}

function notesOf(normal, sot) {
  const notes = [];
  const [long, short] = [normal.usage?.output, sot.usage?.output].sort((one, other) => other - one);
  if (short > 0 && long / short > UNEQUAL) {
    notes.push(
      `The answers differ in length (${count(normal.usage.output)} and ${count(sot.usage.output)} tokens): compare tokens a second, too.`,
    );
  }
  const failed = countPoints(sot, "failed");
  if (failed) notes.push(`${failed} of ${sot.points.length} ${sot.route === "items" ? "items" : "points"} failed.`);
  if (sot.mergeError) notes.push(`The merge failed, so the points stand as they are: ${sot.mergeError}`);
  return notes;
}

const rate = (value) => (value !== null && value < 10 ? value.toFixed(1) : count(value));

/** A ratio with the digits that matter. */
export function times(ratio) {
  if (ratio === null || !Number.isFinite(ratio)) return "–";
  return ratio >= 10 ? ratio.toFixed(0) : ratio >= 0.95 ? ratio.toFixed(1) : ratio.toFixed(2);
}

/** The rows of the table: name, a value per answer as text, their ratio as text. `now` as in `barsOf`. */
export function rowsOf({ normal, sot }, now) {
  const whole = (side) => (side.status === "open" ? `${now[side.kind].toFixed(1)} s` : seconds(side.seconds));
  const pace = (side) => (side.usage?.output && side.seconds ? side.usage.output / side.seconds : null);
  // Two answers of the same kind, or one that broke off, have nothing to compare.
  const compared = normal.status === "done" && sot.status === "done" && sot.route !== "direct";
  const faster = (one, other) => (compared && one && other ? `${times(one / other)}×` : "");
  return [
    ["First text", seconds(normal.first), seconds(sot.first), faster(normal.first, sot.first)],
    ["Whole answer", whole(normal), whole(sot), faster(normal.seconds, sot.seconds)],
    ["Tokens out", count(normal.usage?.output), count(sot.usage?.output), ""],
    ["Tokens in", count(normal.usage?.input), count(sot.usage?.input), ""],
    ["Tokens a second", rate(pace(normal)), rate(pace(sot)), faster(pace(sot), pace(normal))],
    ["Calls", count(normal.calls), count(sot.calls), ""],
  ];
}

/** Shows verdict and table in the element of the figures. */
export function showFigures(root, comparison, now) {
  const { headline, text, notes } = verdictOf(comparison);
  const verdict = root.querySelector(".verdict");
  verdict.hidden = !text;
  verdict.querySelector(".headline").hidden = !headline;
  setText(verdict.querySelector(".headline"), headline);
  setText(verdict.querySelector(".sentence"), text);
  verdict.querySelector(".notes").replaceChildren(...notes.map((note) => el("p", { text: note })));
  const body = root.querySelector("tbody");
  for (const [place, [name, ...values]] of rowsOf(comparison, now).entries()) {
    const row = body.rows[place] ?? body.appendChild(el("tr", {}, el("th", { scope: "row" }), el("td"), el("td"), el("td")));
    [name, ...values].forEach((value, cell) => setText(row.cells[cell], value));
  }
}
