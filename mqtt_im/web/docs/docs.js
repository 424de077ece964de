// Shows openapi.json: every operation with its parameters, its body and its answers. Text is only ever set as text.

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const resolved = (api, schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema) ?? {};

const typeOf = (api, schema) => {
  const found = resolved(api, schema);
  if (found.anyOf) return found.anyOf.map((part) => typeOf(api, part)).join(" or ");
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.type === "array") return `list of ${typeOf(api, found.items)}`;
  return [found.type ?? "any value"].flat().join(" or ");
};

const table = (rows) =>
  element("table", {}, element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))))));

const fields = (api, schema) => {
  const found = resolved(api, schema);
  const required = new Set(found.required ?? []);
  return Object.entries(found.properties ?? {}).map(([name, field]) => [
    element("code", {}, name),
    typeOf(api, field),
    required.has(name) ? "required" : "",
  ]);
};

const operation = (api, path, method, told) => {
  const parts = [];
  if (told.parameters?.length) {
    parts.push(element("h3", {}, "Parameters"));
    parts.push(table(told.parameters.map((one) => [element("code", {}, one.name), one.in, typeOf(api, one.schema), one.description ?? ""])));
  }
  const body = told.requestBody?.content?.["application/json"]?.schema;
  if (body) parts.push(element("h3", {}, "Body"), table(fields(api, body)));
  parts.push(element("h3", {}, "Answers"));
  for (const [status, answer] of Object.entries(told.responses)) {
    const schema = answer.content?.["application/json"]?.schema;
    if (status < 400) parts.push(element("p", {}, element("code", {}, status), ` ${answer.description}`));
    if (schema) parts.push(table(fields(api, schema)));
  }
  const refused = Object.keys(told.responses).filter((status) => status >= 400);
  parts.push(element("p", {}, `Refused with ${refused.join(", ")}, as application/problem+json.`));
  const title = element("summary", {}, element("span", { class: "method" }, method), element("code", {}, path), ` ${told.summary ?? ""}`);
  return element("details", { "data-find": `${method} ${path} ${told.summary}`.toLowerCase() }, title, element("div", {}, ...parts));
};

const main = document.getElementById("operations");
const api = await (await fetch("/api/v1/openapi.json")).json();
document.getElementById("about").prepend(`${api.info.title} ${api.info.version}. `);
const groups = new Map();
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, told] of Object.entries(methods)) {
    const name = told.tags?.[0] ?? "other";
    if (!groups.has(name)) groups.set(name, element("section", {}, element("h2", {}, name)));
    groups.get(name).append(operation(api, path, method, told));
  }
}
main.append(...groups.values());

document.getElementById("find").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const one of document.querySelectorAll("details")) one.hidden = !one.dataset.find.includes(wanted);
});
