"use strict";
// Explanations while they are computed: the adversary, a curve, what is left.

/** POST; the answer, or an Error with the server's sentence. */
async function post(address, body, headers = {}) {
  const answer = await fetch(address, { method: "POST", body, headers });
  const told = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `the server answers ${answer.status}`);
  return told;
}

/** A panel of one explanation. */
class Run {
  constructor(order, job, ended) {
    Object.assign(this, { order, id: job.id, ended, curve: [], over: false });
    this.image = el("img", { alt: "the picture as it is attacked", src: order.source });
    this.image.classList.toggle("crisp", order.width <= 64);
    this.text = el("p.quiet.small");
    this.plot = svg("svg", { viewBox: "0 0 330 130", role: "img" });
    const key = el("p.small.keys", el("span.key.before"), " the picture itself  ", el("span.key.after"), " filtered");
    const shown = el("div.frame", this.image);
    this.element = el("figure.run", shown, el("figcaption", el("strong", order.title), this.text, this.plot, key));
    this.draw();
    this.events = new EventSource(`/explanations/${this.id}/events`);
    this.events.onmessage = ({ data }) => this.see(JSON.parse(data));
    this.events.onerror = () => this.events.readyState === EventSource.CLOSED && this.finish({ state: "failed",
      error: "the server does not answer any more" });
  }

  see(told) {
    if (told.picture) this.image.src = told.picture;
    this.curve.push(...told.curve);
    if (told.curve.length) this.draw();
    this.text.textContent = this.words(told);
    if (["done", "failed", "cancelled"].includes(told.state)) this.finish(told);
  }

  words({ state, place, error, iteration, of, calls, left }) {
    if (state === "waiting") return place === 1 ? "next in line" : `${place} before it in the line`;
    if (state === "failed") return error;
    if (state === "cancelled") return "stopped";
    if (!iteration) return state === "done" ? "done" : "looking at the picture";
    const soon = state === "done" ? "done" : `at most ${Math.ceil(left)} s left`;
    return `iteration ${iteration} of ${of}, ${calls} calls of the diffusion model, ${soon}`;
  }

  finish(told) {
    if (this.over) return;
    this.over = true;
    this.events.close();
    this.text.textContent = this.words(told);
    Object.assign(this, { state: told.state, error: told.error, result: told.result });
    this.ended();
  }

  stop() {
    if (!this.over) post(`/explanations/${this.id}/stop`).catch(() => {});
  }

  drop() {
    this.events.close();
    fetch(`/explanations/${this.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  draw() {
    const [x, y] = [(i) => 40 + (280 * i) / Math.max(1, this.order.iterations), (p) => 115 - 105 * p];
    const lines = [1, 2].map((column) => this.curve.map((point) => `${x(point[0])},${y(point[column])}`).join(" "));
    const grid = [0, 0.5, 1].flatMap((share) => [
      svg("line", { x1: 40, x2: 320, y1: y(share), y2: y(share), class: share ? "grid" : "axis" }),
      Object.assign(svg("text", { x: 35, y: y(share) + 3, "text-anchor": "end" }), { textContent: `${100 * share} %` }),
    ]);
    this.plot.replaceChildren(...grid, svg("polyline", { points: lines[0], class: "before" }),
      svg("polyline", { points: lines[1], class: "after" }));
    const last = this.curve.at(-1);
    const wanted = `probability of ${this.order.wanted}`;
    this.plot.setAttribute("aria-label", last ? `${wanted}: ${percentage(last[1])}, filtered ${percentage(last[2])}` : wanted);
  }
}

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
