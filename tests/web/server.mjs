/**
 * As much of a server as the core needs: numbers, inboxes, cursors, refusals. It knows nothing of the core and can be cut off, killed
 * and restored at any point.
 */
globalThis.crypto ??= (await import("node:crypto")).webcrypto; // Node.js 18

export class FakeServer {
  epoch = "e1";
  inboxes = new Map(); // user → items
  heads = new Map(); // conv → seq
  ids = new Map(); // user id → the first answer
  cursors = new Map();
  lines = new Set();
  /** All requests that arrived, as `[op, id, n]`. */
  seen = [];
  /** `lose(request)`: "request" and it never arrives, "answer" and its answer is lost; both cut the line. */
  lose = () => null;
  /** `refuse(request)`: an error's code for a `send`, or null; `refuseOwn` for anything else. */
  refuse = () => null;
  refuseOwn = () => null;
  /** Where a device is refused its delivery, with an error's code: at `subscribe` (an error without `id`) or `hello`. */
  bars = {};
  isDown = false;

  inbox(user) {
    if (!this.inboxes.has(user)) this.inboxes.set(user, []);
    return this.inboxes.get(user);
  }

  /** What `Messenger` takes as `open`. */
  opener(user, device) {
    return (on) => {
      const line = new FakeLine(this, user, device, on);
      setImmediate(() => (this.isDown ? line.cut() : line.begin()));
      return line;
    };
  }

  /** Cuts every line. */
  cut() {
    for (const line of [...this.lines]) line.cut();
  }

  /** A message of somebody who has no device here. */
  send(from, to, body) {
    return this.commit(from, null, { to, body, id: `${from}-${Math.random()}` });
  }

  /** Any item in a user's inbox. */
  tellItem(user, item) {
    const inbox = this.inbox(user);
    inbox.push({ ...item, pos: inbox.length + 1 });
    for (const line of this.lines) if (line.user === user && line.isSubscribed) line.item(inbox.at(-1), false);
  }

  commit(from, device, { to, body, id, reply_to }) {
    const conv = to.startsWith("#") ? to : [from, to].sort().join(":");
    const seq = (this.heads.get(conv) ?? 0) + 1;
    this.heads.set(conv, seq);
    const message = { op: "msg", conv, seq, from, id, body, ts: seq * 1000, reply_to };
    let answer;
    for (const user of new Set([from, to])) {
      const inbox = this.inbox(user);
      const pos = inbox.length + 1;
      inbox.push({ ...message, pos });
      if (user === from) answer = { op: "sent", pos, id, conv, seq, ts: message.ts };
      for (const line of this.lines) if (line.user === user && line.isSubscribed) line.item(inbox[pos - 1], device === line.device && user === from);
    }
    return answer;
  }
}

class FakeLine {
  heard = Date.now();
  isSubscribed = false;
  isUp = true;
  n = 0;

  constructor(server, user, device, on) {
    Object.assign(this, { server, user, device, on, key: `${user} ${device}` });
  }

  begin() {
    this.server.lines.add(this);
    this.on.up();
  }

  cut(reason = "closed") {
    if (!this.isUp) return;
    this.isUp = false;
    this.server.lines.delete(this);
    setImmediate(() => this.on.down(reason));
  }

  close() {
    this.cut();
  }

  ping() {}
  unsubscribe() {}

  subscribe(filters) {
    if (!filters.some((filter) => filter.endsWith("/down"))) return;
    setImmediate(() => {
      if (!this.isUp) return;
      const code = this.server.bars.subscribe;
      if (code) return this.tell({ op: "error", code, message: code, retry: false });
      this.isSubscribed = true;
      if (!this.server.cursors.has(this.key)) this.server.cursors.set(this.key, 0);
      this.offer();
    });
  }

  offer() {
    for (const item of this.server.inbox(this.user).slice(this.server.cursors.get(this.key))) this.item(item);
  }

  item(item, isSender = item.from === this.user && item.id && this.server.ids.get(`${this.user} ${item.id}`)?.device === this.device) {
    const { op, pos, id, conv, seq, ts } = item;
    this.tell(isSender && op === "msg" ? { op: "sent", pos, id, conv, seq, ts } : item);
  }

  tell(packet) {
    setImmediate(() => this.isUp && this.on.packet("down", structuredClone(packet)));
  }

  publish(topic, request, qos = 1, acknowledged = () => {}) {
    setImmediate(() => {
      if (!this.isUp) return;
      const lost = this.server.lose(request);
      if (lost === "request") return this.cut();
      if (JSON.stringify(request).length > 100_000) return this.cut();
      this.server.seen.push([request.op, request.id, request.n]);
      const answer = this.handle(request);
      if (lost === "answer") return this.cut();
      setImmediate(acknowledged);
      if (answer) this.tell(answer);
    });
  }

  handle(request) {
    const { server, user } = this;
    const inbox = server.inbox(user);
    const error = (code, more = {}) => ({ op: "error", id: request.id, code, message: code, retry: false, ...more });
    switch (request.op) {
      case "hello": {
        if (server.bars.subscribe) return null; // nothing to answer on
        if (server.bars.hello) return error(server.bars.hello);
        if (request.n !== undefined) this.n = request.n;
        const isKnown = request.epoch === undefined || request.epoch === server.epoch;
        if (request.after !== undefined && isKnown) {
          if (request.after > inbox.length) return error("bad_field");
          server.cursors.set(this.key, request.after);
        }
        const pos = server.cursors.get(this.key) ?? 0;
        if (request.after !== undefined && this.isSubscribed) setImmediate(() => this.isUp && this.offer());
        return { op: "welcome", id: request.id, pos, head: inbox.length, floor: 0, n: this.n, epoch: server.epoch, limits: { page: 500, packet: 100_000 }, ts: 1 };
      }
      case "ack":
        server.cursors.set(this.key, request.pos);
        return null;
      case "sync":
        return { op: "page", id: request.id, items: inbox.slice(request.after, request.after + request.limit), more: false };
      case "convs": {
        const convs = [...server.heads].filter(([conv]) => conv.split(":").includes(user)).map(([conv, seq]) => {
          const last = inbox.findLast((item) => item.conv === conv);
          return { conv, seq, last, unread: inbox.filter((item) => item.conv === conv && item.from !== user).length, mentions: 0, receipts: {} };
        });
        return { op: "convs", id: request.id, convs, more: false };
      }
      case "history": {
        const all = inbox.filter((item) => item.conv === request.conv && item.seq < (request.before ?? Infinity) && item.seq > (request.after ?? 0));
        const items = request.after === undefined ? all.slice(-request.limit) : all.slice(0, request.limit);
        return { op: "page", id: request.id, conv: request.conv, items, more: items.length < all.length };
      }
      case "send": {
        const known = server.ids.get(`${user} ${request.id}`);
        if (request.n !== undefined && request.n !== this.n + 1 && !(known && request.n <= this.n)) return error("out_of_order", { expected: this.n + 1 });
        const code = known ? null : server.refuse(request);
        if (code) return error(code);
        if (request.n !== undefined) this.n = Math.max(this.n, request.n);
        if (known) return { ...known.answer, dup: true };
        server.ids.set(`${user} ${request.id}`, { device: this.device });
        server.ids.get(`${user} ${request.id}`).answer = server.commit(user, this.device, request);
        return null; // its item is the answer
      }
      case "read":
        return null;
      default: {
        if (request.n !== undefined && request.n !== this.n + 1) return error("out_of_order", { expected: this.n + 1 });
        const code = server.refuseOwn(request);
        if (code) return error(code);
        if (request.n !== undefined) this.n = request.n;
        return { read_receipts: request.read_receipts ?? true, presence: true, op: "ok", id: request.id };
      }
    }
  }
}

/** Waits until `check` gives something true; fails after some seconds. */
export async function until(check, what = "it") {
  for (let turn = 0; turn < 2_000; turn += 1) {
    const found = await check();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`waited in vain for ${what}`);
}
