// Elements, made without markup: whatever a model wrote becomes text, never HTML.

/** An element. `props`: attributes, `text`, and listeners (`onclick`). `children`: nodes, texts, lists of them, or nothing. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  // One by one: an answer may have more parts than a call takes arguments. And before the attributes: each part that joins
  // an element with dir="auto" would make the browser look for its direction again.
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

/** Sets a text only if it has changed, so that readers of the screen are not disturbed. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Seconds in words, with the digits that matter. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;
}

/** A whole number with separators. */
export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

/** A number and its noun: "1 point", "3 points". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A remark as a sentence. */
export function asSentence(text) {
  if (!text) return "";
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** Copies a text; also on pages without a secure context, which have no clipboard of their own. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The permission was refused: the older way may still work.
    }
  }
  const box = el("textarea", { class: "off-screen", readonly: true, "aria-hidden": "true" });
  box.value = text;
  const before = document.activeElement;
  document.body.append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  before?.focus?.();
  return done;
}
