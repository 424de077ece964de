/** Dialogs about people and groups: new conversations, members and their roles, mute, block. */
import { addressOf, convOf, isAddress, isUser } from "../core/names.js";
import { avatar, h, iconButton } from "./dom.js";
import { full, problem, t } from "./i18n.js";
import { confirm, dialog, field, form, menu, notice } from "./popups.js";

const HOUR_MS = 3_600_000;
const FOREVER = 4_102_444_800_000; // 2100

const nameInput = (props) => h("input", { autocapitalize: "none", autocomplete: "off", spellcheck: "false", ...props });

/** Asks for a name; `open(conv)` is called with the conversation. */
export function newConversation(session, open) {
  const name = nameInput({ maxlength: 65, data: { testid: "new-conversation-name" } });
  form(
    t("New conversation"),
    t("Start"),
    field(t("Name of a user"), name),
    () => {
      const to = name.value.trim();
      if (!isAddress(to)) throw new Error(t("A name has 1 to 64 of the letters A–Z and a–z, digits, and _ . -"));
      open(convOf(session.me, to));
    },
    { data: { testid: "new-conversation-start" } },
  );
}

const namesIn = (text) => [...new Set(text.split(/[\s,;]+/).filter(Boolean))];

/** Asks for what a new group needs, and makes it. */
export function newGroup(session, open) {
  const name = h("input", { maxlength: 256, autocomplete: "off", dir: "auto", data: { testid: "group-name" } });
  const members = nameInput({ data: { testid: "group-members" } });
  form(
    t("New group"),
    t("Make the group"),
    [field(t("Name of the group"), name), field(t("Members"), members, t("Names with spaces between"))],
    async () => {
      const users = namesIn(members.value);
      const wrong = users.find((user) => !isUser(user));
      if (wrong) throw new Error(t("“{name}” is not a name.", { name: wrong }));
      const reply = await answered(session, "group.create", { name: name.value.trim() || undefined, members: users });
      tellLeftOut(reply);
      if (reply) open(reply.group);
    },
    { data: { testid: "group-create" } },
  );
}

/**
 * Changes a group, and waits for the answer. Raises what people can read; null where the line went down meanwhile: the change is kept, goes when
 * the line is back, and then says for itself what is wrong. Offline nothing is begun: who is in a group, and what one may do there, may have
 * changed long since.
 */
async function answered(session, op, fields) {
  if (session.im.state !== "online") throw new Error(problem({ code: "offline" }));
  const reply = await session.answer(() => session.im.do(op, fields));
  if (!reply) notice(t("The line was lost. This is done as soon as it is back."));
  else if (reply.op === "error") throw new Error(problem(reply));
  return reply;
}

function tellLeftOut(reply) {
  const names = reply?.left_out;
  if (names?.length) notice(t("Not added, since they have blocked you: {names}", { names: names.join(", ") }));
}

/** Runs what may fail, and says so. */
async function trying(work) {
  try {
    await work();
  } catch (error) {
    notice(problem(error));
  }
}

function muteButtons(session, conv) {
  const record = session.im.convs.get(conv);
  const isMuted = record?.muted > Date.now();
  const set = (until) => trying(async () => {
    await session.im.do("mute", { conv, until });
    notice(until ? t("Muted") : t("No longer muted"));
  });
  if (isMuted) return h("button", { type: "button", onclick: () => set(0) }, t("Unmute"));
  const button = h("button", { type: "button", onclick: () => menu(button, [
    { label: t("For an hour"), action: () => set(Date.now() + HOUR_MS) },
    { label: t("For a day"), action: () => set(Date.now() + 24 * HOUR_MS) },
    { label: t("Until I unmute it"), action: () => set(FOREVER) },
  ]) }, t("Mute"));
  return button;
}

/** About the other one of a direct conversation. */
export function showPerson(session, conv) {
  const user = addressOf(conv, session.me);
  const presence = session.im.presence.get(user);
  const isBlocked = session.im.own.blocked.includes(user);
  const change = (op) => trying(async () => {
    shown.close();
    await session.im.do(op, { user });
    notice(op === "unblock" ? t("{user} may write to you again", { user }) : t("{user} can't write to you any more", { user }));
  });
  const block = isBlocked
    ? h("button", { type: "button", class: "danger", onclick: () => change("unblock") }, t("Unblock"))
    : h("button", { type: "button", class: "danger", onclick: () => change("block") }, t("Block"));
  const elsewhere = h("p", { class: "quiet elsewhere" }, t("Blocked on another device?"), " ", h("button", { type: "button", class: "link", onclick: () => change("unblock") }, t("Let {user} write again", { user })));
  const seen = session.isOnline(user) ? t("online") : presence?.last_seen ? t("last seen {when}", { when: full(presence.last_seen) }) : "";
  const shown = dialog(
    user,
    h("div", { class: "person" }, avatar(user), h("p", {}, seen)),
    user !== session.me && !isBlocked && elsewhere,
    h("footer", {}, muteButtons(session, conv), user !== session.me && block),
  );
}

/** About a group: who is in it, and what one may change. */
export async function showGroup(session, group) {
  const list = h("ul", { class: "members", "aria-label": t("Members") });
  const tools = h("div", { class: "group-tools" });
  const shown = dialog(session.nameOf(group), h("p", { class: "quiet" }, group), tools, list, h("footer", {}, muteButtons(session, group), leave()));
  await refresh();

  function leave() {
    return h("button", { type: "button", class: "danger", onclick: async () => {
      if (!(await confirm(t("Leave this group? You keep what was written up to now."), t("Leave")))) return;
      trying(() => answered(session, "group.leave", { group }));
      shown.close();
    } }, t("Leave"));
  }

  async function change(op, fields) {
    await trying(async () => tellLeftOut(await answered(session, op, { group, ...fields })));
    await refresh();
  }

  async function refresh() {
    let members;
    try {
      members = await session.fetchMembers(group);
    } catch (error) {
      members = session.members(group);
      if (!members) {
        list.replaceChildren(h("li", {}, problem(error)));
        return;
      }
    }
    const mine = members.get(session.me);
    const rank = { owner: 2, admin: 1, member: 0 };
    list.replaceChildren(...[...members].map(([user, role]) => member(user, role)));
    tools.replaceChildren(...(rank[mine] ? [adding(), renaming()] : []));

    function member(user, role) {
      const mayRemove = user !== session.me && (mine === "owner" || (mine === "admin" && role === "member"));
      const roles = ["owner", "admin", "member"].filter((each) => each !== role);
      const more = iconButton("more", t("Change {user}", { user }), { onclick: () => menu(more, [
        ...(mine === "owner" ? roles.map((each) => ({ label: t("Make {role}", { role: t(each) }), action: () => change("group.role", { user, role: each }) })) : []),
        mayRemove && { label: t("Remove"), danger: true, action: () => change("group.remove", { members: [user] }) },
      ]) });
      const canChange = mine === "owner" || mayRemove;
      return h("li", {}, avatar(user), h("span", { class: "name" }, user), h("span", { class: "quiet" }, role === "member" ? "" : t(role)), canChange && more);
    }
  }

  function adding() {
    const input = nameInput({ "aria-label": t("Add members"), placeholder: t("Add members"), data: { testid: "group-add-names" } });
    return inline(input, t("Add"), async () => {
      const users = namesIn(input.value);
      if (!users.length || !users.every(isUser)) return;
      input.value = "";
      await change("group.add", { members: users });
    });
  }

  function renaming() {
    const input = h("input", { maxlength: 256, dir: "auto", "aria-label": t("Name of the group"), value: session.im.convs.get(group)?.name ?? "", data: { testid: "group-rename-name" } });
    return inline(input, t("Rename"), () => change("group.rename", { name: input.value.trim() }));
  }

  function inline(input, label, work) {
    return h("form", { class: "inline", onsubmit: (event) => (event.preventDefault(), work()) }, input, h("button", { type: "submit" }, label));
  }
}

