/**
 * The messaging of one device: joins outbox, inbox and cursor to a line and a store. No DOM; runs in a browser and in Node.
 *
 * What holds, whenever the program is killed: a request is on disk before `do` returns, and leaves it with the server's answer;
 * an item, what it means and the cursor behind it are written as one transaction, and only then acknowledged (`ack: "app"`).
 *
 * Events: `state`, `convs` (changed records), `messages` (changed ones), `news` (others' messages that have just come),
 * `outbox` (all entries), `answer` (`{id, reply}`), `own` (what own.js keeps), `progress`, `receipt`, `typing`, `presence`, `reset` (everything is new).
 */
import { Asks, RequestFailed } from "./asks.js";
import { Connection } from "./connection.js";
import { Cursor } from "./cursor.js";
import { Emitter } from "./emitter.js";
import { History } from "./history.js";
import { newConversation } from "./inbox.js";
import { Intake } from "./intake.js";
import { Keeping } from "./keeping.js";
import { newId, topics } from "./names.js";
import { Outbox } from "./outbox.js";
import { Own } from "./own.js";
import { Uploads } from "./uploads.js";

const WINDOW = 32; // requests under way
const TOO_FAR = 2_000; // items behind, from which on the present state is asked for instead
const ACK_MS = 300;
const BARRED_MS = 60_000; // the server does not take this device: so long until it is asked again, or until somebody wants it
const SUMMARIES = 50; // conversations that are looked at after each reconnect

export class Messenger extends Emitter {
  convs = new Map();
  outbox = new Outbox();
  cursor = new Cursor();
  limits = {};
  /** Whether the server has said `welcome` on this connection. */
  isWelcome = false;
  #asks = new Asks();
  #keeping;
  #hello = null;
  #acked = 0;
  #ackTimer;
  #watched = new Set();

  /**
   * `open(on)` makes a line (line.js), `store` keeps (store.js), `upload(blob, name, progress)` brings a file to the
   * server and returns its id. `most` is how much stays in the store (keeping.js).
   */
  constructor({ user, device, prefix = "im/v1", store, open, isReachable, upload, most }) {
    super();
    Object.assign(this, { user, device, store });
    this.topics = topics(prefix, user, device);
    this.history = new History(this);
    this.own = new Own(this);
    this.#keeping = new Keeping(this, most);
    this.uploads = new Uploads(this, upload);
    this.intake = new Intake(this);
    this.connection = new Connection(open, isReachable);
    this.connection.on("up", () => this.#up());
    this.connection.on("down", (reason) => this.#down(reason));
    this.connection.on("packet", ({ topic, packet }) => this.#packet(topic, packet));
    this.connection.on("state", (state) => this.emit("state", state));
  }

  get state() {
    return this.connection.state;
  }

  /** Reads what was kept, and begins to connect. */
  async start() {
    const { meta, convs, outbox } = await this.store.load();
    this.cursor = new Cursor(meta.pos ?? null, meta.epoch ?? null);
    this.limits = meta.limits ?? {};
    for (const conv of convs) this.convs.set(conv.conv, conv);
    for (const entry of outbox) this.outbox.put(entry);
    this.own.load(meta.own);
    this.#keeping.load(meta.kept);
    for (const entry of this.outbox.waiting) if (Own.has(entry.op)) await this.own.apply(entry);
    this.connection.start();
  }

  stop() {
    this.connection.stop();
    clearTimeout(this.#ackTimer);
  }

  wake() {
    this.connection.wake();
  }

  /** What changes something: kept until the server has answered, whatever happens. Returns the entry, which is on disk. */
  async do(op, fields, uploads = []) {
    const entry = await this.store.add({ id: newId(), op, fields, uploads, held: uploads.length > 0 });
    this.added(entry);
    return entry;
  }

  /** Takes in an entry that is in the store: made here, or by another tab. */
  added(entry) {
    this.outbox.put(entry);
    this.#outboxChanged();
    if (Own.has(entry.op)) this.own.apply(entry).catch((error) => console.error(error)); // kept with the entry all the same
    this.pump();
  }

  /** Tries a refused entry again, behind all others: its id is free. */
  async retry(id) {
    const entry = this.outbox.get(id);
    if (!entry?.error) return;
    await this.discard(id);
    const uploads = entry.uploads.map((upload) => ({ ...upload, file: undefined })); // the server may have forgotten the file
    await this.do(entry.op, { ...entry.fields, files: undefined }, uploads);
  }

  /** Takes back an entry that is refused, or was not yet published on this connection. */
  async discard(id) {
    const entry = this.outbox.get(id);
    if (!entry || this.outbox.isUnderWay(id)) return false;
    await this.store.commit({ answered: [entry.order] });
    this.outbox.remove(id);
    this.#outboxChanged();
    return true;
  }

  /** A question, or a change that is not kept: the reply, or `RequestFailed`. */
  ask(op, fields = {}) {
    if (!this.connection.line || (!this.isWelcome && op !== "hello")) return Promise.reject(new RequestFailed("offline"));
    return this.#asks.ask((request) => this.#publish(request), op, fields);
  }

  /** The user has read a conversation up to `seq`; told to the server now, or when there is one. */
  async markRead(id, seq) {
    const conv = this.convs.get(id);
    if (!conv || seq <= (conv.read ?? 0)) return;
    conv.read = seq;
    conv.tell = seq;
    if (seq >= conv.seq) conv.unread = conv.mentions = 0;
    else conv.unread = await this.history.unread(conv);
    await this.commit({ convs: [conv] });
    this.#tellRead(conv);
  }

  /** Changes what is only this device's business in a conversation's record; one that is not there is made. */
  async keep(id, changes) {
    const conv = Object.assign(this.convs.get(id) ?? newConversation(id), changes);
    this.convs.set(id, conv);
    await this.commit({ convs: [conv] });
  }

  /** Tells that the user writes, or has stopped. Best effort. */
  typing(to, on) {
    if (this.isWelcome) this.connection.line?.publish(this.topics.up, { op: "typing", to, on }, 0);
  }

  /** Whose presence to follow, from now on. */
  watch(users) {
    const wanted = new Set(users);
    const line = this.isWelcome ? this.connection.line : null;
    line?.unsubscribe([...this.#watched].filter((user) => !wanted.has(user)).map(this.topics.presence));
    line?.subscribe([...wanted].filter((user) => !this.#watched.has(user)).map(this.topics.presence));
    this.#watched = wanted;
  }

  /** Publishes what may be published now. */
  pump() {
    const line = this.connection.line;
    if (!line || !this.#hello) return;
    for (const request of this.outbox.take(WINDOW)) {
      // The server would cut the line for it, again and again: nothing behind it would ever arrive.
      if (this.#weight(request) > this.limits.packet) this.#answered({ op: "error", id: request.id, code: "too_large" });
      else this.#publish(request);
    }
    if (this.isWelcome) this.uploads.next();
  }

  /** Writes changes and tells them. */
  async commit(changes) {
    const { messages = [], convs = [] } = changes;
    const counted = messages.length ? { meta: { ...changes.meta, ...this.#keeping.count(messages) } } : {};
    await this.store.commit({ ...changes, ...counted });
    if (messages.length) this.emit("messages", messages);
    if (convs.length) this.emit("convs", convs);
    this.#keeping.look().catch((error) => console.error(error)); // the next write looks again
  }

  /** The server has committed these entries, and they have left the disk. */
  answeredAll(entries) {
    for (const entry of entries) this.outbox.answer({ op: "sent", id: entry.id });
    if (entries.length) {
      this.#outboxChanged();
      this.pump();
    }
    this.#expect();
  }

  /** Tells the server how far this device is, soon. */
  acknowledge() {
    this.#ackTimer ??= setTimeout(() => {
      this.#ackTimer = undefined;
      const { pos } = this.cursor;
      if (!this.isWelcome || pos <= this.#acked) return;
      this.connection.line?.publish(this.topics.up, { op: "ack", pos });
      this.#acked = pos;
    }, ACK_MS);
  }

  /** Bytes of the packet that a request makes, rounded up. */
  #weight(request) {
    return new TextEncoder().encode(JSON.stringify(request)).length + this.topics.up.length + 16;
  }

  #publish(request) {
    this.connection.line.publish(this.topics.up, request);
    this.#expect();
  }

  #expect() {
    this.connection.expecting(this.#asks.size > 0 || this.outbox.underWay > 0 || !this.isWelcome);
  }

  // The connection

  #up() {
    this.outbox.begin();
    this.isWelcome = false;
    this.connection.line.subscribe([this.topics.down]);
    this.#sayHello(this.cursor.pos === null ? {} : { epoch: this.cursor.epoch, after: this.cursor.pos });
    if (this.limits.packet) this.pump(); // in the same flight; a first connection waits to hear how much the server takes
  }

  #sayHello(place) {
    this.#hello = newId();
    this.#publish({ op: "hello", id: this.#hello, ack: "app", batch: true, n: 0, ...place });
  }

  #down(reason) {
    this.isWelcome = false;
    this.#hello = null;
    this.intake.clear();
    this.#asks.fail();
    this.outbox.begin();
    if (reason === "refused") this.emit("refused", reason);
  }

  async #welcome(welcome) {
    const { line } = this.connection;
    this.limits = welcome.limits;
    const verdict = this.cursor.judge(welcome, TOO_FAR);
    if (verdict === "start") {
      const skip = this.cursor.pos !== null || welcome.head - welcome.pos > TOO_FAR;
      await this.#startOver(welcome, skip ? welcome.head : welcome.pos);
      if (line !== this.connection.line) return; // lost meanwhile
    }
    this.isWelcome = true;
    this.#acked = Math.max(0, Math.min(this.cursor.pos, welcome.pos));
    this.connection.welcomed();
    this.#expect();
    line.subscribe([...this.#watched].map(this.topics.presence));
    for (const conv of this.convs.values()) if (conv.tell) this.#tellRead(conv);
    this.pump();
    this.intake.work();
    this.#summaries(verdict === "start" || this.convs.size === 0).catch(() => {}); // lost again: asked after the next welcome
  }

  async #startOver(welcome, pos) {
    const isNew = this.cursor.pos === null;
    this.cursor = new Cursor(pos, welcome.epoch);
    this.convs.clear();
    const meta = { pos, epoch: welcome.epoch, limits: welcome.limits, ...this.#keeping.count([], true) };
    await this.store.commit({ meta, startOver: true });
    if (pos !== welcome.pos) this.ask("hello", { after: pos, ack: "app", batch: true }).catch(() => {});
    if (!isNew) this.emit("reset");
  }

  /** Conversations as the server has them: marks and names may have changed while this device was away. */
  async #summaries(all) {
    let after;
    let limit = SUMMARIES;
    do {
      const page = await this.ask("convs", { limit, after });
      await this.intake.run((inbox) => page.convs.forEach((summary) => inbox.summary(summary)));
      after = page.more ? (page.next ?? page.convs.at(-1)?.conv) : undefined;
      limit = this.limits.page ?? SUMMARIES;
    } while (all && after !== undefined);
    this.emit("listed");
  }

  // What comes

  #packet(topic, packet) {
    const user = this.topics.presenceOf(topic);
    if (user !== null) {
      this.emit("presence", { user, ...packet });
    } else if (packet.op === "welcome") {
      if (packet.id === this.#hello) this.#welcome(packet);
      else this.#asks.settle(packet.id, packet);
    } else if (packet.op === "typing") {
      this.emit("typing", packet);
    } else if (packet.op === "receipt" || packet.pos !== undefined) {
      this.intake.take(packet);
    } else if (packet.op === "error" && packet.id === this.#hello && packet.code === "bad_field") {
      this.#sayHello({}); // the place is not there any more: `welcome` will tell
      this.cursor.epoch = null;
    } else if (packet.op === "error" && this.#hello !== null && (packet.id ?? this.#hello) === this.#hello) {
      this.#barred(packet);
    } else if (!this.#asks.settle(packet.id, packet)) {
      this.#answered(packet);
    }
    this.#expect();
  }

  /** This device gets no delivery: not now, or until the user, who has too many, forgets one of them. */
  #barred(error) {
    if (!error.retry) this.emit("barred", error);
    this.connection.reconnect(error.retry ? 1_000 * (error.retry_after ?? 0) : BARRED_MS);
  }

  /** The answer to a kept request, other than `sent`. */
  async #answered(reply) {
    const result = this.outbox.answer(reply);
    if (!result) return;
    const { entry, outcome } = result;
    if (outcome === "done") await this.store.commit({ answered: [entry.order] });
    if (outcome === "failed") await this.store.commit({ entries: [entry] });
    if (outcome !== "again" && Own.has(entry.op)) await this.own.answered(entry, reply);
    if (outcome !== "again") this.emit("answer", { id: entry.id, reply });
    this.#outboxChanged();
    this.pump();
  }

  #outboxChanged() {
    this.emit("outbox", this.outbox.entries);
  }

  #tellRead(conv) {
    const seq = conv.tell;
    const line = this.isWelcome ? this.connection.line : null;
    line?.publish(this.topics.up, { op: "read", conv: conv.conv, seq }, 1, () => {
      if (conv.tell !== seq) return;
      conv.tell = 0;
      this.store.commit({ convs: [conv] }).catch(() => {}); // told again next time, which is harmless
    });
  }
}
