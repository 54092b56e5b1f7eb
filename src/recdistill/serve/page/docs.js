"use strict";
// Draws openapi.json. Nothing is fetched from anywhere else.
function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
}

function typeOf(schema, all) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(one, all)).join(" or ");
  if (schema.enum || schema.const) return (schema.enum || [schema.const]).map((one) => JSON.stringify(one)).join(", ");
  if (schema.type === "array") return `list of ${typeOf(schema.items, all)}`;
  if (schema.type === "object" && schema.additionalProperties) return `object of ${typeOf(schema.additionalProperties, all)}`;
  return schema.type || "any";
}

function fields(schema, all) {
  const rows = Object.entries(schema.properties || {}).map(([name, one]) => {
    const needed = (schema.required || []).includes(name);
    const rest = one.default === undefined ? (needed ? "needed" : "") : `default ${JSON.stringify(one.default)}`;
    const line = make("li", "", make("code", name), `: ${typeOf(one, all)}${rest ? ` (${rest})` : ""}`);
    if (one.description) line.append(". ", one.description);
    return line;
  });
  return make("ul", "", ...rows);
}

async function draw() {
  const spec = await (await fetch("/openapi.json")).json();
  const all = spec.components.schemas;
  const parts = [];
  for (const [path, methods] of Object.entries(spec.paths))
    for (const [method, route] of Object.entries(methods)) {
      parts.push(make("h2", `${method.toUpperCase()} ${path}`), make("p", route.description || route.summary));
      if (route.parameters) parts.push(make("h3", "Query"), make("ul", "", ...route.parameters.map((one) =>
        make("li", "", make("code", one.name), `: ${typeOf(one.schema, all)}. ${one.description || ""}`))));
      const body = route.requestBody && route.requestBody.content["application/json"].schema;
      if (body) parts.push(make("h3", typeOf(body, all)), fields(all[typeOf(body, all)], all));
      const good = route.responses["200"].content;
      const answer = good && good["application/json"] && typeOf(good["application/json"].schema, all);
      if (answer && all[answer]) parts.push(make("h3", `Answer: ${answer}`), fields(all[answer], all));
    }
  parts.push(make("h2", "Try it"), make("pre",
    `curl -s ${location.origin}/recommend -H 'Content-Type: application/json' -d '{"history": ["a title or id"], "k": 5, "unknown": "skip"}'`));
  document.getElementById("routes").replaceChildren(...parts);
}

document.addEventListener("DOMContentLoaded", draw);
