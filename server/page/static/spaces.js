// Visible white space.

/** `text` as nodes, the spaces at its ends and its line breaks as marks. */
export function marked(text) {
  return text
    .split(/(^ +| +$|\n)/)
    .filter(Boolean)
    .map((part) => (part.trim() ? document.createTextNode(part) : mark(part)));
}

function mark(space) {
  const element = document.createElement("span");
  element.className = "space";
  element.textContent = space === "\n" ? "⏎" : "␣".repeat(space.length);
  return element;
}
