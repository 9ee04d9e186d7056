// Questions to begin with. Those of the second group get no skeleton: the router is seen at work.

import { el } from "./dom.js";

const GROUPS = [
  {
    title: "Suited to a skeleton, or to items side by side",
    note: "several points, or several items, that do not build on each other",
    kinds: [
      ["Advice", ["How can I sleep better when I work in shifts?", "What should I look at before I rent my first flat?"]],
      ["Ideas", ["What can a small library do to attract teenagers?", "Suggest activities for a rainy weekend with children."]],
      ["Overview", ["What are the main causes of soil erosion?", "Which skills does a good sound engineer need?"]],
      ["Pros and cons", ["What are the advantages and drawbacks of a four-day week?"]],
      ["Items", ["Describe each of these instruments in two sentences: violin, oboe, harp, tuba"]],
    ],
  },
  {
    title: "Better answered directly",
    note: "one fact, one calculation, or steps that need each other",
    kinds: [
      ["Fact", ["What is the capital of Mongolia?"]],
      ["Calculation", ["A train covers 210 km in 2.5 hours. How fast is it on average?"]],
      ["Code", ["Write a Python function that reverses a linked list."]],
      ["Writing", ["Write a short poem about the first snow."]],
      ["Translation", ["Translate into French: The meeting has been moved to Friday."]],
    ],
  },
];

/** Fills an element with the examples; `choose(question)` is called for the one that is clicked. */
export function showExamples(root, choose) {
  root.replaceChildren(
    ...GROUPS.map(({ title, note, kinds }) =>
      el(
        "section",
        {},
        el("h3", { text: title }),
        el("p", { class: "soft", text: note }),
        el(
          "dl",
          {},
          kinds.map(([kind, questions]) => [
            el("dt", { text: kind }),
            questions.map((question) =>
              el("dd", {}, el("button", { type: "button", class: "example", text: question, onclick: () => choose(question) })),
            ),
          ]),
        ),
      ),
    ),
  );
}
