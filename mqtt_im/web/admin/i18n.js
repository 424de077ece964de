// What the dashboard says, in English and Chinese. A figure without a name of its own is shown by its key.

const EN = {
  title: "Dashboard", token: "Admin token", sign_in: "Sign in", sign_out: "Sign out", wrong_token: "This token is wrong.",
  switched_off: "The administration is switched off: set auth.admin_token.", failed: "The server does not answer. Is it running, and can this browser reach it?", failed_with: (status) => `The server answered with ${status} and no reason; its log tells more.`, live: "live", lost: "connection lost, trying again",
  now: "Right now", all_well: "Nothing is wrong.", figures: "Figures", refusals: "Refused requests", closes: "Closed connections", others: "More",
  none: "none", users: "Users", devices: "Devices", device: "Device", name: "Name", position: "Read up to", lag: "Behind", state: "State", address: "Address",
  protocol: "Protocol", last_seen: "Last seen", online: "online", offline: "offline", created: "Created", find: "Find a user", search: "Search", more: "More", all: "All",
  no_devices: "This user has no registered device.", no_user: "There is no such user.", disconnect: "Disconnect", forget: "Forget", sure_forget: "Forget this device? What it has not read is lost to it.",
  message: "A message's story", conversation: "Conversation", number: "Number (seq)", show: "Show", from: "From", sent_at: "Sent", recipients: "Recipients", item: "Item", read: "read", not_read: "not read",
  acknowledged: "acknowledged", waiting: "waiting", recalled: "It was recalled.", edits: "Edits", reports: "Reports", no_message: "There is no such message.",
  connections: "Connections", user: "User", since: "Since", unacknowledged: "Unacknowledged", refresh: "Refresh", node: "Node",
  not_answering: (nodes) => `These nodes do not answer, and are left out: ${nodes}`,
  wrong_away: "The server does not answer, and what stands below is old. See whether it runs: its log tells why it stopped.",
  wrong_store: (why) => `The store can't commit: ${why}. Nothing is acknowledged until it can; mqtt-im doctor and the log say what to mend.`,
  wrong_disk: (free) => `The disk is nearly full: ${free} are left. Make room, or shorten store.retention_days: on a full disk nothing is acknowledged.`,
  wrong_lag: (items) => `A device is ${items} items behind. Its user's devices are under Users; forget it if it will not come back.`,
  wrong_dead: (count) => `${count} webhooks were put aside after too many attempts. mqtt-im hooks list says why, mqtt-im hooks retry sends them again.`,
  wrong_queue: (jobs) => `${jobs} requests wait for the store: they come faster than it commits. See what else uses the disk.`,
  wrong_slow: (ms) => `Commits are slow: one in a hundred takes ${ms} ms or more. See what else uses the disk.`,
  wrong_logins: (count) => `${count} logins were refused in the last minute: somebody guesses, or a device has an old password. The log names users and addresses.`,
  f_connections: "Connections", f_messages_per_second: "Messages a second", f_commit_p99_ms: "Commit, p99", f_delivery_p99_ms: "Delivery, p99", f_ledger_queue_jobs: "Waiting for the store",
  f_devices_behind: "Devices behind", f_memory_bytes: "Memory", f_cpu_percent: "CPU", f_users_online: "Users online", f_messages: "Messages committed", f_uptime_s: "Uptime", f_worst_lag_items: "Furthest behind",
  f_disk_free_bytes: "Disk left", f_disk_bytes: "Disk", f_open_files: "Open files", f_webhooks_waiting: "Webhooks waiting", f_webhooks_dead: "Webhooks put aside", f_streams: "Event streams",
  f_refusals: "Refused in all", f_closes: "Closed in all", f_logins_refused: "Logins refused", f_store_failing: "Store", f_commit_p50_ms: "Commit, p50", f_commit_p95_ms: "Commit, p95",
  f_delivery_p50_ms: "Delivery, p50", f_delivery_p95_ms: "Delivery, p95", f_ts: "Clock", f_nodes: "Nodes", f_nodes_not_answering: "Nodes that do not answer", well: "well",
};

const ZH = {
  title: "控制台", token: "管理令牌", sign_in: "登录", sign_out: "退出", wrong_token: "令牌不正确。",
  switched_off: "管理接口已关闭：请设置 auth.admin_token。", failed: "服务器没有响应。请检查它是否在运行、本浏览器能否访问。", failed_with: (status) => `服务器返回 ${status}，未说明原因；请查看其日志。`, live: "实时", lost: "连接已断开，正在重试",
  now: "当前状况", all_well: "一切正常。", figures: "指标", refusals: "被拒绝的请求", closes: "已关闭的连接", others: "其他",
  none: "无", users: "用户", devices: "设备", device: "设备", name: "名称", position: "已读到", lag: "落后", state: "状态", address: "地址",
  protocol: "协议", last_seen: "最近在线", online: "在线", offline: "离线", created: "创建时间", find: "查找用户", search: "查找", more: "更多", all: "全部",
  no_devices: "该用户没有已注册的设备。", no_user: "没有这个用户。", disconnect: "断开连接", forget: "移除", sure_forget: "移除这台设备？它尚未收到的内容将不再送达。",
  message: "消息的经过", conversation: "会话", number: "编号 (seq)", show: "查看", from: "发送者", sent_at: "发送时间", recipients: "接收者", item: "条目", read: "已读", not_read: "未读",
  acknowledged: "已确认", waiting: "等待中", recalled: "消息已被撤回。", edits: "编辑次数", reports: "执行结果", no_message: "没有这条消息。",
  connections: "连接", user: "用户", since: "开始时间", unacknowledged: "未确认", refresh: "刷新", node: "节点",
  not_answering: (nodes) => `以下节点没有响应，未列出其内容：${nodes}`,
  wrong_away: "服务器没有响应，以下内容已过时。请检查它是否在运行：日志会说明停止的原因。",
  wrong_store: (why) => `存储无法提交：${why}。恢复之前不会确认任何消息；mqtt-im doctor 和日志会说明如何修复。`,
  wrong_disk: (free) => `磁盘即将写满：仅剩 ${free}。请腾出空间，或缩短 store.retention_days：磁盘写满后不会确认任何消息。`,
  wrong_lag: (items) => `有设备落后 ${items} 条。可在“用户”中查看该用户的设备；若设备不再使用，请将其移除。`,
  wrong_dead: (count) => `${count} 个 Webhook 因多次失败被搁置。mqtt-im hooks list 会说明原因，mqtt-im hooks retry 会重新发送。`,
  wrong_queue: (jobs) => `${jobs} 个请求正在等待存储：请求来得比提交快。请检查磁盘还被什么占用。`,
  wrong_slow: (ms) => `提交缓慢：百分之一的提交需要 ${ms} 毫秒以上。请检查磁盘还被什么占用。`,
  wrong_logins: (count) => `最近一分钟有 ${count} 次登录被拒绝：有人在猜测密码，或有设备仍在使用旧密码。日志中有用户和地址。`,
  f_connections: "连接数", f_messages_per_second: "每秒消息", f_commit_p99_ms: "提交 p99", f_delivery_p99_ms: "送达 p99", f_ledger_queue_jobs: "等待存储",
  f_devices_behind: "落后的设备", f_memory_bytes: "内存", f_cpu_percent: "CPU", f_users_online: "在线用户", f_messages: "已提交消息", f_uptime_s: "运行时间", f_worst_lag_items: "最大落后",
  f_disk_free_bytes: "磁盘剩余", f_disk_bytes: "磁盘", f_open_files: "打开的文件", f_webhooks_waiting: "等待的 Webhook", f_webhooks_dead: "搁置的 Webhook", f_streams: "事件流",
  f_refusals: "拒绝总数", f_closes: "关闭总数", f_logins_refused: "登录被拒", f_store_failing: "存储", f_commit_p50_ms: "提交 p50", f_commit_p95_ms: "提交 p95",
  f_delivery_p50_ms: "送达 p50", f_delivery_p95_ms: "送达 p95", f_ts: "时钟", f_nodes: "节点数", f_nodes_not_answering: "没有响应的节点", well: "正常",
};

export const language = (navigator.languages || [navigator.language]).map((tag) => tag.slice(0, 2)).find((tag) => tag === "zh" || tag === "en") || "en";
const WORDS = language === "zh" ? ZH : EN;

export function say(key, ...values) {
  const found = WORDS[key] ?? EN[key];
  return typeof found === "function" ? found(...values) : found ?? key;
}

export function nameOf(figure) {
  return WORDS[`f_${figure}`] ?? figure.replace(/^(refusals|closes|connections)_/, "").replaceAll("_", " ");
}

const numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const dates = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });

/** A value with its unit, which a figure's name tells. */
export function shown(name, value) {
  if (value == null || value === "") return [name === "store_failing" ? say("well") : "–", ""];
  if (typeof value !== "number") return [String(value), ""];
  if (name === "ts") return [dates.format(value), ""];
  if (name.endsWith("_bytes")) return bytes(value);
  if (name.endsWith("_ms")) return [numbers.format(value), "ms"];
  if (name.endsWith("_percent")) return [numbers.format(value), "%"];
  if (name.endsWith("_s")) return duration(value);
  return [numbers.format(value), ""];
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) { value /= 1024; step += 1; }
  return [numbers.format(value), units[step]];
}

function duration(seconds) {
  if (seconds < 120) return [numbers.format(seconds), "s"];
  if (seconds < 7200) return [numbers.format(seconds / 60), "min"];
  return seconds < 172_800 ? [numbers.format(seconds / 3600), "h"] : [numbers.format(seconds / 86_400), "d"];
}

export const moment = (ms) => (ms ? dates.format(ms) : "–");
export const number = (value) => numbers.format(value);
