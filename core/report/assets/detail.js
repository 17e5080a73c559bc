"use strict";
// One picture, large.

function drawDetail(all, experiment, found, state) {
  const dialog = document.getElementById("detail");
  const i = experiment.index.get(state.picture);
  if (i === undefined) {
    dialog.close();
    return;
  }
  const at = found.indexOf(i);
  document.getElementById("detail-title").replaceChildren(named(experiment.name[i]));
  document.getElementById("place").textContent = at < 0 ? "" : `${numeral(at + 1)} of ${numeral(found.length)}`;
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.disabled = neighbour(found, at, Number(button.dataset.step)) === undefined;
  }
  document.getElementById("stage").replaceChildren(stage(experiment, i), facts(all, experiment, i, state));
  if (!dialog.open) {
    dialog.showModal();
    document.getElementById("detail-title").focus();
  }
}

function neighbour(found, at, step) {
  return at < 0 ? undefined : found[at + step];
}

function stage(experiment, i) {
  const [before, after] = captions(experiment, i);
  const plain = (kind, text) =>
    el("figure", frame("div.frame", whole(experiment, kind, i, text)), el("figcaption", kind));
  const small = el("div.small-frames", plain("original", before), plain("counterfactual", after),
    about.sheets.mask ? adjustable(experiment, i, "mask") : "", adjustable(experiment, i, "difference"));
  const made = el("div.stage", LAYERS.slider(experiment, i, whole), small);
  made.style.setProperty("--ratio", about.sheets.original.ratio);
  return made;
}

function facts(all, experiment, i, state) {
  const alone = fragment({ ...DEFAULTS, experiment: state.experiment }, { picture: state.picture });
  const rows = factRows(experiment, i).flatMap(([name, value]) => [el("dt", name), el("dd", el("bdi", value))]);
  return el("div.facts", verdict(experiment, i), el("p", outcome(experiment, i)), likeliest(experiment, i),
    el("dl", ...rows), comparison(all, experiment, i, state),
    el("p", el("a", { href: alone }, "Link to this picture")));
}

function factRows(experiment, i) {
  const free = experiment.target[i] < 0 && experiment.prediction[i] >= 0;
  const target = free ? "any other class" : className(experiment, experiment.target[i]);
  const rows = [["Target", target], ["True class", className(experiment, experiment.label[i])]];
  for (const [key, text] of Object.entries(about.experiments[experiment.number].labels)) {
    const value = experiment.values[key][i];
    const shown = /(prob|area)$/.test(key) ? percentage(value) : String(Number(value?.toPrecision(4)));
    if (value !== null) rows.push([text, shown]);
  }
  return experiment.file[i] ? [...rows, ["File", experiment.file[i]]] : rows;
}

/** The counterfactuals of every experiment; each leads to its own. */
function comparison(all, experiment, i, state) {
  const there = everywhere(all, experiment, i);
  if (there.length < 2) return "";
  const items = there.map(([other, j]) => {
    const href = fragment(state, { experiment: experimentName(other), picture: state.picture });
    const title = el("a", { href, "aria-current": other === experiment }, named(experimentName(other)));
    const picture = frame("div.frame", whole(other, "counterfactual", j, captions(other, j)[1]));
    return el("li", picture, title, verdict(other, j), flipped(other, j) ? "" : outcome(other, j));
  });
  const name = "The same picture in every experiment";
  return el("section.comparison", { "aria-label": name }, el("h3", "In every experiment"), el("ul", ...items));
}
