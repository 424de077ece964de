/** The open conversation: its head, its timeline, who is typing, the composer. */
import { isGroup } from "../core/names.js";
import { Composer } from "./composer.js";
import { avatar, h, iconButton } from "./dom.js";
import { full, problem, t } from "./i18n.js";
import { showGroup, showPerson } from "./people.js";
import { confirm, menu, notice } from "./popups.js";
import { textOf } from "./text.js";
import { Timeline } from "./timeline.js";

const TYPING_MS = 6_000;
const QUICK = ["👍", "❤️", "😂", "😮", "😢", "🙏"];

export class Chat {
  #session;
  #back;
  #typing = new Map();
  #quotes = new Map();
  #tools;
  conv = null;

  /** `back()` leads to the list where the window has room for one of the two only. */
  constructor(session, back) {
    this.#session = session;
    this.#back = back;
    this.composer = new Composer(session, { submit: (sending) => this.#send(sending), editLast: () => this.#editLast() });
    this.timeline = new Timeline(session, {
      quoted: (message) => this.#quoted(message),
      show: (seq) => this.timeline.show(seq),
      react: (message, emoji) => this.#change("react", message, { emoji }),
      reply: (message) => this.composer.reply(message),
      edit: (message) => this.composer.edit(message),
      recall: (message) => this.#recall(message),
      more: (element, message) => this.#more(element, message),
      tools: (element, message) => this.#showTools(element, message),
      write: () => this.composer.focus(),
    });
    this.head = h("header", { class: "chat-head" });
    this.typing = h("p", { class: "typing", "aria-live": "polite" });
    this.element = h("section", { class: "chat", "aria-label": t("Conversation"), hidden: true }, this.head, this.timeline.element, this.typing, this.composer.element);
    this.#acceptDrops();
    session.im.on("typing", (event) => this.#typed(event));
    session.im.on("presence", () => this.#showHead());
    session.im.on("convs", (convs) => this.#convsChanged(convs));
    session.im.on("state", (state) => (this.#showHead(), state === "online" && this.#fetchMembers()));
  }

  /** Shows a conversation; kept when its newest messages are there, as far as they can be had. */
  open(conv) {
    this.conv = conv;
    this.element.hidden = false;
    this.#quotes.clear();
    this.composer.open(conv);
    this.#showHead();
    this.#showTyping();
    this.#fetchMembers();
    return this.timeline.open(conv);
  }

  close() {
    this.conv = null;
    this.element.hidden = true;
    this.timeline.close();
  }

  #showHead() {
    if (this.conv === null) return;
    const { conv } = this;
    const name = this.#session.nameOf(conv);
    const about = () => (isGroup(conv) ? showGroup(this.#session, conv) : showPerson(this.#session, conv));
    const more = iconButton("more", t("About this conversation"), { onclick: about, data: { testid: "conversation-menu" } });
    this.head.replaceChildren(
      iconButton("back", t("Back"), { class: "back", onclick: this.#back, data: { testid: "back" } }),
      avatar(name, isGroup(conv)),
      h("div", { class: "chat-title" }, h("h1", { dir: "auto" }, name), h("p", {}, this.#subtitle())),
      more,
    );
  }

  #subtitle() {
    const { conv } = this;
    if (isGroup(conv)) {
      const members = this.#session.members(conv);
      if (this.#session.im.convs.get(conv)?.left) return t("You are no longer in this group");
      return members ? [...members.keys()].slice(0, 30).join(", ") : "";
    }
    const peer = this.#session.addressOf(conv);
    if (peer === this.#session.me) return t("Notes to yourself");
    if (this.#session.isOnline(peer)) return t("online");
    const presence = this.#session.im.presence.get(peer);
    return presence?.last_seen ? t("last seen {when}", { when: full(presence.last_seen) }) : "";
  }

  #convsChanged(convs) {
    const mine = convs.find(({ conv }) => conv === this.conv);
    if (!mine) return;
    this.#showHead();
    this.composer.element.hidden = !!mine.left;
    if (mine.last?.system) this.#fetchMembers();
  }

  async #fetchMembers() {
    const { conv } = this;
    if (conv === null || !isGroup(conv)) return;
    await this.#session.fetchMembers(conv).catch(() => {}); // asked again when the line is back
    if (conv !== this.conv) return;
    this.#showHead();
    this.timeline.render();
  }

  // Typing

  #typed({ conv, from, on }) {
    const key = `${conv} ${from}`;
    clearTimeout(this.#typing.get(key)?.timer);
    this.#typing.delete(key);
    if (on) {
      const timer = setTimeout(() => this.#typed({ conv, from, on: false }), TYPING_MS);
      this.#typing.set(key, { conv, from, timer });
    }
    this.#showTyping();
  }

  #showTyping() {
    const names = [...this.#typing.values()].filter(({ conv }) => conv === this.conv).map(({ from }) => from);
    if (!names.length) {
      this.typing.replaceChildren();
      return;
    }
    const text = names.length === 1 ? t("{name} is writing …", { name: names[0] }) : t("{names} are writing …", { names: names.slice(0, 3).join(", ") });
    this.typing.replaceChildren(h("span", { data: { testid: "typing" } }, text));
  }

  // What the user does

  async #send({ text, files, mentions, about }) {
    const { conv } = this;
    try {
      if (about?.kind === "edit") {
        if (text) await this.#change("edit", about.message, { body: text });
        return;
      }
      const fields = { to: this.#session.addressOf(conv), body: text, cts: Date.now() };
      if (about) fields.reply_to = about.message.seq;
      if (mentions.length) fields.mentions = mentions;
      const uploads = files.map((blob) => ({ blob, name: blob.name || t("picture"), type: blob.type || "application/octet-stream", size: blob.size }));
      await this.#session.im.do("send", fields, uploads);
      this.timeline.showEnd();
    } catch (error) {
      // The browser could not keep it: what was written must not be lost.
      this.composer.input.value = text;
      notice(problem(error));
    }
  }

  #change(op, { seq }, fields = {}) {
    return this.#session.im.do(op, { conv: this.conv, seq, ...fields });
  }

  #editLast() {
    const message = this.timeline.lastOwn;
    if (message) this.composer.edit(message);
  }

  async #recall(message) {
    if (await confirm(t("Take this message back? Nobody will be able to read it any more."), t("Take back"))) this.#change("recall", message);
  }

  #mayRecall({ from, conv }) {
    const role = isGroup(conv) ? this.#session.members(conv)?.get(this.#session.me) : null;
    return from === this.#session.me || role === "owner" || role === "admin";
  }

  /** The buttons that appear at a message under the pointer or with the focus: one set for all. */
  #showTools(element, message) {
    if (element.contains(this.#tools)) return;
    const react = iconButton("smile", t("React"), { onclick: () => this.#emoji(react, message) });
    const more = iconButton("more", t("More"), { onclick: () => this.#more(more, message) });
    this.#tools?.remove();
    this.#tools = h("div", { class: "tools" }, react, iconButton("reply", t("Reply"), { onclick: () => this.composer.reply(message) }), more);
    element.querySelector(".bubble").append(this.#tools);
  }

  #emoji(anchor, message) {
    const own = h("input", { maxlength: 8, "aria-label": t("Another emoji"), placeholder: t("Another emoji"), onkeydown: (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      this.#change("react", message, { emoji: own.value.trim() });
      document.dispatchEvent(new PointerEvent("pointerdown"));
    } });
    const quick = QUICK.map((emoji) => ({ label: emoji, class: "emoji", action: () => this.#change("react", message, { emoji }) }));
    menu(anchor, quick, { below: own, kind: "emojis" });
  }

  #more(anchor, message) {
    const isOwn = message.from === this.#session.me;
    const text = textOf(message.body);
    menu(anchor, [
      { label: t("Reply"), action: () => this.composer.reply(message) },
      { label: t("React"), action: () => this.#emoji(anchor, message) },
      text && navigator.clipboard && { label: t("Copy"), action: () => navigator.clipboard.writeText(text).then(() => notice(t("Copied"))) },
      isOwn && text && { label: t("Edit"), action: () => this.composer.edit(message) },
      this.#mayRecall(message) && { label: t("Take back"), danger: true, action: () => this.#recall(message) },
    ]);
  }

  /** The message that another one answers, as soon as it is known. */
  #quoted({ conv, reply_to: seq }) {
    const known = this.timeline.message(seq) ?? this.#quotes.get(seq);
    if (known !== undefined) return known;
    this.#quotes.set(seq, null);
    this.#session.im.one(conv, seq).then((message) => {
      if (conv !== this.conv || !message) return;
      this.#quotes.set(seq, message);
      this.timeline.render();
    }, () => this.#quotes.delete(seq));
    return null;
  }

  #acceptDrops() {
    const { element } = this;
    element.addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      element.classList.add("is-target");
    });
    element.addEventListener("dragleave", () => element.classList.remove("is-target"));
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      element.classList.remove("is-target");
      this.composer.add([...event.dataTransfer.files]);
    });
  }
}
