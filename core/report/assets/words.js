"use strict";
// What the classifier says of a picture, as words, numbers and tables.

function className(experiment, label) {
  if (label < 0) return "unknown";
  const { classes } = about.experiments[experiment.number];
  return classes?.[label] ?? `class ${label}`;
}

/** A name that keeps its own direction of writing, and that is whole in a tooltip where it is cut off. */
function named(text) {
  return el("bdi", { title: text }, text);
}

function numeral(count) {
  return count.toLocaleString("en");
}

function percentage(share) {
  if (share === null || share === undefined) return "";
  const percent = 100 * share;
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  return `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

function flipped(experiment, i) {
  return about.folders[experiment.folder[i]].endsWith("/CCF");
}

/** Flipped, but barely: almost as soon it would not. */
function weak(experiment, i) {
  const probability = experiment.after[i];
  return flipped(experiment, i) && probability !== null && probability < about.weak;
}

function outcome(experiment, i) {
  if (weak(experiment, i)) return el("span.badge", `weakly flipped, under ${percentage(about.weak)}`);
  return flipped(experiment, i) ? el("span.badge.good", "flipped") : el("span.badge", "not flipped");
}

/** Of the original and of the counterfactual, for those who do not see them. */
function captions(experiment, i) {
  const says = (label, confidence) => `${className(experiment, label)} ${percentage(confidence)}`.trim();
  return [
    `original: ${says(experiment.prediction[i], experiment.before[i])}`,
    `counterfactual: ${says(experiment.cf_prediction[i], experiment.after[i])}`,
  ];
}

/** pullover 98 % → coat 91 %; nothing where neither is known. */
function verdict(experiment, i) {
  if (experiment.prediction[i] < 0 && experiment.cf_prediction[i] < 0) return "";
  const says = (label, confidence) => [named(className(experiment, label)), el("b", percentage(confidence))];
  const arrow = el("span.arrow", { role: "img", "aria-label": "becomes" }, "→");
  return el("p.verdict", el("span.side", ...says(experiment.prediction[i], experiment.before[i])),
    el("span.side", arrow, ...says(experiment.cf_prediction[i], experiment.after[i])));
}

/** A place that fills with the five likeliest classes before and after. */
function likeliest(experiment, i) {
  const place = el("div.likeliest");
  load(`likeliest-${experiment.number}-${Math.floor(i / about.chunk)}`).then((chunk) => {
    const [before, after] = chunk[i % about.chunk];
    if (before.length) place.append(bars(experiment, "Before", before));
    if (after.length) place.append(bars(experiment, "After", after));
  });
  return place;
}

function bars(experiment, title, classes) {
  const rows = classes.map(([label, probability]) => {
    const bar = el("span.bar");
    bar.style.width = percentage(probability).replace(/[> ]/g, "");
    const name = el("th", { scope: "row" }, named(className(experiment, label)));
    return el("tr", name, el("td", bar), el("td", percentage(probability)));
  });
  return el("table.bars", el("caption", title), el("tbody", ...rows));
}
