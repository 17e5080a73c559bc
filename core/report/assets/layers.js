"use strict";
// Pictures on top of each other: before and after, a mask, a difference; and how strongly it shows.

/** A frame of the pictures' shape. */
function frame(spec, ...children) {
  const element = el(spec, ...children);
  element.style.aspectRatio = about.sheets.original.ratio;
  return element;
}

/** Pictures on top of each other, by view; picture: tile or whole. */
const LAYERS = {
  slider(experiment, i, picture) {
    const [before, after] = captions(experiment, i);
    const text = `before and after, ${experiment.name[i]}`;
    const range = el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": text });
    const made = frame("div.frame.slider", picture(experiment, "counterfactual", i, after),
      picture(experiment, "original", i, before), el("span.handle", { "aria-hidden": "true" }), range);
    range.oninput = () => made.style.setProperty("--cut", `${range.value}%`);
    return made;
  },
  mask(experiment, i, picture) {
    const [before] = captions(experiment, i);
    const mask = tile(experiment, "mask", i, "");
    const text = `${before}, ${mask ? "with its mask" : "no mask was stored"}`;
    return frame("div.frame.mask", picture(experiment, "original", i, text), mask ?? "");
  },
  difference(experiment, i, picture) {
    const text = `difference of ${captions(experiment, i).join(" and ")}`;
    return frame("div.frame.difference", el("div.both", { role: "img", "aria-label": text },
      picture(experiment, "original", i, ""), picture(experiment, "counterfactual", i, "")));
  },
};

const STRENGTH = {
  slider: { text: "Position", usual: 50, rule: (value) => ["--cut", `${value}%`] },
  mask: { text: "Opacity", usual: 80, rule: (value) => ["--opacity", value / 100] },
  difference: { text: "Gain", usual: 30, rule: (value) => ["--gain", 1 + value / 10] },
};

/** A view with its opacity or gain below. */
function adjustable(experiment, i, view) {
  const { text, usual, rule } = STRENGTH[view];
  const made = LAYERS[view](experiment, i, whole);
  const name = `${view}: ${text.toLowerCase()}`;
  const range = el("input", { type: "range", min: 0, max: 100, value: usual, "aria-label": name });
  range.oninput = () => made.style.setProperty(...rule(Number(range.value)));
  range.oninput();
  return el("figure", made, el("figcaption", view, range));
}
