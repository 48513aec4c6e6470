// Terms: words that explain themselves. A click opens the explanation beside the word.

/** A button with a word, for `name`'s explanation, the element `about-…` of the page. */
export function term(name, word) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "term";
  button.setAttribute("popovertarget", `about-${name}`);
  button.textContent = word;
  return button;
}

/** Let explanations open below their words. */
export function watchTerms() {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest(".term");
    if (!button) return;
    const about = document.getElementById(button.getAttribute("popovertarget"));
    const { left, bottom } = button.getBoundingClientRect();
    about.style.setProperty("--left", `${Math.round(left)}px`);
    about.style.setProperty("--top", `${Math.round(bottom)}px`);
  });
}
