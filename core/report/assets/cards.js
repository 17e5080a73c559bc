"use strict";
// The list of pictures, a page at a time.

const PER_PAGE = 48;
const STRENGTH = {
  slider: ["Position", 50, (value) => ["--cut", `${value}%`]],
  mask: ["Opacity", 80, (value) => ["--opacity", value / 100]],
  difference: ["Gain", 30, (value) => ["--gain", 1 + value / 10]],
};

function drawCards(all, experiment, found, state) {
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  const page = Math.min(pages, Math.max(1, Math.floor(Number(state.page)) || 1));
  const shown = found.slice((page - 1) * PER_PAGE, page * PER_PAGE);
  const list = document.getElementById("cards");
  list.className = `view-${state.view}`;
  list.classList.toggle("compared", state.view === "pair" && state.compare === "yes");
  list.style.setProperty("--tiles", all.length + 1);
  list.replaceChildren(...shown.map((i) => card(all, experiment, i, state)));
  drawPages(page, pages);
  const total = experiment.name.length.toLocaleString("en");
  const count = found.length.toLocaleString("en");
  const text = found.length === experiment.name.length ? `${total} pictures` : `${count} of ${total} pictures`;
  document.getElementById("count").textContent = found.length ? text : `No picture of ${total} passes these filters`;
}

function drawPages(page, pages) {
  const nav = document.getElementById("pages");
  nav.hidden = pages < 2;
  const [back, on] = nav.querySelectorAll("button");
  back.disabled = page === 1;
  on.disabled = page === pages;
  const field = nav.querySelector("input");
  field.max = pages;
  field.value = page;
  nav.querySelector("label + span").textContent = `of ${pages.toLocaleString("en")}`;
}

function card(all, experiment, i, state) {
  const success = flipped(experiment, i);
  const link = el("a", { class: "title", href: fragment(state, { picture: experiment.name[i] }) }, el("bdi", {}, experiment.name[i]));
  const item = el("li", { class: success ? "card" : "card missed" }, pictures(all, experiment, i, state), el("div", { class: "caption" },
    verdict(experiment, i), el("p", { class: "file" }, link, success ? "" : el("span", { class: "badge" }, "not flipped"))));
  if (state.likeliest === "yes") {
    const place = item.appendChild(el("div", { class: "likeliest" }));
    likeliest(experiment, i).then((tables) => place.replaceChildren(...tables));
  }
  return item;
}

function pictures(all, experiment, i, state) {
  if (state.view !== "pair") return layers(experiment, i, state.view in STRENGTH ? state.view : "slider");
  const [before, after] = captions(experiment, i);
  const original = tile(experiment, "original", i, before);
  if (state.compare !== "yes") return el("div", { class: "pair" }, original, tile(experiment, "counterfactual", i, after));
  const named = (picture, text) => el("figure", {}, picture, el("figcaption", {}, el("bdi", {}, text)));
  return el("div", { class: "pair" }, named(original, "original"), ...everywhere(all, experiment, i).map(([other, j]) =>
    named(tile(other, "counterfactual", j, captions(other, j)[1]),
      `${about.experiments[other.number].name}${flipped(other, j) ? "" : " (not flipped)"}`)));
}

/** The same picture in all experiments that have it: [experiment, index]. */
function everywhere(all, experiment, i) {
  const name = experiment.name[i];
  return all.filter((other) => other.index.has(name)).map((other) => [other, other.index.get(name)]);
}

/** "pullover 98 % → coat 91 %" */
function verdict(experiment, i) {
  const side = (label, confidence, ...lead) => el("span", { class: "side" }, ...lead,
    el("bdi", { title: className(experiment, label) }, className(experiment, label)), el("b", {}, percentage(confidence)));
  return el("p", { class: "verdict" }, side(experiment.prediction[i], experiment.before[i]),
    side(experiment.cf_prediction[i], experiment.after[i], el("span", { class: "arrow", role: "img", "aria-label": "becomes" }, "→")));
}

/** Tables of the five likeliest classes before and after. */
async function likeliest(experiment, i) {
  const chunk = await load(`likeliest-${experiment.number}-${Math.floor(i / about.chunk)}`);
  const [before, after] = chunk[i % about.chunk];
  return [["Before", before], ["After", after]].filter(([, rows]) => rows.length).map(([title, rows]) =>
    el("table", { class: "bars" }, el("caption", {}, title), el("tbody", {}, ...rows.map(([label, probability]) => {
      const bar = el("span", { class: "bar" });
      bar.style.width = `${100 * probability}%`;
      return el("tr", {}, el("th", { scope: "row" }, el("bdi", { title: className(experiment, label) }, className(experiment, label))),
        el("td", { class: "length" }, bar), el("td", {}, percentage(probability)));
    }))));
}

/** The one range that goes with a view: position, opacity or gain. */
function showStrength(view) {
  const label = document.getElementById("strength");
  label.hidden = !(view in STRENGTH);
  if (label.hidden) return;
  const [text, usual, rule] = STRENGTH[view];
  const range = label.querySelector("input");
  label.querySelector("span").textContent = text;
  range.value = usual;
  range.oninput = () => {
    document.getElementById("cards").style.setProperty(...rule(Number(range.value)));
    if (view !== "slider") return;
    for (const frame of document.querySelectorAll("#cards .frame")) {
      frame.style.removeProperty("--cut");
      frame.querySelector("input").value = range.value;
    }
  };
  range.oninput();
}
