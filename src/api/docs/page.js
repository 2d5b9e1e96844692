// Draws the description of the API. Everything comes from the same server.
"use strict";

const element = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

const nameOf = (schema = {}) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array" || schema.type?.includes?.("array")) return `list of ${nameOf(schema.items)}`;
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map(nameOf).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  return [schema.type ?? "object"].flat().join(" or ");
};

const table = (head, rows) => {
  const cells = (tag, row) => row.map((cell) => element(tag, {}, cell));
  const lines = rows.map((row) => element("tr", {}, ...cells("td", row)));
  return element("table", {}, element("tr", {}, ...cells("th", head)), ...lines);
};

const operation = (path, method, what) => {
  const summary = element("summary", {},
    element("span", { class: "method" }, method.toUpperCase()), element("code", {}, path), ` ${what.summary ?? ""}`);
  const parts = [summary];
  if (what.description) parts.push(element("p", {}, what.description));
  if (what.parameters?.length) {
    parts.push(table(["parameter", "type", ""], what.parameters.map((p) =>
      [p.name + (p.required ? " (required)" : ""), nameOf(p.schema), p.description ?? ""])));
  }
  const body = what.requestBody?.content?.["application/json"]?.schema;
  if (body) parts.push(element("p", {}, `body: ${nameOf(body)}`));
  parts.push(table(["status", "body", ""], Object.entries(what.responses ?? {}).map(([status, answer]) => {
    const content = Object.entries(answer.content ?? {}).map(([type, c]) => `${type} ${c.schema ? nameOf(c.schema) : ""}`);
    return [status, content.join(", "), answer.description ?? ""];
  })));
  return element("details", {}, ...parts);
};

const draw = (description) => {
  const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, what]) => operation(path, method, what)));
  const schemas = Object.entries(description.components?.schemas ?? {}).map(([name, schema]) =>
    element("details", {}, element("summary", {}, element("code", {}, name), ` ${schema.description ?? ""}`),
      element("pre", {}, JSON.stringify(schema, null, 2))));
  document.getElementById("operations").replaceChildren(
    ...operations, element("h2", {}, "Schemas"), ...schemas);
};

fetch("/openapi.json").then((answer) => answer.json()).then(draw).catch((error) => {
  document.getElementById("operations").textContent = `It cannot be read: ${error}`;
});
