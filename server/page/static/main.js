// The page: asks the server for its model, then runs prompts, at one budget or at two.

import { Card } from "./card.js";
import { examplesBeside } from "./examples.js";
import { fromFragment, toFragment } from "./fragment.js";
import { count, nats } from "./numbers.js";
import { Pane } from "./pane.js";
import { Run } from "./run.js";
import { MARKS, paint } from "./scale.js";
import { ConnectionLost, Server, ServerError } from "./server.js";
import { SettingsForm } from "./settings.js";
import { watchTerms } from "./terms.js";

const $ = (id) => document.getElementById(id);

const server = new Server();
const settings = new SettingsForm($("question"));
const card = new Card($("card"));
let model = null;
let panes = [];
/** Stops the current runs; null when there are none. */
let stopper = null;

async function connect() {
  hideNotices();
  try {
    model = await server.model();
  } catch (error) {
    showProblem(error);
    return;
  }
  describeModel();
  settings.allow(model);
  offerExamples();
  settings.write(fromFragment(location.hash));
  updateLink();
  $("run").disabled = false;
}

function hideNotices() {
  for (const id of ["key", "problem"]) $(id).hidden = true;
  $("problem-message").textContent = "";
}

function showProblem(error) {
  if (error instanceof ServerError && error.status === 401) {
    $("key-message").textContent = $("api-key").value
      ? "The server does not accept this key."
      : "This server needs an API key.";
    $("key").hidden = false;
    $("api-key").focus();
    return;
  }
  $("problem").hidden = false;
  $("problem-message").textContent =
    error instanceof ConnectionLost ? "The server does not answer." : error.message;
}

function describeModel() {
  const { max_thought_budget: most, allow_return_thoughts: shown } = model.quiet_star;
  const thinking = most === 0 ? "no thoughts" : `thoughts of up to ${count(most, "token")}`;
  $("model").textContent = `${model.id} · ${thinking}`;
  document.title = `${model.id} · quietstar`;
  document.body.dataset.thoughts = most === 0 ? "none" : shown ? "shown" : "hidden";
  for (const [id, applies] of [
    ["no-thoughts", most === 0],
    ["hidden-thoughts", most > 0 && !shown],
    ["legend", most > 0 && shown],
  ]) {
    $(id).hidden = !applies;
  }
}

function offerExamples() {
  const examples = examplesBeside(model.quiet_star.example_prompt);
  const buttons = examples.map((example) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = example.title;
    button.addEventListener("click", () => {
      settings.write(example);
      updateLink();
    });
    return button;
  });
  $("examples").replaceChildren(...buttons);
  if (settings.read().prompt === "") settings.write(examples[0]);
}

function updateLink() {
  $("link").href = toFragment(settings.read());
}

async function run() {
  if (stopper || !model) return;
  say("");
  if (!settings.check()) return;
  const asked = settings.read();
  const given = asked.mode === "measure" ? "" : asked.prompt;
  card.hide();
  panes = asked.budgets.map((budget) => new Pane(budget, given));
  $("panes").replaceChildren(...panes.map((pane) => pane.element));
  $("results").hidden = false;
  showPanes();
  stopper = new AbortController();
  showRunning(true);
  say("Thinking …");
  const { signal } = stopper;
  const runs = panes.map((pane) => new Run(server, model, asked, pane).finish(signal));
  const errors = (await Promise.all(runs)).filter((error) => error !== null);
  const wasStopped = signal.aborted;
  stopper = null;
  showRunning(false);
  say(errors.length ? "Failed." : wasStopped ? "Stopped." : "Done.");
  $("spoken").textContent = panes
    .map((pane) => `Budget ${pane.budget}: ${pane.text || "nothing"}`)
    .join("\n");
  if (!errors.length && !wasStopped) showLargestGain();
  const refusal = errors.find((error) => error instanceof ServerError && error.status === 401);
  if (refusal) showProblem(refusal);
}

/** Scrolls to the answers, with the button that stops them, where they begin below the window. */
function showPanes() {
  const { top } = $("panes").getBoundingClientRect();
  if (top > 0.7 * innerHeight) $("status").parentElement.scrollIntoView({ block: "start" });
}

/** The card of the token whose thought helped most. */
function showLargestGain() {
  const gains = panes.map((pane) => pane.largestGain).filter(Boolean);
  if (gains.length === 0) return;
  const { token, element } = gains.reduce((best, one) => (one.gain > best.gain ? one : best));
  card.showBelow(token, element);
}

function showRunning(isRunning) {
  const hadFocus = document.activeElement === $("run") || document.activeElement === $("stop");
  $("run").hidden = isRunning;
  $("stop").hidden = !isRunning;
  if (hadFocus) $(isRunning ? "stop" : "run").focus();
}

function say(status) {
  $("status").textContent = status;
}

function drawScale() {
  const swatches = MARKS.map((mark) => {
    const swatch = document.createElement("li");
    swatch.textContent = mark === 0 ? "0" : nats(mark).replace(/\.?0+$/, "");
    paint(swatch, mark);
    return swatch;
  });
  $("scale").replaceChildren(...swatches);
}

function showCardOf(element) {
  const token = panes.map((pane) => pane.tokenOf(element)).find(Boolean);
  if (token) card.show(token, element);
  return Boolean(token);
}

/** The card of the focused token stays when the pointer leaves. */
function fallBack() {
  // What is being written stays.
  if (card.isEditing) card.place();
  else if (!showCardOf(document.activeElement)) card.hide();
}

function watchTokens() {
  const area = $("panes");
  // There is no hovering by touch: a tap moves the focus.
  area.addEventListener("pointerover", ({ target, pointerType }) => {
    if (pointerType !== "touch" && !card.isEditing) showCardOf(target);
  });
  area.addEventListener("focusin", ({ target }) => {
    if (showCardOf(target)) target.scrollIntoView({ block: "nearest" });
  });
  area.addEventListener("focusout", ({ relatedTarget: next }) => {
    if (!card.contains(next)) card.hide();
  });
  $("card").addEventListener("focusout", ({ relatedTarget: next }) => {
    // A click on what cannot have the focus moves it nowhere.
    if (next && !card.contains(next)) fallBack();
  });
  area.addEventListener("keydown", (event) => {
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === "Enter" && showCardOf(event.target)) card.sample();
    if (event.key.toLowerCase() === "e" && isPlain && showCardOf(event.target)) {
      // Not a letter of the thought.
      event.preventDefault();
      card.edit();
    }
  });
  document.addEventListener("pointerdown", ({ target }) => {
    const isOfCard = card.contains(target) || target.closest(".token, [popover]");
    if (!isOfCard) card.hide();
  });
  for (const place of [area, $("card")]) {
    place.addEventListener("pointerout", ({ target, relatedTarget: next, pointerType }) => {
      if (pointerType === "touch" || card.contains(next)) return;
      // Elsewhere in an answer nothing is left: a card that opened by itself stays.
      if (!card.contains(target) && !target.closest(".token")) return;
      if (!next?.closest(".token, [popover]")) fallBack();
    });
  }
  document.addEventListener("keydown", ({ key }) => {
    // Of two that are open the explanation closes first.
    if (key !== "Escape" || document.querySelector("[popover]:popover-open")) return;
    if (card.isEditing) card.leaveEditor();
    else card.hide();
  });
  addEventListener("resize", fallBack);
}

function watchForm() {
  const form = $("question");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  form.addEventListener("input", updateLink);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit($("run"));
  });
  $("stop").addEventListener("click", () => stopper?.abort());
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    server.useKey($("api-key").value.trim());
    connect();
  });
  $("again").addEventListener("click", connect);
  addEventListener("hashchange", () => {
    settings.write(fromFragment(location.hash));
    updateLink();
  });
}

drawScale();
watchTerms();
watchTokens();
watchForm();
connect();
