/** Bodies as they are shown: text, with links that can be followed. Nothing in a body is ever read as HTML. */
import { h } from "./dom.js";

const LINK = /(?<![\p{L}\p{N}:])https?:\/\/[^\s/?#@<>"'`{}|\\^\p{Cc}\p{Cf}][^\s<>"'`{}|\\^\p{Cc}\p{Cf}]*/giu; // nothing invisible: a link is what it looks like
const TRAILING = /[.,;:!?)\]}'"。，；：！？）】」]+$/;
const ONLY_EMOJI = /^(?:\p{Extended_Pictographic}|\p{Emoji_Component}|\s){1,24}$/u;

/** What a body says as text: itself, the `text` of a map, or the map as it stands. */
export function textOf(body) {
  if (typeof body === "string") return body;
  if (body === null || body === undefined) return "";
  if (typeof body === "object" && typeof body.text === "string") return body.text;
  return JSON.stringify(body, null, 1);
}

/** What a name must not hold: controls, characters that turn the direction of what stands behind them, towers of accents. */
const UNFIT = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;
const TOWERS = /(\p{M}{3})\p{M}+/gu;

/** A group's or a file's name as it may stand in the page: one line that leaves what is around it alone. */
export const plainName = (text) => String(text).replace(UNFIT, "").replace(TOWERS, "$1").trim();

/** Whether a text is a few emoji and nothing else. */
export const isEmoji = (text) => ONLY_EMOJI.test(text) && /\p{Extended_Pictographic}/u.test(text);

/** A link's target, or null where it is not one we follow. */
function target(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** Nodes for a text; `mentions` are shown as such. */
export function nodesOf(text, mentions = []) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(LINK)) {
    let link = match[0];
    const tail = link.match(TRAILING)?.[0] ?? "";
    // A closing bracket belongs to the link where the link has opened it.
    const keep = tail.startsWith(")") && link.includes("(") ? 1 : 0;
    link = link.slice(0, link.length - tail.length + keep);
    const href = target(link);
    if (!href) continue;
    nodes.push(...mentioned(text.slice(at, match.index), mentions));
    nodes.push(h("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, link));
    at = match.index + link.length;
  }
  nodes.push(...mentioned(text.slice(at), mentions));
  return nodes;
}

function mentioned(text, mentions) {
  const names = mentions.map((name) => (name === "*" ? "all" : name)).filter((name) => /^[A-Za-z0-9_.-]+$/.test(name));
  if (!names.length || !text) return text ? [text] : [];
  names.sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(@(?:${names.map((name) => name.replace(/[.-]/g, "\\$&")).join("|")}))(?![A-Za-z0-9_-])`);
  return text.split(pattern).map((part, index) => (index % 2 ? h("mark", {}, part) : part)).filter((part) => part !== "");
}

/** The names that a text calls with `@`, of those that may be called; `@all` is `*`. */
export function mentionsIn(text, names) {
  const known = new Set(names);
  const found = new Set();
  for (const [, name] of text.matchAll(/(?:^|[^A-Za-z0-9_@])@([A-Za-z0-9_.-]+)/g)) {
    const clean = known.has(name) ? name : name.replace(/[.-]+$/, "");
    if (clean === "all") found.add("*");
    else if (known.has(clean)) found.add(clean);
  }
  return [...found];
}
