"use strict";
// The page talks to the same routes as everyone else. Titles are set as text, never as HTML.
const state = { history: [], models: [], hits: [], active: -1, token: "", asked: 0 };
const at = (id) => document.getElementById(id);

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

async function ask(path, body) {
  const headers = {};
  if (state.token) headers.Authorization = `Bearer ${state.token}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  if (answer.status === 401) at("token-form").hidden = false;
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `status ${answer.status}`);
  return content;
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

const shown = (item) => item.title || item.id;

// --- search -------------------------------------------------------------------------------------------------
let waiting = 0;
function closeHits() {
  state.hits = [];
  state.active = -1;
  at("hits").hidden = true;
  at("query").setAttribute("aria-expanded", "false");
  at("query").removeAttribute("aria-activedescendant");
}

function drawHits() {
  at("hits").replaceChildren(...state.hits.map((item, place) => make("li",
    { id: `hit-${place}`, role: "option", "aria-selected": String(place === state.active),
      onmousedown: (event) => { event.preventDefault(); take(item); } },
    shown(item), " ", make("small", {}, item.id))));
  if (!state.hits.length) at("hits").replaceChildren(make("li", { role: "option", "aria-disabled": "true" }, "no title has these words"));
  at("hits").hidden = false;
  at("query").setAttribute("aria-expanded", "true");
  if (state.active >= 0) {
    at("query").setAttribute("aria-activedescendant", `hit-${state.active}`);
    at(`hit-${state.active}`).scrollIntoView({ block: "nearest" });
  }
}

async function search() {
  const query = at("query").value.trim();
  const turn = ++waiting;
  if (!query) return closeHits();
  try {
    const found = await ask(`/items?limit=12&q=${encodeURIComponent(query)}`);
    if (turn !== waiting) return;
    state.hits = found.items;
    state.active = found.items.length ? 0 : -1;
    drawHits();
  } catch (error) { say(error.message, true); }
}

function keys(event) {
  if (event.key === "Escape") return closeHits();
  if (event.key === "Enter" && state.active >= 0) { event.preventDefault(); return take(state.hits[state.active]); }
  if (event.key === "Backspace" && !at("query").value && state.history.length) return drop(state.history.length - 1);
  if (!["ArrowDown", "ArrowUp"].includes(event.key) || !state.hits.length) return;
  event.preventDefault();
  const step = event.key === "ArrowDown" ? 1 : -1;
  state.active = (state.active + step + state.hits.length) % state.hits.length;
  drawHits();
}

// --- history ------------------------------------------------------------------------------------------------
function take(item) {
  state.history.push(item);
  at("query").value = "";
  waiting++;
  closeHits();
  changed();
  at("query").focus();
}

function drop(place) {
  state.history.splice(place, 1);
  changed();
  (at("history").querySelectorAll("button")[Math.min(place, state.history.length - 1)] || at("query")).focus();
}

function changed() {
  at("history").replaceChildren(...state.history.map((item, place) => make("li", {}, shown(item),
    make("button", { type: "button", "aria-label": `take ${shown(item)} out of the history`, onclick: () => drop(place) }, "×"))));
  at("history-empty").hidden = state.history.length > 0;
  at("why").hidden = true;
  compare();
}

// --- lists --------------------------------------------------------------------------------------------------
async function compare() {
  const turn = ++state.asked;
  if (!state.history.length) {
    at("columns").replaceChildren();
    at("differs").textContent = "";
    return say("");
  }
  const body = { history: state.history.map((item) => item.id), k: Number(at("k").value), exclude_seen: at("seen").checked, unknown: "skip" };
  const [column, value] = (at("category").value || "").split("\u0000");
  if (value) body.category = { [column]: [value] };
  const start = performance.now();
  try {
    const answer = await ask("/compare", body);
    if (turn === state.asked) draw(answer, performance.now() - start);
  } catch (error) {
    if (turn === state.asked) { at("columns").replaceChildren(); say(error.message, true); }
  }
}

function draw(answer, milliseconds) {
  const lists = answer.models.map((one) => ({ name: one.model, items: one.answers[0].items, ms: one.ms, model: one.model, note: noteOf(one.model) }));
  if (answer.teacher) lists.unshift({ name: "teacher", items: answer.teacher.items, note: "stored list of this history" });
  const ids = lists.map((list) => new Set(list.items.map((item) => item.id)));
  at("columns").replaceChildren(...lists.map((list, place) => drawList(list, ids.filter((_, other) => other !== place))));
  const pairs = [];
  for (let one = 0; one < lists.length; one++)
    for (let other = one + 1; other < lists.length; other++) {
      const both = [...ids[one]].filter((id) => ids[other].has(id)).length;
      pairs.push(`${lists[one].name} and ${lists[other].name} share ${both} of ${Math.max(ids[one].size, ids[other].size)}`);
    }
  at("differs").textContent = pairs.length ? `${pairs.join("; ")}. Marked: only in this list.` : "";
  say(`answered in ${milliseconds.toFixed(0)} ms with the network`);
}

function noteOf(name) {
  const model = state.models.find((one) => one.name === name);
  if (!model) return "";
  const facts = [model.config.student, model.config.strategy].filter((one) => typeof one === "string");
  return facts.join(" + ");
}

function drawList(list, others) {
  const rows = list.items.map((item) => {
    const own = others.length > 0 && others.every((ids) => !ids.has(item.id));
    const line = make("div", { className: "line" }, make("span", { className: "title" }, shown(item)));
    if (own) line.append(make("span", { className: "tag" }, "only here"));
    line.append(make("button", { type: "button", "aria-label": `add ${shown(item)} to the history`, title: "add to the history", onclick: () => take(item) }, "+"));
    if (list.model) line.append(make("button", { type: "button", "aria-label": `why ${shown(item)}`, onclick: () => explain(list.model, item) }, "why"));
    return make("li", { className: own ? "own" : "" }, line);
  });
  const time = list.ms === undefined ? "" : `${list.ms.toFixed(2)} ms`;
  const head = make("header", {}, make("h3", {}, list.name), make("span", { className: "quiet" }, time));
  return make("article", { className: "list", "aria-label": list.name }, head, make("p", { className: "quiet" }, list.note || ""),
    rows.length ? make("ol", {}, ...rows) : make("p", { className: "quiet" }, "nothing may be answered"));
}

async function explain(model, item) {
  try {
    const answer = await ask("/explain", { model, item: item.id, history: state.history.map((one) => one.id), unknown: "skip" });
    const most = Math.max(...answer.history.map((one) => Math.abs(one.effect)), 1e-9);
    const bars = answer.history.map((one) => make("div", { className: "bar" }, make("span", { className: "title" }, shown(one)),
      make("progress", { max: 1, value: Math.abs(one.effect) / most, "aria-label": "effect" }),
      make("span", {}, `${one.effect >= 0 ? "+" : "−"}${Math.abs(one.effect).toFixed(2)}`)));
    at("why-body").replaceChildren(make("p", {}, `${shown(answer.item)}, by ${model}: score ${answer.item.score.toFixed(2)}.`),
      make("p", { className: "quiet" }, bars.length ? "The score with each item of the history minus the score without it:" : "A history of one item cannot be taken apart."), ...bars);
    at("why").hidden = false;
    at("why").focus();
    at("why").scrollIntoView({ block: "nearest" });
  } catch (error) { say(error.message, true); }
}

// --- start --------------------------------------------------------------------------------------------------
async function start() {
  try {
    const known = await ask("/models");
    at("token-form").hidden = true;
    state.models = known.models;
    const options = [make("option", { value: "" }, "all items")];
    for (const [column, values] of Object.entries(known.models[0].categories))
      for (const value of values) options.push(make("option", { value: `${column}\u0000${value}` }, `${column}: ${value}`));
    at("category").replaceChildren(...options);
    at("category-label").hidden = options.length < 2;
    at("plot-list").replaceChildren(...known.plots.map((name) => make("img", { src: `/plots/${encodeURIComponent(name)}`, alt: name.replace(/\.\w+$/, "").replace(/[-_]/g, " "), loading: "lazy" })));
    at("plots").hidden = !known.plots.length || Boolean(state.token);
    if (known.examples) await examples();
    say(known.models.map((one) => `${one.name}: ${one.items.toLocaleString("en")} items`).join(" · "));
  } catch (error) { say(error.message, true); }
}

async function examples() {
  const { examples: rows } = await ask("/examples?limit=20");
  at("example-list").replaceChildren(...rows.map((row) => make("li", {}, make("button", { type: "button",
    onclick: () => { state.history = [...row.history]; changed(); } },
    row.history.map(shown).join(" → ") + (row.target ? ` (then: ${shown(row.target)})` : "")))));
  at("examples").hidden = !rows.length;
}

document.addEventListener("DOMContentLoaded", () => {
  let timer = 0;
  at("query").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 80); });
  at("query").addEventListener("keydown", keys);
  at("query").addEventListener("blur", closeHits);
  at("clear").addEventListener("click", () => { state.history = []; changed(); at("query").focus(); });
  for (const id of ["k", "seen", "category"]) at(id).addEventListener("change", compare);
  at("token-form").addEventListener("submit", (event) => { event.preventDefault(); state.token = at("token").value.trim(); start(); });
  start();
});
