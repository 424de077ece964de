/**
 * The messages of the open conversation. Only a stretch of them is in the page, at most `MOST`: more are put on at the end that
 * the user scrolls to and taken off at the other, while what one looks at stays where it is.
 */
import { withReaction } from "../core/inbox.js";
import { addressOf } from "../core/names.js";
import { h, icon } from "./dom.js";
import { day, sameDay, t } from "./i18n.js";
import { MessageRow } from "./message.js";
import { forgetPictures } from "./pictures.js";
import { systemText } from "./system.js";

const PAGE = 50;
const MOST = 200;
const NEAR_PX = 700;
const BOTTOM_PX = 60;
const TOGETHER_MS = 5 * 60_000; // messages of one user within this time stand together
const SOON_MS = 16;

export class Timeline {
  #session;
  #actions;
  #rows = new Map();
  #conv = null;
  #turn = 0; // counts what was shown: an answer for something else comes too late
  #messages = [];
  #isAtEnd = true; // the stretch reaches to the newest message
  #isAtTop = false;
  #isLoading = false;
  #isStuck = true; // what is new scrolls into view
  #stuckAt = 0; // where that has scrolled to
  #newCount = 0;
  #unreadFrom = 0;
  #timer;

  /** `actions`: what the user may do with a message (chat.js). */
  constructor(session, actions) {
    this.#session = session;
    this.#actions = actions;
    this.list = h("div", { class: "messages" });
    this.scroller = h(
      "div",
      { class: "scroller", role: "log", "aria-label": t("Messages"), tabindex: 0, onscroll: () => this.#scrolled(), onkeydown: (event) => this.#key(event) },
      this.list,
    );
    this.toEnd = h("button", { type: "button", class: "to-end", "aria-label": t("To the newest message"), hidden: true, onclick: () => this.showEnd() }, icon("down"), h("span", {}));
    this.nothing = h("p", { class: "nothing", hidden: true }, t("No messages yet"));
    this.element = h("div", { class: "timeline" }, this.scroller, this.nothing, this.toEnd);
    new ResizeObserver(() => this.#follow()).observe(this.list);
    new ResizeObserver(() => this.#follow()).observe(this.scroller);
    session.im.on("messages", (messages) => (this.#changed(messages), forgetPictures(session, messages)));
    session.im.on("outbox", () => this.#soon());
    session.im.on("progress", ({ id, share }) => this.#rows.get(`i ${id}`)?.progress(share));
    session.im.on("convs", (convs) => convs.some(({ conv }) => conv === this.#conv) && this.#soon());
    session.im.on("reset", () => this.#conv && this.open(this.#conv));
    session.im.on("state", (state) => state === "online" && this.#conv && this.#messages.length === 0 && this.open(this.#conv));
    document.addEventListener("visibilitychange", () => this.#read());
  }

  get newest() {
    return this.#messages.at(-1);
  }

  /** The last message of one's own that can be edited. */
  get lastOwn() {
    return this.#messages.findLast(({ from, recalled, system }) => from === this.#session.me && !recalled && !system);
  }

  message(seq) {
    return this.#messages.find((message) => message.seq === seq);
  }

  /** Shows a conversation from its end. */
  async open(conv) {
    const record = this.#session.im.convs.get(conv);
    const turn = this.#start(conv);
    this.#unreadFrom = record?.unread ? (record.read ?? 0) + 1 : 0;
    await this.#load(async () => {
      const { messages, more } = await this.#session.im.before(conv, Infinity, PAGE);
      if (turn !== this.#turn) return;
      this.#merge(messages);
      this.#isAtTop = !more;
      this.render();
    });
    this.#read();
  }

  close() {
    this.#start(null);
  }

  /** Goes to the newest message. */
  showEnd() {
    if (!this.#isAtEnd) {
      this.open(this.#conv);
      return;
    }
    this.#isStuck = true;
    this.#stick();
    this.#read();
  }

  /** Shows the message `seq` and what is around it, wherever it is. */
  async show(seq) {
    if (!this.message(seq)) {
      const conv = this.#conv;
      const turn = this.#start(conv);
      this.#isAtEnd = false;
      this.#isStuck = false;
      await this.#load(async () => {
        const [before, after] = await Promise.all([
          this.#session.im.before(conv, seq + 1, PAGE),
          this.#session.im.after(conv, seq, PAGE),
        ]);
        if (turn !== this.#turn) return;
        this.#merge([...before.messages, ...after.messages]);
        this.#isAtTop = !before.more;
        this.#isAtEnd = !after.more;
      });
    }
    const row = [...this.#rows.values()].find((each) => each.seq === seq);
    if (!row) return;
    this.#isStuck = false;
    row.element.scrollIntoView({ block: "center" });
    row.element.focus({ preventScroll: true });
    row.flash();
  }

  #start(conv) {
    this.#conv = conv;
    this.#messages = [];
    this.#isAtEnd = true;
    this.#isAtTop = false;
    this.#isStuck = true;
    this.#stuckAt = 0;
    this.#newCount = 0;
    this.#unreadFrom = 0;
    this.render();
    this.#turn += 1;
    return this.#turn;
  }

  async #load(work) {
    const turn = this.#turn;
    this.#isLoading = true;
    this.element.setAttribute("aria-busy", "true");
    let isDone = false;
    try {
      await work();
      isDone = true;
    } catch (error) {
      if (!["offline", "not_member", "not_found", "rate_limited"].includes(error.code)) throw error;
    } finally {
      if (turn === this.#turn) {
        this.#isLoading = false;
        this.element.setAttribute("aria-busy", "false");
        this.render();
      }
    }
    if (isDone && turn === this.#turn) this.#fill();
  }

  /** Takes in messages of this conversation, in order, each once. */
  #merge(messages) {
    const all = new Map(this.#messages.map((message) => [message.seq, message]));
    for (const message of messages) all.set(message.seq, message);
    this.#messages = [...all.values()].sort((a, b) => a.seq - b.seq);
  }

  #changed(changed) {
    const mine = changed.filter(({ conv }) => conv === this.#conv);
    if (!mine.length) return;
    const last = this.newest?.seq ?? 0;
    const first = this.#messages[0]?.seq ?? Infinity;
    const taken = mine.filter(({ seq }) => (seq > last ? this.#isAtEnd : seq >= first));
    const news = taken.filter(({ seq, from }) => seq > last && from !== this.#session.me).length;
    if (!this.#isStuck) this.#newCount += news;
    this.#merge(taken);
    this.#soon();
  }

  #soon() {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#isStuck && this.#isAtEnd && this.#messages.length > MOST) {
        this.#messages = this.#messages.slice(-MOST);
        this.#isAtTop = false;
      }
      this.render();
      this.#read();
    }, SOON_MS);
  }

  /** Makes the page show what there is now, leaving in place what the user looks at. */
  render() {
    const rows = this.#plan();
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    let at = this.list.firstChild;
    for (const plan of rows) {
      const row = this.#rows.get(plan.key) ?? this.#make(plan);
      row.update?.(plan);
      if (row.element === at) at = at.nextSibling;
      else this.list.insertBefore(row.element, at);
    }
    this.nothing.hidden = rows.length > 0 || this.#isLoading || this.#conv === null;
    this.#follow();
    this.#showToEnd();
  }

  #make(plan) {
    const row = plan.row();
    this.#rows.set(plan.key, row);
    return row;
  }

  #plan() {
    if (this.#conv === null) return [];
    const { me, im } = this.#session;
    const to = addressOf(this.#conv, me);
    const amending = im.entries.filter(({ op, fields, error }) => !error && fields.conv === this.#conv && ["edit", "recall", "react"].includes(op));
    const committed = new Set(this.#messages.filter(({ from, id }) => from === me && id).map(({ id }) => id));
    const waiting = this.#isAtEnd ? im.entries.filter(({ op, fields, id }) => op === "send" && fields.to === to && !committed.has(id)) : [];
    const plans = [];
    let before = null;
    for (const message of [...this.#messages, ...waiting.map((entry) => this.#pending(entry))]) {
      if (!before || !sameDay(before.ts, message.ts)) plans.push(divider(`d ${message.seq ?? message.id}`, day(message.ts)));
      if (message.seq === this.#unreadFrom && message.from !== me) plans.push(divider("new", t("New messages"), "is-new"));
      if (message.system) plans.push(this.#system(message));
      else {
        const isTogether = before && !before.system && before.from === message.from && message.ts - before.ts < TOGETHER_MS && sameDay(before.ts, message.ts);
        plans.push({
          key: message.from === me && message.id ? `i ${message.id}` : `s ${message.seq}`,
          row: () => new MessageRow(this.#session, this.#actions),
          message: amended(message, amending, me),
          isTogether,
        });
      }
      before = message;
    }
    return plans;
  }

  #pending({ id, fields, uploads, error, held }) {
    return {
      conv: this.#conv, id, from: this.#session.me, ts: fields.cts, body: fields.body, reply_to: fields.reply_to, mentions: fields.mentions,
      files: uploads?.map(({ name, type, size, blob }) => ({ name, type, size, blob })), error, held, isPending: true,
    };
  }

  #system(message) {
    const text = systemText(message, this.#session.me);
    const row = () => ({ element: h("p", { class: "system", data: { testid: "system", seq: message.seq } }, text), seq: message.seq });
    return { key: `s ${message.seq}`, row };
  }

  #scrolled() {
    if (!this.#messages.length && this.#isLoading) return;
    this.#isStuck = this.#isAtEnd && this.#below < BOTTOM_PX;
    if (this.#isStuck) this.#newCount = 0;
    this.#showToEnd();
    this.#read();
    this.#fill();
  }

  /** Gets more where the end of the stretch is near what is in view. */
  #fill() {
    if (this.#isLoading || !this.#messages.length) return;
    if (!this.scroller.clientHeight) return;
    if (this.scroller.scrollTop < NEAR_PX && !this.#isAtTop) this.#more("before");
    else if (this.#below < NEAR_PX && !this.#isAtEnd) this.#more("after");
  }

  async #more(side) {
    const conv = this.#conv;
    const turn = this.#turn;
    await this.#load(async () => {
      const edge = side === "before" ? this.#messages[0].seq : this.newest.seq;
      const { messages, more } = await this.#session.im[side](conv, edge, PAGE);
      if (turn !== this.#turn) return;
      this.#anchored(() => {
        this.#merge(messages);
        if (side === "before") {
          this.#isAtTop = !more;
          if (this.#messages.length > MOST) {
            this.#messages = this.#messages.slice(0, MOST);
            this.#isAtEnd = false;
          }
        } else {
          this.#isAtEnd = !more;
          if (this.#messages.length > MOST) {
            this.#messages = this.#messages.slice(-MOST);
            this.#isAtTop = false;
          }
        }
        this.render();
      });
    });
  }

  /** Runs `change` so that what is in view does not move. */
  #anchored(change) {
    const top = this.scroller.getBoundingClientRect().top;
    const element = [...this.list.children].find((child) => child.getBoundingClientRect().bottom > top && child.dataset.seq);
    const before = element?.getBoundingClientRect().top;
    change();
    if (element?.isConnected) this.scroller.scrollTop += element.getBoundingClientRect().top - before;
  }

  #stick() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#stuckAt = this.scroller.scrollTop;
  }

  /** Sticks to the end, unless the reader has just left it: the event that tells so comes after the next layout. */
  #follow() {
    if (!this.#isStuck) return;
    if (this.scroller.scrollTop < this.#stuckAt - 1 && this.#below >= BOTTOM_PX) this.#isStuck = false;
    else this.#stick();
  }

  /** Pixels that are hidden below what is in view. */
  get #below() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  #showToEnd() {
    this.toEnd.hidden = this.#isStuck || !this.#messages.length;
    this.toEnd.lastChild.textContent = this.#newCount || "";
  }

  /** What is seen counts as read: the newest message is in view, and so is the page. */
  #read() {
    if (this.#conv === null || !this.#isStuck || document.visibilityState !== "visible" || !this.newest) return;
    const record = this.#session.im.convs.get(this.#conv);
    if (record && (record.read ?? 0) < this.newest.seq && (record.unread || this.newest.from !== this.#session.me)) {
      this.#session.im.markRead(this.#conv, this.newest.seq);
    }
  }

  #key(event) {
    const rows = [...this.list.querySelectorAll(".message")];
    const at = rows.indexOf(document.activeElement.closest?.(".message"));
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step && !event.altKey && !event.ctrlKey) {
      rows[at < 0 ? rows.length - 1 : Math.max(0, at + step)]?.focus();
      if (at >= 0 && at + step >= rows.length) this.#actions.write();
    } else if (event.key === "End") this.showEnd();
    else if (event.key === "Escape") this.#actions.write();
    else return;
    event.preventDefault();
  }
}

function divider(key, text, kind = "") {
  return { key: `${key} ${text}`, row: () => ({ element: h("div", { class: `divider ${kind}`, role: "separator", "aria-label": text }, h("span", {}, text)) }) };
}

/** A message with what the user has changed and the server has not answered yet. */
function amended(message, entries, me) {
  let result = message;
  for (const { op, fields } of entries) {
    if (fields.seq !== message.seq) continue;
    if (op === "edit") result = { ...result, body: fields.body, edited: true };
    if (op === "recall") result = { ...result, body: undefined, files: undefined, recalled: true };
    if (op === "react") result = { ...result, reactions: withReaction(result.reactions, me, fields.emoji) };
  }
  return result;
}
