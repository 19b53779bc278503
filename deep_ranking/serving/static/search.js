// A search: ask, fill the grid, go on when the end of the page comes near.
import { post } from "./api.js";
import { byId } from "./dom.js";
import { addTiles, clearGrid, focusedTile, focusTile, markExamples, resultsShown } from "./grid.js";
import { fileOf, hasFilter, uploadOf } from "./state.js";
import { counted, NEAREST, UNLIKELY_BELOW } from "./words.js";

const PAGE = 48;
const NEAR = 1200; // pixels from the end of the page
const status = byId("status");
const sentinel = byId("sentinel");
let running = null;
let cursor = null;
let isLoading = false;
let current = null;
let told = {};

export function stopSearch() {
  running?.abort();
  [running, cursor, isLoading] = [null, null, false];
}

export async function newSearch(state, actions) {
  stopSearch();
  running = new AbortController();
  [current, told] = [state, actions];
  byId("results").setAttribute("aria-busy", "true");
  status.textContent = "Searching …";
  const run = running;
  const answer = await request(run.signal).catch((error) => {
    if (error.name !== "AbortError") clearGrid();
    throw error;
  });
  const focused = focusedTile();
  clearGrid();
  take(answer);
  if (focused) focusTile(focused);
  window.scrollTo({ top: 0 });
  byId("results").setAttribute("aria-busy", "false");
  await fillPage(run);
}

function request(signal) {
  const { id, box, plus, minus, min, folder, collection } = current;
  const upload = uploadOf(current);
  const hasOne = upload || id;
  const fields = [
    [upload ? "image" : "id", upload || id],
    ["box", hasOne ? box : ""],
    ["class", current.class],
    ["folder", folder],
    ["min_probability", min],
    ["collection", collection],
    ["top", String(PAGE)],
    ["cursor", cursor],
    ...plus.map((each) => ["positive", fileOf(each) ?? each]),
    ...minus.map((each) => ["negative", fileOf(each) ?? each]),
  ];
  return post("search", fields, signal);
}

function take(answer) {
  const isFirst = cursor === null;
  cursor = answer.cursor;
  const isOther = (each) => current.upload || each.id !== current.id;
  answer.results.forEach((each) => told.learn(each));
  addTiles(answer.results.filter(isOther), current, told);
  markExamples(current);
  const shown = resultsShown();
  status.textContent = shown.length ? `${counted(shown.length, "picture")}${cursor ? " so far" : ""}, nearest first` : "No pictures";
  if (isFirst) sayIfNothing(shown);
}

function sayIfNothing(shown) {
  const chances = shown.slice(0, NEAREST).map((each) => each.probability);
  const isUnlikely = shown.length > 0 && chances.every((each) => each !== null && each < UNLIKELY_BELOW);
  byId("nothing").hidden = shown.length > 0 && !isUnlikely;
  byId("nothing-clear").hidden = !hasFilter(current);
  byId("nothing-text").textContent = isUnlikely
    ? "Even the nearest pictures are unlikely to be the same."
    : hasFilter(current)
      ? "No picture is left with these filters."
      : "The collection holds no other picture.";
}

async function fillPage(run) {
  if (isLoading) return;
  isLoading = true;
  try {
    while (run === running && cursor !== null && isNear()) take(await request(run.signal));
  } finally {
    if (run === running) isLoading = false;
  }
}

const isNear = () => sentinel.getBoundingClientRect().top < innerHeight + NEAR;

new IntersectionObserver(
  ([entry]) => {
    if (entry.isIntersecting && cursor !== null && running !== null) fillPage(running).catch(told.problem);
  },
  { rootMargin: `${NEAR}px` },
).observe(sentinel);
