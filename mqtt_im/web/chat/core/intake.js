/**
 * Takes in what comes: items in the order of their `pos`, each once, and receipts. What some of them mean and the cursor behind them are
 * written as one transaction.
 */
import { Cursor } from "./cursor.js";
import { Inbox } from "./inbox.js";

const RUN = 200; // packets of one transaction

export class Intake {
  #messenger;
  #queue = [];
  #isWorking = false;

  constructor(messenger) {
    this.#messenger = messenger;
  }

  /** Forgets what waits: it comes again with the next connection. */
  clear() {
    this.#queue.length = 0;
  }

  take(packet) {
    this.#queue.push(packet);
    this.work();
  }

  async work() {
    if (this.#isWorking) return;
    this.#isWorking = true;
    const messenger = this.#messenger;
    try {
      while (this.#queue.length && messenger.isWelcome) await this.#some();
    } catch (error) {
      // What was not kept is not acknowledged either: it comes again with the next connection.
      if (error.code !== "offline") console.error(error);
      this.clear();
      for (const conv of (await messenger.store.load()).convs) messenger.convs.set(conv.conv, conv);
      messenger.connection.reconnect(1_000);
    } finally {
      this.#isWorking = false;
    }
  }

  /** Lets `change` work on an inbox, and writes what came of it, with the cursor where `place` tells one. */
  async run(change, place) {
    const messenger = this.#messenger;
    const inbox = new Inbox({
      me: messenger.user,
      convs: messenger.convs,
      find: (conv, seq) => messenger.store.message(conv, seq),
      entry: (id) => messenger.outbox.get(id),
    });
    await change(inbox);
    const entries = inbox.answered.map((id) => messenger.outbox.get(id));
    const meta = place ? { pos: place() } : {};
    await messenger.commit({
      meta,
      convs: [...inbox.changed].map((id) => messenger.convs.get(id)),
      messages: [...inbox.messages.values()],
      answered: entries.map((entry) => entry.order),
    });
    if (place) messenger.cursor.pos = meta.pos;
    messenger.answeredAll(entries);
    if (inbox.news.length) messenger.emit("news", inbox.news);
    for (const [conv, seq] of inbox.missing) messenger.history.fetch(conv, seq);
  }

  /** One transaction's worth of what has come. */
  async #some() {
    const messenger = this.#messenger;
    const packets = this.#queue.splice(0, RUN);
    const items = packets.flatMap(Cursor.itemsOf);
    if (messenger.cursor.misses(items)) {
      await this.#fill(packets);
      return;
    }
    let pos = messenger.cursor.pos;
    const change = async (inbox) => {
      for (const item of items) {
        const isOurs = item.op === "sent" && messenger.outbox.get(item.id);
        if (item.op === "receipt") await this.#receipt(inbox, item);
        else if (!item.dup && item.pos > pos) {
          await this.#apply(inbox, item);
          pos = item.pos;
        } else if (isOurs) inbox.sent(item); // its item was here before, or comes yet
      }
    };
    await this.run(change, () => pos);
    messenger.acknowledge();
  }

  /** What one item holds must not keep all those behind it from coming: where it makes no sense, it is left out. */
  async #apply(inbox, item) {
    try {
      await inbox.apply(item);
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof RangeError)) throw error; // of the store: it is tried again
      console.error(error);
    }
  }

  /** Brings what is missing in front of `packets`. */
  async #fill(packets) {
    const messenger = this.#messenger;
    const page = await messenger.ask("sync", { after: messenger.cursor.pos, limit: RUN });
    if (!page.items.length || messenger.cursor.misses(page.items)) {
      messenger.cursor.epoch = null; // nobody has it any more: start over
      messenger.connection.reconnect();
      return;
    }
    this.#queue.unshift(...page.items, ...packets);
  }

  async #receipt(inbox, receipt) {
    const messenger = this.#messenger;
    if (inbox.receipt(receipt)) messenger.emit("receipt", receipt);
    const conv = messenger.convs.get(receipt.conv);
    if (receipt.by !== messenger.user || !(receipt.read > (conv.read ?? 0))) return;
    conv.read = receipt.read; // on another device
    conv.unread = conv.read >= conv.seq ? 0 : await messenger.history.unread(conv);
    if (!conv.unread) conv.mentions = 0;
  }
}
