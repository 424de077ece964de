/**
 * What one tab of a browser holds at a time. A Web Lock where there are any; without a secure context there are none, and the tabs agree among
 * themselves over a BroadcastChannel: who holds it answers, and who hears no answer takes it.
 */

const ANSWER_MS = 400; // for a tab that holds it to say so
const ASK_MS = 4_000; // between the looks of those who wait

/**
 * `held()` is called when this tab gets it, and may return a promise; `lost()` where another tab turns out to hold it too (never with
 * Web Locks). `take()` returns whether it was had at once; if not, it is waited for.
 */
export const lockFor = (name, calls) => (globalThis.navigator?.locks ? new WebLock(name, calls) : new ChannelLock(name, calls));

class WebLock {
  #name;
  #held;
  #ended = new AbortController();

  constructor(name, { held }) {
    this.#name = name;
    this.#held = held;
  }

  async take() {
    const { signal } = this.#ended;
    // Held until this tab ends: the promise that the callback returns is what holds it.
    const over = new Promise((resolve) => signal.addEventListener("abort", resolve));
    const isHeld = await new Promise((resolve, reject) => {
      navigator.locks.request(this.#name, { ifAvailable: true }, (lock) => {
        if (!lock) return resolve(false);
        return Promise.resolve(this.#held()).then(() => (resolve(true), over), reject);
      });
    });
    if (!isHeld) navigator.locks.request(this.#name, { signal }, async () => (await this.#held(), over)).catch(() => {}); // ended before it was had
    return isHeld;
  }

  release() {
    this.#ended.abort();
  }
}

export class ChannelLock {
  #calls;
  #channel;
  #rank = Math.random();
  #isHolder = false;
  #isOver = false;
  #heard = 0; // when somebody last said to hold it
  #timer;

  constructor(name, calls) {
    this.#calls = calls;
    this.#channel = new BroadcastChannel(`${name} lock`);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    globalThis.addEventListener?.("pagehide", () => this.#isHolder && this.#channel.postMessage({ gone: true }));
  }

  async take() {
    await this.#look();
    this.#timer = setInterval(() => this.#look(), ASK_MS);
    return this.#isHolder;
  }

  release() {
    if (this.#isHolder) this.#channel.postMessage({ gone: true });
    this.#isOver = true;
    this.#isHolder = false;
    clearInterval(this.#timer);
    this.#channel.close();
  }

  /** Takes it where nobody says to hold it. */
  async #look() {
    if (this.#isOver) return;
    const asked = Date.now();
    this.#channel.postMessage(this.#isHolder ? { holds: this.#rank } : { ask: true });
    if (this.#isHolder) return;
    await new Promise((resolve) => setTimeout(resolve, ANSWER_MS * (1 + Math.random())));
    if (this.#isOver || this.#isHolder || this.#heard >= asked) return;
    this.#isHolder = true;
    this.#channel.postMessage({ holds: this.#rank });
    await this.#calls.held();
  }

  #hear({ ask, holds, gone }) {
    if (this.#isOver) return;
    if (ask && this.#isHolder) this.#channel.postMessage({ holds: this.#rank });
    if (gone) this.#look();
    if (holds === undefined) return;
    this.#heard = Date.now();
    if (!this.#isHolder) return;
    // Two have taken it at once, or this one slept: the lower rank goes on.
    if (holds < this.#rank) {
      this.#isHolder = false;
      this.#calls.lost();
    } else this.#channel.postMessage({ holds: this.#rank });
  }
}
