// Model, order and the settings of an answer: what the form says, kept in the browser.

import { asSentence, el, setText } from "./dom.js";

const NAME = "sot.settings";
/** Those that are true or false; some have a word as another choice. */
const SWITCHES = ["merge", "eager", "opening", "closing", "rewrite_overlap"];
const OPTIONS = ["router", "max_points", "join", "planning", "items", "max_depth", ...SWITCHES];
const MOST = 50;

const SWITCHED = { yes: true, no: false };

const NOTES = {
  local:
    "This model runs on the machine of this server. Started together, the two answers share its processors and slow each other.",
  remote: "Started together, the two answers share what the model's server can do. One after the other, each is timed alone.",
};

export class Settings {
  /** `form`: the page's form. `changed` is called when something else is chosen. */
  constructor(form) {
    this.form = form;
    this.models = [];
    this.kept = readKept();
    for (const name of OPTIONS) if (typeof this.kept[name] === "string") form.elements[name].value = this.kept[name];
    form.addEventListener("change", (event) => {
      if (event.target.name === "question") return;
      if (event.target.name === "order") this.kept.order = this.order;
      this.keep();
      this.show();
    });
  }

  /** Fills the menu of models. */
  setModels(models) {
    this.models = models;
    const menu = this.form.elements.model;
    menu.replaceChildren(...models.map(({ id, name }) => el("option", { value: id, text: name })));
    menu.disabled = models.length === 0;
    if (models.some(({ id }) => id === this.kept.model)) menu.value = this.kept.model;
    this.show();
  }

  /** The model that is chosen; undefined without any. */
  get model() {
    return this.models.find(({ id }) => id === this.form.elements.model.value);
  }

  /** "together" or "sequence". */
  get order() {
    return this.form.elements.order.value;
  }

  /** The field `sot` of a request: what differs from the server's settings. */
  get options() {
    const options = {};
    for (const name of OPTIONS) {
      const { value, type } = this.form.elements[name];
      const number = Number.parseInt(value, 10);
      if (type === "number" && number >= 1) options[name] = Math.min(number, MOST);
      else if (type !== "number" && value) options[name] = SWITCHES.includes(name) ? SWITCHED[value] ?? value : value;
    }
    return options;
  }

  show() {
    const { model } = this;
    // What was chosen by hand stays; else what suits the model.
    this.form.elements.order.value = this.kept.order ?? (model && !model.local ? "together" : "sequence");
    setText(this.form.querySelector("#order-note"), model ? NOTES[model.local ? "local" : "remote"] : "");
    setText(this.form.querySelector("#model-note"), asSentence(model?.remark ?? ""));
    const changed = Object.keys(this.options).length;
    setText(this.form.querySelector("#settings-count"), changed ? `${changed} changed` : "");
  }

  keep() {
    for (const name of OPTIONS) this.kept[name] = this.form.elements[name].value;
    this.kept.model = this.form.elements.model.value;
    try {
      localStorage.setItem(NAME, JSON.stringify(this.kept));
    } catch {
      // The browser keeps nothing for this page.
    }
  }
}

function readKept() {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? "{}");
    return kept && typeof kept === "object" && !Array.isArray(kept) ? kept : {};
  } catch {
    return {};
  }
}
