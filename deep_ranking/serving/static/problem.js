// What went wrong, in one sentence, where it can be mended.
import { Refusal } from "./api.js";
import { byId } from "./dom.js";
import { clearGrid } from "./grid.js";
import { showSection } from "./sections.js";
import { hasFilter } from "./state.js";
import { current } from "./store.js";

export function problem(error) {
  if (error.name === "AbortError") return;
  byId("results").ariaBusy = "false";
  if (error.status === 401) {
    showSection("token");
    byId("token").focus();
    return;
  }
  if (error.status === 422 && hasFilter(current()) && /^(Class|Folder): /.test(error.message)) {
    sayRefused(error.message);
    return;
  }
  const isKnown = error instanceof Refusal;
  if (!isKnown) console.error(error);
  byId("problem").hidden = false;
  byId("problem-text").textContent = isKnown ? error.message : "This page made an error. Load it again.";
  byId("problem-again").hidden = error.isFinal || (isKnown && error.status >= 400 && error.status < 500 && error.status !== 408);
  byId("status").textContent = "";
  byId("duplicates-summary").textContent = "";
}

// A class or folder of the address that the collection does not have: say it beside the filters.
function sayRefused(sentence) {
  clearGrid();
  byId("status").textContent = "";
  sayNothing(sentence.startsWith("Class") ? "No such class" : "Nothing in this folder", sentence, true);
}

// Beside the results, or in their place.
export function sayNothing(title, sentence, canClear) {
  byId("nothing").hidden = false;
  byId("nothing-clear").hidden = !canClear;
  byId("nothing-title").textContent = title;
  byId("nothing-text").textContent = sentence;
}

export function hideProblem() {
  byId("problem").hidden = true;
  byId("nothing").hidden = true;
}
