// A search: ask, fill the grid, go on when the end of the page comes near.
import { post } from "./api.js";
import { byId } from "./dom.js";
import { addTiles, clearGrid, focusedTile, focusTile, resultsShown, settle, showPlace } from "./grid.js";
import { problem, sayNothing } from "./problem.js";
import { contentOf, isSame } from "./same.js";
import { fileOf, hasFilter, uploadOf } from "./state.js";
import { keepPlace, keptPlace, learn } from "./store.js";
import { toast } from "./toast.js";
import { counted, NEAREST, UNLIKELY_BELOW } from "./words.js";

const PAGES = [48, 96, 200]; // results of the first requests; the others are as large as the last
const NEAR = 4000; // pixels from the end of the page
const status = byId("status");
const sentinel = byId("sentinel");
let running = null;
let cursor = null;
let turn = 0;
let isLoading = false;
let hasFailed = false;
let waiting = 0;
let current = null;
let content = ""; // of the query; a box on it is not the same picture

export function stopSearch() {
  running?.abort();
  clearTimeout(waiting);
  waiting = 0;
  [running, cursor, turn, isLoading, hasFailed] = [null, null, 0, false, false];
  byId("grid-end").hidden = true;
  byId("left-out").hidden = true;
}

export async function newSearch(state) {
  stopSearch();
  history.scrollRestoration = "manual";
  const place = keptPlace();
  running = new AbortController();
  current = state;
  byId("results").ariaBusy = "true";
  status.textContent = "Searching …";
  const run = running;
  const [answer, found] = await Promise.all([request(run.signal), contentOf(state)]).catch((error) => {
    if (error.name !== "AbortError") clearGrid();
    throw error;
  });
  if (run !== running) return;
  content = state.box ? "" : found;
  const focused = focusedTile();
  clearGrid();
  take(answer);
  if (focused && !place) focusTile(focused);
  window.scrollTo({ top: 0 });
  while (run === running && cursor !== null && resultsShown().length <= place) take(await request(run.signal));
  showPlace(place);
  if (focused && place) focusTile(null);
  byId("results").ariaBusy = "false";
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
    ["top", String(PAGES[Math.min(turn++, PAGES.length - 1)])],
    ["cursor", cursor],
    ...plus.map((each) => ["positive", fileOf(each) ?? each]),
    ...minus.map((each) => ["negative", fileOf(each) ?? each]),
  ];
  return post("search", fields, signal);
}

function take(answer) {
  const isFirst = resultsShown().length === 0;
  cursor = answer.cursor;
  const isOther = (each) => current.upload || each.id !== current.id;
  for (const each of answer.results) {
    each.isSame = isSame(each, content);
    learn(each);
  }
  addTiles(answer.results.filter(isOther), cursor === null);
  byId("grid-end").hidden = !answer.is_cut;
  sayLeftOut(answer);
  const shown = resultsShown();
  status.textContent = shown.length ? `${counted(shown.length, "picture")}${cursor ? " so far" : ""}, nearest first` : "No pictures";
  if (isFirst) sayIfNothing(shown);
}

// Of several indexes searched as one: those that cannot be searched now.
function sayLeftOut({ shards, left_out: names = [] }) {
  byId("left-out").hidden = !names.length;
  byId("left-out").textContent = `${names.length} of ${counted(shards ?? 0, "index", "indexes")} cannot be searched now, so pictures may be missing: ${names.join(", ")}`;
}

function sayIfNothing(shown) {
  const isUnlikely = ({ probability, isSame }) => probability !== null && probability < UNLIKELY_BELOW && !isSame;
  const isFiltered = hasFilter(current);
  byId("nothing").hidden = true;
  if (!shown.length && isFiltered) sayNothing("No picture is left", "These filters leave out every picture of the collection.", true);
  else if (!shown.length) sayNothing("Nothing to show", "The collection holds no other picture.", false);
  else if (shown.slice(0, NEAREST).every(isUnlikely)) {
    const where = isFiltered ? "with these filters" : "in this collection";
    sayNothing("Probably none of these", `Even the nearest pictures ${where} are unlikely to be the same.`, isFiltered);
  }
}

async function fillPage(run) {
  if (isLoading || hasFailed) return;
  isLoading = true;
  try {
    while (run === running && cursor !== null && isNear()) take(await request(run.signal));
  } catch (error) {
    hasFailed = run === running; // only "Try again" asks once more
    if (error.status !== 409 || !hasFailed) throw error;
    toast("The collection has another order now. This is the search in it.");
    keepPlace(0);
    await newSearch(current);
  } finally {
    if (run === running) isLoading = false;
  }
}

const isNear = () => sentinel.getBoundingClientRect().top < innerHeight + NEAR;

// Keep the place in the results for who comes back, once scrolling ends or a key is pressed.
function rest() {
  clearTimeout(waiting);
  if (waiting && running !== null) keepPlace(settle());
  waiting = 0;
}

function scrolled() {
  if (running === null) return;
  clearTimeout(waiting);
  waiting = setTimeout(rest, 200);
  if (cursor !== null && isNear()) fillPage(running).catch(problem);
}

for (const each of ["scroll", "resize"]) addEventListener(each, scrolled, { passive: true });
for (const each of ["pointerdown", "keydown"]) addEventListener(each, rest, { capture: true, passive: true });
