// What is wrong right now, in words, from the figures.
import { number, say, shown } from "./i18n.js";

const LAG = 10_000;
const QUEUE = 5_000;
const SLOW_MS = 500;
const LOGINS = 60;
const MINUTE_MS = 60_000;

export class Wrong {
  #logins = [];

  /** The sentences about these figures; none where all is well. */
  look(stats) {
    const found = [];
    if (stats.store_failing) found.push(say("wrong_store", stats.store_failing));
    if (stats.disk_bytes && (stats.disk_free_bytes < stats.disk_bytes * 0.05 || stats.disk_free_bytes < 1 << 29)) {
      found.push(say("wrong_disk", shown("disk_free_bytes", stats.disk_free_bytes).join(" ")));
    }
    if (stats.worst_lag_items >= LAG) found.push(say("wrong_lag", number(stats.worst_lag_items)));
    if (stats.ledger_queue_jobs >= QUEUE) found.push(say("wrong_queue", number(stats.ledger_queue_jobs)));
    if (stats.commit_p99_ms >= SLOW_MS) found.push(say("wrong_slow", number(stats.commit_p99_ms)));
    if (stats.webhooks_dead > 0) found.push(say("wrong_dead", number(stats.webhooks_dead)));
    const refused = this.#refusedLogins(stats);
    if (refused >= LOGINS) found.push(say("wrong_logins", number(refused)));
    return found;
  }

  #refusedLogins(stats) {
    this.#logins.push([stats.ts, stats.logins_refused || 0]);
    while (this.#logins[0][0] < stats.ts - MINUTE_MS) this.#logins.shift();
    return (stats.logins_refused || 0) - this.#logins[0][1];
  }
}
