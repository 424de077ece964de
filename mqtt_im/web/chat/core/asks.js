/** Questions under way: each gets its reply, or fails. */
import { newId } from "./names.js";

const ASK_MS = 15_000;

/** A request that has failed: `code` as the protocol has it, or `offline`. */
export class RequestFailed extends Error {
  constructor(code, message) {
    super(message ?? code);
    this.code = code;
  }
}

export class Asks {
  #open = new Map();

  get size() {
    return this.#open.size;
  }

  /** Publishes a request through `publish`; its reply, or `RequestFailed`. */
  ask(publish, op, fields) {
    const id = newId();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.settle(id, null), ASK_MS);
      this.#open.set(id, { resolve, reject, timer });
      publish({ op, id, ...fields });
    });
  }

  /** Hands a reply (null: none will come) to who has asked; whether somebody has. */
  settle(id, reply) {
    const ask = this.#open.get(id);
    if (!ask) return false;
    this.#open.delete(id);
    clearTimeout(ask.timer);
    if (!reply) ask.reject(new RequestFailed("offline"));
    else if (reply.op === "error") ask.reject(new RequestFailed(reply.code, reply.message));
    else ask.resolve(reply);
    return true;
  }

  /** The line is gone: nothing will be answered. */
  fail() {
    for (const id of [...this.#open.keys()]) this.settle(id, null);
  }
}
