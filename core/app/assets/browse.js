"use strict";
// A report in a frame, and the way from its open picture to a new question.

const inside = document.getElementById("report");
const again = document.getElementById("again");

let name = ""; // of the picture that is open in the report, which is a page of nobody and tells no more than this

addEventListener("message", ({ source, data }) => {
  if (source === inside.contentWindow) name = String(data?.picture ?? "");
});

/** Where its original may lie: below the output folder, as main.py has it. */
function sources() {
  const [output, inner] = new URL(inside.src, location).pathname.split("/Results/");
  return name && inner ? ["Correct", "Incorrect"].map((side) => `${output}/Original/${side}/${encodeURIComponent(name)}`) : [];
}

document.getElementById("reports")?.addEventListener("click", (event) => {
  const link = event.target.closest("[data-report]");
  if (!link) return;
  event.preventDefault();
  document.getElementById("opened").hidden = false;
  name = "";
  inside.src = link.dataset.report;
  inside.scrollIntoView();
});
setInterval(() => {
  if (again) again.disabled = !sources().length;
}, 300);
again?.addEventListener("click", async () => {
  for (const source of sources()) {
    if ((await fetch(source, { method: "HEAD" })).ok) {
      location.href = `/?picture=${encodeURIComponent(source)}`;
      return;
    }
  }
  document.getElementById("again-said").textContent = "Its original is not in the folder any more.";
});
