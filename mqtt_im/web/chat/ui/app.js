/** The page of somebody who is logged in: list and conversation side by side, or one of the two where there is no room. */
import { Chat } from "./chat.js";
import { avatar, h, iconButton } from "./dom.js";
import { problem, short, t } from "./i18n.js";
import { ConversationList } from "./list.js";
import { notifyOf } from "./notify.js";
import { newConversation, newGroup } from "./people.js";
import { confirm, menu, notice } from "./popups.js";
import { convOf, isGroup, isUser } from "../core/names.js";
import { showDevices, showSettings } from "./settings.js";
import { textOf } from "./text.js";

const SEARCH_MS = 300;
const WATCHED = 100; // conversations whose presence is followed: the ones that were active last

/** The conversation that an address's fragment names, or "". */
function conversationIn(fragment) {
  try {
    return fragment.startsWith("#/") ? decodeURIComponent(fragment.slice(2)) : "";
  } catch {
    return ""; // a broken escape
  }
}

export class App {
  #session;
  #place;
  #ended;
  #searchTimer;
  #watched = null;

  /** `ended(wish)` is called when the user logs out, or (`"reload"`) wants the page made anew. */
  constructor(session, place, ended) {
    this.#session = session;
    this.#place = place;
    this.#ended = ended;
    this.list = new ConversationList(session, (conv) => this.open(conv));
    this.chat = new Chat(session, () => this.#toList());
    this.#build();
    session.im.on("state", () => this.#showState());
    session.im.on("answer", (answer) => this.#answered(answer));
    session.im.on("refused", () => ended("refused"));
    session.im.on("barred", (error) => notice(problem(error)));
    session.im.on("ended", () => ended("elsewhere"));
    for (const name of ["convs", "leads", "reset"]) session.im.on(name, () => this.#watch(name));
    notifyOf(session, (conv) => this.open(conv));
    this.onpop = () => this.#follow();
    addEventListener("popstate", this.onpop);
    this.#showState();
    this.#watch();
    this.#follow().finally(() => requestAnimationFrame(() => session.shown()));
  }

  /** Shows a conversation, as a step that the browser's back button takes back. */
  open(conv) {
    if (this.chat.conv !== conv) {
      const hash = `#/${encodeURIComponent(conv)}`;
      if (this.chat.conv === null) history.pushState({ conv }, "", hash);
      else history.replaceState({ conv }, "", hash);
      this.#show(conv);
    }
    this.chat.composer.focus();
  }

  close() {
    removeEventListener("popstate", this.onpop);
    this.#place.replaceChildren();
  }

  /** Kept when its newest messages are in the page, as far as they can be had. */
  #show(conv) {
    if (!this.#session.im.convs.has(conv)) this.#session.im.patch(conv, { made: Date.now() });
    this.root.classList.add("is-open");
    this.hint.hidden = true;
    const opened = this.chat.open(conv);
    this.list.select(conv);
    this.#watch();
    return opened;
  }

  #toList() {
    if (history.state?.conv) history.back();
    else this.#showList();
  }

  #showList() {
    this.root.classList.remove("is-open");
    this.list.select(null);
    this.chat.close();
    this.hint.hidden = false;
  }

  /** Shows what the address names. */
  async #follow() {
    const conv = conversationIn(location.hash);
    if (conv && this.#isMine(conv)) await this.#show(conv);
    else this.#showList();
  }

  #isMine(conv) {
    const { me, im } = this.#session;
    const users = conv.split(":");
    return isGroup(conv) ? im.convs.has(conv) : users.length === 2 && users.includes(me) && users.every(isUser) && convOf(...users) === conv;
  }

  #build() {
    const { me } = this.#session;
    const more = iconButton("menu", t("Menu"), { data: { testid: "menu" }, onclick: () => this.#menu(more) });
    this.search = h("input", { type: "search", placeholder: t("Search"), "aria-label": t("Search"), oninput: () => this.#searchSoon() });
    this.results = h("ul", { class: "results", "aria-label": t("Messages found"), hidden: true });
    const side = h(
      "nav",
      { class: "side", "aria-label": t("Conversations") },
      h(
        "header",
        { class: "side-head" },
        more,
        h("h1", {}, "MQTT-IM"),
        iconButton("plus", t("New conversation"), { data: { testid: "new-conversation" }, onclick: () => newConversation(this.#session, (conv) => this.open(conv)) }),
        iconButton("group", t("New group"), { data: { testid: "new-group" }, onclick: () => newGroup(this.#session, (conv) => this.open(conv)) }),
      ),
      h("div", { class: "search" }, this.search),
      h("div", { class: "side-body" }, this.list.element, this.list.nothing, this.results),
      h(
        "footer",
        { class: "side-foot" },
        avatar(me),
        h("span", { class: "name" }, me),
        h("button", { type: "button", class: "quiet-button", data: { testid: "logout" }, onclick: () => this.#logout() }, t("Log out")),
      ),
    );
    this.connection = h("div", { class: "connection", role: "status", data: { testid: "connection" } });
    this.hint = h("div", { class: "hint" }, h("p", {}, t("Pick a conversation, or start a new one.")));
    this.root = h("main", { class: "app" }, this.connection, side, h("div", { class: "main" }, this.chat.element, this.hint));
    this.#place.replaceChildren(this.root);
  }

  #menu(anchor) {
    menu(anchor, [
      { label: t("New conversation"), action: () => newConversation(this.#session, (conv) => this.open(conv)) },
      { label: t("New group"), action: () => newGroup(this.#session, (conv) => this.open(conv)) },
      { label: t("Notes to yourself"), action: () => this.open(`${this.#session.me}:${this.#session.me}`) },
      { label: t("Devices"), action: () => showDevices(this.#session) },
      { label: t("Settings"), action: () => showSettings(this.#session, () => this.#ended("reload")) },
    ]);
  }

  #showState() {
    const { state } = this.#session.im;
    const shown = state === "online" || state === "connecting" ? state : "offline";
    const texts = { online: t("Connected"), connecting: t("Connecting …"), offline: t("Offline. What you write is kept, and goes when the line is back.") };
    this.connection.dataset.state = shown;
    this.connection.replaceChildren(h("span", {}, texts[shown]));
  }

  /** Says what became of a change that the server has refused: unlike a message it has no place of its own to say it. */
  #answered({ id, reply }) {
    const entry = this.#session.im.entries.find((each) => each.id === id);
    if (reply.op !== "error" || !entry || entry.op === "send" || this.#session.isAwaited(id)) return;
    notice(problem(reply));
    this.#session.im.discard(id);
  }

  /** Follows the presence of the ones in the list's upper part. */
  #watch(name) {
    const { im, me } = this.#session;
    const recent = [...im.convs.values()].filter(({ conv }) => !isGroup(conv)).sort((a, b) => (b.last?.ts ?? b.made ?? 0) - (a.last?.ts ?? a.made ?? 0));
    const users = recent.slice(0, WATCHED).filter(({ seq }) => seq > 0).map(({ conv }) => this.#session.addressOf(conv));
    const watched = users.filter((user) => user !== me).join(" ");
    if (watched === this.#watched && name !== "leads") return;
    this.#watched = watched;
    im.watch(watched.split(" ").filter(Boolean));
  }

  async #logout() {
    const waiting = this.#session.im.entries.filter(({ error }) => !error).length;
    if (waiting && !(await confirm(t("{n} of your messages have not been sent. Log out and lose them?", { n: waiting }), t("Log out")))) return;
    this.#ended("logout");
  }

  // Search: names at once, messages at the server

  #searchSoon() {
    const query = this.search.value.trim();
    this.list.filter(query);
    clearTimeout(this.#searchTimer);
    if (query) this.#searchTimer = setTimeout(() => this.#find(query), SEARCH_MS);
    else this.results.hidden = true;
  }

  async #find(query) {
    let items = [];
    let said = t("Nothing found");
    try {
      ({ items } = await this.#session.im.ask("search", { query, limit: 50 }));
    } catch (error) {
      said = error.code === "offline" ? t("Messages can be searched when the line is back.") : said;
    }
    if (query !== this.search.value.trim()) return;
    this.results.hidden = false;
    const rows = items.map((message) => h("li", {}, h(
      "button",
      { type: "button", class: "result", onclick: () => this.#showFound(message) },
      h("span", { class: "name", dir: "auto" }, this.#session.nameOf(message.conv)),
      h("span", { class: "time" }, short(message.ts)),
      h("span", { class: "last", dir: "auto" }, `${message.from}: ${textOf(message.body).slice(0, 200)}`),
    )));
    this.results.replaceChildren(h("li", { class: "results-head" }, t("Messages")), ...(rows.length ? rows : [h("li", { class: "quiet" }, said)]));
  }

  #showFound({ conv, seq }) {
    this.open(conv);
    this.chat.timeline.show(seq);
  }
}
