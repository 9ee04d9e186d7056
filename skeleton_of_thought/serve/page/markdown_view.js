// Markdown as elements, while it is written: blocks that are complete stay, only the last ones are made again.

import { el } from "./dom.js";
import { readInline } from "./inline.js";
import { readBlocks } from "./markdown.js";

/** A block is final once the next one began more than this many lines before the end: the last lines may still turn out to be
 * the ruler of a table or the underline of a heading. */
const MARGIN = 2;

/** A long last block is made again only after this many times the time that it took before. */
const PATIENCE = 6;

/** Shows a text that grows, in an element. `heading` is the level of the heading above it. */
export class MarkdownView {
  constructor(root, heading = 2) {
    this.root = root;
    this.heading = heading;
    this.reset();
  }

  reset() {
    this.text = "";
    this.settled = 0; // how much of the text stands in nodes that stay
    this.nodes = 0; // how many nodes these are
    this.complete = false;
    this.next = 0; // when it may be made again
    this.root.replaceChildren();
  }

  /** Shows the text, and says whether it did: one that costs much is shown less often until it is complete. */
  show(text, complete = false, now = performance.now()) {
    if (text === this.text && complete === this.complete) return true;
    if (!text.startsWith(this.text) || (this.complete && text !== this.text)) this.reset();
    if (!complete && now < this.next) return false;
    const began = performance.now();
    this.text = text;
    this.complete = complete;
    this.showTail(complete);
    this.next = now + PATIENCE * (performance.now() - began);
    return true;
  }

  showTail(complete) {
    const tail = this.text.slice(this.settled);
    const blocks = readBlocks(tail);
    while (this.root.childNodes.length > this.nodes) this.root.lastChild.remove();
    blocks.forEach((block, place) => {
      this.root.append(blockNode(block, this.heading, !complete && place === blocks.length - 1));
    });
    if (complete) return;
    const lines = lineStarts(tail);
    let final = blocks.length - 1;
    while (final > 0 && blocks[final].from > lines.length - 1 - MARGIN) final -= 1;
    if (final > 0) {
      this.settled += lines[blocks[final].from];
      this.nodes += final;
    }
  }
}

function lineStarts(text) {
  const starts = [0];
  for (const end of text.matchAll(/\r\n|\n|\r/g)) starts.push(end.index + end[0].length);
  return starts;
}

/** The elements of a whole text. */
export function markdownNodes(text, heading = 2) {
  return readBlocks(text).map((block) => blockNode(block, heading));
}

/** `growing`: whether the text goes on, so that marks at its end may still be closed. */
function blockNode(block, heading, growing = false) {
  switch (block.kind) {
    case "heading":
      return el(`h${Math.min(6, heading + block.level)}`, { dir: "auto" }, inlineNodes(block.text));
    case "code":
      return el("pre", { tabindex: "0", "data-language": block.language || null }, el("code", { text: block.text }));
    case "rule":
      return el("hr");
    case "quote":
      return el("blockquote", {}, block.blocks.map((inner, place) => blockNode(inner, heading, growing && isLast(place, block.blocks))));
    case "list":
      return listNode(block, heading, growing);
    case "table":
      return tableNode(block);
    default:
      return el("p", { dir: "auto" }, inlineNodes(block.text, growing));
  }
}

const isLast = (place, list) => place === list.length - 1;

function listNode({ ordered, start, loose, items }, heading, growing) {
  const nodes = items.map((blocks, item) => {
    const short = !loose && blocks[0]?.kind === "paragraph";
    const parts = blocks.map((block, place) => {
      const grows = growing && isLast(item, items) && isLast(place, blocks);
      return short && place === 0 ? inlineNodes(taskMark(block.text), grows) : blockNode(block, heading, grows);
    });
    return el("li", { dir: "auto" }, parts);
  });
  return el(ordered ? "ol" : "ul", { start: ordered && start !== 1 ? start : null }, nodes);
}

function taskMark(text) {
  return text.replace(/^\[ \]\s/, "☐ ").replace(/^\[[xX]\]\s/, "☑ ");
}

function tableNode({ head, align, rows }) {
  const cell = (tag) => (text, column) =>
    el(tag, { dir: "auto", class: align[column] ? `to-${align[column]}` : null, scope: tag === "th" ? "col" : null }, inlineNodes(text));
  const table = el(
    "table",
    {},
    el("thead", {}, el("tr", {}, head.map(cell("th")))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell("td"))))),
  );
  return el("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }, table);
}

function inlineNodes(text, growing = false) {
  return readInline(text, growing).map(inlineNode);
}

function inlineNode(part) {
  if (typeof part === "string") return document.createTextNode(part);
  switch (part.kind) {
    case "code":
      return el("code", { text: part.text });
    case "break":
      return el("br");
    case "link":
      return el("a", { href: part.href, rel: "noopener noreferrer", target: "_blank" }, part.parts.map(inlineNode));
    default:
      return el(part.kind, {}, part.parts.map(inlineNode));
  }
}
