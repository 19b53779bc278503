// The page: asks the server what it has, and shows the view that the state names whenever that changes.
import { ask, setToken } from "./api.js";
import { cancelPin, showCompared, startCompared } from "./compared.js";
import { byId, isTyping } from "./dom.js";
import { offerFilters } from "./filters.js";
import { focusTile } from "./grid.js";
import { makeHeader, showHeader, startHeader } from "./header.js";
import { startIntake } from "./intake.js";
import { hideProblem, problem } from "./problem.js";
import { showSection, shownSection } from "./sections.js";
import { current, currentCollection, learnServer, openView, server, watch } from "./store.js";
import { hideToast, toast } from "./toast.js";
import { expect, expectWhenIdle, hasView, isOf, loadView } from "./views.js";
import { counted } from "./words.js";

let shown = null; // the view, its module
let turn = 0;

async function render() {
  if (!server.collections.length) return; // `begin` shows what was meant meanwhile
  const state = current();
  if (!isOf(state.view, currentCollection())) {
    toast("This collection is several indexes searched as one: it has no such view.");
    return openView("search");
  }
  const mine = ++turn;
  hideProblem();
  showHeader();
  offerFilters();
  showCompared();
  try {
    const view = await loadView(state.view);
    if (mine !== turn) return; // another one was opened meanwhile
    if (view !== shown) shown?.leave?.();
    shown = view;
    showSection(state.view);
    await view.show(state);
    showCompared();
    if (mine === turn && shownSection() !== "empty") expectWhenIdle("viewer");
  } catch (error) {
    if (mine === turn) problem(error);
  }
}

function press(event) {
  if (byId("viewer").open) return;
  if (event.key === "/" && !isTyping(event.target)) {
    event.preventDefault();
    byId(shownSection() === "search" ? "replace" : "choose").focus();
  } else if (event.key === "Escape") {
    if (hideToast() || cancelPin()) return;
    if (event.target.closest("#grid")) byId("replace").focus();
    else if (event.target.closest("#query")) focusTile(null);
  }
}

async function enterToken(event) {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("token-wrong").hidden = true;
  await begin();
  byId("token-wrong").hidden = shownSection() !== "token";
}

async function begin() {
  byId("problem").hidden = true;
  try {
    const [health, { collections }] = await Promise.all([ask("health"), ask("collections")]);
    learnServer(health, collections);
  } catch (error) {
    if (shownSection() !== "token") showSection("empty");
    return problem(error);
  }
  makeHeader();
  const { lost, view } = current();
  if (lost) toast(`${counted(lost, "example picture")} ${lost === 1 ? "was" : "were"} not kept. Add them again.`);
  if (hasView(view)) return render();
  toast("This server does not have the view of this address.");
  openView("search");
}

watch("view", render);
startHeader();
startIntake();
startCompared(() => shown);
expect("search");
byId("problem-again").onclick = begin;
byId("token-form").addEventListener("submit", enterToken);
document.addEventListener("keydown", press);
begin();
