/** Older messages: from the store as far as it has them without a break, else from the server, and kept where they join on. */
import { messageOf } from "./inbox.js";

export class History {
  #messenger;

  constructor(messenger) {
    this.#messenger = messenger;
  }

  /** The last `limit` messages before `before` (a seq; Infinity: the newest): `{ messages, more }`. Raises `RequestFailed`. */
  async before(id, before, limit) {
    const { convs, store } = this.#messenger;
    const conv = convs.get(id);
    if (conv?.lo !== undefined && before > conv.lo) {
      const messages = await store.messages(id, conv.lo, Math.min(before - 1, conv.hi), limit);
      if (messages.length) return { messages, more: !conv.top || messages[0].seq > conv.lo };
    }
    if (conv?.top && before <= conv.lo) return { messages: [], more: false };
    const page = await this.#messenger.ask("history", { conv: id, limit, before: before === Infinity ? undefined : before });
    const messages = page.items.map(messageOf);
    await this.#keep(id, before, messages, page.more);
    return { messages, more: page.more };
  }

  /** The first `limit` messages after `after`. */
  async after(id, after, limit) {
    const { convs, store } = this.#messenger;
    const conv = convs.get(id);
    if (conv?.lo !== undefined && after >= conv.lo - 1) {
      const messages = await store.messages(id, after + 1, conv.hi, limit, true);
      return { messages, more: messages.length === limit && messages.at(-1).seq < conv.hi };
    }
    const page = await this.#messenger.ask("history", { conv: id, limit, after });
    return { messages: page.items.map(messageOf), more: page.more };
  }

  /** One message, or undefined where nobody has it. */
  async one(id, seq) {
    const stored = await this.#messenger.store.message(id, seq);
    if (stored) return stored;
    const page = await this.#messenger.ask("history", { conv: id, after: seq - 1, before: seq + 1, limit: 1 });
    return page.items.map(messageOf)[0];
  }

  /** Brings a message whose content this device lost. */
  async fetch(id, seq) {
    const page = await this.#messenger.ask("history", { conv: id, after: seq - 1, before: seq + 1, limit: 1 }).catch(() => null);
    if (page?.items.length) await this.#messenger.commit({ messages: page.items.map(messageOf) });
  }

  /** Others' messages above one's own read mark; of those that are not stored, all count. */
  async unread(conv) {
    const first = (conv.read ?? 0) + 1;
    const from = Math.max(first, conv.lo ?? conv.seq + 1);
    const messages = await this.#messenger.store.messages(conv.conv, from, conv.hi ?? 0, 1_000, true);
    return from - first + messages.filter((message) => message.from !== this.#messenger.user && !message.system && !message.recalled).length;
  }

  /** Keeps a page where it joins on to what is stored, so that the stored run stays unbroken. */
  async #keep(id, before, messages, more) {
    const conv = this.#messenger.convs.get(id);
    if (!conv) return;
    const first = messages[0]?.seq;
    const last = messages.at(-1)?.seq;
    if (conv.lo === undefined) {
      if (before !== Infinity || !messages.length) return;
      conv.lo = first;
      conv.hi = last;
    } else if (before === conv.lo || (messages.length && last + 1 >= conv.lo)) {
      conv.lo = Math.min(conv.lo, first ?? conv.lo);
    } else return;
    if (!more) conv.top = true;
    await this.#messenger.commit({ messages, convs: [conv] });
  }
}
