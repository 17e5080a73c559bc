"use strict";
// Elements.

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
