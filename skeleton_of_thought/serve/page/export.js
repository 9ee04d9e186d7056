// The comparison as one HTML file, which needs nothing else: what the page shows, its styles, no script.

import { asSentence, el } from "./dom.js";

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/** The file's text. `parts`: the elements that show the comparison. */
export function exportedPage(comparison, parts) {
  const head = [
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${POLICY}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta name="color-scheme" content="light dark">',
    '<meta name="referrer" content="no-referrer">',
    el("title", { text: comparison.question.slice(0, 80) }).outerHTML,
    `<style>${styles()}</style>`,
  ];
  const main = el("main", {}, heading(comparison), parts.map(copyOf));
  return `<!doctype html>\n<html lang="en">\n<head>\n${head.join("\n")}\n</head>\n<body class="exported">\n${main.outerHTML}\n</body>\n</html>\n`;
}

/** Offers the file for download. */
export function download(comparison, parts) {
  const file = new Blob([exportedPage(comparison, parts)], { type: "text/html" });
  const address = URL.createObjectURL(file);
  const name = `skeleton-of-thought-${comparison.asked.slice(0, 16).replace(/[T:]/g, "-")}.html`;
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function styles() {
  return [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText)).join("\n");
}

function heading({ question, model, asked, order, options }) {
  const how = order === "together" ? "both answers at the same time" : "one answer after the other";
  const set = Object.entries(options).map(([name, value]) => `${name} = ${value}`);
  const line = [model.name, new Date(asked).toLocaleString(), how, ...set].join(" · ");
  return el(
    "header",
    { class: "exported-head" },
    el("p", { class: "soft", text: "Normal decoding and Skeleton-of-Thought" }),
    el("h1", { dir: "auto", text: question }),
    el("p", { class: "soft", text: line }),
    model.remark && el("p", { class: "soft", text: asSentence(model.remark) }),
  );
}

function copyOf(part) {
  const copy = part.cloneNode(true);
  for (const one of copy.querySelectorAll("button, [data-here]")) one.remove();
  for (const one of copy.querySelectorAll("details")) one.setAttribute("open", "");
  for (const one of [copy, ...copy.querySelectorAll("*")]) {
    for (const name of ["id", "aria-busy", "aria-labelledby"]) one.removeAttribute(name);
  }
  copy.removeAttribute("data-shown");
  return copy;
}
