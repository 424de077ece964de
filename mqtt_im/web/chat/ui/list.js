/** The list of conversations, with its search. */
import { addressOf, isGroup } from "../core/names.js";
import { avatar, h, icon } from "./dom.js";
import { short, t } from "./i18n.js";
import { systemText } from "./system.js";
import { plainName, textOf } from "./text.js";

const SOON_MS = 30;
const FIRST = 40; // rows that are made at once; the others follow where there is time
const STEP = 100;

export class ConversationList {
  #session;
  #open;
  #rows = new Map();
  #timer;
  #filter = "";
  #limit = FIRST;
  #isGrowing = false;
  current = null;

  /** `open(conv)` is called with what the user picks. */
  constructor(session, open) {
    this.#session = session;
    this.#open = open;
    this.element = h("ul", { class: "conversations", "aria-label": t("Conversations"), onkeydown: (event) => this.#key(event) });
    for (const name of ["convs", "presence", "reset", "outbox", "state"]) session.im.on(name, () => this.#soon());
    this.nothing = h("p", { class: "nothing", hidden: true }, t("Nobody has written yet. Begin a conversation with the plus above."));
    this.render();
  }

  /** Shows only conversations whose name holds `text`. */
  filter(text) {
    this.#filter = text.toLowerCase();
    this.render();
  }

  select(conv) {
    this.current = conv;
    this.render();
  }

  #soon() {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.render();
    }, SOON_MS);
  }

  render() {
    const { im } = this.#session;
    const drafts = new Map(im.entries.filter(({ op }) => op === "send").map((entry) => [entry.fields.to, entry]));
    const when = (conv) => drafts.get(addressOf(conv.conv, this.#session.me))?.fields.cts ?? conv.last?.ts ?? conv.made ?? 0;
    const shown = [...im.convs.values()].filter((conv) => this.#session.nameOf(conv.conv).toLowerCase().includes(this.#filter));
    shown.sort((a, b) => when(b) - when(a));
    if (shown.length > this.#limit) {
      this.#growSoon();
      shown.length = this.#limit;
    }
    const keep = new Set(shown.map(({ conv }) => conv));
    for (const [conv, row] of this.#rows) {
      if (keep.has(conv)) continue;
      row.element.remove();
      this.#rows.delete(conv);
    }
    let at = this.element.firstChild;
    for (const conv of shown) {
      const row = this.#rows.get(conv.conv) ?? this.#row(conv.conv);
      if (row.element === at) at = at.nextSibling;
      else this.element.insertBefore(row.element, at);
      this.#fill(row, conv, drafts.get(addressOf(conv.conv, this.#session.me)));
    }
    this.nothing.hidden = im.convs.size > 0 || !!this.#filter;
    this.#tabStops();
  }

  #growSoon() {
    if (this.#isGrowing) return;
    this.#isGrowing = true;
    whenIdle(() => {
      this.#isGrowing = false;
      this.#limit += STEP;
      this.render();
    });
  }

  #row(conv) {
    const button = h("button", { type: "button", class: "conversation", data: { testid: "conversation", conv }, onclick: () => this.#open(conv) });
    const row = { element: h("li", {}, button), button, signature: "" };
    this.#rows.set(conv, row);
    return row;
  }

  #fill(row, conv, pending) {
    const { im, me } = this.#session;
    const name = this.#session.nameOf(conv.conv);
    const isOnline = !isGroup(conv.conv) && this.#session.isOnline(addressOf(conv.conv, me));
    const isMuted = conv.muted > Date.now();
    const line = pending ? textOf(pending.fields.body) || t("File") : lineOf(conv, me);
    const ts = pending?.fields.cts ?? conv.last?.ts;
    const time = ts ? short(ts) : "";
    const isCurrent = conv.conv === this.current;
    const signature = JSON.stringify([name, isOnline, isMuted, line, time, isCurrent, conv.unread, conv.mentions, !!pending]);
    if (row.signature === signature) return;
    row.signature = signature;
    row.button.toggleAttribute("aria-current", isCurrent);
    if (isCurrent) row.button.setAttribute("aria-current", "true");
    row.button.replaceChildren(
      h("span", { class: `face${isOnline ? " is-online" : ""}` }, avatar(name, isGroup(conv.conv))),
      h("span", { class: "name", dir: "auto" }, name),
      h("span", { class: "time" }, time),
      h("span", { class: "last", dir: "auto" }, pending && icon("clock"), line),
      h(
        "span",
        { class: "marks" },
        isMuted && icon("muted"),
        conv.mentions > 0 && h("span", { class: "badge at", title: t("You are mentioned") }, "@"),
        conv.unread > 0 && h("span", { class: "badge", data: { testid: "unread" }, title: t("{n} unread", { n: conv.unread }) }, conv.unread),
        isOnline && h("span", { class: "for-readers" }, t("online")),
      ),
    );
  }

  /** One stop for the Tab key, the arrows do the rest. */
  #tabStops() {
    const buttons = [...this.element.querySelectorAll("button")];
    const stop = buttons.find((button) => button.dataset.conv === this.current) ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...this.element.querySelectorAll("button")];
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
    event.preventDefault();
  }
}

const whenIdle = (work) => (globalThis.requestIdleCallback ? requestIdleCallback(work, { timeout: 500 }) : setTimeout(work, 50));

/** The last message in one line. */
function lineOf({ conv, last }, me) {
  if (!last) return t("No messages yet");
  if (last.system) return systemText(last, me);
  let text = last.recalled ? t("Message taken back") : (last.body ?? "").replace(/\s+/g, " ");
  if (!text && last.files?.length) text = last.files.map(({ name }) => plainName(name)).join(", ");
  if (last.from === me) return t("You: {text}", { text });
  return isGroup(conv) ? `${last.from}: ${text}` : text;
}
