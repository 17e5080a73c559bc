"use strict";
// A report in a frame, and the way from its open picture to a new question.

const inside = document.getElementById("report");
const again = document.getElementById("again");

function source() {
  const image = inside.contentDocument?.querySelector("#detail[open] .small-frames img");
  return image && new URL(image.src).pathname;
}

document.getElementById("reports")?.addEventListener("click", (event) => {
  const link = event.target.closest("[data-report]");
  if (!link) return;
  event.preventDefault();
  document.getElementById("opened").hidden = false;
  inside.src = link.dataset.report;
  inside.scrollIntoView();
});
setInterval(() => {
  if (again) again.disabled = !source();
}, 300);
again?.addEventListener("click", () => {
  location.href = `/?picture=${encodeURIComponent(source())}`;
});
