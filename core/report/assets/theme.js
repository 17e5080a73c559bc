"use strict";
// Dark or light, as chosen last.

const theme = document.getElementById("theme");
const storage = { // a page opened from disk may have none
  get() { try { return localStorage.getItem("theme"); } catch { return null; } },
  set(value) { try { localStorage.setItem("theme", value); } catch { /* then the choice is not kept */ } },
};
function setTheme(value) {
  document.documentElement.style.colorScheme = value;
  theme.setAttribute("aria-pressed", value === "dark");
}
theme.addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const other = (document.documentElement.style.colorScheme || system) === "dark" ? "light" : "dark";
  setTheme(other);
  storage.set(other);
});
if (storage.get()) setTheme(storage.get());
