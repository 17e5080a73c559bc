"use strict";
// Data and pictures: scripts that are loaded when they are needed, tiles that are cut from sheets when they are seen.

const received = new Map();
let about = null; // what holds for all pictures: data/about.js

/** Called by the files of data/. */
function receive(name, values) {
  received.set(name, values);
}

/** The values of data/NAME.js; a page opened from disk may not fetch, but it may load scripts. */
function load(name) {
  const key = `loading ${name}`;
  if (!received.has(key)) {
    received.set(key, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `report/data/${name}.js`;
      script.onload = () => resolve(received.get(name));
      script.onerror = () => reject(new Error(`report/data/${name}.js is missing`));
      document.head.append(script);
    }));
  }
  return received.get(key);
}

/** An element. Names of files and classes only ever go in as text or as attribute values. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    target.style.backgroundImage = `url("report/sheets/${target.dataset.sheet}")`;
  }
}, { rootMargin: "200px" });

/** The thumbnail of picture i, or null where there is none. kind: original, counterfactual or mask. */
function tile(experiment, kind, i, label) {
  const sheets = about.sheets[kind];
  const number = sheets ? experiment.tiles[kind][i] : -1;
  if (number < 0) return null;
  const [columns, rows] = sheets.grid;
  const place = number % (columns * rows);
  const sheet = String(Math.floor(number / (columns * rows))).padStart(5, "0");
  const percent = (at, count) => (count > 1 ? `${(100 * at) / (count - 1)}%` : "0");
  const element = el("div", { class: sheets.width <= 64 ? "tile crisp" : "tile", "data-sheet": `${kind}-${sheet}.${sheets.suffix}` });
  describe(element, label);
  element.style.aspectRatio = about.sheets.original.ratio;
  element.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
  element.style.backgroundPosition = `${percent(place % columns, columns)} ${percent(Math.floor(place / columns), rows)}`;
  seen.observe(element);
  return element;
}

function describe(element, label) {
  if (label) element.setAttribute("role", "img"), element.setAttribute("aria-label", label);
  else element.setAttribute("aria-hidden", "true");
}

/** The whole picture where the page can reach it, else its thumbnail. */
function whole(experiment, kind, i, label) {
  const place = experiment[`${kind}_place`][i];
  if (place === null) return tile(experiment, kind, i, label);
  const path = `${experiment.places[place]}/${experiment.name[i]}`;
  const image = el("img", { class: "tile", alt: label, src: path.split("/").map(encodeURIComponent).join("/") });
  image.onerror = () => image.replaceWith(tile(experiment, kind, i, label));
  return image;
}

/** Pictures on top of each other; view: slider, mask or difference. */
function layers(experiment, i, view, picture = tile) {
  const [before, after] = captions(experiment, i);
  const frame = el("div", { class: `frame ${view}` });
  frame.style.aspectRatio = about.sheets.original.ratio;
  const mask = view === "mask" ? tile(experiment, "mask", i, "") : null;
  if (view === "mask") {
    frame.append(picture(experiment, "original", i, mask ? `${before}, with its mask` : `${before}, no mask was stored`));
    if (mask) frame.append(mask);
  } else if (view === "difference") {
    const both = el("div", { class: "both", role: "img", "aria-label": `difference of ${before} and ${after}` });
    both.append(picture(experiment, "original", i, ""), picture(experiment, "counterfactual", i, ""));
    frame.append(both);
  } else {
    frame.append(picture(experiment, "counterfactual", i, after), picture(experiment, "original", i, before));
    const range = el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": `before and after, ${experiment.name[i]}` });
    range.oninput = () => frame.style.setProperty("--cut", `${range.value}%`);
    frame.append(el("span", { class: "handle", "aria-hidden": "true" }), range);
  }
  return frame;
}

/** What the classifier says of a picture, before and after. */
function captions(experiment, i) {
  return [["original", "prediction", "before"], ["counterfactual", "cf_prediction", "after"]].map(
    ([name, prediction, confidence]) =>
      `${name}: ${className(experiment, experiment[prediction][i])} ${percentage(experiment[confidence][i])}`.trim(),
  );
}

function className(experiment, label) {
  if (label < 0) return "unknown";
  const { classes } = about.experiments[experiment.number];
  return classes && label < classes.length ? classes[label] : `class ${label}`;
}

function percentage(share) {
  if (share === null || share === undefined) return "";
  const percent = 100 * share;
  return percent > 99.9 && percent < 100 ? "> 99.9 %" : `${percent >= 10 ? percent.toFixed(0) : percent.toFixed(1)} %`;
}

function flipped(experiment, i) {
  return about.folders[experiment.folder[i]].endsWith("/CCF");
}
