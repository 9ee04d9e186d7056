// The inside of a paragraph: code, emphasis, links. One pass over the text, with a stack of what is open.

const isMark = (char) => /[\p{P}\p{S}]/u.test(char);
const ESCAPABLE = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", ndash: "–", mdash: "—", hellip: "…" };
const LONGEST_ADDRESS = 2000;
const DEEPEST = 16;

/**
 * The parts of a text: strings, `{kind: "code" | "strong" | "em" | "del" | "link" | "break", ...}`, nested in `parts`.
 * With `growing` the text goes on: code and strong text that are open at its end count as closed there.
 */
export function readInline(text, growing = false) {
  return new Reader(growing ? text.slice(0, withoutMarks(text)) : text, growing).read();
}

/** The length of a text without marks at its end, which may be half of a mark. */
function withoutMarks(text) {
  let end = text.length;
  while (end > 0 && "*`".includes(text[end - 1])) end -= 1;
  return end;
}

class Reader {
  constructor(text, growing) {
    this.text = text;
    this.growing = growing;
    this.at = 0;
    this.parts = [];
    this.open = []; // marks that may still be closed: {char, count, place (in parts)}
    this.waiting = {}; // how many marks of each kind are in `open`
    this.ticks = null; // places of runs of backticks by their length, found once
  }

  read() {
    const { text } = this;
    let plain = 0;
    const flush = (end) => {
      if (end > plain) this.parts.push(text.slice(plain, end));
    };
    while (this.at < text.length) {
      const before = this.at;
      const taken = this.takeSpecial(text[before]);
      if (taken === null) {
        this.at = before + 1;
        continue;
      }
      // `takeSpecial` has moved on; what stands before it goes first.
      flush(before);
      taken();
      plain = this.at;
    }
    flush(text.length);
    if (this.growing) while (this.open.some(({ char, count }) => char === "*" && count === 2)) this.closeLast();
    return this.parts;
  }

  /** A function that takes what begins here and adds its parts, or null for plain text. Moves `at` when called. */
  takeSpecial(char) {
    switch (char) {
      case "\\":
        return this.escape();
      case "\n":
        return () => this.add({ kind: "break" }, 1);
      case "`":
        return this.code();
      case "*":
      case "_":
      case "~":
        return () => this.mark(char);
      case "[":
        return () => this.bracket(1);
      case "!":
        // A picture would be loaded from elsewhere, which the page never does: its description links to it.
        return this.text[this.at + 1] === "[" ? () => this.bracket(2) : null;
      case "]":
        return () => this.closeBracket();
      case "<":
        return this.address(/<(https?:\/\/[^\s<>]{1,2000})>/iy, 1);
      case "h":
      case "H":
        return this.bareAddress();
      case "&":
        return this.entity();
      default:
        return null;
    }
  }

  add(part, length) {
    this.parts.push(part);
    this.at += length;
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "\n") return () => this.add({ kind: "break" }, 2);
    if (next === undefined || !ESCAPABLE.includes(next)) return null;
    return () => this.add(next, 2);
  }

  entity() {
    const rule = /&(?:([a-z]{2,6})|#(\d{1,7})|#x([0-9a-f]{1,6}));/iy;
    rule.lastIndex = this.at;
    const found = rule.exec(this.text);
    if (!found) return null;
    const code = found[2] ? Number(found[2]) : Number.parseInt(found[3] ?? "", 16);
    const char = found[1] ? ENTITIES[found[1]] : code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : undefined;
    return char === undefined ? null : () => this.add(char, found[0].length);
  }

  code() {
    const { text, at } = this;
    let length = 1;
    while (text[at + length] === "`") length += 1;
    const end = this.closingTicks(at + length, length);
    if (end === null && this.growing) {
      return () => this.add({ kind: "code", text: text.slice(at + length) }, text.length - at);
    }
    if (end === null) return () => this.add(text.slice(at, at + length), length);
    let inner = text.slice(at + length, end).replaceAll("\n", " ");
    if (/^ .* $/s.test(inner) && inner.trim()) inner = inner.slice(1, -1);
    return () => this.add({ kind: "code", text: inner }, end + length - at);
  }

  closingTicks(from, length) {
    if (!this.ticks) {
      this.ticks = new Map();
      for (const run of this.text.matchAll(/`+/g)) {
        const places = this.ticks.get(run[0].length) ?? { at: 0, list: [] };
        places.list.push(run.index);
        this.ticks.set(run[0].length, places);
      }
    }
    const places = this.ticks.get(length);
    if (!places) return null;
    while (places.at < places.list.length && places.list[places.at] < from) places.at += 1;
    return places.list[places.at] ?? null;
  }

  // --- emphasis ---

  mark(char) {
    const { text, at } = this;
    let count = 1;
    while (text[at + count] === char) count += 1;
    const before = at === 0 ? " " : text[at - 1];
    const after = text[at + count] ?? " ";
    // Stars are read more freely than in the specification, which takes "**Note:**text" as no emphasis; models write that.
    const strict = char === "_";
    const left = !/\s/.test(after) && (!strict || !isMark(after) || /\s/.test(before) || isMark(before));
    const right = !/\s/.test(before) && (!strict || !isMark(before) || /\s/.test(after) || isMark(after));
    const inWord = strict && left && right;
    this.at += count;
    if (char === "~" && count !== 2) {
      this.parts.push(char.repeat(count));
      return;
    }
    let rest = count;
    if (right && (!inWord || isMark(after))) rest = this.close(char, rest);
    if (!rest) return;
    if (left && (!inWord || isMark(before))) this.push({ char, count: rest, place: this.parts.length });
    this.parts.push(char.repeat(rest));
  }

  push(mark) {
    // The oldest mark gives up its place: so much is open only in a text that closes nothing.
    if (this.open.length === DEEPEST) this.waiting[this.open.shift().char] -= 1;
    this.open.push(mark);
    this.waiting[mark.char] = (this.waiting[mark.char] ?? 0) + 1;
  }

  pop() {
    const mark = this.open.pop();
    this.waiting[mark.char] -= 1;
    return mark;
  }

  /** Closes what it can with a run of marks; returns how many of them are left. */
  close(char, count) {
    let rest = count;
    while (rest && this.waiting[char]) {
      while (this.open.at(-1).char !== char) {
        this.pop();
      }
      const opener = this.open.at(-1);
      const used = char === "~" ? 2 : Math.min(opener.count, rest, 2);
      const inner = this.parts.splice(opener.place + 1);
      const kind = char === "~" ? "del" : used === 2 ? "strong" : "em";
      opener.count -= used;
      rest -= used;
      if (opener.count > 0) {
        this.parts[opener.place] = char.repeat(opener.count);
      } else {
        this.parts.pop();
        this.pop();
      }
      this.parts.push({ kind, parts: inner });
    }
    return rest;
  }

  /** Closes the latest strong text that is open. */
  closeLast() {
    while (this.open.at(-1).char !== "*" || this.open.at(-1).count !== 2) this.pop();
    this.close("*", 2);
  }

  // --- links ---

  bracket(length) {
    this.push({ char: "[", count: 1, place: this.parts.length });
    this.add(length === 2 ? "![" : "[", length);
  }

  closeBracket() {
    const from = this.at;
    this.at += 1;
    if (!this.waiting["["]) {
      this.parts.push("]");
      return;
    }
    while (this.open.at(-1).char !== "[") this.pop();
    const { place } = this.pop();
    const target = this.text[from + 1] === "(" ? this.targetAt(from + 2) : null;
    if (target === null) {
      this.parts.push("]");
      return;
    }
    const inner = this.parts.splice(place + 1);
    this.parts.pop();
    this.at = target.end;
    const parts = inner.length ? inner : [target.address];
    const href = safeAddress(target.address);
    if (href) this.parts.push({ kind: "link", href, parts });
    else this.parts.push(...parts);
  }

  /** The address in the round brackets that begin before `from`, and where they end. */
  targetAt(from) {
    let at = from;
    let nested = 0;
    const most = Math.min(this.text.length, from + LONGEST_ADDRESS);
    for (; at < most; at += 1) {
      const char = this.text[at];
      if (/\s/.test(char)) break;
      if (char === "(" && ++nested > 3) return null;
      if (char === ")" && nested-- === 0) break;
    }
    const address = this.text.slice(from, at).replace(/^<(.*)>$/, "$1");
    const title = /\s{1,20}(?:"[^"\n]{0,300}"|'[^'\n]{0,300}')?\s{0,20}\)|\)/y;
    title.lastIndex = at;
    return title.test(this.text) ? { address, end: title.lastIndex } : null;
  }

  address(rule, group) {
    rule.lastIndex = this.at;
    const found = rule.exec(this.text);
    const href = found && safeAddress(found[group]);
    return href ? () => this.add({ kind: "link", href, parts: [found[group]] }, found[0].length) : null;
  }

  bareAddress() {
    if (this.at > 0 && /[\p{L}\p{N}]/u.test(this.text[this.at - 1])) return null;
    if (this.waiting["["]) return null; // within the words of a link
    const rule = /https?:\/\/[^\s<>"'`*\]]{1,500}/iy;
    rule.lastIndex = this.at;
    let found = rule.exec(this.text)?.[0];
    if (!found) return null;
    let end = found.length;
    while (".,:;!?_~".includes(found[end - 1]) || (found[end - 1] === ")" && !found.includes("("))) end -= 1;
    found = found.slice(0, end);
    const href = safeAddress(found);
    return href ? () => this.add({ kind: "link", href, parts: [found] }, found.length) : null;
  }
}

/** The address if it is one of the web, else null: a model's text must not run anything. */
export function safeAddress(address) {
  if (!/^https?:\/\//i.test(address)) return null;
  try {
    const url = new URL(address);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
