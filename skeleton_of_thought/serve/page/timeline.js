// The time line of a comparison: a bar for each call, over one axis in seconds.

import { el, seconds, svg } from "./dom.js";

const STAGES = {
  route: "Router",
  skeleton: "Skeleton",
  opening: "Opening",
  closing: "Closing",
  merge: "Merge",
  direct: "Direct answer",
};
const HEIGHT = 22;
/** A call was not streamed if less than this share of its time came after its first text. */
const AT_ONCE = 0.02;

/** The bars of a comparison. `now`: seconds since the request of each open answer. */
export function barsOf({ normal, sot }, now) {
  const bars = [];
  if (normal.status !== "idle" && normal.status !== "queued") {
    bars.push({
      label: "Normal decoding",
      kind: "normal",
      start: 0,
      first: normal.first,
      end: normal.seconds ?? now.normal,
      open: normal.seconds === null,
      failed: normal.status === "failed",
    });
  }
  const end = (span) => span.end ?? now.sot;
  const stage = (name) => {
    const span = sot.stages[name];
    if (span) bars.push({ ...span, label: STAGES[name], kind: name, end: end(span), open: span.end === null });
  };
  stage("route");
  stage("skeleton");
  for (const point of sot.points) {
    bars.push({
      label: point.title,
      number: point.index,
      kind: "point",
      start: point.start,
      first: point.first,
      end: point.start === null ? null : end(point),
      open: point.end === null,
      released: point.released,
      failed: point.state === "failed",
      attempts: point.attempts,
      after: point.after ?? [],
    });
  }
  stage("opening");
  stage("closing");
  stage("merge");
  stage("direct");
  return bars;
}

/** Round numbers from 0 to `length`, at most `most` of them. */
export function ticksOf(length, most) {
  const least = length / (most - 1);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= least * (1 - 1e-9));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: Math.floor(length / step + 1e-9) + 1 }, (_, at) => ({
    at: at * step,
    label: (at * step).toFixed(digits),
  }));
}

/** A length for the axis that does not change with every frame while bars grow. */
export function axisOf(bars, growing) {
  const end = Math.max(0.1, ...bars.map((bar) => Math.max(bar.end ?? 0, bar.released ?? 0)));
  if (!growing) return end * 1.01;
  const power = 10 ** Math.floor(Math.log10(end));
  return [1.2, 1.6, 2, 2.5, 3.2, 4, 5, 6.5, 8, 10, 13].map((factor) => factor * power).find((length) => length >= end);
}

/** Draws the time line into an element: `ol.calls` and `.legend`. */
export function showTimeline(root, comparison, now, growing) {
  const bars = barsOf(comparison, now);
  const length = axisOf(bars, growing);
  const ticks = ticksOf(length, root.clientWidth < 600 ? 5 : 9);
  const scale = (at) => `${((100 * at) / length).toFixed(3)}%`;
  root.querySelector(".calls").replaceChildren(...bars.map((bar) => row(bar, scale, ticks)));
  root.querySelector(".axis svg").replaceChildren(
    ...ticks.map(({ at, label }) =>
      svg("text", { x: scale(at), y: 12, "text-anchor": at === 0 ? "start" : "middle" }, at === 0 ? "0 s" : label),
    ),
  );
  root.querySelector(".legend .failed").hidden = !bars.some((bar) => bar.failed);
  root.querySelector(".legend .released").hidden = !bars.some((bar) => bar.released);
}

function row(bar, scale, ticks) {
  const took = bar.start === null || bar.end === null ? null : bar.end - bar.start;
  const again = bar.attempts > 1 ? ` (${bar.attempts} attempts)` : "";
  const label = el("span", { class: "label", dir: "auto" });
  if (bar.number) label.append(el("span", { class: "number", text: `${bar.number}` }));
  label.append(el("bdi", { text: bar.label }));
  const track = svg("svg", { class: "track", width: "100%", height: HEIGHT, "aria-hidden": "true" });
  track.append(...ticks.map(({ at }) => svg("line", { class: "grid", x1: scale(at), x2: scale(at), y1: 0, y2: HEIGHT })));
  if (took !== null) track.append(...shapes(bar, scale));
  if (bar.after?.length) track.append(waited(bar, scale));
  const text = took === null ? "waits" : seconds(took);
  const parents = bar.after?.length ? `, after ${bar.after.join(", ")}` : "";
  const from = (took === null ? "" : `, from ${seconds(bar.start)} on${bar.failed ? ", failed" : ""}${again}`) + parents;
  return el(
    "li",
    { "data-kind": bar.kind, title: `${bar.label}: ${text}${from}` },
    label,
    track,
    el("span", { class: "took" }, text, el("span", { class: "off-screen", text: from })),
  );
}

/** Which points a point waited for: before its bar, where nothing else is drawn, or after it if that is too narrow. */
function waited({ start, end, released, after }, scale) {
  let place = { x: 0 };
  if (start !== null) {
    const narrow = Number.parseFloat(scale(start)) < 12 + 2 * after.length;
    place = narrow ? { x: scale(Math.max(end, released ?? 0)), dx: 9 } : { x: scale(start), dx: -6, "text-anchor": "end" };
  }
  return svg("text", { ...place, y: HEIGHT / 2 + 4, class: "after" }, `after ${after.join(", ")}`);
}

/** A thin line until the first text, then a bar; a mark where the reader got the first of it. */
function shapes({ start, first, end, open, failed, released }, scale) {
  const none = first === null || first === undefined;
  // A call that has ended, all of its text at once, was not streamed: its bar is thick from its start.
  const streamed = !none && end - first > AT_ONCE * (end - start);
  const written = open ? (none ? end : first) : streamed ? first : start;
  const state = failed ? "failed" : null;
  const made = [box(start, written, HEIGHT / 2 - 1, 2, scale, state), box(written, end, 6, HEIGHT - 12, scale, state)];
  if (failed) {
    made.push(svg("svg", { x: scale(end), y: HEIGHT / 2, class: "end", overflow: "visible" }, svg("path", { d: "M-4-4L4 4M4-4L-4 4" })));
  }
  if (released !== null && released !== undefined) {
    if (released > end) made.push(box(end, released, HEIGHT / 2 - 0.5, 1, scale, "held"));
    made.push(
      svg("svg", { x: scale(released), y: HEIGHT / 2, class: "released", overflow: "visible" }, svg("path", { d: "M0-6L5 0L0 6L-5 0Z" })),
    );
  }
  return made;
}

function box(from, to, y, height, scale, state) {
  if (to <= from) return svg("g");
  return svg("rect", { x: scale(from), y, width: scale(Math.max(to - from, 0)), height, class: state });
}
