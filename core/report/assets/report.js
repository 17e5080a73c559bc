"use strict";
// Start, the way from the address to what is shown, and the events.

const form = document.getElementById("filters");
const detail = document.getElementById("detail");
let all = []; // every experiment's columns
let state = null;
let experiment = null;
let found = []; // indices of the pictures that pass, in order

/** Show what the address says; draw again only what changed. */
function show() {
  if (state && !location.hash.includes("=") && location.hash !== "") return; // an anchor of a section
  const old = state;
  state = readState();
  const changed = (name) => !old || old[name] !== state[name];
  if (changed("experiment")) {
    experiment = all[about.experiments.findIndex(({ name }) => name === state.experiment)];
    fillForm(form, experiment);
    for (const part of document.querySelectorAll("[data-experiment]")) part.hidden = Number(part.dataset.experiment) !== experiment.number;
  }
  showState(form, state);
  if (Object.keys(DEFAULTS).some((name) => !SAME_PICTURES.includes(name) && changed(name))) found = select(experiment, state);
  if (Object.keys(DEFAULTS).some((name) => name !== "picture" && changed(name))) drawCards(all, experiment, found, state);
  if (changed("view")) showStrength(state.view);
  drawDetail(all, experiment, found, state);
}

/** Go to the state with some changes; what is typed leaves no trail of steps back. */
function go(changes, { step = false } = {}) {
  const next = fragment(state, changes);
  if (step) location.hash = next;
  else location.replace(next);
}

function move(step) {
  const next = neighbour(found, found.indexOf(experiment.index.get(state.picture)), step);
  if (next === undefined) return;
  go({ picture: experiment.name[next], page: String(Math.floor(found.indexOf(next) / PER_PAGE) + 1) });
}

let waiting = 0;
let pending = {}; // what was typed since the address last changed
form.addEventListener("submit", (event) => event.preventDefault());
function take({ target }) {
  if (!target.name) return;
  const value = target.type === "checkbox" ? (target.checked ? target.value : "") : target.value;
  pending[target.name] = value;
  clearTimeout(waiting);
  waiting = setTimeout(() => { go(pending); pending = {}; }, ["search", "number"].includes(target.type) ? 150 : 0);
}
form.addEventListener("input", take);
form.addEventListener("change", take);
document.querySelector("select[name=experiment]")?.addEventListener("change", take);
document.getElementById("reset").addEventListener("click", () => {
  const { experiment: name, view, likeliest: tables, compare } = state;
  for (const field of form.querySelectorAll("input[type=search], input[type=number]")) field.value = "";
  go({ ...DEFAULTS, experiment: name, view, likeliest: tables, compare });
});
document.getElementById("pages").addEventListener("click", ({ target }) => {
  if (!target.dataset.step) return;
  go({ page: String(Number(form.elements.page.value) + Number(target.dataset.step)) }, { step: true });
  document.getElementById("pictures").scrollIntoView();
});
document.getElementById("pages").addEventListener("change", ({ target }) => go({ page: target.value }));
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-show]")) setTimeout(() => document.getElementById("pictures").scrollIntoView());
  const pair = event.target.closest("#cards .pair, #cards .mask, #cards .difference");
  if (pair) pair.closest("li").querySelector("a.title").click();
});
detail.addEventListener("click", ({ target }) => {
  const { go: step } = target.closest("[data-go]")?.dataset ?? {};
  if (step === "close" || target === detail) detail.close();
  else if (step) move(Number(step));
});
detail.addEventListener("close", () => {
  if (state.picture) go({ picture: "" });
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const step = { ArrowLeft: -1, k: -1, ArrowRight: 1, j: 1 }[event.key];
  if (step && detail.open) move(step);
  else if (step && "jk".includes(event.key)) focusCard(step);
  else if (event.key === "/" && !detail.open) form.elements.search.focus();
  else return;
  event.preventDefault();
});

function focusCard(step) {
  const titles = [...document.querySelectorAll("#cards a.title")];
  titles[Math.min(titles.length - 1, Math.max(0, titles.indexOf(document.activeElement) + step))]?.focus();
}

const theme = document.getElementById("theme");
function setTheme(value) {
  document.documentElement.style.colorScheme = value;
  theme.setAttribute("aria-pressed", value === "dark");
}
theme.addEventListener("click", () => {
  const dark = (document.documentElement.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  setTheme(dark ? "light" : "dark");
  try { localStorage.setItem("theme", dark ? "light" : "dark"); } catch { /* a page from disk may have no storage */ }
});
try { if (localStorage.getItem("theme")) setTheme(localStorage.getItem("theme")); } catch { /* as above */ }

async function start() {
  about = await load("about");
  if (!about.experiments.length) return;
  all = await Promise.all(about.experiments.map((_, i) => load(`experiment-${i}`)));
  all.forEach((columns, number) => Object.assign(columns, { number, index: new Map(columns.name.map((name, i) => [name, i])) }));
  addEventListener("hashchange", show);
  show();
}
start().catch((error) => { document.getElementById("count").textContent = `The pictures cannot be shown: ${error.message}`; });
