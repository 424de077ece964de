/**
 * What items mean: conversations and messages as this user sees them. Pure but for `find`, which reads a message from the store.
 *
 * A conversation: `conv`, `seq` (newest message), `name`, `last` (that message, shortened), `unread`, `mentions`, `muted`,
 * `receipts`, and of what is stored here: `lo` … `hi`, an unbroken run of messages up to the newest, with `top` where
 * nothing is older. `left`: the user is no longer in that group.
 */

const PREVIEW = 200;
const SHOWN = ["conv", "seq", "from", "id", "body", "ts", "cts", "reply_to", "mentions", "edited", "recalled", "reactions", "files", "system"];

/** A message as it is stored, without what belongs to its delivery. */
export function messageOf(item) {
  const message = {};
  for (const field of SHOWN) if (item[field] !== undefined) message[field] = item[field];
  return message;
}

/** What stands in the list of conversations: enough of a message to show one line of it. */
export function previewOf(message) {
  const { conv, seq, from, ts, system, recalled } = message;
  const preview = { conv, seq, from, ts };
  if (system) preview.system = system;
  if (recalled) preview.recalled = true;
  else if (message.body !== undefined) {
    const text = typeof message.body === "string" ? message.body : JSON.stringify(message.body);
    preview.body = text.length > PREVIEW ? Array.from(text.slice(0, PREVIEW + 1)).slice(0, -1).join("") : text;
  }
  if (message.files && !recalled) preview.files = message.files.map(({ name, type }) => ({ name, type }));
  return preview;
}

export const newConversation = (conv) => ({ conv, seq: 0, unread: 0, mentions: 0, muted: 0, receipts: {} });

/** Messages with one user's reaction set, changed or (`""`) taken away. */
export function withReaction(reactions, by, emoji) {
  const result = new Map(); // anything is an emoji here, "__proto__" too
  for (const [each, users] of Object.entries(reactions ?? {})) {
    const others = users.filter((user) => user !== by);
    if (others.length) result.set(each, others);
  }
  if (emoji) result.set(emoji, [...(result.get(emoji) ?? []), by]);
  return Object.fromEntries(result);
}

/** One run over items: collects what they change, to be written as one transaction. */
export class Inbox {
  /** `convs`: a Map that is changed in place. `find(conv, seq)`: a stored message. `entry(id)`: what the outbox has. */
  constructor({ me, convs, find, entry }) {
    Object.assign(this, { me, convs, find, entry });
    this.messages = new Map();
    this.changed = new Set();
    /** Entries of the outbox that were answered. */
    this.answered = [];
    /** Messages of others that came for the first time. */
    this.news = [];
    /** Own messages whose content this device does not have: `[conv, seq]`. */
    this.missing = [];
  }

  async apply(item) {
    switch (item.op) {
      case "msg":
        return this.#message(messageOf(item));
      case "sent":
        return this.sent(item);
      case "edited":
        return this.#amend(item, { body: item.body, edited: true, recalled: item.recalled });
      case "recalled":
        return this.#amend(item, { recalled: true });
      case "reacted":
        return this.#amend(item, (message) => ({ reactions: withReaction(message.reactions, item.by, item.emoji) }));
      case "report":
        return this.#amend(item, { report: { by: item.by, state: item.state } });
      default: // `void` holds nothing, and what a newer server invents is not ours to know
    }
  }

  /** The server has committed a message of this device's; `item` is its item, or the reply to a repeat. */
  sent(item) {
    const entry = this.entry(item.id);
    if (!entry || entry.op !== "send") {
      if (item.op === "sent") this.missing.push([item.conv, item.seq]);
      this.#count(item.conv, { conv: item.conv, seq: item.seq, from: this.me, ts: item.ts });
      return;
    }
    const { body, cts, reply_to, mentions } = entry.fields;
    const message = { conv: item.conv, seq: item.seq, from: this.me, id: item.id, body, ts: item.ts, cts, reply_to, mentions };
    if (entry.uploads?.length) message.files = entry.uploads.map(({ file, name, type, size }) => ({ id: file, name, type, size }));
    this.answered.push(entry.id);
    this.#message(messageOf(message));
  }

  /** A conversation as `convs` tells it. What items have told since is newer, and stays. */
  summary(summary) {
    const conv = this.#conv(summary.conv);
    if (summary.seq < conv.seq) return;
    conv.seq = summary.seq;
    conv.unread = summary.unread;
    conv.mentions = summary.mentions;
    conv.muted = summary.muted ?? 0;
    conv.read = Math.max(conv.read ?? 0, summary.receipts[this.me]?.read ?? 0);
    if (summary.name !== undefined) conv.name = summary.name;
    if (summary.last) conv.last = previewOf(summary.last);
    for (const [by, marks] of Object.entries(summary.receipts)) this.receipt({ conv: conv.conv, by, ...marks });
  }

  /** Marks, which only grow. Returns whether they did. */
  receipt({ conv: id, by, delivered, read }) {
    const conv = this.#conv(id);
    const before = conv.receipts[by] ?? {};
    const after = {
      delivered: Math.max(before.delivered ?? 0, delivered ?? 0, read ?? 0),
      read: Math.max(before.read ?? 0, read ?? 0),
    };
    if (after.delivered === before.delivered && after.read === before.read) return false;
    conv.receipts = { ...conv.receipts, [by]: after };
    return true;
  }

  #conv(id) {
    let conv = this.convs.get(id);
    if (!conv) this.convs.set(id, (conv = newConversation(id)));
    this.changed.add(id);
    return conv;
  }

  #message(message) {
    this.messages.set(`${message.conv} ${message.seq}`, message);
    const conv = this.#count(message.conv, message);
    conv.lo ??= message.seq; // the inbox leaves nothing out, so what is newer joins on
    conv.hi = Math.max(conv.hi ?? 0, message.seq);
    if (conv.lo === 1) conv.top = true;
  }

  #count(id, message) {
    const conv = this.#conv(id);
    if (message.seq <= conv.seq) return conv;
    conv.seq = message.seq;
    conv.last = previewOf(message);
    if (message.system) this.#system(conv, message.system);
    else if (message.from !== this.me && !message.recalled) {
      conv.unread += 1;
      if (message.mentions?.some((name) => name === this.me || name === "*")) conv.mentions += 1;
      this.news.push(message);
    }
    return conv;
  }

  #system(conv, system) {
    if (system.name !== undefined) conv.name = system.name;
    const isMe = system.user === this.me || (system.members ?? []).includes(this.me);
    if (isMe && (system.event === "group.remove" || system.event === "group.leave")) conv.left = true;
    if (isMe && (system.event === "group.add" || system.event === "group.create")) conv.left = false;
  }

  async #amend({ conv: id, seq }, change) {
    const key = `${id} ${seq}`;
    const message = this.messages.get(key) ?? (await this.find(id, seq));
    const conv = this.convs.get(id);
    if (conv) this.changed.add(id);
    if (message) {
      const amended = { ...message, ...(typeof change === "function" ? change(message) : change) };
      if (amended.recalled) for (const field of ["body", "files", "mentions", "edited"]) delete amended[field];
      this.messages.set(key, amended);
      if (conv?.last?.seq === seq) conv.last = previewOf(amended);
    } else if (conv?.last?.seq === seq && typeof change !== "function") {
      conv.last = previewOf({ ...conv.last, ...change });
    }
  }
}
