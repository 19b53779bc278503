// Shows the OpenAPI description of this server as a page of text.

const page = document.getElementById("page");

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function table(rows) {
  const cells = (row) => element("tr", ...row.map((cell) => element("td", cell)));
  const scroll = element("div", element("table", ...rows.map(cells)));
  scroll.className = "scroll";
  return scroll;
}

function resolved(schema, description) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((found, name) => found[name], description);
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  return schema.format === "binary" ? "file" : schema.type ?? "any";
}

function limits(schema) {
  const own = [schema, ...(schema.anyOf ?? [])];
  const found = (name) => own.map((each) => each[name]).find((value) => value !== undefined);
  const [least, most] = [found("minimum"), found("maximum")];
  const range = least === undefined ? "" : `${least} to ${most}`;
  const start = schema.default === undefined || schema.default === null ? "" : `default ${schema.default}`;
  return [schema.description ?? "", range, start].filter(Boolean).join("; ");
}

function fieldRows(schema) {
  return Object.entries(schema.properties ?? {}).map(([name, field]) => [
    element("code", name), typeOf(field), limits(field),
  ]);
}

function operation(path, method, about, description) {
  const parts = [element("h2", element("b", method.toUpperCase()), element("code", path)), element("p", about.summary ?? "")];
  if (about.parameters) {
    const rows = about.parameters.map((each) => [element("code", each.name), typeOf(each.schema), limits(each.schema)]);
    parts.push(element("h3", "Parameters"), table(rows));
  }
  const form = about.requestBody?.content["multipart/form-data"]?.schema;
  if (form) parts.push(element("h3", "Form"), table(fieldRows(resolved(form, description))));
  const answer = about.responses[200]?.content?.["application/json"]?.schema;
  if (answer) {
    const model = resolved(answer, description);
    parts.push(element("h3", `Answer: ${typeOf(answer)}`), table(fieldRows(model)));
  }
  return parts;
}

function models(description) {
  return Object.entries(description.components.schemas).filter(([name]) => !name.includes("Validation"))
    .flatMap(([name, schema]) => [element("h2", element("code", name)), element("p", schema.description ?? ""), table(fieldRows(schema))]);
}

try {
  const description = await (await fetch("/api/openapi.json")).json();
  const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, about]) => operation(path, method, about, description)));
  const link = (address, text) => Object.assign(element("a", text), { href: address });
  page.replaceChildren(
    element("h1", `API of ${description.info.title} ${description.info.version}`),
    element("p", description.info.description, " ", link("/", "Search on the page"), ", or read ", link("/api/openapi.json", "the description for programs"), "."),
    ...operations, element("h1", "Models"), ...models(description));
} catch {
  page.append(element("p", "The description cannot be loaded. Is the server still running?"));
}
