/** Outbox, inbox and cursor, each alone. */
import assert from "node:assert/strict";
import { test } from "node:test";
import "./server.mjs";
import { Cursor } from "../../mqtt_im/web/chat/core/cursor.js";
import { Inbox, previewOf, withReaction } from "../../mqtt_im/web/chat/core/inbox.js";
import { addressOf, convOf, isAddress, isUser, topics } from "../../mqtt_im/web/chat/core/names.js";
import { Outbox } from "../../mqtt_im/web/chat/core/outbox.js";

const entry = (order, fields = {}) => ({ order, id: `i${order}`, op: "send", fields: { to: "bob", body: `b${order}`, ...fields } });

function outbox(count) {
  const made = new Outbox();
  for (let order = 1; order <= count; order += 1) made.put(entry(order));
  made.begin();
  return made;
}

const numbers = (requests) => requests.map(({ id, n }) => [id, n]);

test("an outbox numbers what it hands out, up to its window", () => {
  const box = outbox(4);
  assert.deepEqual(numbers(box.take(2)), [["i1", 1], ["i2", 2]]);
  assert.deepEqual(box.take(2), []);
  assert.equal(box.answer({ op: "sent", id: "i1" }).outcome, "done");
  assert.deepEqual(numbers(box.take(2)), [["i3", 3]]);
});

test("a new connection begins at 1 with the oldest that has no answer", () => {
  const box = outbox(3);
  box.take(10);
  box.answer({ op: "sent", id: "i1" });
  box.begin();
  assert.deepEqual(numbers(box.take(10)), [["i2", 1], ["i3", 2]]);
});

test("a refusal stops the numbering until all under way is answered", () => {
  const box = outbox(4);
  box.take(3);
  assert.equal(box.answer({ op: "error", id: "i1", code: "blocked" }).outcome, "failed");
  assert.deepEqual(box.take(10), []);
  assert.equal(box.answer({ op: "error", id: "i2", code: "out_of_order", expected: 1 }).outcome, "again");
  assert.deepEqual(box.take(10), []);
  box.answer({ op: "error", id: "i3", code: "out_of_order", expected: 1 });
  assert.deepEqual(numbers(box.take(10)), [["i2", 1], ["i3", 2], ["i4", 3]]);
  assert.deepEqual(box.entries.filter(({ error }) => error).map(({ id }) => id), ["i1"]);
});

test("what the server can't do now is tried again", () => {
  const box = outbox(1);
  box.take(1);
  assert.equal(box.answer({ op: "error", id: "i1", code: "unavailable", retry: true }).outcome, "again");
  assert.equal(box.waiting.length, 1);
});

test("answers to others are not ours", () => {
  assert.equal(outbox(1).answer({ op: "ok", id: "other" }), null);
});

test("a cursor knows what is missing", () => {
  const cursor = new Cursor(5, "e");
  assert.equal(cursor.misses([{ op: "msg", pos: 6 }, { op: "msg", pos: 7 }]), false);
  assert.equal(cursor.misses([{ op: "msg", pos: 4 }]), false);
  assert.equal(cursor.misses([{ op: "msg", pos: 7 }]), true);
  assert.equal(cursor.misses([{ op: "void", from: 6, pos: 9 }, { op: "msg", pos: 10 }]), false);
  assert.equal(cursor.misses([{ op: "void", from: 7, pos: 9 }]), true);
  assert.equal(cursor.misses([{ op: "sent", pos: 40, dup: true }, { op: "receipt" }]), false);
});

test("a cursor judges a welcome", () => {
  const welcome = { epoch: "e", floor: 0, head: 10, pos: 5 };
  assert.equal(new Cursor(5, "e").judge(welcome), "go");
  assert.equal(new Cursor(null, null).judge(welcome), "start");
  assert.equal(new Cursor(5, "other").judge(welcome), "start");
  assert.equal(new Cursor(11, "e").judge(welcome), "start");
  assert.equal(new Cursor(5, "e").judge({ ...welcome, floor: 6 }), "start");
  assert.equal(new Cursor(5, "e").judge({ ...welcome, head: 5_000 }, 2_000), "start");
});

function inbox(convs = new Map(), stored = {}) {
  return new Inbox({ me: "alice", convs, find: async (conv, seq) => stored[`${conv} ${seq}`], entry: () => undefined });
}

const message = (seq, more = {}) => ({ op: "msg", pos: seq, conv: "alice:bob", seq, from: "bob", id: `b${seq}`, body: `b${seq}`, ts: seq, ...more });

test("an inbox counts what others write, once", async () => {
  const run = inbox();
  await run.apply(message(1));
  await run.apply(message(2, { mentions: ["alice"] }));
  await run.apply(message(2, { mentions: ["alice"] }));
  await run.apply(message(3, { from: "alice" }));
  const conv = run.convs.get("alice:bob");
  assert.deepEqual([conv.unread, conv.mentions, conv.seq, conv.lo, conv.hi, conv.top], [2, 1, 3, 1, 3, true]);
  assert.equal(run.news.length, 2);
});

test("an amended message is as it is now", async () => {
  const run = inbox();
  await run.apply(message(1));
  await run.apply({ op: "edited", conv: "alice:bob", seq: 1, by: "bob", body: "new" });
  await run.apply({ op: "reacted", conv: "alice:bob", seq: 1, by: "alice", emoji: "👍" });
  assert.deepEqual(run.messages.get("alice:bob 1").reactions, { "👍": ["alice"] });
  assert.equal(run.convs.get("alice:bob").last.body, "new");
  await run.apply({ op: "recalled", conv: "alice:bob", seq: 1, by: "bob" });
  const gone = run.messages.get("alice:bob 1");
  assert.deepEqual([gone.recalled, gone.body, gone.edited], [true, undefined, undefined]);
  assert.equal(run.convs.get("alice:bob").last.recalled, true);
});

test("an inbox that knows nothing of an amended message leaves it", async () => {
  const run = inbox();
  await run.apply({ op: "edited", conv: "alice:bob", seq: 9, by: "bob", body: "new" });
  assert.equal(run.convs.size, 0);
  assert.equal(run.messages.size, 0);
});

test("a summary does not turn back what items have told since", async () => {
  const run = inbox();
  await run.apply(message(1));
  await run.apply(message(2));
  run.summary({ conv: "alice:bob", seq: 1, unread: 7, mentions: 0, receipts: {} });
  assert.equal(run.convs.get("alice:bob").unread, 2);
  run.summary({ conv: "alice:bob", seq: 2, unread: 0, mentions: 0, receipts: { bob: { delivered: 2, read: 1 } } });
  assert.equal(run.convs.get("alice:bob").unread, 0);
  assert.equal(run.receipt({ conv: "alice:bob", by: "bob", delivered: 1 }), false);
  assert.deepEqual(run.convs.get("alice:bob").receipts.bob, { delivered: 2, read: 1 });
});

test("who is removed from a group has left it", async () => {
  const run = inbox();
  const system = (seq, event, more) => ({ op: "msg", pos: seq, conv: "#ops", seq, from: "bob", ts: seq, system: { event, ...more } });
  await run.apply(system(1, "group.create", { members: ["alice", "bob"], name: "Ops" }));
  assert.deepEqual([run.convs.get("#ops").name, run.convs.get("#ops").left, run.convs.get("#ops").unread], ["Ops", false, 0]);
  await run.apply(system(2, "group.remove", { members: ["alice"] }));
  assert.equal(run.convs.get("#ops").left, true);
});

test("a preview is short and never cuts a character", () => {
  const { body } = previewOf({ conv: "c", seq: 1, from: "bob", ts: 1, body: "😀".repeat(200) });
  assert.equal(body, "😀".repeat(100));
});

test("reactions are one for each user", () => {
  assert.deepEqual(withReaction({ "👍": ["a", "b"] }, "a", "🎉"), { "👍": ["b"], "🎉": ["a"] });
  assert.deepEqual(withReaction({ "👍": ["a"] }, "a", ""), {});
});

test("names", () => {
  assert.equal(convOf("bob", "alice"), "alice:bob");
  assert.equal(convOf("bob", "#ops"), "#ops");
  assert.equal(addressOf("alice:bob", "alice"), "bob");
  assert.equal(addressOf("alice:alice", "alice"), "alice");
  assert.equal(isUser(".."), false);
  assert.equal(isAddress("#a b"), false);
  assert.equal(topics("im/v1", "alice", "web").presenceOf("im/v1/bob/presence"), "bob");
  assert.equal(topics("im/v1", "alice", "web").presenceOf("im/v1/bob/down"), null);
});
