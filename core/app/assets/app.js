"use strict";
// A picture is given, a question is put together and asked; what is watched, and what is shown at the end.

let about = null; // classes, strengths, and what the report's page knows of its pictures
let picture = null; // the one that is asked about
let runs = [];
const form = document.getElementById("ask");
const painter = new Painter(document.getElementById("canvas"), form.elements.brush);
const part = (name) => document.getElementById(name);

function say(text, bad = false) {
  part("said").textContent = text;
  part("said").classList.toggle("warning", bad);
}

async function give(sending, name) {
  say(`reading ${name}`);
  try {
    receive(await sending);
  } catch (error) {
    say(`${name}: ${error.message}`, true);
  }
}

function giveFile(file) {
  return give(post("/pictures", file, { "X-Name": encodeURIComponent(file.name).slice(0, 2000) }), file.name || "picture");
}

function receive(given) {
  picture = given;
  say([given.name, ...given.said].join(" · "));
  Object.assign(part("picture"), { src: `/pictures/${given.id}`, alt: given.name });
  part("picture").classList.toggle("crisp", given.width <= 64);
  about.sheets.original.ratio = given.width / given.height;
  part("painting").style.aspectRatio = about.sheets.original.ratio;
  part("canvas-side").style.setProperty("--ratio", about.sheets.original.ratio);
  painter.resize(given.width, given.height);
  const likeliest = given.shares.map((share, label) => [label, share]).sort((a, b) => b[1] - a[1]);
  part("says").replaceChildren(bars({ number: 0 }, "What the classifier says", likeliest.slice(0, 6)));
  fillTargets(likeliest);
  form.elements.x1.value = given.width;
  form.elements.y1.value = given.height;
  part("question").hidden = false;
  part("question-title").focus({ preventScroll: true });
  part("question").scrollIntoView();
}

/** The second likeliest first chosen: it is the next answer that the classifier would give. */
function fillTargets(likeliest) {
  const predicted = likeliest[0][0];
  const free = about.binary ? "the other answer" : "anything else";
  for (const [i, select] of [form.elements.target, form.elements.other].entries()) {
    const classes = about.binary ? [] : about.classes.map((name, label) => [name, label]);
    const options = classes.map(([name, label]) => {
      const option = el("option", { value: label }, label === predicted ? `${name} (as it is)` : name);
      option.disabled = label === predicted;
      return option;
    });
    select.replaceChildren(el("option", { value: -1 }, free), ...options);
    select.value = String(about.binary ? -1 : likeliest[i + 1]?.[0] ?? -1);
  }
  form.querySelector("[name=answers][value=targets]").parentElement.hidden = about.binary;
}

function wanted(target) {
  return target < 0 ? (about.binary ? "the other answer" : "anything else") : about.classes[target];
}

/** One order for each answer that is wanted. */
function orders() {
  const values = Object.fromEntries(new FormData(form));
  const flags = {};
  for (const field of form.querySelectorAll("[data-flag]")) flags[field.name] = field.value;
  const [target, other, seed] = [Number(values.target), Number(values.other), Number(flags.seed)];
  const [source, { width }] = [`/pictures/${picture.id}`, picture];
  const region = values.where === "all" ? "" : painter.region();
  const order = (aim, own, title) => ({
    source, width, title, wanted: wanted(aim), iterations: Number(flags.attack_iterations),
    body: { picture: picture.id, target: aim, region, invert: values.where === "not", flags: { ...flags, seed: String(own) } },
  });
  if (values.answers === "seeds") return [0, 1, 2].map((i) => order(target, seed + i, `${wanted(target)}, seed ${seed + i}`));
  if (values.answers === "targets") return [target, other].map((aim) => order(aim, seed, wanted(aim)));
  return [order(target, seed, wanted(target))];
}

async function ask() {
  if (form.elements.where.value !== "all" && painter.empty) {
    say("Paint where it may change first, or choose Anywhere.", true);
    return;
  }
  for (const run of runs) run.drop();
  runs = [];
  part("answers").hidden = true;
  part("runs").replaceChildren();
  part("watch").hidden = part("stop").hidden = false;
  part("state").textContent = "";
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    for (const order of orders()) {
      const job = await post("/explanations", JSON.stringify(order.body), { "Content-Type": "application/json" });
      const run = new Run(order, job, ended);
      runs.push(run);
      part("runs").append(run.element);
    }
  } catch (error) {
    part("state").textContent = error.message;
    part("stop").hidden = !runs.length;
  }
  button.disabled = false;
  part("watch-title").focus({ preventScroll: true });
  part("watch").scrollIntoView();
}

/** When an explanation is over: show all once the last is. */
function ended() {
  if (!runs.every((run) => run.over)) return;
  part("stop").hidden = true;
  const done = runs.filter((run) => run.result);
  const failed = runs.find((run) => run.state === "failed");
  part("state").textContent = failed ? failed.error : done.length ? "Done." : "Stopped.";
  if (!done.length) return;
  const alone = done.length === 1;
  part("answers-title").textContent = alone ? "The answer" : "The answers";
  part("together").replaceChildren(alone ? "" : together(done));
  part("found").replaceChildren(...done.map((run) => answer(run, alone)));
  part("found").classList.toggle("several", !alone);
  part("answers").hidden = false;
  part("answers-title").focus({ preventScroll: true });
  part("answers").scrollIntoView();
}

function setStrength() {
  const settings = about.strengths[form.elements.strength.value];
  for (const [name, value] of Object.entries(settings)) form.elements[name].value = value;
}

part("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) giveFile(target.files[0]);
  target.value = "";
});
part("examples")?.addEventListener("click", ({ target }) => {
  const number = target.closest("[data-example]")?.dataset.example;
  if (number !== undefined) give(post(`/examples/${number}`), `example ${Number(number) + 1}`);
});
document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files[0]) giveFile(clipboardData.files[0]);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    part("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) giveFile(event.dataTransfer.files[0]);
  });
}
form.addEventListener("change", ({ target }) => {
  if (target.name === "strength") setStrength();
  if (target.name === "where") part("brush").hidden = target.value === "all";
  if (target.name === "where") part("painting").dataset.where = target.value;
  if (target.name === "answers") part("against").hidden = target.value !== "targets";
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
part("wipe").addEventListener("click", () => painter.clear());
part("fill").addEventListener("click", () => {
  painter.rectangle(...["x0", "y0", "x1", "y1"].map((name) => Number(form.elements[name].value)));
});
part("stop").addEventListener("click", () => runs.forEach((run) => run.stop()));
addEventListener("pagehide", () => runs.forEach((run) => run.drop()));

/** A picture of a report. */
async function fetched(address) {
  const answer = await fetch(new URL(address, location).pathname);
  return post("/pictures", await answer.blob(), { "X-Name": address.split("/").at(-1) });
}

async function start() {
  const told = await (await fetch("/about")).json();
  about = { ...told, sheets: { original: { ratio: 1 }, mask: true }, folders: ["/CCF", "/ICF"], experiments: [told] };
  setStrength();
  const again = new URLSearchParams(location.search).get("picture");
  if (again) give(fetched(again), "the picture");
}
start().catch((error) => say(`The server does not answer: ${error.message}`, true));
