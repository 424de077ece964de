/** What happened to a group, as a sentence. */
import { t } from "./i18n.js";
import { plainName } from "./text.js";

export function systemText({ from, system }, me) {
  const who = (user) => (user === me ? t("you") : user);
  const by = from === me ? t("You") : from;
  const members = (system.members ?? []).filter((user) => user !== from).map(who).join(", ");
  switch (system.event) {
    case "group.create":
      return members ? t("{by} made the group with {members}", { by, members }) : t("{by} made the group", { by });
    case "group.add":
      return t("{by} added {members}", { by, members });
    case "group.remove":
      return t("{by} removed {members}", { by, members });
    case "group.leave":
      return t("{by} left", { by });
    case "group.rename":
      return t("{by} named the group “{name}”", { by, name: plainName(system.name) });
    case "group.role":
      return t("{by} made {user} {role}", { by, user: who(system.user), role: t(system.role) });
    default:
      return system.event;
  }
}
