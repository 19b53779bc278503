// The view that searches: the query with its filters and examples, and the results.
import { byId } from "./dom.js";
import { showExamples } from "./examples.js";
import { showFilters, startFilters } from "./filters.js";
import { clearGrid, focusTile } from "./grid.js";
import { forgetQuery, nameQuery, showQuery, startQuery } from "./query.js";
import { newSearch, stopSearch } from "./search.js";
import { entitle, showSection } from "./sections.js";
import { hasQuery } from "./state.js";

export function start() {
  startQuery();
  startFilters();
}

export async function show(state) {
  if (!hasQuery(state)) return showEmpty(state);
  showQuery(state);
  showFilters(state);
  showExamples(state);
  try {
    await newSearch(state);
  } finally {
    nameQuery(state);
  }
}

function showEmpty(state) {
  stopSearch();
  clearGrid();
  forgetQuery();
  showSection("empty");
  entitle("");
  byId("empty-text").textContent = state.upload ? "The picture was not kept. Drop it once more, or paste it." : "Drop a picture anywhere on this page, or paste one.";
}

export const leave = stopSearch;

export const focusAgain = focusTile;
