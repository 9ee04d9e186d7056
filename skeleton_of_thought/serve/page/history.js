// Earlier comparisons, in this browser only.

import { el, plural } from "./dom.js";
import { times, verdictOf } from "./figures.js";

const NAME = "sot.history";
const MOST_ENTRIES = 30;
const MOST_CHARS = 1_500_000;

/** The comparisons that are kept, newest first. */
export function readHistory() {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? "[]");
    return Array.isArray(kept) ? kept.filter(isComparison) : [];
  } catch {
    return [];
  }
}

/** Keeps a comparison; the oldest ones make room for it. */
export function keepComparison(comparison) {
  write([comparison, ...readHistory().filter(({ asked }) => asked !== comparison.asked)]);
}

export function clearHistory() {
  try {
    localStorage.removeItem(NAME);
  } catch {
    // There is none.
  }
}

function write(entries) {
  let left = entries.slice(0, MOST_ENTRIES);
  while (left.length) {
    const text = JSON.stringify(left);
    if (text.length <= MOST_CHARS) {
      try {
        localStorage.setItem(NAME, text);
        return;
      } catch {
        // The browser allows less than that.
      }
    }
    left = left.slice(0, -1);
  }
}

function isComparison(entry) {
  return [entry?.question, entry?.normal?.text, entry?.sot?.text].every((text) => typeof text === "string") && Array.isArray(entry.sot.points);
}

/** The dialog of the history; `open(comparison)` shows one. */
export class HistoryDialog {
  constructor(dialog, open) {
    this.dialog = dialog;
    this.open = open;
    this.list = dialog.querySelector("ol");
    this.empty = dialog.querySelector(".empty");
    this.clear = dialog.querySelector(".clear");
    this.clear.addEventListener("click", () => {
      clearHistory();
      this.fill();
      dialog.querySelector(".close").focus();
    });
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    // A click beside the dialog closes it.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  show() {
    this.fill();
    this.dialog.showModal();
  }

  fill() {
    const entries = readHistory();
    this.empty.hidden = entries.length > 0;
    this.clear.hidden = entries.length === 0;
    this.list.replaceChildren(...entries.map((entry) => el("li", {}, this.entry(entry))));
  }

  entry(comparison) {
    const { question, model, asked, sot, normal } = comparison;
    const parts = [new Date(asked).toLocaleString(), model?.name ?? ""];
    parts.push(sot.route === "direct" ? "direct" : plural(sot.points.length, sot.route === "items" ? "item" : "point"));
    const { ratio } = verdictOf(comparison);
    if (ratio !== null) parts.push(`${times(ratio)}×`);
    return el(
      "button",
      {
        type: "button",
        onclick: () => {
          this.dialog.close();
          this.open(comparison);
        },
      },
      el("span", { class: "asked", dir: "auto", text: question }),
      el("span", { class: "soft", text: parts.filter(Boolean).join(" · ") }),
    );
  }
}
