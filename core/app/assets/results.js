"use strict";
// Answers: before and after, what is said of them, which changes are needed, and how to keep them.

/** A result as the report's page has it: columns of one picture. */
function columns(run) {
  const { result } = run;
  return {
    number: 0, run, name: [run.order.title], folder: [result.success ? 0 : 1], prediction: [result.prediction],
    before: [result.before], cf_prediction: [result.cf_prediction], after: [result.after], target: [result.target],
  };
}

/** One of a result's pictures. */
function tile({ run }, kind, i, text) {
  const image = el("img.tile", { alt: text, src: `/explanations/${run.id}/${kind}.png` });
  image.classList.toggle("crisp", run.order.width <= 64);
  return image;
}
const whole = tile;

function answer(run, alone) {
  const [experiment, { result }] = [columns(run), run];
  const plain = (kind, text) => el("figure", frame("div.frame", tile(experiment, kind, 0, text)), el("figcaption", kind));
  const [before, after] = captions(experiment, 0);
  const small = el("div.small-frames", plain("original", before), plain("counterfactual", after),
    adjustable(experiment, 0, "mask"), adjustable(experiment, 0, "difference"));
  const stage = el("div.stage", LAYERS.slider(experiment, 0, tile), small);
  stage.style.setProperty("--ratio", about.sheets.original.ratio);
  const bar = el("div.likeliest", bars(experiment, "Before", result.likeliest[0]), bars(experiment, "After", result.likeliest[1]));
  const facts = el("div.facts", verdict(experiment, 0), el("p", outcome(experiment, 0)),
    ...result.warnings.map((text) => el("p.warning", text)), bar, unseen(result), result.success ? undoing(run) : "", keeping(run));
  const title = el("h3", run.order.title);
  const made = el("p.quiet.small", `${result.iterations} iterations in ${result.seconds} s; ` +
    `${percentage(result.mask_area)} of the picture could change; seed ${result.seed}`);
  return el(alone ? "article.answer.alone" : "article.answer", alone ? "" : title, stage, el("div.facts", facts, made));
}

function unseen(result) {
  const judges = Object.entries(result.unseen);
  if (!judges.length) return "";
  const wanted = result.target < 0 ? `not ${about.classes[result.prediction]}` : about.classes[result.target];
  const rows = judges.map(([name, { predictions, wanted: shares, convinced }]) => el("tr",
    el("th", { scope: "row" }, named(name)), el("td", `${about.classes[predictions[0]]} → ${about.classes[predictions[1]]}`),
    el("td", `${percentage(shares[0])} → ${percentage(shares[1])}`), el("td", convinced ? "convinced" : "not convinced")));
  const head = ["Classifier", "sees", wanted, ""].map((text) => el(text ? "th" : "td", text));
  return el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Unseen classifiers" }, el("table.unseen",
    el("caption", "What classifiers say that were not attacked"), el("thead", el("tr", ...head)), el("tbody", ...rows)));
}

/** Which of the changed regions is needed: each put back alone. */
function undoing(run) {
  const place = el("div.undo");
  const button = el("button", { type: "button" }, "Which changes are needed?");
  button.onclick = async () => {
    button.disabled = true;
    try {
      const regions = await post(`/explanations/${run.id}/undo`);
      place.replaceChildren(el("h4", "Put back alone"), el("div.regions", ...regions.map((region, i) => undone(run, region, i))));
      if (!regions.length) place.replaceChildren(el("p.quiet", "Nothing changed."));
    } catch (error) {
      place.append(el("p.warning", error.message));
    }
  };
  place.append(button);
  return place;
}

function undone(run, { box, prediction, wanted, needed }, i) {
  const [left, top, width, height] = box.map((share) => `${100 * share}%`);
  const marker = el("span.box", { "aria-hidden": "true" });
  Object.assign(marker.style, { left, top, width, height });
  const text = `counterfactual, region ${i + 1}`;
  const picture = frame("div.frame", tile(columns(run), "counterfactual", 0, text), marker);
  const says = `${about.classes[prediction]}, ${run.order.wanted} ${percentage(wanted)}`;
  return el("figure", picture, el("figcaption", el("strong", needed ? "needed" : "not needed"), ` ${says}`));
}

function keeping(run) {
  const said = el("p.quiet.small", { role: "status" });
  const save = el("button", { type: "button" }, "Save here");
  save.title = `In ${about.output} on the machine that serves this page`;
  save.onclick = async () => {
    try {
      said.textContent = `saved in ${(await post(`/explanations/${run.id}/save`)).place}`;
      save.disabled = true;
    } catch (error) {
      said.textContent = error.message;
    }
  };
  const link = el("a.button", { href: `/explanations/${run.id}/result.zip`, download: "" }, "Download (.zip)");
  const text = el("code", { tabindex: 0 }, run.result.command);
  const copy = el("button", { type: "button" }, "Copy");
  copy.onclick = () => navigator.clipboard.writeText(run.result.command).then(() => (said.textContent = "copied"));
  return el("div.keeping", el("p.line", save, link), said,
    el("details.more", el("summary", "The command that makes the same, in its folder"), el("p.command", text), copy));
}

/** What several answers share, the least of their changes at each place, and where they differ. */
function together(runs) {
  const layers = (rule) => el(`div.layers.${rule}`, ...runs.map((run) => tile(columns(run), "mask", 0, "")));
  const shared = frame("div.frame", { role: "img", "aria-label": "where all answers change" }, layers("darken"));
  const differ = frame("div.frame", { role: "img", "aria-label": "where some answers change and others do not" },
    el("div.layers.apart", layers("lighten"), layers("darken")));
  return el("div.together", el("figure", shared, el("figcaption", "What they share: where all change")),
    el("figure", differ, el("figcaption", "Where they differ")));
}
