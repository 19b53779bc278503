// The page's state, and every change of it by its name. Data flows one way: an event calls a change,
// the change writes the address bar and tells who watches, and they draw what the state says.
import { countOwn, emptyOf, keepUpload, leaveOutCollection, OF_VIEWS, readState, writeState } from "./state.js";

export const MOST_OWN = 31; // pictures of one's own beside the query: a request holds 32
// What can be watched: the view or what it shows; the pair over it, or what is pinned; a picture that became known.
const watchers = { view: [], pair: [], known: [] };
let state = { ...readState(), pinned: null };
let isLeaving = false; // the browser goes back to the address without the pair
let delayed = []; // changes that wait until it is there

export const server = { collections: [] }; // and what its answer to `health` says
export const known = new Map(); // id -> what is known of a picture

export const current = () => state;

export const currentCollection = () => server.collections.find((each) => each.name === state.collection) ?? server.collections[0];

export const watch = (what, draw) => watchers[what].push(draw);

const tell = (what, ...given) => watchers[what].forEach((draw) => draw(...given));

const inTurn = (change) => (isLeaving ? delayed.push(change) : change());

// A step of the browser's history, or another one in place of the last.
function go(changes, { replaces = false } = {}) {
  inTurn(() => {
    state = { ...state, compare: [], isOpened: false, ...changes };
    writeState(state, { replaces });
    tell("view");
  });
}

// The view stays as it is.
function keep(changes, { replaces = true } = {}) {
  state = { ...state, ...changes };
  writeState(state, { replaces });
}

const ofQuery = { view: "search", id: "", upload: 0, box: "", plus: [], minus: [] };

export const searchFor = ({ id }) => go({ ...ofQuery, id });

export const searchWith = (file) => go({ ...ofQuery, upload: keepUpload(file) });

export const removeQuery = () => go({ id: "", upload: 0, box: "" });

export const setBox = (box) => go({ box }, { replaces: state.box !== "" && box !== "" });

// Of class, folder and min: all that are given.
export const setFilters = (filters, options) => go(filters, options);

export const clearFilters = () => go({ class: "", folder: "", min: "" });

export function toggleExample(sign, { id }) {
  const other = sign === "plus" ? "minus" : "plus";
  const has = state[sign].includes(id);
  const kept = state[sign].filter((each) => each !== id);
  go({ [sign]: has ? kept : [...kept, id], [other]: state[other].filter((each) => each !== id) });
}

// Return how many are left out, because there would be too many.
export function addOwnExamples(sign, files) {
  const taken = files.slice(0, MOST_OWN - countOwn(state));
  if (taken.length) go({ [sign]: [...state[sign], ...taken.map(keepUpload)] });
  return files.length - taken.length;
}

export const removeExample = (sign, example) => go({ [sign]: state[sign].filter((each) => each !== example) });

export const openView = (view) => go({ view });

export const beginAnew = () => go({ ...emptyOf(), collection: state.collection });

export function chooseCollection(collection) {
  const { upload, box, view, threshold } = state;
  go({ ...emptyOf(), upload, box: upload ? box : "", view, threshold, collection, pinned: null });
}

export const setThreshold = (threshold) => go({ threshold });

// Of lasso, map, only and at: all that are given.
export const chooseOnMap = (choice) => go(choice);

export const keepSight = (at) => keep({ at });

// Beside what is pinned, if something is.
export function openPair({ id }) {
  inTurn(() => {
    const { pinned } = state;
    keep({ compare: pinned && pinned.id !== id ? [pinned.id, id] : [id], isOpened: true }, { replaces: false });
    tell("pair");
  });
}

// Two pictures, whatever is pinned.
export function openBoth(first, second) {
  inTurn(() => {
    keep({ compare: [first.id, second.id], isOpened: true }, { replaces: false });
    tell("pair");
  });
}

export function stepPair({ id }) {
  keep({ compare: [...state.compare.slice(0, -1), id] });
  tell("pair");
}

export function closePair() {
  if (!state.compare.length) return;
  if (state.isOpened) {
    isLeaving = true;
    history.back();
    return;
  }
  keep({ compare: [] });
  tell("pair");
}

// A picture that waits for another one to be compared with; null for none.
export function pin(pinned) {
  state = { ...state, pinned };
  tell("pair");
}

export function learn(picture) {
  known.set(picture.id, picture);
  tell("known", picture);
}

// How far down the results somebody was, for when they come back to them.
export function keepPlace(place) {
  if (keptPlace() !== place) history.replaceState({ ...history.state, place }, "");
}

export const keptPlace = () => history.state?.place ?? 0;

// What the server is and has.
export function learnServer(health, collections) {
  Object.assign(server, health, { collections });
  leaveOutCollection(collections[0].name);
  useCollection();
}

function useCollection() {
  if (!server.collections.some((each) => each.name === state.collection)) state.collection = server.collections[0]?.name ?? "";
}

// What a search depends on: not the pictures that are compared.
const searched = (of) => JSON.stringify({ ...of, compare: [], isOpened: false, pinned: null });

addEventListener("popstate", () => {
  isLeaving = false;
  const before = state;
  state = readState();
  useCollection();
  const isSame = state.collection === before.collection;
  for (const [view, names] of Object.entries(OF_VIEWS)) {
    if (isSame && state.view !== view) for (const name of names) state[name] = before[name];
  }
  state.pinned = isSame ? before.pinned : null;
  tell(searched(state) === searched(before) ? "pair" : "view");
  for (const change of delayed.splice(0)) change();
});
