/** Names of the protocol: users, conversations, topics. */

const NAME = /^[A-Za-z0-9_.-]{1,64}$/;

/** Whether `text` may be a user's or a device's name. */
export const isUser = (text) => NAME.test(text) && text !== "." && text !== "..";

/** Whether a conversation id or an address is a group's. */
export const isGroup = (text) => text.startsWith("#");

/** Whether a message can be addressed to `text`. */
export const isAddress = (text) => (isGroup(text) ? isUser(text.slice(1)) : isUser(text));

/** The conversation of `me` with `to`, a user or a group. */
export const convOf = (me, to) => (isGroup(to) ? to : [me, to].sort().join(":"));

/** Whom a message in `conv` is addressed to: the group, or the other one of the two. */
export function addressOf(conv, me) {
  if (isGroup(conv)) return conv;
  const [one, other] = conv.split(":");
  return one === me ? other : one;
}

/** The topics of one device. */
export function topics(prefix, user, device) {
  return {
    up: `${prefix}/${user}/${device}/up`,
    down: `${prefix}/${user}/${device}/down`,
    presence: (of) => `${prefix}/${of}/presence`,
    /** The user whose presence a topic tells, or null. */
    presenceOf(topic) {
      const end = "/presence";
      return topic.startsWith(`${prefix}/`) && topic.endsWith(end) ? topic.slice(prefix.length + 1, -end.length) : null;
    },
  };
}

/** A new id: 128 random bits as 32 hexadecimal digits. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
