"use strict";
// One picture, large.

function drawDetail(all, experiment, found, state) {
  const dialog = document.getElementById("detail");
  const i = experiment.index.get(state.picture);
  if (state.picture === "" || i === undefined) {
    if (dialog.open) dialog.close();
    return;
  }
  const at = found.indexOf(i);
  document.getElementById("detail-title").replaceChildren(el("bdi", {}, experiment.name[i]));
  document.getElementById("place").textContent = at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${found.length.toLocaleString("en")}`;
  for (const button of dialog.querySelectorAll("[data-go]")) {
    if (button.dataset.go !== "close") button.disabled = neighbour(found, at, Number(button.dataset.go)) === undefined;
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
  const large = layers(experiment, i, "slider", whole);
  const mask = adjustable(layers(experiment, i, "mask", whole), "mask");
  const difference = adjustable(layers(experiment, i, "difference", whole), "difference");
  const plain = (kind, label) => {
    const frame = el("div", { class: "frame" }, whole(experiment, kind, i, label));
    frame.style.aspectRatio = about.sheets.original.ratio;
    return el("figure", {}, frame, el("figcaption", {}, kind));
  };
  const made = el("div", { class: "stage" }, large, el("div", { class: "small-frames" },
    plain("original", before), plain("counterfactual", after), mask, difference));
  made.style.setProperty("--ratio", about.sheets.original.ratio);
  return made;
}

/** A frame with its opacity or gain below. */
function adjustable(frame, view) {
  const [text, usual, rule] = STRENGTH[view];
  const range = el("input", { type: "range", min: 0, max: 100, value: usual, "aria-label": `${view}: ${text.toLowerCase()}` });
  range.oninput = () => frame.style.setProperty(...rule(Number(range.value)));
  range.oninput();
  return el("figure", {}, frame, el("figcaption", {}, view, range));
}

function facts(all, experiment, i, state) {
  const { labels } = about.experiments[experiment.number];
  const success = flipped(experiment, i);
  const target = experiment.target[i] < 0 ? "any other class" : className(experiment, experiment.target[i]);
  const tables = el("div", { class: "likeliest" });
  likeliest(experiment, i).then((made) => tables.replaceChildren(...made));
  const rows = [["Target", target], ["True class", className(experiment, experiment.label[i])]];
  for (const [key, text] of Object.entries(labels)) {
    const value = experiment.values[key][i];
    if (value !== null) rows.push([text, /prob$|area$/.test(key) ? percentage(value) : String(Number(value.toPrecision(4)))]);
  }
  if (experiment.file[i]) rows.push(["File", experiment.file[i]]);
  const list = el("dl", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, el("bdi", {}, value))]));
  const link = el("a", { href: fragment({ ...DEFAULTS, experiment: state.experiment }, { picture: state.picture }) }, "Link to this picture");
  return el("div", { class: "facts" }, verdict(experiment, i),
    el("p", {}, el("span", { class: success ? "badge good" : "badge" }, success ? "flipped" : "not flipped")),
    tables, list, comparison(all, experiment, i, state), el("p", {}, link));
}

/** The counterfactuals of the other experiments; each leads to its own. */
function comparison(all, experiment, i, state) {
  const shown = everywhere(all, experiment, i);
  if (shown.length < 2) return "";
  return el("section", { class: "comparison", "aria-label": "The same picture in every experiment" }, el("h3", {}, "In every experiment"),
    el("ul", {}, ...shown.map(([other, j]) => {
      const { name } = about.experiments[other.number];
      const frame = el("div", { class: "frame" }, whole(other, "counterfactual", j, captions(other, j)[1]));
      frame.style.aspectRatio = about.sheets.original.ratio;
      const title = el("a", { href: fragment(state, { experiment: name, picture: state.picture }), "aria-current": other === experiment && "true" }, el("bdi", {}, name));
      return el("li", {}, frame, title, verdict(other, j), flipped(other, j) ? "" : el("span", { class: "badge" }, "not flipped"));
    })));
}
