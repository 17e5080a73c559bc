"use strict";
// The list of pictures, a page at a time.

const PER_PAGE = 48;

function drawCards(all, experiment, found, state) {
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  const page = Math.min(pages, Math.max(1, Math.floor(Number(state.page)) || 1));
  const shown = found.slice((page - 1) * PER_PAGE, page * PER_PAGE);
  const list = document.getElementById("cards");
  list.className = `view-${state.view}`;
  const most = Math.max(1, ...shown.map((i) => everywhere(all, experiment, i).length));
  list.classList.toggle("compared", state.view === "pair" && state.compare === "yes" && most > 1);
  list.style.setProperty("--tiles", most + 1);
  list.replaceChildren(...shown.map((i) => card(all, experiment, i, state)));
  drawPages(page, pages);
  document.getElementById("count").textContent = countText(found.length, experiment.name.length);
}

function countText(count, total) {
  if (total === 0) return "No picture was explained";
  if (count === 0) return `No picture of ${numeral(total)} passes these filters`;
  return count === total ? `${numeral(total)} pictures` : `${numeral(count)} of ${numeral(total)} pictures`;
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
  nav.querySelector("label + span").textContent = `of ${numeral(pages)}`;
}

function card(all, experiment, i, state) {
  const title = el("a.title", { href: fragment(state, { picture: experiment.name[i] }) }, named(experiment.name[i]));
  const failed = !flipped(experiment, i);
  const badge = failed || weak(experiment, i) ? outcome(experiment, i) : "";
  const caption = el("div.caption", verdict(experiment, i), el("p.file", title, badge));
  const item = el(failed ? "li.card.missed" : "li.card", pictures(all, experiment, i, state), caption);
  if (state.likeliest === "yes") item.append(likeliest(experiment, i));
  return item;
}

function pictures(all, experiment, i, { view, compare }) {
  if (view in LAYERS) return LAYERS[view](experiment, i, tile);
  const [before, after] = captions(experiment, i);
  const original = tile(experiment, "original", i, before);
  const there = everywhere(all, experiment, i);
  if (compare !== "yes" || there.length < 2) {
    return el("div.pair", original, tile(experiment, "counterfactual", i, after));
  }
  const titled = (picture, text) => el("figure", picture, el("figcaption", named(text)));
  const changed = there.map(([other, j]) => {
    const failed = flipped(other, j) ? "" : " (not flipped)";
    return titled(tile(other, "counterfactual", j, captions(other, j)[1]), experimentName(other) + failed);
  });
  return el("div.pair", titled(original, "original"), ...changed);
}

/** The same picture in all experiments that have it: [experiment, index]. */
function everywhere(all, experiment, i) {
  const name = experiment.name[i];
  return all.filter((other) => other.index.has(name)).map((other) => [other, other.index.get(name)]);
}

function experimentName(experiment) {
  return about.experiments[experiment.number].name;
}

/** The one range that goes with a view: position, opacity or gain. */
function showStrength(view) {
  const label = document.getElementById("strength");
  label.hidden = !(view in STRENGTH);
  if (label.hidden) return;
  const { text, usual, rule } = STRENGTH[view];
  const range = label.querySelector("input");
  label.querySelector("span").textContent = text;
  range.value = usual;
  range.oninput = () => {
    document.getElementById("cards").style.setProperty(...rule(Number(range.value)));
    if (view === "slider") moveAll(range.value);
  };
  range.oninput();
}

/** All sliders of the list to one place. */
function moveAll(value) {
  for (const slider of document.querySelectorAll("#cards .slider")) {
    slider.style.removeProperty("--cut");
    slider.querySelector("input").value = value;
  }
}
