"use strict";
// Data and pictures: scripts that are loaded when they are needed, tiles that are cut from sheets when they are seen.

const received = new Map();
const loading = new Map();
let about = null; // what holds for all pictures: data/about.js

/** Called by the files of data/. */
function receive(name, values) {
  received.set(name, values);
}

/** The values of data/NAME.js; a page opened from disk may not fetch, but it may load scripts. */
function load(name) {
  if (!loading.has(name)) {
    loading.set(name, new Promise((resolve, reject) => {
      const script = el("script", { src: `report/data/${name}.js` });
      script.onload = () => resolve(received.get(name));
      script.onerror = () => reject(new Error(`report/data/${name}.js is missing`));
      document.head.append(script);
    }));
  }
  return loading.get(name);
}

const seen = new IntersectionObserver((entries) => {
  for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
    seen.unobserve(target);
    target.style.backgroundImage = `url("report/sheets/${target.dataset.sheet}")`;
  }
}, { rootMargin: "200px" });

/**
 * The thumbnail of picture i, or null where there is none. kind: original, counterfactual or mask;
 * text: what a screen reader says of it, "" for what is decoration.
 */
function tile(experiment, kind, i, text) {
  const sheets = about.sheets[kind];
  const number = sheets ? experiment.tiles[kind][i] : -1;
  if (number < 0) return null;
  const [columns, rows] = sheets.grid;
  const place = number % (columns * rows);
  const sheet = String(Math.floor(number / (columns * rows))).padStart(5, "0");
  const element = el("div.tile", text ? { role: "img", "aria-label": text } : { "aria-hidden": "true" });
  element.classList.toggle("crisp", sheets.width <= 64);
  element.dataset.sheet = `${kind}-${sheet}.${sheets.suffix}`;
  const percent = (at, count) => (count > 1 ? `${(100 * at) / (count - 1)}%` : "0");
  const [left, top] = [percent(place % columns, columns), percent(Math.floor(place / columns), rows)];
  Object.assign(element.style, {
    aspectRatio: about.sheets.original.ratio,
    backgroundSize: `${100 * columns}% ${100 * rows}%`,
    backgroundPosition: `${left} ${top}`,
  });
  seen.observe(element);
  return element;
}

/** The whole picture where the page can reach it, else its thumbnail. */
function whole(experiment, kind, i, text) {
  const place = experiment[`${kind}_place`][i];
  if (place === null) return tile(experiment, kind, i, text);
  const path = `${experiment.places[place]}/${experiment.name[i]}`;
  const image = el("img.tile", { alt: text, src: path.split("/").map(encodeURIComponent).join("/") });
  image.onerror = () => image.replaceWith(tile(experiment, kind, i, text));
  return image;
}
