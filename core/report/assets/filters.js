"use strict";
// Which pictures are shown. The address's fragment is the whole state, so that any view is a link.

const DEFAULTS = {
  experiment: "", flipped: "", search: "", from: "", to: "", target: "", label: "", correct: "",
  sort: "name", order: "up", page: "1", view: "pair", likeliest: "", compare: "", picture: "",
};
const CLASSES = { from: "prediction", to: "cf_prediction", target: "target", label: "label" };
const RANGES = {
  before: { text: "Confidence before, %", scale: 100 },
  after: { text: "Confidence after, %", scale: 100 },
  l1: { text: "Mean change (l1)", scale: 1 },
  mask_area: { text: "Mask area, %", scale: 100 },
};
for (const name of Object.keys(RANGES)) Object.assign(DEFAULTS, { [`${name}_min`]: "", [`${name}_max`]: "" });
const SAME_PICTURES = ["page", "view", "likeliest", "compare", "picture"]; // what leaves the selection as it is

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = Object.fromEntries(Object.entries(DEFAULTS).map(([name, usual]) => [name, given.get(name) ?? usual]));
  const names = about.experiments.map(({ name }) => name);
  return {
    ...state,
    experiment: names.includes(state.experiment) ? state.experiment : names[0],
    view: Object.hasOwn(LAYERS, state.view) ? state.view : DEFAULTS.view,
  };
}

/** The fragment of the state with some changes; what is as usual is left out. */
function fragment(state, changes) {
  const next = { ...state, ...changes };
  if (!Object.keys(changes).every((name) => SAME_PICTURES.includes(name))) next.page = DEFAULTS.page;
  const usual = { ...DEFAULTS, experiment: about.experiments[0].name };
  const told = Object.keys(DEFAULTS).filter((name) => next[name] !== usual[name]);
  const names = told.length ? told : ["experiment"]; // an empty fragment would scroll to the top
  return `#${new URLSearchParams(names.map((name) => [name, next[name]]))}`;
}

/** Numbers of one fact of all pictures: a column, or one of the values; undefined where it is not known. */
function column(experiment, name) {
  return experiment[name] ?? experiment.values[name];
}

/** Indices of the pictures that pass, in order. */
function select(experiment, state) {
  const tests = [...classTests(experiment, state), ...rangeTests(experiment, state)];
  if (state.flipped) tests.push((i) => flipped(experiment, i) === (state.flipped === "yes"));
  if (state.correct) {
    tests.push((i) => about.folders[experiment.folder[i]].startsWith("CC") === (state.correct === "yes"));
  }
  const wanted = state.search.toLowerCase();
  if (wanted) tests.push((i) => `${experiment.name[i]}\n${experiment.file[i]}`.toLowerCase().includes(wanted));
  const found = [...experiment.name.keys()].filter((i) => tests.every((test) => test(i)));
  return arrange(experiment, found, state);
}

function classTests(experiment, state) {
  const asked = Object.entries(CLASSES).filter(([name]) => state[name] !== "");
  return asked.map(([name, key]) => (i) => experiment[key][i] === Number(state[name]));
}

function rangeTests(experiment, state) {
  const tests = [];
  for (const [name, { scale }] of Object.entries(RANGES)) {
    const values = column(experiment, name);
    const passes = (end, test) => {
      const bound = Number(state[`${name}_${end}`]);
      if (state[`${name}_${end}`] === "" || !values || Number.isNaN(bound)) return;
      tests.push((i) => values[i] !== null && test(scale * values[i], bound));
    };
    passes("min", (value, bound) => value >= bound - 1e-9);
    passes("max", (value, bound) => value <= bound + 1e-9);
  }
  return tests;
}

/** Sorted; pictures without the value come last in either order. */
function arrange(experiment, found, { sort, order }) {
  const sign = order === "down" ? -1 : 1;
  const values = sort === "name" ? undefined : column(experiment, sort);
  if (!values) return sign < 0 ? found.reverse() : found; // they come by name
  return found.sort((a, b) => {
    if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
    return sign * (values[a] - values[b]) || a - b;
  });
}

/** Fill the form's choices for an experiment. */
function fillForm(form, experiment) {
  const { labels } = about.experiments[experiment.number];
  const option = (value, text) => el("option", { value }, text);
  const sorts = { name: "name", before: "confidence before", after: "confidence after", ...labels };
  form.elements.sort.replaceChildren(...Object.entries(sorts).map(([key, text]) => option(key, `by ${text}`)));
  for (const [name, key] of Object.entries(CLASSES)) {
    const counts = new Map();
    for (const label of experiment[key]) counts.set(label, (counts.get(label) ?? 0) + 1);
    const text = (label) => (label < 0 && name === "target" ? "any other" : className(experiment, label));
    const present = [...counts.keys()].sort((a, b) => a - b);
    const options = present.map((label) => option(label, `${text(label)} (${numeral(counts.get(label))})`));
    form.elements[name].replaceChildren(option("", "any class"), ...options);
  }
  const ranges = Object.entries(RANGES).filter(([name]) => column(experiment, name));
  document.getElementById("ranges").replaceChildren(...ranges.map(([name, { text }]) => rangeFields(name, text)));
  const flips = [...experiment.name.keys()].filter((i) => flipped(experiment, i)).length;
  const counts = { "": experiment.name.length, yes: flips, no: experiment.name.length - flips };
  for (const place of form.querySelectorAll("[data-count]")) place.textContent = numeral(counts[place.dataset.count]);
}

function rangeFields(name, text) {
  const usual = { type: "number", step: "any" };
  return el("fieldset.range", el("legend", text),
    el("input", { ...usual, name: `${name}_min`, placeholder: "from", "aria-label": `${text}, at least` }),
    el("input", { ...usual, name: `${name}_max`, placeholder: "to", "aria-label": `${text}, at most` }));
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
