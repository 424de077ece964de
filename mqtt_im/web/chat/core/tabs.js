/**
 * The tabs of one browser are one device: the tab that holds the lock runs the messenger, the others ask it and hear what it
 * tells over a BroadcastChannel. When that tab goes, another gets the lock and goes on from the store, where all of it is.
 *
 * One device, because each device has a place of its own in the inbox, which the server keeps for it: tabs come and go by the dozen.
 */
import { RequestFailed } from "./asks.js";
import { Emitter } from "./emitter.js";
import { newConversation } from "./inbox.js";
import { lockFor } from "./lock.js";
import { Messenger } from "./messenger.js";
import { newId } from "./names.js";

const CALL_MS = 20_000;

export class Tabs extends Emitter {
  convs = new Map();
  entries = [];
  presence = new Map();
  /** What own.js keeps. */
  own = { blocked: [], settings: null };
  state = "connecting";
  /** The messenger, in the tab that has it. */
  messenger = null;
  #options;
  #channel;
  #calls = new Map();
  #watches = new Map();
  #name = newId();
  #lock = null;
  #isOver = false;
  #turn = 0; // counts how often this tab has got the lock or lost it

  /** `options` are the messenger's. */
  constructor(options) {
    super();
    this.#options = options;
  }

  async start() {
    const { user, device, store } = this.#options;
    const name = `mqtt-im ${user} ${device}`;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#lock = lockFor(name, { held: () => this.#lead(), lost: () => this.#yield() });
    if (await this.#lock.take()) return;
    const { meta, convs, outbox } = await store.load();
    if (this.messenger) return; // had it after all
    for (const conv of convs) this.convs.set(conv.conv, conv);
    this.entries = outbox;
    this.own = { ...this.own, ...meta.own };
    this.#join();
  }

  /** Ends this tab's part, and with `all` that of the others (the user has logged out). */
  stop(all = false) {
    if (all) this.#channel?.postMessage({ event: "ended" });
    this.#isOver = true;
    this.#lock?.release();
    this.messenger?.stop();
    this.#channel?.close();
    this.#options.store.close();
  }

  /** As `Messenger.do`; what is on disk is safe even if the tab that runs the messenger is just going. */
  async do(op, fields, uploads = []) {
    if (this.messenger) return this.messenger.do(op, fields, uploads);
    const entry = await this.#options.store.add({ id: newId(), op, fields, uploads, held: uploads.length > 0 });
    this.#take("outbox", [...this.entries, entry]);
    this.#channel.postMessage({ added: entry });
    return entry;
  }

  ask = (op, fields) => this.#call("ask", op, fields);
  retry = (id) => this.#call("retry", id);
  discard = (id) => this.#call("discard", id);
  markRead = (conv, seq) => this.#call("markRead", conv, seq).catch(() => {});
  typing = (to, on) => this.#call("typing", to, on).catch(() => {});
  wake = () => this.#call("wake").catch(() => {});
  before = (conv, seq, limit) => this.#call("before", conv, seq, limit);
  after = (conv, seq, limit) => this.#call("after", conv, seq, limit);
  one = (conv, seq) => this.#call("one", conv, seq);
  fetchSettings = () => this.#call("fetchSettings");

  /** Changes what is only this browser's business in a conversation's record; a new one is made. */
  patch(conv, changes) {
    const record = { ...(this.convs.get(conv) ?? newConversation(conv)), ...changes };
    this.#take("convs", [record]);
    this.#call("keep", conv, changes).catch(() => {}); // no tab leads just now: a mark of little weight
  }

  /** Whose presence this tab shows. */
  watch(users) {
    if (this.messenger) this.#watch(this.#name, users);
    else this.#channel.postMessage({ watch: this.#name, users });
  }

  async #lead() {
    if (this.#isOver) return;
    const turn = (this.#turn += 1);
    const messenger = new Messenger(this.#options);
    messenger.on("*", (data, event) => {
      this.#take(event, data);
      this.#channel?.postMessage({ event, data });
    });
    await messenger.start();
    if (this.#isOver || turn !== this.#turn) {
      messenger.stop();
      return;
    }
    this.messenger = messenger;
    this.convs = new Map(messenger.convs);
    this.entries = messenger.outbox.entries;
    this.own = messenger.own.state;
    this.#take("state", messenger.state);
    this.#channel?.postMessage({ leads: true });
    for (const { call, name, args } of this.#calls.values()) {
      Promise.resolve().then(() => this.#run(name, args)).then((value) => this.#settle({ reply: call, value }), (error) => this.#settle({ reply: call, error }));
    }
    this.emit("leads");
  }

  /** Another tab has the messenger too: this one's ends. What it had is in the store. */
  #yield() {
    this.#turn += 1;
    this.messenger?.stop();
    this.messenger = null;
    this.#join();
  }

  #join() {
    this.#call("snapshot").then((snapshot) => {
      if (this.messenger) return;
      for (const [user, presence] of snapshot.presence) this.#take("presence", { user, ...presence });
      this.#take("state", snapshot.state);
    }, () => {});
  }

  #run(name, args) {
    const messenger = this.messenger;
    if (name === "snapshot") return { state: messenger.state, presence: [...this.presence] };
    if (name === "before" || name === "after" || name === "one") return messenger.history[name](...args);
    if (name === "fetchSettings") return messenger.own.fetchSettings();
    return messenger[name](...args);
  }

  async #call(name, ...args) {
    if (this.messenger) return this.#run(name, args);
    const call = newId();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#calls.delete(call);
        reject(new RequestFailed("offline"));
      }, CALL_MS);
      this.#calls.set(call, { call, name, args, resolve, reject, timer });
      this.#channel.postMessage({ call, name, args });
    });
  }

  async #hear(data) {
    if (data.event === "ended") this.emit("ended");
    else if (data.event) this.#take(data.event, data.data);
    else if (data.reply) this.#settle(data);
    else if (data.leads) this.#follow();
    else if (!this.messenger) return;
    else if (data.added) this.messenger.added(data.added);
    else if (data.watch) this.#watch(data.watch, data.users);
    else if (data.call) this.#answer(data);
  }

  async #answer({ call, name, args }) {
    try {
      this.#channel.postMessage({ reply: call, value: await this.#run(name, args) });
    } catch (error) {
      this.#channel.postMessage({ reply: call, error: { code: error.code ?? "failed", message: error.message } });
    }
  }

  #settle({ reply, value, error }) {
    const call = this.#calls.get(reply);
    if (!call) return;
    this.#calls.delete(reply);
    clearTimeout(call.timer);
    if (error) call.reject(new RequestFailed(error.code, error.message));
    else call.resolve(value);
  }

  /** Another tab has the messenger now: what was asked of the former one is asked of it. */
  #follow() {
    for (const { call, name, args } of this.#calls.values()) this.#channel.postMessage({ call, name, args });
    this.#join();
    this.emit("leads");
  }

  #watch(tab, users) {
    this.#watches.set(tab, users);
    this.messenger.watch([...this.#watches.values()].flat());
  }

  /** Keeps what an event tells, then tells it. */
  #take(event, data) {
    if (event === "state") this.state = data;
    else if (event === "convs") for (const conv of data) this.convs.set(conv.conv, conv);
    else if (event === "outbox") this.entries = data;
    else if (event === "own") this.own = data;
    else if (event === "reset") this.convs.clear();
    else if (event === "presence") this.presence.set(data.user, { state: data.state, last_seen: data.last_seen });
    this.emit(event, data);
  }
}
