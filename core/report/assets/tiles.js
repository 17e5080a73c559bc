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

/**
 * An element, such as el("p.quiet", { id: "x" }, "text", child); the attributes may be left out.
 * Names of files and classes only ever go in as text or as attribute values.
 */
function el(spec, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag);
  element.classList.add(...classes);
  if (children[0]?.constructor === Object) {
    for (const [name, value] of Object.entries(children.shift())) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
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
