// The two columns: what each answer says so far. A view keeps its elements and changes only what is new.

import { el, plural, seconds, setText } from "./dom.js";
import { MarkdownView } from "./markdown_view.js";
import { countPoints, waitsFor } from "./record.js";

const STATES = {
  waiting: ["○", "waiting"],
  started: ["◔", "started"],
  writing: ["◐", "writing"],
  again: ["↻", "written again"],
  done: ["●", "done"],
  failed: ["✕", "failed"],
  stopped: ["◻", "stopped"],
};

/** How a text ended that did not end by itself. */
const CUTS = {
  length: "cut at the longest length",
  max_chars: "cut at the longest length",
  loop: "stopped when it repeated itself",
  content_filter: "cut by a filter",
};

/** A column. `root` has `.clock`, `.state`, `.remark` and `.answer`; that of the points also `ol.points`. */
export class Column {
  constructor(root) {
    this.root = root;
    this.clock = root.querySelector(".clock");
    this.state = root.querySelector(".state");
    this.remark = root.querySelector(".remark");
    this.error = root.querySelector(".error");
    this.answer = new MarkdownView(root.querySelector(".answer"), 2);
    this.list = root.querySelector(".points");
    this.fold = root.querySelector("details");
    this.roles = [];
    for (const role of this.fold ? ["opening", "closing"] : []) {
      const place = root.querySelector(`.${role}`);
      this.roles.push({ role, place, view: new MarkdownView(place, 3) });
    }
    this.points = new Map();
  }

  reset() {
    this.answer.reset();
    this.points.clear();
    this.list?.replaceChildren();
    for (const { view } of this.roles) view.reset();
    if (this.fold) this.fold.open = true;
    this.merged = false;
  }

  /** Shows an answer, `now` seconds after its request; says whether all of its text is shown. */
  show(side, now) {
    const ended = ["done", "failed", "stopped"].includes(side.status);
    const took = side.seconds ?? (side.status === "open" ? now : null);
    this.root.dataset.status = side.status;
    this.root.setAttribute("aria-busy", String(side.status === "open"));
    setText(this.clock, took === null ? "–" : ended ? seconds(took) : `${took.toFixed(1)} s`);
    setText(this.state, stateOf(side));
    setText(this.remark, remarkOf(side));
    this.error.hidden = !side.error;
    setText(this.error, side.error ?? "");
    return side.kind === "normal" ? this.answer.show(side.text, ended) : this.showSkeleton(side, ended);
  }

  showSkeleton(side, ended) {
    const byPoints = side.points.length > 0;
    const merging = Boolean(side.stages.merge?.first) && !side.mergeError;
    const whole = byPoints && !merging ? "" : side.text;
    this.root.dataset.route = side.route ?? "";
    this.fold.hidden = !byPoints;
    this.fold.classList.toggle("folds", merging);
    if (merging !== this.merged) {
      this.fold.open = !merging;
      this.merged = merging;
    }
    let all = this.answer.show(whole, ended);
    if (this.points.size > side.points.length) {
      this.points.clear();
      this.list.replaceChildren();
    }
    for (const { role, place, view } of this.roles) {
      place.hidden = !side[role];
      all = view.show(side[role] ?? "", Boolean(side[role])) && all;
    }
    for (const point of side.points) {
      let view = this.points.get(point.index);
      if (!view) {
        view = new PointView(point);
        this.points.set(point.index, view);
        this.list.append(view.root);
      }
      all = view.show(point, waitsFor(side, point)) && all;
    }
    return all;
  }
}

class PointView {
  constructor(point) {
    this.mark = el("span", { class: "mark", "aria-hidden": "true" });
    this.word = el("span", { class: "word" });
    this.verb = this.word.appendChild(el("span", { class: "verb" }));
    this.more = this.word.appendChild(el("span"));
    this.title = el("h3", { dir: "auto" });
    this.scope = el("p", { class: "scope soft", dir: "auto", hidden: true });
    this.text = el("div", { class: "prose" });
    this.error = el("p", { class: "error", hidden: true });
    this.number = el("span", { class: "number", "aria-hidden": "true", text: String(point.index) });
    this.root = el(
      "li",
      { class: "point" },
      this.number,
      el("div", { class: "head" }, this.title, el("p", { class: "status" }, this.mark, this.word)),
      this.scope,
      this.text,
      this.error,
    );
    this.view = new MarkdownView(this.text, 3);
  }

  show(point, waits) {
    const { state, attempts } = point;
    this.root.dataset.state = state;
    setText(this.title, point.title);
    this.scope.hidden = !point.scope;
    setText(this.scope, point.scope ?? "");
    const [mark, word] = STATES[state === "writing" && point.first === null ? "started" : state];
    const again = attempts > 1 && state !== "again" ? (state === "failed" ? ` after ${attempts} attempts` : ", written again") : "";
    const took = point.end !== null && point.start !== null && state === "done" ? seconds(point.end - point.start) : "";
    setText(this.mark, mark);
    setText(this.verb, waits.length ? `waits for ${waits.join(", ")}` : word + (took ? " in " : ""));
    setText(this.more, took + again + (state === "done" && CUTS[point.finish] ? `, ${CUTS[point.finish]}` : ""));
    this.error.hidden = !(point.error && ["failed", "again"].includes(state));
    setText(this.error, point.error ?? "");
    return this.view.show(point.text, ["done", "failed", "stopped"].includes(state));
  }
}

/** What an answer is doing, in a few words. */
export function stateOf(side) {
  switch (side.status) {
    case "idle":
      return "";
    case "queued":
      return "waits for its turn";
    case "open":
      return side.kind === "normal" ? normalState(side) : skeletonState(side);
    case "done":
      return doneState(side);
    default:
      return side.status;
  }
}

function normalState(side) {
  if (side.text) return "writing";
  return side.reasoning ? "reasoning" : "waiting for the first text";
}

function skeletonState(side) {
  if (side.stages.merge) return "merging the points";
  const roles = ["opening", "closing"].filter((role) => side.stages[role] && side.stages[role].end === null);
  if (roles.length) return `writing the ${roles.join(" and the ")}`;
  if (side.route === "direct") return side.text ? "writing directly" : "waiting for the first text";
  if (side.stages.skeleton?.end || side.route === "items") {
    const done = countPoints(side, "done", "failed");
    return `writing ${side.route === "items" ? "items" : "points"}, ${done} of ${side.points.length} done`;
  }
  if (side.points.length) return `skeleton: ${plural(side.points.length, "point")} so far`;
  return side.route ? "writing the skeleton" : "asking the router";
}

function doneState(side) {
  const parts = [CUTS[side.finish] ? `done, ${CUTS[side.finish]}` : "done"];
  if (side.first !== null) parts.push(`first text after ${seconds(side.first)}`);
  if (side.usage?.output) parts.push(`${plural(side.usage.output, "token")}`);
  return parts.join(" · ");
}

/** The line above the answer: the route and its reason. */
function remarkOf(side) {
  if (side.status === "queued") return "Begins when the other answer has ended, so that neither slows the other.";
  if (side.kind === "normal") return "One call, from the first word to the last";
  if (side.route === null) return "";
  const score = side.score === null ? "" : ` (score\u00a0${side.score.toFixed(2)})`;
  const why = side.reason ? `: ${side.reason}${score}` : score;
  if (side.route === "items") return `Item by item, each with a call of its own${why}`;
  return side.route === "direct" ? `Answered directly, without a skeleton${why}` : `By a skeleton${why}`;
}

/** The text that a reader of the answer gets, for the clipboard. */
export function textOf(side) {
  return side.text.trim();
}
