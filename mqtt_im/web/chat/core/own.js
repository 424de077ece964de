/**
 * What users set for themselves: whom they have blocked, what they have muted, whether others see their marks and presence. It holds on this
 * device at once, waits in the outbox for a line, and is taken back where the server refuses it.
 *
 * The server tells nobody whom a user has blocked, so `blocked` is what was done on this device.
 */

const OPS = new Set(["mute", "block", "unblock", "settings"]);

export class Own {
  blocked = [];
  /** `{read_receipts, presence}` as they were told last, with what has been changed since; null: never told. */
  settings = null;
  #messenger;

  constructor(messenger) {
    this.#messenger = messenger;
  }

  static has(op) {
    return OPS.has(op);
  }

  /** Takes in what was kept. */
  load({ blocked = [], settings = null } = {}) {
    Object.assign(this, { blocked, settings });
  }

  get state() {
    return { blocked: this.blocked, settings: this.settings };
  }

  /** Makes a change hold here: one that has just been asked for, or that the server has agreed to. */
  async apply({ op, fields }) {
    if (op === "mute") await this.#messenger.keep(fields.conv, { muted: fields.until });
    else if (op === "settings") await this.#keep({ settings: { ...(this.settings ?? {}), ...fields } });
    else if (op === "block") await this.#keep({ blocked: [...new Set([...this.blocked, fields.user])] });
    else await this.#keep({ blocked: this.blocked.filter((user) => user !== fields.user) });
  }

  /** The server's answer to such a change. */
  async answered({ op, fields }, reply) {
    if (reply.op !== "error") {
      await this.apply({ op, fields: op === "settings" ? { read_receipts: reply.read_receipts, presence: reply.presence } : fields });
    } else if (op === "mute") {
      await this.#messenger.keep(fields.conv, { muted: 0 });
    } else if (op === "block") {
      await this.apply({ op: "unblock", fields });
    } else if (op === "settings") {
      await this.#keep({ settings: null });
    }
  }

  /** Asks for the settings, as they are at the server. */
  async fetchSettings() {
    const { read_receipts, presence } = await this.#messenger.ask("settings");
    const settings = { read_receipts, presence };
    for (const { op, fields } of this.#messenger.outbox.waiting) if (op === "settings") Object.assign(settings, fields);
    await this.#keep({ settings });
    return this.settings;
  }

  async #keep(changes) {
    Object.assign(this, changes);
    await this.#messenger.store.commit({ meta: { own: this.state } });
    this.#messenger.emit("own", this.state);
  }
}
