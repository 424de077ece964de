/** One tab holds the lock, whoever comes and goes. */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { until } from "./server.mjs";
import { ChannelLock } from "../../mqtt_im/web/chat/core/lock.js";

let locks = [];

afterEach(() => {
  locks.forEach((lock) => lock.release());
  locks = [];
});

function tab(name) {
  const made = { holds: false, lost: 0 };
  made.lock = new ChannelLock(name, { held: () => (made.holds = true), lost: () => ((made.holds = false), (made.lost += 1)) });
  locks.push(made.lock);
  return made;
}

const holders = (tabs) => tabs.filter(({ holds }) => holds).length;

test("the first one has it, the others wait until it goes", async () => {
  const [one, two, three] = [tab("a"), tab("a"), tab("a")];
  assert.equal(await one.lock.take(), true);
  assert.equal(await two.lock.take(), false);
  assert.equal(await three.lock.take(), false);
  assert.equal(holders([one, two, three]), 1);
  one.lock.release();
  one.holds = false;
  await until(() => holders([two, three]) === 1, "another one");
});

test("those who come at once end as one", async () => {
  const tabs = Array.from({ length: 5 }, () => tab("b"));
  await Promise.all(tabs.map(({ lock }) => lock.take()));
  await until(() => holders(tabs) === 1, "one of them");
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.equal(holders(tabs), 1);
});

test("one that vanishes without a word is replaced", async () => {
  const [one, two] = [tab("c"), tab("c")];
  await one.lock.take();
  await two.lock.take();
  const channel = BroadcastChannel.prototype.postMessage;
  BroadcastChannel.prototype.postMessage = () => {}; // a killed tab says nothing
  one.lock.release();
  BroadcastChannel.prototype.postMessage = channel;
  await until(() => two.holds, "the other one");
});
