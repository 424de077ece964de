/** The messenger against a server that loses, refuses and forgets. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { FakeServer, until } from "./server.mjs";
import { Messenger } from "../../mqtt_im/web/chat/core/messenger.js";
import { MemoryStore } from "../../mqtt_im/web/chat/core/store-memory.js";

let server;
let running;

beforeEach(() => {
  server = new FakeServer();
  running = [];
});

afterEach(() => running.forEach((messenger) => messenger.stop()));

/** A device on `store`; what it wrote there is what another one finds. */
async function start(user = "alice", store = new MemoryStore(), device = `${user}-web`) {
  const messenger = new Messenger({ user, device, store, open: server.opener(user, device) });
  running.push(messenger);
  await messenger.start();
  return messenger;
}

const online = (messenger) => until(() => messenger.state === "online", "online");
const bodies = (user, conv = "alice:bob") => server.inbox(user).filter((item) => item.conv === conv).map(({ body }) => body);
const stored = async (store, conv = "alice:bob") => (await store.messages(conv, 1, 10_000, 10_000)).map(({ body }) => body);
const write = async (messenger, ...texts) => {
  for (const body of texts) await messenger.do("send", { to: "bob", body });
};
const sent = (messenger) => until(() => messenger.outbox.entries.length === 0, "an empty outbox");

test("what is written before the first connection goes in order", async () => {
  server.isDown = true;
  const alice = await start();
  await write(alice, "a", "b", "c");
  assert.equal((await alice.store.outbox()).length, 3);
  server.isDown = false;
  alice.wake();
  await sent(alice);
  assert.deepEqual(bodies("bob"), ["a", "b", "c"]);
  assert.deepEqual(await stored(alice.store), ["a", "b", "c"]);
  assert.deepEqual(await alice.store.outbox(), []);
});

test("a lost answer is asked for again and makes no second message", async () => {
  const alice = await start();
  await online(alice);
  let losses = 3;
  server.lose = ({ op, body }) => (op === "send" && body === "b" && losses-- > 0 ? "answer" : null);
  await write(alice, "a", "b", "c");
  await until(() => (alice.state === "offline" && alice.wake(), alice.outbox.entries.length === 0));
  assert.deepEqual(bodies("bob"), ["a", "b", "c"]);
  assert.deepEqual(await stored(alice.store), ["a", "b", "c"]);
});

test("a lost request holds back what is behind it", async () => {
  const alice = await start();
  await online(alice);
  let losses = 2;
  server.lose = ({ op, body }) => (op === "send" && body === "a" && losses-- > 0 ? "request" : null);
  await write(alice, "a", "b", "c");
  await until(() => (alice.state === "offline" && alice.wake(), alice.outbox.entries.length === 0));
  assert.deepEqual(bodies("bob"), ["a", "b", "c"]);
});

test("a killed program goes on from its store", async () => {
  const store = new MemoryStore();
  const alice = await start("alice", store);
  await online(alice);
  server.lose = ({ op, body }) => (op === "send" && body === "b" ? "answer" : null);
  await write(alice, "a", "b", "c");
  await until(() => alice.state === "offline");
  alice.stop(); // killed: "b" is committed, and nobody here knows
  server.lose = () => null;
  const again = await start("alice", store);
  await sent(again);
  assert.deepEqual(bodies("bob"), ["a", "b", "c"]);
  assert.deepEqual(await stored(store), ["a", "b", "c"]);
});

test("behind a refusal the rest goes on in order", async () => {
  const alice = await start();
  await online(alice);
  server.refuse = ({ body }) => (body === "b" ? "blocked" : null);
  await write(alice, "a", "b", "c", "d");
  await until(() => alice.outbox.waiting.length === 0);
  assert.deepEqual(bodies("bob"), ["a", "c", "d"]);
  const [failed] = alice.outbox.entries;
  assert.equal(failed.error.code, "blocked");
  assert.equal((await alice.store.outbox())[0].error.code, "blocked");
  server.refuse = () => null;
  await alice.retry(failed.id);
  await sent(alice);
  assert.deepEqual(bodies("bob"), ["a", "c", "d", "b"]);
});

test("two refusals at once", async () => {
  const alice = await start();
  await online(alice);
  server.refuse = ({ body }) => (body === "b" || body === "d" ? "too_large" : null);
  await write(alice, "a", "b", "c", "d", "e");
  await until(() => alice.outbox.waiting.length === 0);
  assert.deepEqual(bodies("bob"), ["a", "c", "e"]);
});

test("what waits for its upload holds back its own conversation alone", async () => {
  let finish;
  const store = new MemoryStore();
  const other = new Messenger({
    user: "alice", device: "other", store, open: server.opener("alice", "other"), upload: () => new Promise((resolve) => (finish = () => resolve("f1"))),
  });
  running.push(other);
  await other.start();
  await online(other);
  await other.do("send", { to: "bob", body: "picture" }, [{ name: "p.png", type: "image/png", size: 1, blob: "x" }]);
  await other.do("send", { to: "bob", body: "behind it" });
  await other.do("send", { to: "carol", body: "elsewhere" });
  await until(() => bodies("carol", "alice:carol").length === 1);
  assert.deepEqual(bodies("bob"), []);
  await until(() => finish);
  finish();
  await sent(other);
  assert.deepEqual(bodies("bob"), ["picture", "behind it"]);
  assert.deepEqual((await store.message("alice:bob", 1)).files, [{ id: "f1", name: "p.png", type: "image/png", size: 1 }]);
});

test("what comes is stored once and acknowledged afterwards", async () => {
  const bob = await start("bob");
  await online(bob);
  const news = [];
  bob.on("news", (messages) => news.push(...messages.map(({ body }) => body)));
  for (let number = 0; number < 300; number += 1) server.send("alice", "bob", `m${number}`);
  await until(() => bob.cursor.pos === 300);
  server.cut();
  bob.wake();
  server.send("alice", "bob", "last");
  await until(() => (bob.state === "offline" && bob.wake(), bob.cursor.pos === 301));
  assert.equal((await stored(bob.store)).length, 301);
  assert.equal(new Set(news).size, news.length);
  assert.equal(bob.convs.get("alice:bob").unread, 301);
  await until(() => server.cursors.get("bob bob-web") === 301, "the acknowledgement");
});

test("a gap is filled before anything behind it is shown", async () => {
  const bob = await start("bob");
  await online(bob);
  const [line] = server.lines;
  const tell = line.tell.bind(line);
  line.tell = (packet) => packet.pos !== 2 && packet.pos !== 3 && tell(packet); // lost on the way
  for (const body of ["a", "b", "c", "d"]) server.send("alice", "bob", body);
  await until(() => bob.cursor.pos === 4);
  assert.deepEqual(await stored(bob.store), ["a", "b", "c", "d"]);
});

test("a failed write is not acknowledged and comes again", async () => {
  const store = new MemoryStore();
  const bob = await start("bob", store);
  await online(bob);
  const commit = store.commit.bind(store);
  const { error } = console;
  console.error = () => {};
  store.commit = async (changes) => {
    if (!changes.messages?.length) return commit(changes);
    store.commit = commit;
    throw new Error("the disk is full");
  };
  server.send("alice", "bob", "a");
  await until(() => bob.state === "offline");
  assert.equal(bob.cursor.pos, 0);
  bob.wake();
  await until(() => (bob.state === "offline" && bob.wake(), bob.cursor.pos === 1));
  console.error = error;
  assert.deepEqual(await stored(store), ["a"]);
  assert.equal(bob.convs.get("alice:bob").unread, 1);
});

test("a restored server makes the device start over, and the outbox goes on", async () => {
  const store = new MemoryStore();
  const alice = await start("alice", store);
  await online(alice);
  await write(alice, "a", "b");
  await sent(alice);
  server.isDown = true;
  server.cut();
  await until(() => alice.state === "offline");
  await write(alice, "c");
  // the backup knows "a" alone
  server.epoch = "e2";
  server.inboxes = new Map([["alice", server.inbox("alice").slice(0, 1)], ["bob", server.inbox("bob").slice(0, 1)]]);
  server.heads = new Map([["alice:bob", 1]]);
  server.isDown = false;
  alice.wake();
  await until(() => (alice.state === "offline" && alice.wake(), alice.outbox.entries.length === 0));
  await until(() => alice.convs.get("alice:bob")?.seq === 2);
  assert.deepEqual(bodies("bob"), ["a", "c"]);
  assert.equal(alice.cursor.epoch, "e2");
  const newest = await alice.history.before("alice:bob", Infinity, 10); // what is here already
  assert.deepEqual(newest.messages.map(({ body }) => body), ["c"]);
  assert.equal(newest.more, true);
  const older = await alice.history.before("alice:bob", newest.messages[0].seq, 10);
  assert.deepEqual(older.messages.map(({ body }) => body), ["a"]);
});

test("a device that is far behind takes the present state instead", async () => {
  const store = new MemoryStore();
  const bob = await start("bob", store);
  await online(bob);
  server.send("alice", "bob", "m0");
  await until(() => bob.cursor.pos === 1);
  bob.stop();
  for (let number = 1; number < 3_000; number += 1) server.send("alice", "bob", `m${number}`);
  const again = await start("bob", store);
  await online(again);
  assert.equal(again.cursor.pos, 3_000);
  await until(() => again.convs.get("alice:bob")?.seq === 3_000);
  const newest = await again.history.before("alice:bob", Infinity, 50);
  assert.equal(newest.messages.at(-1).body, "m2999");
  assert.equal(newest.more, true);
  let before = newest.messages[0].seq;
  let count = newest.messages.length;
  for (let more = true; more; ) {
    const page = await again.history.before("alice:bob", before, 500);
    ({ more } = page);
    count += page.messages.length;
    before = page.messages[0]?.seq ?? before;
  }
  assert.equal(count, 3_000);
  assert.equal(again.convs.get("alice:bob").top, true);
});

test("what the user has read is told, now or later", async () => {
  const bob = await start("bob");
  await online(bob);
  server.send("alice", "bob", "a");
  await until(() => bob.convs.get("alice:bob")?.unread === 1);
  server.isDown = true;
  server.cut();
  await until(() => bob.state === "offline");
  await bob.markRead("alice:bob", 1);
  assert.equal(bob.convs.get("alice:bob").unread, 0);
  assert.equal(server.seen.some(([op]) => op === "read"), false);
  server.isDown = false;
  bob.wake();
  await until(() => (bob.state === "offline" && bob.wake(), server.seen.some(([op]) => op === "read")));
  await until(() => bob.convs.get("alice:bob").tell === 0);
});

test("what the server would cut the line for fails here, and what is behind it goes", async () => {
  server.isDown = true;
  const alice = await start();
  await write(alice, "a", "x".repeat(200_000), "b");
  server.isDown = false;
  alice.wake();
  await until(() => alice.outbox.waiting.length === 0);
  assert.deepEqual(bodies("bob"), ["a", "b"]);
  assert.deepEqual(alice.outbox.entries.map(({ error }) => error.code), ["too_large"]);
});

test("a line that is lost while the device starts over is not taken for a good one", async () => {
  const store = new MemoryStore();
  const commit = store.commit.bind(store);
  let cuts = 1;
  store.commit = async (changes) => {
    await commit(changes);
    if (!changes.startOver || cuts-- <= 0) return;
    server.cut();
    await new Promise((resolve) => setTimeout(resolve, 20));
  };
  const alice = await start("alice", store);
  await until(() => alice.state === "offline");
  assert.equal(alice.isWelcome, false);
  await until(() => (alice.state === "offline" && alice.wake(), alice.state === "online"));
  await write(alice, "a");
  await sent(alice);
  assert.deepEqual(bodies("bob"), ["a"]);
});

test("what users set for themselves holds at once, is told once there is a line, and survives a kill", async () => {
  server.isDown = true;
  const store = new MemoryStore();
  const alice = await start("alice", store);
  await alice.do("mute", { conv: "alice:bob", until: 4_000_000_000_000 });
  await alice.do("block", { user: "carol" });
  await alice.do("settings", { read_receipts: false });
  await until(() => alice.own.settings);
  assert.equal(alice.convs.get("alice:bob").muted, 4_000_000_000_000);
  assert.deepEqual(alice.own.state, { blocked: ["carol"], settings: { read_receipts: false } });
  alice.stop();
  server.isDown = false;
  const again = await start("alice", store);
  assert.deepEqual(again.own.blocked, ["carol"]);
  await sent(again);
  const told = server.seen.map(([op]) => op).filter((op) => ["mute", "block", "settings"].includes(op));
  assert.deepEqual(told, ["mute", "block", "settings"]);
  assert.equal(again.convs.get("alice:bob").muted, 4_000_000_000_000);
});

test("what the server refuses does not hold here either", async () => {
  const alice = await start();
  await online(alice);
  server.refuseOwn = ({ op }) => (op === "mute" || op === "block" ? "not_member" : null);
  const answers = [];
  alice.on("answer", ({ reply }) => answers.push(reply.code));
  await alice.do("mute", { conv: "#gone", until: 4_000_000_000_000 });
  await alice.do("block", { user: "nobody" });
  await until(() => answers.length === 2);
  assert.deepEqual(answers, ["not_member", "not_member"]);
  assert.equal(alice.convs.get("#gone").muted, 0);
  assert.deepEqual(alice.own.blocked, []);
});

for (const op of ["subscribe", "hello"])
  test(`a device that is not taken at its ${op} says why, asks again on another line, and loses nothing`, async () => {
    server.bars = { [op]: "quota" };
    const alice = await start();
    const told = [];
    alice.on("barred", ({ code }) => told.push(code));
    await write(alice, "a");
    await until(() => told.length === 1 && alice.state === "offline");
    server.bars = {};
    alice.wake();
    await sent(alice);
    assert.deepEqual(bodies("bob"), ["a"]);
    assert.deepEqual(told, ["quota"]);
    assert.equal(server.seen.filter(([each]) => each === "hello").length, 2);
  });

test("changes to messages made without a line are kept and told once, in order", async () => {
  const store = new MemoryStore();
  const alice = await start("alice", store);
  await write(alice, "a", "b");
  await sent(alice);
  server.isDown = true;
  server.cut();
  await until(() => alice.state === "offline");
  await alice.do("edit", { conv: "alice:bob", seq: 1, body: "a2" });
  await alice.do("react", { conv: "alice:bob", seq: 1, emoji: "👍" });
  await alice.do("recall", { conv: "alice:bob", seq: 2 });
  alice.stop();
  server.isDown = false;
  const again = await start("alice", store);
  await sent(again);
  const told = server.seen.filter(([op]) => ["edit", "react", "recall"].includes(op)).map(([op, , n]) => [op, n]);
  assert.deepEqual(told, [["edit", 1], ["react", 2], ["recall", 3]]);
});

test("a store is bounded, and what has left it is read from the server again", async () => {
  const store = new MemoryStore();
  const options = { store, most: { messages: 400, bytes: 10 ** 9 } };
  const bob = new Messenger({ user: "bob", device: "bob-web", ...options, open: server.opener("bob", "bob-web") });
  running.push(bob);
  await bob.start();
  await online(bob);
  for (let number = 0; number < 900; number += 1) server.send("alice", "bob", `m${number}`);
  server.send("carol", "bob", "hello");
  await until(() => bob.cursor.pos === 901);
  const count = async () => (await stored(store)).length + (await stored(store, "bob:carol")).length;
  await until(async () => (await count()) <= 400, "less in the store");
  assert.deepEqual(await stored(store, "bob:carol"), ["hello"]);
  const kept = await stored(store);
  assert.equal(kept.at(-1), "m899");
  const record = bob.convs.get("alice:bob");
  assert.equal(record.lo, 901 - kept.length);
  assert.equal(record.top, false);
  const older = await bob.history.before("alice:bob", record.lo, 50);
  assert.equal(older.messages.at(-1).body, `m${900 - kept.length - 1}`);
  assert.equal(older.more, true);
  assert.equal(bob.convs.get("alice:bob").unread, 900);
  await bob.markRead("alice:bob", 10);
  assert.equal(bob.convs.get("alice:bob").unread, 890); // most of them are not stored any more
});

test("a store is bounded by bytes too, the conversations that were active last come first", async () => {
  const store = new MemoryStore();
  const bob = new Messenger({ user: "bob", device: "bob-web", store, most: { messages: 10 ** 6, bytes: 400_000 }, open: server.opener("bob", "bob-web") });
  running.push(bob);
  await bob.start();
  await online(bob);
  for (const from of ["alice", "carol"]) for (let number = 0; number < 100; number += 1) server.send(from, "bob", "x".repeat(1_000));
  await until(() => bob.cursor.pos === 200);
  await until(async () => (await stored(store)).length + (await stored(store, "bob:carol")).length <= 400_000 / 2_300);
  assert.ok((await stored(store)).length >= 50);
  assert.ok((await stored(store, "bob:carol")).length >= 50);
});

test("nothing that an item holds keeps those behind it from coming", async () => {
  const bob = await start("bob");
  await online(bob);
  const odd = [["x"], { ["__proto__"]: { text: "x" } }, null, -0, [], { text: 5 }, "\ud800"];
  for (const body of odd) server.send("alice", "bob", body);
  for (const emoji of ["__proto__", "constructor", "toString", "👍"]) server.tellItem("bob", { op: "reacted", conv: "alice:bob", seq: 1, by: "alice", emoji, ts: 1 });
  server.tellItem("bob", { op: "reacted", conv: "alice:bob", seq: 2, by: "__proto__", emoji: "__proto__", ts: 1 });
  server.tellItem("bob", { op: "edited", conv: "alice:bob", seq: 2, by: "alice", body: odd, ts: 1 });
  server.tellItem("bob", { op: "msg", conv: null, seq: "x", from: 7 }); // what no server sends
  server.tellItem("bob", { op: "__proto__" });
  server.send("alice", "bob", "behind it");
  await until(() => bob.cursor.pos === server.inbox("bob").length);
  const messages = await bob.store.messages("alice:bob", 1, 100, 100);
  assert.equal(messages.at(-1).body, "behind it");
  assert.deepEqual(Object.entries(messages[0].reactions), [["👍", ["alice"]]]);
  assert.deepEqual(Object.entries(messages[1].reactions), [["__proto__", ["__proto__"]]]);
  assert.equal(bob.state, "online");
});
