/** Everything of the page that belongs to who is logged in; handed to each part of it. */
import * as api from "./api.js";
import * as accounts from "./accounts.js";
import { unsubscribe } from "./notify.js";
import { Store } from "../core/store.js";
import { Tabs } from "../core/tabs.js";
import { addressOf, isGroup } from "../core/names.js";
import { plainName } from "./text.js";

const SHOWN_MS = 1_000;
const ANSWER_MS = 15_000;

export class Session {
  #members = new Map();
  #awaited = new Set();
  #shown;
  #isShown;

  constructor(account, facts, store) {
    this.account = account;
    this.facts = facts;
    this.me = account.user;
    this.#isShown = new Promise((resolve) => (this.#shown = resolve));
    setTimeout(this.#shown, SHOWN_MS);
    this.im = new Tabs({
      user: account.user,
      device: account.device,
      prefix: facts.prefix,
      store,
      open: (on) => this.#open(on),
      isReachable: () => navigator.onLine,
      upload: (blob, name, progress) => api.upload(blob, name, account.token, progress),
    });
  }

  static async start(account, facts, onGone) {
    const session = new Session(account, facts, await Store.open(accounts.databaseOf(account.user), onGone));
    await session.im.start();
    return session;
  }

  /** The page shows what this browser has: now there is time for the line. */
  shown() {
    this.#shown();
  }

  /** A line; mqtt.js, the heaviest part of the page, is loaded for the first one, once the page shows what it has. */
  #open(on) {
    const url = new URL(`.${this.facts.websocket}`, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const { user, device, token } = this.account;
    let line = null;
    let isClosed = false;
    const opened = this.#isShown.then(() => import("../core/line.js")).then(
      ({ openLine }) => {
        if (!isClosed) line = openLine({ url: url.href, user, device, password: token }, on);
      },
      () => on.down("error"),
    );
    return {
      get heard() {
        return line?.heard ?? 0;
      },
      subscribe: (filters) => line?.subscribe(filters),
      unsubscribe: (filters) => line?.unsubscribe(filters),
      publish: (...request) => line?.publish(...request),
      ping: () => line?.ping(),
      close() {
        isClosed = true;
        opened.then(() => line?.close());
      },
    };
  }

  /** How a conversation is called. */
  nameOf(conv) {
    if (isGroup(conv)) return plainName(this.im.convs.get(conv)?.name ?? "") || conv;
    return addressOf(conv, this.me);
  }

  /** Whether somebody is online, as far as this browser can know: without a line it can't. */
  isOnline(user) {
    return this.im.state === "online" && this.im.presence.get(user)?.state === "online";
  }

  /** To whom a message in a conversation goes. */
  addressOf(conv) {
    return addressOf(conv, this.me);
  }

  /** Members of a group as far as they are known: a Map of user → role, or null. */
  members(conv) {
    return this.#members.get(conv) ?? null;
  }

  /** Asks who is in a group; all pages. */
  async fetchMembers(group) {
    const members = new Map();
    let after;
    let reply;
    do {
      reply = await this.im.ask("group.info", { group, after });
      for (const { user, role } of reply.members) members.set(user, role);
      after = reply.more ? reply.members.at(-1)?.user : undefined;
    } while (after !== undefined);
    this.#members.set(group, members);
    return members;
  }

  /**
   * The server's answer to the entry of the outbox that `begin` makes; null where the line was lost before it came, or it takes too long. An
   * error's entry is gone: who waits here says what is wrong (`isAwaited`).
   */
  async answer(begin) {
    const replies = new Map();
    let tell = () => {};
    const ends = [
      this.im.on("answer", ({ id, reply }) => (replies.set(id, reply), tell(id))),
      this.im.on("state", (state) => state !== "online" && tell(wait.id)),
    ];
    const wait = {};
    this.#awaited.add(wait);
    try {
      wait.id = (await begin()).id;
      if (!replies.has(wait.id)) await new Promise((resolve) => ((tell = (id) => id === wait.id && resolve()), setTimeout(resolve, ANSWER_MS)));
      const reply = replies.get(wait.id) ?? null;
      if (reply?.op === "error") await this.im.discard(wait.id);
      return reply;
    } finally {
      ends.forEach((end) => end());
      this.#awaited.delete(wait);
    }
  }

  /** Whether somebody waits for the answer to this entry; also where it is not known yet for which one. */
  isAwaited(id) {
    return [...this.#awaited].some((wait) => wait.id === id || wait.id === undefined);
  }

  /** The state of one's own message: `sent`, `delivered`, `read`; in a group by all. */
  stateOf(message) {
    const { conv, seq } = message;
    const receipts = this.im.convs.get(conv)?.receipts ?? {};
    const others = isGroup(conv) ? [...(this.members(conv)?.keys() ?? [])] : conv.split(":");
    const marks = others.filter((user) => user !== this.me).map((user) => receipts[user] ?? {});
    if (marks.length && marks.every(({ read }) => read >= seq)) return "read";
    if (marks.length && marks.every(({ delivered }) => delivered >= seq)) return "delivered";
    return "sent";
  }

  /** Ends the session at the server where it can be reached, and wipes what this browser has of it. */
  async logout() {
    const { user, token, device } = this.account;
    await unsubscribe(this);
    await this.im.ask("device.forget", { device }).catch(() => {}); // its answer may go down with the line
    this.im.stop(true);
    if (token) await api.logout(token).catch(() => {}); // offline: the token ends by itself
    await accounts.forget(user);
    await Store.remove(accounts.databaseOf(user));
    await globalThis.caches?.delete(`files ${user}`);
  }
}
