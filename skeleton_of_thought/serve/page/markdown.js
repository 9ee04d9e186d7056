// Markdown, read into blocks: plain objects that `markdown_view.js` makes elements of. Linear in the length of the text, for
// a model may write any of it; what is deeper than `DEEPEST` or unfinished is read as paragraphs. HTML is text.

const DEEPEST = 8;

const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/s;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>/;
const ITEM = /^([ \t]*)([-*+•]|(\d{1,9})[.)])(?:[ \t]+(.*))?$/s;

/** The blocks of a text, each with `from`, the number of its first line. */
export function readBlocks(text) {
  return blocksOf(text.split(/\r\n|\n|\r/), 0);
}

function blocksOf(lines, depth) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const [block, next] = blockAt(lines, at, depth);
    block.from = at;
    blocks.push(block);
    at = next;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return readFence(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, text: withoutClosing(heading[2] ?? "") }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < DEEPEST) {
    if (QUOTE.test(line)) return readQuote(lines, at, depth);
    if (ITEM.test(line)) return readList(lines, at, depth);
  }
  if (startsTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at, depth);
}

const isBlank = (line) => line.trim() === "";

/** The text of a heading without the hashes that may close it. */
function withoutClosing(text) {
  const trimmed = text.trim();
  let end = trimmed.length;
  while (end > 0 && trimmed[end - 1] === "#") end -= 1;
  const closed = end < trimmed.length && (end === 0 || /\s/.test(trimmed[end - 1]));
  return closed ? trimmed.slice(0, end).trimEnd() : trimmed;
}

function readFence(lines, at, [, indent, mark, info]) {
  const kept = [];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const line = lines[next].trim();
    if (line.length >= mark.length && line === mark[0].repeat(line.length)) {
      next += 1;
      break;
    }
    kept.push(withoutIndent(lines[next], indent.length));
  }
  return [{ kind: "code", language: info.trim().split(/\s/, 1)[0], text: kept.join("\n") }, next];
}

function readQuote(lines, at, depth) {
  const inner = [];
  let next = at;
  for (; next < lines.length && QUOTE.test(lines[next]); next += 1) {
    inner.push(lines[next].replace(/^ {0,3}> ?/, ""));
  }
  return [{ kind: "quote", blocks: blocksOf(inner, depth + 1) }, next];
}

function readList(lines, at, depth) {
  const [, lead, mark, number] = ITEM.exec(lines[at]);
  const base = width(lead);
  const ordered = number !== undefined;
  const items = [];
  let item = null;
  let loose = false;
  let next = at;
  let blanks = 0;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    if (isBlank(line)) {
      blanks += 1;
      continue;
    }
    const found = RULE.test(line) ? null : ITEM.exec(line);
    const indent = width(/^[ \t]*/.exec(line)[0]);
    if (found && (!item || indent <= base + 1)) {
      // Another kind of mark begins another list.
      if (item && (found[3] !== undefined) !== ordered) break;
      if (item && !ordered && found[2] !== mark) break;
      loose ||= blanks > 0 && item !== null;
      item = { lines: [found[4] ?? ""], inset: width(found[1]) + found[2].length + 1 };
      items.push(item);
    } else if (indent > base || (item && blanks === 0 && !startsBlock(lines, next))) {
      // Deeper text belongs to the item, and so does a line that goes on its paragraph.
      if (blanks) item.lines.push("");
      loose ||= blanks > 0 && !found;
      item.lines.push(withoutIndent(line, item.inset));
    } else break;
    blanks = 0;
  }
  return [
    {
      kind: "list",
      ordered,
      start: ordered ? Number(number) : null,
      loose,
      items: items.map((one) => blocksOf(one.lines, depth + 1)),
    },
    next - blanks,
  ];
}

function startsBlock(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function startsTable(lines, at) {
  const under = lines[at + 1];
  if (under === undefined || !lines[at].includes("|") || !under.includes("-")) return false;
  const ruler = cells(under);
  return ruler.every((cell) => /^:?-+:?$/.test(cell)) && cells(lines[at]).length === ruler.length;
}

function readTable(lines, at) {
  const head = cells(lines[at]);
  const align = cells(lines[at + 1]).map((cell) => {
    const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
    return left && right ? "center" : right ? "right" : left ? "left" : null;
  });
  const rows = [];
  let next = at + 2;
  for (; next < lines.length && lines[next].includes("|") && !startsBlock(lines, next); next += 1) {
    const row = cells(lines[next]).slice(0, head.length);
    while (row.length < head.length) row.push("");
    rows.push(row);
  }
  return [{ kind: "table", head, align, rows }, next];
}

/** The cells of a line of a table; "\|" and a bar within code are part of a cell. */
function cells(line) {
  const found = [];
  let text = "";
  let code = false;
  const inner = line.trim();
  for (let at = inner.startsWith("|") ? 1 : 0; at < inner.length; at += 1) {
    const char = inner[at];
    if (char === "\\" && inner[at + 1] === "|") {
      text += "|";
      at += 1;
    } else if (char === "|" && !code) {
      found.push(text.trim());
      text = "";
    } else {
      if (char === "`") code = !code && inner.includes("`", at + 1);
      text += char;
    }
  }
  if (text.trim() || !inner.endsWith("|")) found.push(text.trim());
  return found;
}

function readParagraph(lines, at, depth) {
  const kept = [lines[at]];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    if (isBlank(line)) break;
    const underlined = /^ {0,3}(=+|-{2,})[ \t]*$/.exec(line);
    if (underlined) {
      return [{ kind: "heading", level: underlined[1][0] === "=" ? 1 : 2, text: joined(kept) }, next + 1];
    }
    if ((depth < DEEPEST && startsBlock(lines, next)) || FENCE.test(line) || startsTable(lines, next)) break;
    kept.push(line);
  }
  return [{ kind: "paragraph", text: joined(kept) }, next];
}

const joined = (lines) => lines.map((line) => line.trim()).join("\n");

function width(space) {
  let columns = 0;
  for (const char of space) columns += char === "\t" ? 4 - (columns % 4) : 1;
  return columns;
}

function withoutIndent(line, most) {
  let at = 0;
  for (let columns = 0; at < line.length && columns < most; at += 1) {
    if (line[at] === " ") columns += 1;
    else if (line[at] === "\t") columns += 4;
    else break;
  }
  return line.slice(at);
}
