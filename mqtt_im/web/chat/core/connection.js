/**
 * Keeps one line to the server up: tries again when it is lost, with patience, and notices when it is dead but open.
 *
 * `state`: `connecting` (the first attempt), `online` (after `welcome`), `offline` (lost; it keeps trying), `refused` (a wrong
 * name or password: it stops trying), `stopped`. A lost line is one change of state, however many attempts it takes to get it back.
 */
import { Emitter } from "./emitter.js";

const FIRST_MS = 1_000;
const CAP_MS = 15_000;
const STEADY_MS = 10_000; // online for so long: the next loss begins with short waits again
const WATCH_MS = 2_000;
const SILENCE_MS = 8_000; // something is unanswered, and no byte has come for so long
const WELCOME_MS = 20_000;

export class Connection extends Emitter {
  state = "connecting";
  line = null;
  #open;
  #isReachable;
  #attempt = 0;
  #timer;
  #watch;
  #since = 0; // when the state became what it is
  #waiting = 0; // since when something is unanswered; 0: nothing is

  /** `open(on)` makes a line; `isReachable()` tells whether there is a network at all, as far as one knows. */
  constructor(open, isReachable = () => true) {
    super();
    this.#open = open;
    this.#isReachable = isReachable;
  }

  start() {
    if (!this.#isReachable()) this.#become("offline");
    this.#try();
    this.#watch = setInterval(() => this.#look(), WATCH_MS);
  }

  stop() {
    this.#become("stopped");
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#drop();
  }

  /** The server has said `welcome`. */
  welcomed() {
    this.#become("online");
  }

  /** Says whether answers are outstanding, which is what a dead line is known by. */
  expecting(isExpecting) {
    if (!isExpecting) this.#waiting = 0;
    else if (!this.#waiting) this.#waiting = Date.now();
  }

  /** The network has changed, or the user is back: try now, or make sure that the line lives. */
  wake() {
    if (this.state === "stopped" || this.state === "refused") return;
    if (!this.#isReachable()) {
      if (this.line) this.#lost();
      else this.#become("offline");
    } else if (!this.line) {
      this.#attempt = 0;
      this.#try();
    } else if (this.state === "online" && !this.#waiting) {
      const line = this.line;
      const asked = Date.now();
      line.ping();
      setTimeout(() => this.line === line && line.heard < asked && this.#lost(), SILENCE_MS / 2);
    }
  }

  /** Gives the line up, and tries again. */
  reconnect(afterMs = 0) {
    this.#lost(afterMs);
  }

  #try() {
    clearTimeout(this.#timer);
    if (this.line || !this.#isReachable()) return;
    this.#waiting = Date.now();
    const line = this.#open({
      up: () => this.line === line && this.emit("up", line),
      packet: (topic, packet) => this.line === line && this.emit("packet", { topic, packet }),
      down: (reason) => {
        if (this.line !== line) return;
        this.line = null;
        this.#lost(0, reason);
      },
    });
    this.line = line;
  }

  #lost(afterMs = 0, reason = "lost") {
    this.#drop();
    if (this.state === "stopped") return;
    this.emit("down", reason);
    if (reason === "refused") {
      this.#become("refused");
      return;
    }
    if (this.state === "online" && Date.now() - this.#since > STEADY_MS) this.#attempt = 0;
    this.#become("offline");
    const most = Math.min(CAP_MS, FIRST_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#try(), afterMs + Math.random() * most);
  }

  #drop() {
    const line = this.line;
    this.line = null;
    this.#waiting = 0;
    line?.close();
  }

  #look() {
    if (!this.line || !this.#waiting) return;
    const most = this.state === "online" ? SILENCE_MS : WELCOME_MS;
    if (Date.now() - Math.max(this.#waiting, this.line.heard) > most) this.#lost();
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#since = Date.now();
    this.emit("state", state);
  }
}
