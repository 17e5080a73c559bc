"use strict";
// Which pictures are shown. The address's fragment is the whole state, so that any view is a link.

const DEFAULTS = {
  experiment: "", flipped: "", search: "", from: "", to: "", target: "", label: "", correct: "",
  sort: "name", order: "up", page: "1", view: "pair", likeliest: "", compare: "", picture: "",
};
const RANGES = {
  before: ["Confidence before, %", 100], after: ["Confidence after, %", 100],
  l1: ["Mean change (l1)", 1], mask_area: ["Mask area, %", 100],
};
for (const name of Object.keys(RANGES)) Object.assign(DEFAULTS, { [`${name}_min`]: "", [`${name}_max`]: "" });
const SAME_PICTURES = ["page", "view", "likeliest", "compare", "picture"]; // what leaves the selection as it is

function readState() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const state = { ...DEFAULTS, experiment: about.experiments[0].name };
  for (const name of Object.keys(DEFAULTS)) if (name in given) state[name] = given[name];
  if (!about.experiments.some(({ name }) => name === state.experiment)) state.experiment = about.experiments[0].name;
  return state;
}

/** The fragment of the state with some changes. */
function fragment(state, changes) {
  const next = { ...state, ...changes };
  if (!Object.keys(changes).every((name) => SAME_PICTURES.includes(name))) next.page = DEFAULTS.page;
  const usual = (name) => (name === "experiment" ? about.experiments[0].name : DEFAULTS[name]);
  const told = Object.entries(next).filter(([name, value]) => name in DEFAULTS && value !== usual(name));
  return `#${new URLSearchParams(told.length ? told : { experiment: next.experiment })}`;
}

/** Numbers of one fact of all pictures: a column, or one of the values. */
function column(experiment, name) {
  return experiment[name] || experiment.values[name];
}

/** Indices of the pictures that pass, in order. */
function select(experiment, state) {
  const tests = [];
  for (const [name, key] of [["from", "prediction"], ["to", "cf_prediction"], ["target", "target"], ["label", "label"]]) {
    if (state[name] !== "") tests.push((i) => experiment[key][i] === Number(state[name]));
  }
  if (state.flipped) tests.push((i) => flipped(experiment, i) === (state.flipped === "yes"));
  if (state.correct) {
    tests.push((i) => about.folders[experiment.folder[i]].startsWith("CC") === (state.correct === "yes"));
  }
  for (const [name, [, scale]] of Object.entries(RANGES)) {
    const values = column(experiment, name);
    for (const [end, sign] of [["min", 1], ["max", -1]]) {
      const bound = state[`${name}_${end}`];
      if (bound === "" || !values || Number.isNaN(Number(bound))) continue;
      tests.push((i) => values[i] !== null && sign * (scale * values[i] - Number(bound)) >= -1e-9);
    }
  }
  const wanted = state.search.toLowerCase();
  if (wanted) {
    tests.push((i) => `${experiment.name[i]}\n${experiment.file[i]}`.toLowerCase().includes(wanted));
  }
  const found = experiment.name.map((_, i) => i).filter((i) => tests.every((test) => test(i)));
  return arrange(experiment, found, state);
}

/** Sorted; pictures without the value come last in either order. */
function arrange(experiment, found, state) {
  const sign = state.order === "down" ? -1 : 1;
  const values = state.sort === "name" ? null : column(experiment, state.sort);
  if (!values) return sign < 0 ? found.reverse() : found; // they come by name
  return found.sort((a, b) => {
    if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
    return sign * (values[a] - values[b]) || a - b;
  });
}

/** Fill the form's choices for an experiment. */
function fillForm(form, experiment) {
  const { labels } = about.experiments[experiment.number];
  const keys = { name: "name", before: "confidence before", after: "confidence after", ...labels };
  form.elements.sort.replaceChildren(...Object.entries(keys).map(([key, text]) => el("option", { value: key }, `by ${text}`)));
  for (const [name, key] of [["from", "prediction"], ["to", "cf_prediction"], ["target", "target"], ["label", "label"]]) {
    const counts = new Map();
    for (const label of experiment[key]) counts.set(label, (counts.get(label) || 0) + 1);
    const options = [...counts].sort(([a], [b]) => a - b).map(([label, count]) =>
      el("option", { value: label }, `${label < 0 && name === "target" ? "any other" : className(experiment, label)} (${count})`));
    form.elements[name].replaceChildren(el("option", { value: "" }, "any class"), ...options);
  }
  const ranges = Object.entries(RANGES).filter(([name]) => column(experiment, name)).map(([name, [text]]) =>
    el("fieldset", { class: "range" }, el("legend", {}, text),
      el("input", { type: "number", step: "any", name: `${name}_min`, placeholder: "from", "aria-label": `${text}, at least` }),
      el("input", { type: "number", step: "any", name: `${name}_max`, placeholder: "to", "aria-label": `${text}, at most` })));
  document.getElementById("ranges").replaceChildren(...ranges);
  const flips = experiment.name.reduce((sum, _, i) => sum + flipped(experiment, i), 0);
  const counts = { "": experiment.name.length, yes: flips, no: experiment.name.length - flips };
  for (const element of form.querySelectorAll("[data-count]")) element.textContent = counts[element.dataset.count].toLocaleString("en");
}

/** Make the form show the state. */
function showState(form, state) {
  for (const [name, value] of Object.entries(state)) {
    const field = form.elements[name];
    if (!field) continue;
    if (field.type === "checkbox") field.checked = value === "yes";
    else if (field.value !== value && field !== document.activeElement) field.value = value;
  }
  const folded = form.querySelector("details");
  if ([...folded.querySelectorAll("[name]")].some(({ name }) => state[name] !== "")) folded.open = true;
}
