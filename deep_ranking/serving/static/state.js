// What the page shows, as the address bar has it. Uploads stay in this tab: an address cannot hold them.

const TEXTS = ["collection", "id", "box", "class", "folder", "min", "threshold"];
const LISTS = ["plus", "minus", "compare"]; // of ids; plus and minus also have numbers of uploads
// What a view has for itself; it stays in this tab while another view is open.
// Of the map: what is in sight, the lasso, on which map it was drawn, the class that is shown alone.
export const OF_VIEWS = { map: ["at", "lasso", "map", "only"] };
const uploads = new Map();
let firstCollection = "";

export function keepUpload(file) {
  uploads.set(uploads.size + 1, file);
  return uploads.size;
}

export const uploadOf = (state) => uploads.get(state.upload) ?? null;

export const fileOf = (example) => uploads.get(example) ?? null;

const ownOf = (list) => list.filter((each) => typeof each === "number");

function parse(text) {
  const given = new URLSearchParams(text);
  const state = { view: given.get("view") || "search" };
  for (const name of [...TEXTS, ...Object.values(OF_VIEWS).flat()]) state[name] = given.get(name) ?? "";
  for (const name of LISTS) state[name] = (given.get(name) ?? "").split(",").filter(Boolean);
  return state;
}

export const emptyOf = () => ({ ...parse(""), upload: 0 });

export function readState() {
  const state = parse(location.search);
  state.upload = history.state?.upload ?? 0;
  state.isOpened = history.state?.isOpened ?? false;
  state.lost = 0; // pictures of one's own that a reload of the tab took away
  for (const name of ["plus", "minus"]) {
    const own = history.state?.[name] ?? [];
    state[name].push(...own.filter((each) => uploads.has(each)));
    state.lost += own.filter((each) => !uploads.has(each)).length;
  }
  if (!/^(0(\.\d+)?|1)$/.test(state.min)) state.min = "";
  return state;
}

// The first collection answers where none is named, so its name is left out.
export function leaveOutCollection(name) {
  firstCollection = name;
}

export function addressOf(state) {
  const parts = new URLSearchParams();
  if (state.view !== "search") parts.set("view", state.view);
  for (const name of OF_VIEWS[state.view] ?? []) if (state[name]) parts.set(name, state[name]);
  for (const name of TEXTS) if (state[name] && !(name === "collection" && state[name] === firstCollection)) parts.set(name, state[name]);
  for (const name of LISTS) {
    const ids = state[name].filter((each) => typeof each === "string");
    if (ids.length) parts.set(name, ids.join(","));
  }
  const text = parts.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
  return text ? `/?${text}` : "/";
}

export function writeState(state, { replaces = false } = {}) {
  const kept = { upload: state.upload, plus: ownOf(state.plus), minus: ownOf(state.minus), isOpened: state.isOpened };
  if (replaces) history.replaceState(kept, "", addressOf(state));
  else history.pushState(kept, "", addressOf(state));
}

export const countOwn = (state) => [state.plus, state.minus].flatMap(ownOf).length;

export function hasQuery(state) {
  return Boolean(state.id || uploadOf(state) || state.plus.length);
}

export function hasFilter(state) {
  return Boolean(state.class || state.folder || state.min);
}
