/** One message in the timeline. Its element stays the same from pending to read; what is in it is made anew when it changes. */
import { isGroup } from "../core/names.js";
import { avatar, h, icon } from "./dom.js";
import { fileNode } from "./files.js";
import { clock, full, problem, t } from "./i18n.js";
import { isEmoji, nodesOf, plainName, textOf } from "./text.js";

const MARKS = { pending: "clock", sent: "tick", delivered: "ticks", read: "ticks", failed: "failed" };
const LONG = 4_000; // characters that are shown before "more"

export class MessageRow {
  #session;
  #actions;
  #shown = [];
  #isWhole = false;
  #plan = null;

  constructor(session, actions) {
    this.#session = session;
    this.#actions = actions;
    this.element = h("article", {
      class: "message", tabindex: -1, data: { testid: "message" },
      onpointerover: () => this.#tools(), onfocusin: () => this.#tools(),
      onkeydown: (event) => this.#key(event),
    });
  }

  get seq() {
    return this.#plan?.message.seq;
  }

  update(plan) {
    const { message, isTogether } = (this.#plan = plan);
    const isOwn = message.from === this.#session.me;
    const state = this.#state(message, isOwn);
    const quoted = message.reply_to ? this.#actions.quoted(message) : null;
    // A message that is stored is the same object as long as it is the same; bodies may be long, so nothing is compared by content.
    const shown = [message.isPending ? JSON.stringify(message) : message, state, !!isTogether, quoted, this.#isWhole];
    if (shown.every((each, index) => each === this.#shown[index])) return;
    this.#shown = shown;
    const { element } = this;
    element.dataset.from = message.from;
    element.dataset.state = state;
    if (message.seq) element.dataset.seq = message.seq;
    element.classList.toggle("own", isOwn);
    element.classList.toggle("together", !!isTogether);
    const showsAuthor = !isOwn && isGroup(message.conv);
    element.replaceChildren(
      ...[
        showsAuthor && (isTogether ? h("span", { class: "avatar-space" }) : avatar(message.from)),
        h(
          "div",
          { class: "bubble" },
          showsAuthor && !isTogether ? h("span", { class: "author" }, message.from) : h("span", { class: "for-readers" }, `${isOwn ? t("You") : message.from}: `),
          message.reply_to && this.#quote(message, quoted),
          this.#body(message),
          (message.files ?? []).map((file) => fileNode(this.#session, message, file)),
          this.#meta(message, state),
          this.#reactions(message),
          message.error && this.#failure(message),
        ),
      ].filter(Boolean),
    );
  }

  /** How far the upload of this message's files is, 0 … 1. */
  progress(share) {
    const bar = this.element.querySelector("progress") ?? h("progress", { max: 1, "aria-label": t("Upload") });
    bar.value = share;
    if (!bar.isConnected) this.element.querySelector(".bubble").append(bar);
  }

  flash() {
    this.element.classList.add("flash");
    setTimeout(() => this.element.classList.remove("flash"), 1_600);
  }

  #state(message, isOwn) {
    if (!isOwn) return "received";
    if (message.error) return "failed";
    return message.isPending ? "pending" : this.#session.stateOf(message);
  }

  #body(message) {
    if (message.recalled) return h("p", { class: "body gone" }, t("Message taken back"));
    const text = textOf(message.body);
    if (!text) return null;
    const isLong = text.length > LONG && !this.#isWhole;
    const shown = isLong ? `${Array.from(text.slice(0, LONG + 1)).slice(0, -1).join("")}…` : text;
    return [
      h("p", { class: `body${isEmoji(text) ? " is-emoji" : ""}`, dir: "auto" }, nodesOf(shown, message.mentions)),
      isLong && h("button", { type: "button", class: "link", onclick: () => ((this.#isWhole = true), this.update(this.#plan)) }, t("Show all of it")),
    ];
  }

  #quote(message, quoted) {
    const text = quoted ? (quoted.recalled ? t("Message taken back") : textOf(quoted.body) || plainName(quoted.files?.[0]?.name ?? "")) : "…";
    return h(
      "button",
      { type: "button", class: "quote", onclick: () => this.#actions.show(message.reply_to) },
      h("span", { class: "author" }, quoted?.from ?? ""),
      h("span", { dir: "auto" }, text.slice(0, 200)),
    );
  }

  #meta(message, state) {
    const names = { pending: t("waiting"), sent: t("sent"), delivered: t("delivered"), read: t("read"), failed: t("failed") };
    const mark = MARKS[state] && h("span", { class: `mark ${state}`, title: names[state] }, icon(MARKS[state]), h("span", { class: "for-readers" }, names[state]));
    return h(
      "span",
      { class: "meta" },
      message.report && h("span", { class: "report" }, message.report.state === "executed" ? t("executed") : t("failed")),
      message.edited && h("span", {}, t("edited")),
      h("time", { datetime: new Date(message.ts).toISOString(), title: full(message.ts) }, clock(message.ts)),
      mark,
    );
  }

  #reactions(message) {
    const all = Object.entries(message.reactions ?? {});
    if (!all.length || message.recalled) return null;
    const { me } = this.#session;
    return h(
      "div",
      { class: "reactions" },
      all.map(([emoji, users]) => {
        const isMine = users.includes(me);
        const toggle = () => this.#actions.react(message, isMine ? "" : emoji);
        const shown = plainName(emoji);
        const label = t("{emoji} from {users}", { emoji: shown, users: users.slice(0, 20).join(", ") });
        return h("button", { type: "button", class: "reaction", "aria-pressed": String(isMine), "aria-label": label, title: label, onclick: toggle }, h("span", { class: isEmoji(emoji) ? "emoji" : "" }, shown), ` ${users.length}`);
      }),
    );
  }

  #failure({ id, error }) {
    return h(
      "div",
      { class: "failure", role: "alert" },
      h("span", {}, problem(error)),
      h("button", { type: "button", class: "link", onclick: () => this.#session.im.retry(id) }, t("Try again")),
      h("button", { type: "button", class: "link", onclick: () => this.#session.im.discard(id) }, t("Discard")),
    );
  }

  #tools() {
    const { message } = this.#plan;
    if (message.seq && !message.recalled) this.#actions.tools(this.element, message);
  }

  #key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const { message } = this.#plan;
    if (!message.seq || message.recalled) return;
    if (event.key === "Enter" || event.key === " ") this.#actions.more(this.element, message);
    else if (event.key === "r") this.#actions.reply(message);
    else if (event.key === "e" && message.from === this.#session.me) this.#actions.edit(message);
    else if (event.key === "Delete") this.#actions.recall(message);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
