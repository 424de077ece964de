import { weightOf } from "./keeping.js";

/** The store without a disk: for tests, and for programs that need nothing kept. As `Store` in store.js. */
export class MemoryStore {
  #meta = {};
  #convs = new Map();
  #messages = new Map();
  #outbox = new Map();
  #order = 0;

  close() {}

  async load() {
    return structuredClone({ meta: this.#meta, convs: [...this.#convs.values()], outbox: await this.outbox() });
  }

  async outbox() {
    return structuredClone([...this.#outbox.values()]);
  }

  async add(entry) {
    const kept = { ...structuredClone(entry), order: (this.#order += 1) };
    this.#outbox.set(kept.order, kept);
    return structuredClone(kept);
  }

  async commit({ meta = {}, convs = [], messages = [], entries = [], answered = [], dropped = [], startOver = false }) {
    if (startOver) {
      this.#convs.clear();
      this.#messages.clear();
    }
    Object.assign(this.#meta, structuredClone(meta));
    for (const conv of structuredClone(convs)) this.#convs.set(conv.conv, conv);
    for (const message of structuredClone(messages)) this.#messages.set(`${message.conv} ${message.seq}`, message);
    for (const entry of structuredClone(entries)) this.#outbox.set(entry.order, entry);
    for (const order of answered) this.#outbox.delete(order);
    for (const [conv, below] of dropped) {
      for (const [key, message] of this.#messages) if (message.conv === conv && message.seq < below) this.#messages.delete(key);
    }
  }

  async message(conv, seq) {
    return structuredClone(this.#messages.get(`${conv} ${seq}`));
  }

  async weights(conv) {
    return (await this.messages(conv, 0, Infinity, Infinity, true)).map((message) => [message.seq, weightOf(message)]);
  }

  async messages(conv, from, to, limit, first = false) {
    const all = [...this.#messages.values()].filter((each) => each.conv === conv && each.seq >= from && each.seq <= to);
    all.sort((a, b) => a.seq - b.seq);
    return structuredClone(first ? all.slice(0, limit) : all.slice(-limit));
  }
}
