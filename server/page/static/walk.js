// Keyboard navigation: Tab goes to one token of a text, the arrow keys from there to the others.

const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

/**
 * Lets the arrow keys move among the children of `list`, which may still grow.
 *
 * @param {HTMLElement} list
 */
export function walkable(list) {
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const from = event.target.closest("[role=option]");
    const to = from && destination(list, from, event.key);
    if (!to) return;
    event.preventDefault();
    to.focus();
  });
  list.addEventListener("focusin", ({ target }) => select(list, target));
}

/** Makes a new child of `list` reachable; Tab goes to the first one. */
export function addStep(list, element) {
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", "false");
  element.tabIndex = list.childElementCount === 0 ? 0 : -1;
  list.append(element);
}

function select(list, chosen) {
  for (const element of list.querySelectorAll("[tabindex='0']")) element.tabIndex = -1;
  for (const element of list.querySelectorAll("[aria-selected=true]")) {
    element.setAttribute("aria-selected", "false");
  }
  chosen.tabIndex = 0;
  chosen.setAttribute("aria-selected", "true");
}

function destination(list, from, key) {
  const all = [...list.children];
  if (key in STEPS) {
    const index = all.indexOf(from) + STEPS[key];
    return all[Math.max(0, Math.min(all.length - 1, index))];
  }
  if (key === "ArrowUp" || key === "ArrowDown") return onNextLine(all, from, key === "ArrowDown");
  return null;
}

/** The token above or below: of the next line, the one whose middle is nearest. */
function onNextLine(all, from, down) {
  const here = middle(from);
  const line = from.getClientRects()[0].height / 2;
  const beyond = all.map(middle).filter(({ y }) => (down ? y - here.y : here.y - y) > line);
  if (beyond.length === 0) return from;
  const nearest = Math.min(...beyond.map(({ y }) => Math.abs(y - here.y)));
  const next = beyond.filter(({ y }) => Math.abs(y - here.y) < nearest + line);
  next.sort((a, b) => Math.abs(a.x - here.x) - Math.abs(b.x - here.x));
  return next[0].element;
}

function middle(element) {
  const { x, y, width, height } = element.getClientRects()[0];
  return { element, x: x + width / 2, y: y + height / 2 };
}
