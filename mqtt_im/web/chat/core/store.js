/**
 * What a device keeps, in IndexedDB: `meta` (cursor, epoch, device), `convs`, `messages` and the `outbox`.
 *
 * `MemoryStore` (store-memory.js) does the same without a browser. A write is one transaction: either all of it is on
 * disk when the promise is kept, or nothing.
 */

import { weightOf } from "./keeping.js";

const VERSION = 1;
const PAGE = 500;

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const written = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser did not keep it"));
  });

export class Store {
  #db;

  /** Opens the database of one user. `onGone` is called when another tab removes it. */
  static async open(name, onGone = () => {}) {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = () => {
      const db = request.result;
      db.createObjectStore("meta");
      db.createObjectStore("convs", { keyPath: "conv" });
      db.createObjectStore("messages", { keyPath: ["conv", "seq"] });
      db.createObjectStore("outbox", { keyPath: "order", autoIncrement: true });
    };
    const store = new Store();
    store.#db = await settled(request);
    store.#db.onversionchange = () => {
      store.close();
      onGone();
    };
    return store;
  }

  /** Removes a user's database from this browser. */
  static async remove(name) {
    await settled(indexedDB.deleteDatabase(name));
  }

  close() {
    this.#db.close();
  }

  /** All but the messages. */
  async load() {
    const transaction = this.#db.transaction(["meta", "convs", "outbox"]);
    const meta = transaction.objectStore("meta");
    const [keys, values, convs, outbox] = await Promise.all([
      settled(meta.getAllKeys()),
      settled(meta.getAll()),
      settled(transaction.objectStore("convs").getAll()),
      settled(transaction.objectStore("outbox").getAll()),
    ]);
    return { meta: Object.fromEntries(keys.map((key, index) => [key, values[index]])), convs, outbox };
  }

  /** The outbox as it is on disk: other tabs add to it too. */
  outbox() {
    return settled(this.#db.transaction("outbox").objectStore("outbox").getAll());
  }

  /** Adds an entry to the outbox; kept when the promise is: it survives a killed browser. Returns it with its `order`. */
  async add(entry) {
    const transaction = this.#db.transaction("outbox", "readwrite", { durability: "strict" });
    const order = settled(transaction.objectStore("outbox").add(entry));
    await written(transaction);
    return { ...entry, order: await order };
  }

  /**
   * Writes `meta` (a map), `convs`, `messages`, `entries` (changed ones of the outbox), removes `answered` (orders of the outbox) and
   * `dropped` (`[conv, below]`: messages with a lower seq); with `startOver` all conversations and messages are removed first.
   */
  async commit({ meta = {}, convs = [], messages = [], entries = [], answered = [], dropped = [], startOver = false }) {
    const transaction = this.#db.transaction(["meta", "convs", "messages", "outbox"], "readwrite");
    const [metas, conversations, stored, outbox] = ["meta", "convs", "messages", "outbox"].map((name) => transaction.objectStore(name));
    if (startOver) {
      conversations.clear();
      stored.clear();
    }
    for (const [key, value] of Object.entries(meta)) metas.put(value, key);
    for (const conv of convs) conversations.put(conv);
    for (const message of messages) stored.put(message);
    for (const entry of entries) outbox.put(entry);
    for (const order of answered) outbox.delete(order);
    for (const [conv, below] of dropped) stored.delete(IDBKeyRange.bound([conv, 0], [conv, below], false, true));
    await written(transaction);
  }

  /** One message, or undefined. */
  message(conv, seq) {
    return settled(this.#db.transaction("messages").objectStore("messages").get([conv, seq]));
  }

  /** `[seq, weight]` of each stored message of a conversation, ascending. */
  async weights(conv) {
    const found = [];
    for (let from = 0, page; !page || page.length === PAGE; from = page.at(-1)?.seq + 1) {
      const store = this.#db.transaction("messages").objectStore("messages");
      page = await settled(store.getAll(IDBKeyRange.bound([conv, from], [conv, Infinity]), PAGE));
      for (const message of page) found.push([message.seq, weightOf(message)]);
    }
    return found;
  }

  /** Messages of a conversation with `from` ≤ seq ≤ `to`, at most `limit`: the last ones, ascending; or the first ones, with `first`. */
  async messages(conv, from, to, limit, first = false) {
    if (to < from) return [];
    const store = this.#db.transaction("messages").objectStore("messages");
    const range = IDBKeyRange.bound([conv, from], [conv, to]);
    if (first) return settled(store.getAll(range, limit));
    // Seqs have hardly ever gaps: one read nearly always finds all, and a cursor takes a turn of the loop for each.
    const start = Math.max(from, to - limit + 1);
    const found = await settled(store.getAll(IDBKeyRange.bound([conv, start], [conv, to])));
    return start === from || found.length === limit ? found : this.#backwards(range, limit);
  }

  #backwards(range, limit) {
    const store = this.#db.transaction("messages").objectStore("messages");
    return new Promise((resolve, reject) => {
      const found = [];
      const request = store.openCursor(range, "prev");
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (cursor && found.push(cursor.value) < limit) cursor.continue();
        else resolve(found.reverse());
      };
    });
  }
}
