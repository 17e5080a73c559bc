"use strict";
// Start, the way from the address to what is shown, and the events.

const form = document.getElementById("filters");
const detail = document.getElementById("detail");
const cards = document.getElementById("cards");
let all = []; // every experiment's columns
let state = null;
let experiment = null;
let found = []; // indices of the pictures that pass, in order

/** Show what the address says; draw again only what changed. */
function show() {
  if (state && location.hash !== "" && !location.hash.includes("=")) return; // an anchor of a section
  const old = state;
  state = readState();
  const changed = Object.keys(state).filter((name) => !old || old[name] !== state[name]);
  if (changed.includes("experiment")) showExperiment(state.experiment);
  showState(form, state);
  if (changed.some((name) => !SAME_PICTURES.includes(name))) found = select(experiment, state);
  if (changed.some((name) => name !== "picture")) drawCards(all, experiment, found, state);
  if (changed.includes("view")) showStrength(state.view);
  drawDetail(all, experiment, found, state);
  if (parent !== window) parent.postMessage({ picture: state.picture }, "*"); // within the app, which may ask about it
}

function showExperiment(wanted) {
  const number = about.experiments.findIndex(({ name }) => name === wanted);
  experiment = all[number];
  fillForm(form, experiment);
  for (const part of document.querySelectorAll("[data-experiment]")) {
    part.hidden = Number(part.dataset.experiment) !== number;
  }
}

/** Go to the state with some changes; they leave no trail of steps back. */
function go(changes) {
  location.replace(fragment(state, changes));
}

/** To the picture before or after the one that is shown. */
function move(step) {
  const at = found.indexOf(experiment.index.get(state.picture));
  const next = neighbour(found, at, step);
  if (next === undefined) return;
  go({ picture: experiment.name[next], page: String(Math.floor((at + step) / PER_PAGE) + 1) });
}

let waiting = 0;
let pending = {}; // what was chosen since the address last changed
function take({ target }) {
  if (!target.name) return;
  pending[target.name] = target.type === "checkbox" && !target.checked ? "" : target.value;
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    go(pending);
    pending = {};
  }, ["search", "number"].includes(target.type) ? 150 : 0);
}
form.addEventListener("input", take);
form.addEventListener("change", take);
form.addEventListener("submit", (event) => event.preventDefault());
document.querySelector("select[name=experiment]")?.addEventListener("change", take);
document.querySelector("input[name=page]").addEventListener("change", take);

document.getElementById("reset").addEventListener("click", () => {
  for (const field of form.querySelectorAll("input[type=search], input[type=number]")) field.value = "";
  const { experiment: name, view, likeliest: tables, compare } = state;
  go({ ...DEFAULTS, experiment: name, view, likeliest: tables, compare });
});
document.getElementById("pages").addEventListener("click", ({ target }) => {
  if (!target.dataset.step) return;
  go({ page: String(Number(form.elements.page.value) + Number(target.dataset.step)) });
  document.getElementById("pictures").scrollIntoView();
});
document.addEventListener("click", ({ target }) => {
  if (target.closest("[data-show]")) setTimeout(() => document.getElementById("pictures").scrollIntoView());
});
cards.addEventListener("click", ({ target }) => {
  if (target.closest(".pair, .mask, .difference")) target.closest("li").querySelector("a.title").click();
});
detail.addEventListener("click", ({ target }) => {
  const step = target.closest("[data-step]")?.dataset.step;
  if (step) move(Number(step));
  else if (target === detail || target.closest(".close")) detail.close(); // beside it, or on its cross
});
detail.addEventListener("close", () => {
  const name = state.picture;
  if (name !== "") go({ picture: "" });
  titles().find((title) => title.textContent === name)?.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const step = { ArrowLeft: -1, k: -1, ArrowRight: 1, j: 1 }[event.key];
  if (step && detail.open) move(step);
  else if (event.key === "j" || event.key === "k") walk(step);
  else if (event.key === "/" && !detail.open) form.elements.search.focus();
  else return;
  event.preventDefault();
});

function titles() {
  return [...cards.querySelectorAll("a.title")];
}

/** Through the list of cards. */
function walk(step) {
  const at = titles().indexOf(document.activeElement) + step;
  titles()[Math.min(titles().length - 1, Math.max(0, at))]?.focus();
}

async function start() {
  about = await load("about");
  if (about.experiments.length > 1) DEFAULTS.compare = "yes";
  document.querySelector("[name=view][value=mask]").parentElement.hidden = !about.sheets.mask;
  all = await Promise.all(about.experiments.map((_, number) => load(`experiment-${number}`)));
  for (const [number, columns] of all.entries()) {
    Object.assign(columns, { number, index: new Map(columns.name.map((name, i) => [name, i])) });
  }
  addEventListener("hashchange", show);
  show();
}
start().catch((error) => {
  document.getElementById("count").textContent = `The pictures cannot be shown: ${error.message}`;
});
