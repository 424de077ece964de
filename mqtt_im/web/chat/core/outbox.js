/**
 * What the user has done and the server has not yet answered: in order, each until its answer.
 *
 * Entries are on disk before they come here (`Store.add`), and leave the disk with the server's answer. On each connection `hello`
 * sets the device's counter to 0, and entries are numbered 1, 2, 3, … as they are published: so the server commits them
 * in this order or not at all, and a repeat of one that it has already committed just uses its number up.
 *
 * A refused request has not used its number, so all that was published behind it is refused as `out_of_order`.
 * Then nothing more is published until everything under way has its answer, and the numbers go on from the refused one's.
 */

/** Requests that carry the counter. */
const NUMBERED = new Set([
  "send", "edit", "recall", "react", "report",
  "group.create", "group.add", "group.remove", "group.role", "group.rename", "group.leave",
]);

export class Outbox {
  #entries = new Map();
  #flight = new Map();
  #next = 1;
  #resume = 0; // where numbers go on once nothing is under way; 0: nothing was refused

  /** Entries with `order`, `id`, `op`, `fields` and, once refused for good, `error`; in order. */
  get entries() {
    return [...this.#entries.values()].sort((a, b) => a.order - b.order);
  }

  /** Entries that still wait for an answer. */
  get waiting() {
    return this.entries.filter((entry) => !entry.error);
  }

  /** How many were published on this connection and have no answer. */
  get underWay() {
    return this.#flight.size;
  }

  get(id) {
    return this.#entries.get(id);
  }

  /** Takes in an entry that is on disk; a known one is replaced. */
  put(entry) {
    this.#entries.set(entry.id, entry);
  }

  /** Forgets an entry: answered, or taken back by the user. */
  remove(id) {
    this.#entries.delete(id);
    this.#flight.delete(id);
  }

  /** Whether an entry was published on this connection. */
  isUnderWay(id) {
    return this.#flight.has(id);
  }

  /** A new connection: nothing is under way, and the counter is at 0. */
  begin() {
    this.#flight.clear();
    this.#next = 1;
    this.#resume = 0;
  }

  /**
   * The requests to publish now, in order, so that at most `window` are under way. An entry that is `held` (its files are
   * not uploaded yet) stops those behind it which go to the same place, and no others.
   */
  take(window) {
    if (this.#resume && this.#flight.size === 0) {
      this.#next = this.#resume;
      this.#resume = 0;
    }
    const requests = [];
    if (this.#resume) return requests;
    const stopped = new Set();
    for (const entry of this.waiting) {
      if (this.#flight.has(entry.id)) continue;
      if (this.#flight.size >= window) break;
      if (entry.held) stopped.add(entry.fields.to);
      if (stopped.has(entry.fields.to)) continue;
      const request = { op: entry.op, id: entry.id, ...entry.fields };
      if (NUMBERED.has(entry.op)) request.n = this.#next++;
      this.#flight.set(entry.id, request.n ?? 0);
      requests.push(request);
    }
    return requests;
  }

  /**
   * Takes the server's answer. Returns null where it is for nothing of ours, else `{ entry, outcome }`:
   * `done` (committed), `failed` (refused for good) or `again` (will be published again).
   */
  answer(reply) {
    const entry = this.#entries.get(reply.id);
    if (!entry) return null;
    const n = this.#flight.get(entry.id) ?? 0;
    if (reply.op !== "error") {
      this.remove(entry.id);
      return { entry, outcome: "done" };
    }
    if (!this.#flight.delete(entry.id)) return { entry, outcome: "again" };
    if (n) this.#goOnAt(reply.code === "out_of_order" ? (reply.expected ?? n) : n);
    if (reply.retry || reply.code === "out_of_order") return { entry, outcome: "again" };
    entry.error = { code: reply.code, message: reply.message };
    return { entry, outcome: "failed" };
  }

  #goOnAt(n) {
    this.#resume = this.#resume ? Math.min(this.#resume, n) : n;
  }
}
