/**
 * How much of what was received stays on the device: at most `MOST` messages and bytes. The newest of each conversation come first, then the
 * conversations that were active last; what goes is read from the server again when somebody looks at it.
 */

export const MOST = { messages: 20_000, bytes: 32 * 1024 * 1024 };
const EACH = 50; // of a conversation, before any other has more
const LEFT = 0.8; // of it all, so that the next look is not due at once

/** About the bytes that a message takes on the disk. */
export function weightOf(message) {
  const { body, files } = message;
  const text = typeof body === "string" ? body : body === undefined ? "" : JSON.stringify(body);
  return 300 + 2 * text.length + 300 * (files?.length ?? 0);
}

export class Keeping {
  #messenger;
  #most;
  #kept = { messages: 0, bytes: 0 };
  #isWorking = false;

  constructor(messenger, most = MOST) {
    this.#messenger = messenger;
    this.#most = most;
  }

  load(kept) {
    this.#kept = { ...this.#kept, ...kept };
  }

  /** Counts what is about to be written; what is kept of the count, in the same transaction. */
  count(messages, startOver = false) {
    if (startOver) this.#kept = { messages: 0, bytes: 0 };
    this.#kept.messages += messages.length; // one that is written again counts twice, until the next look
    for (const message of messages) this.#kept.bytes += weightOf(message);
    return { kept: { ...this.#kept } };
  }

  /** Lets go of the oldest where it has become too much. */
  async look() {
    const { messages, bytes } = this.#kept;
    if (this.#isWorking || (messages <= this.#most.messages && bytes <= this.#most.bytes)) return;
    this.#isWorking = true;
    try {
      await this.#shorten();
    } finally {
      this.#isWorking = false;
    }
  }

  async #shorten() {
    const { store } = this.#messenger;
    const convs = [...this.#messenger.convs.values()].sort((a, b) => (b.last?.ts ?? 0) - (a.last?.ts ?? 0));
    const all = [];
    for (const conv of convs) all.push({ conv, weights: await store.weights(conv.conv), taken: 0 });
    const room = { messages: this.#most.messages * LEFT, bytes: this.#most.bytes * LEFT };
    const left = { messages: 0, bytes: 0 };
    for (const most of [EACH, Infinity]) {
      for (const each of all) {
        while (each.taken < Math.min(most, each.weights.length)) {
          const [, weight] = each.weights.at(-1 - each.taken);
          if (left.messages + 1 > room.messages || left.bytes + weight > room.bytes) break;
          each.taken += 1;
          left.messages += 1;
          left.bytes += weight;
        }
      }
    }
    const isSame = ({ conv }) => this.#messenger.convs.get(conv.conv) === conv; // it has not started over meanwhile
    const shortened = all.filter((each) => each.taken < each.weights.length && isSame(each));
    for (const { conv, weights, taken } of shortened) {
      conv.top = false;
      if (taken) conv.lo = Math.max(conv.lo ?? 0, weights.at(-taken)[0]);
      else [conv.lo, conv.hi] = [undefined, undefined];
    }
    this.#kept = left;
    // What has come meanwhile is newer than what was weighed, and is not among what goes.
    const dropped = shortened.map(({ conv, weights, taken }) => [conv.conv, taken ? weights.at(-taken)[0] : (weights.at(-1)?.[0] ?? 0) + 1]);
    await store.commit({ convs: shortened.map(({ conv }) => conv), dropped, meta: { kept: { ...left } } });
  }
}
