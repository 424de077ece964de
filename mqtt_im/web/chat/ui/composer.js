/** Where a message is written: text, files, mentions; what is being answered or edited stands above it. */
import { isGroup } from "../core/names.js";
import { h, icon, iconButton } from "./dom.js";
import { sizeText } from "./files.js";
import { t } from "./i18n.js";
import { isPicture } from "./pictures.js";
import { mentionsIn, plainName, textOf } from "./text.js";

const TYPING_MS = 3_000;
const MOST_FILES = 10;
const DRAFTS = "mqtt-im drafts";

export class Composer {
  #session;
  #conv = null;
  #submit;
  #about = null; // {kind: "reply" | "edit", message}
  #files = [];
  #typedAt = 0;
  #choice = 0;

  /** `submit({text, files, mentions, about})` is called with what is to go; `editLast()` when the user asks for that. */
  constructor(session, { submit, editLast }) {
    this.#session = session;
    this.#submit = submit;
    this.input = h("textarea", {
      rows: 1, dir: "auto", enterkeyhint: "send", placeholder: t("Message"), "aria-label": t("Message"), data: { testid: "composer" },
      oninput: () => this.#typed(), onkeydown: (event) => this.#key(event, editLast),
      onpaste: (event) => this.#paste(event), onblur: () => this.#stopTyping(),
    });
    this.attach = h("input", { type: "file", multiple: true, data: { testid: "attach" }, "aria-label": t("Attach files"), onchange: () => this.#pick() });
    this.button = h("button", { type: "submit", class: "icon-button send", "aria-label": t("Send"), title: t("Send"), data: { testid: "send" } }, icon("send"));
    this.above = h("div", { class: "above" });
    this.names = h("div", { class: "names", role: "listbox", "aria-label": t("Members"), hidden: true });
    this.element = h(
      "form",
      { class: "composer", onsubmit: (event) => (event.preventDefault(), this.send()) },
      this.names,
      this.above,
      h("div", { class: "line" }, h("label", { class: "icon-button attach", title: t("Attach files") }, icon("attach"), this.attach), this.input, this.button),
    );
  }

  /** Another conversation; its draft comes back. */
  open(conv) {
    this.#stopTyping();
    this.#saveDraft();
    this.#conv = conv;
    this.#about = null;
    this.#files = [];
    this.input.value = drafts()[`${this.#session.me} ${conv}`] ?? "";
    this.#showAbove();
    this.#grow();
    this.#suggest();
  }

  focus() {
    this.input.focus({ preventScroll: true });
  }

  reply(message) {
    this.#about = { kind: "reply", message };
    this.#showAbove();
    this.focus();
  }

  edit(message) {
    this.#about = { kind: "edit", message };
    this.input.value = textOf(message.body);
    this.#showAbove();
    this.#grow();
    this.focus();
  }

  /** Files that go with the message. */
  add(files) {
    this.#files.push(...files);
    this.#files.length = Math.min(this.#files.length, MOST_FILES);
    this.#showAbove();
    this.focus();
  }

  async send() {
    const text = this.input.value.trim() === "" ? "" : this.input.value.replace(/\s+$/, "");
    if (!text && !this.#files.length) return;
    const members = this.#session.members(this.#conv);
    const mentions = isGroup(this.#conv) ? mentionsIn(text, members ? [...members.keys()] : []) : [];
    const sending = { text, files: this.#files, mentions, about: this.#about };
    this.#files = [];
    this.#about = null;
    this.input.value = "";
    this.#stopTyping();
    this.#saveDraft();
    this.#showAbove();
    this.#grow();
    this.#suggest();
    await this.#submit(sending);
  }

  #key(event, editLast) {
    if (event.isComposing || event.keyCode === 229) return; // an input method is at work
    if (!this.names.hidden && this.#chooses(event)) {
      event.preventDefault();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.send();
    } else if (event.key === "ArrowUp" && this.input.value === "") {
      event.preventDefault();
      editLast();
    } else if (event.key === "Escape" && this.#about) {
      event.stopPropagation();
      this.#dropAbout();
    }
  }

  #typed() {
    this.#grow();
    this.#suggest();
    this.#saveDraft();
    if (this.input.value === "") this.#stopTyping();
    else if (Date.now() - this.#typedAt > TYPING_MS && this.#about?.kind !== "edit") {
      this.#typedAt = Date.now();
      this.#session.im.typing(this.#to(), true);
    }
  }

  #stopTyping() {
    if (!this.#typedAt) return;
    this.#typedAt = 0;
    this.#session.im.typing(this.#to(), false);
  }

  #to() {
    return this.#session.addressOf(this.#conv);
  }

  #grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight}px`;
  }

  #paste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    this.add(files);
  }

  #pick() {
    this.add([...this.attach.files]);
    this.attach.value = "";
  }

  #dropAbout() {
    if (this.#about?.kind === "edit") this.input.value = "";
    this.#about = null;
    this.#showAbove();
    this.#grow();
    this.focus();
  }

  #showAbove() {
    const parts = [];
    if (this.#about) {
      const { kind, message } = this.#about;
      parts.push(h(
        "div",
        { class: "about" },
        icon(kind),
        h("span", { class: "about-text", dir: "auto" }, h("strong", {}, kind === "edit" ? t("Edit") : message.from), " ", textOf(message.body).slice(0, 160) || plainName(message.files?.[0]?.name ?? "")),
        iconButton("close", t("Cancel"), { onclick: () => this.#dropAbout() }),
      ));
    }
    this.#files.forEach((file, index) => {
      parts.push(h(
        "div",
        { class: "about" },
        isPicture(file) ? this.#thumbnail(file) : icon("file"),
        h("span", { class: "about-text", dir: "auto" }, plainName(file.name), " ", h("small", {}, sizeText(file.size))),
        iconButton("close", t("Leave {name} out", { name: plainName(file.name) }), { onclick: () => (this.#files.splice(index, 1), this.#showAbove()) }),
      ));
    });
    this.above.replaceChildren(...parts);
  }

  #thumbnail(file) {
    const src = URL.createObjectURL(file);
    const image = h("img", { src, alt: "", onload: () => URL.revokeObjectURL(src), onerror: () => image.replaceWith(icon("file")) });
    return image;
  }

  // Mentions: names of members behind an @

  #suggest() {
    const upto = this.input.value.slice(0, this.input.selectionStart);
    const begun = isGroup(this.#conv ?? "") ? upto.match(/(?:^|\s)@([A-Za-z0-9_.-]*)$/)?.[1] : undefined;
    const members = begun === undefined ? [] : [...(this.#session.members(this.#conv)?.keys() ?? []), "all"];
    const found = members.filter((name) => name !== this.#session.me && name.toLowerCase().startsWith(begun.toLowerCase())).slice(0, 6);
    this.#choice = 0;
    this.names.replaceChildren(...found.map((name, index) =>
      h("div", { role: "option", id: `name-${index}`, class: "option", onpointerdown: (event) => (event.preventDefault(), this.#choose(name)) }, `@${name}`)));
    this.names.hidden = !found.length;
    this.#showChoice();
  }

  #showChoice() {
    [...this.names.children].forEach((option, index) => option.setAttribute("aria-selected", String(index === this.#choice)));
    if (this.names.hidden) this.input.removeAttribute("aria-activedescendant");
    else this.input.setAttribute("aria-activedescendant", `name-${this.#choice}`);
  }

  #chooses(event) {
    const count = this.names.children.length;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.#choice = (this.#choice + step + count) % count;
    else if (event.key === "Enter" || event.key === "Tab") this.#choose(this.names.children[this.#choice].textContent.slice(1));
    else if (event.key === "Escape") this.names.hidden = true;
    else return false;
    this.#showChoice();
    return true;
  }

  #choose(name) {
    const at = this.input.selectionStart;
    const before = this.input.value.slice(0, at).replace(/@[A-Za-z0-9_.-]*$/, `@${name} `);
    this.input.value = before + this.input.value.slice(at);
    this.input.setSelectionRange(before.length, before.length);
    this.#typed();
  }

  #saveDraft() {
    if (this.#conv === null || this.#about?.kind === "edit") return;
    const all = drafts();
    const key = `${this.#session.me} ${this.#conv}`;
    if (this.input.value) all[key] = this.input.value;
    else delete all[key];
    sessionStorage.setItem(DRAFTS, JSON.stringify(all));
  }
}

/** What was begun in this tab, by user and conversation; gone with the tab, or with the logout. */
function drafts() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFTS) ?? "{}");
  } catch {
    return {};
  }
}

export const forgetDrafts = () => sessionStorage.removeItem(DRAFTS);
