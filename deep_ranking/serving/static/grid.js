// The grid of results: tiles, and the keys that move between them.
import { dropPicture, openOriginal, showPicture, thumbnailAddress } from "./api.js";
import { byId, element, iconButton } from "./dom.js";
import { rowsOf } from "./rows.js";
import { current, openPair, pin, searchFor, setFilters, toggleExample } from "./store.js";
import { folderOf, likenessOf, nameOf } from "./words.js";

const PROBLEMS = {
  gone: "The file is gone since it was indexed.",
  changed: "The file has changed since it was indexed.",
};
const EDGE = 250; // pixels below the upper side of the view, where bars may be
const grid = byId("grid");
const rows = rowsOf(grid, { make: makeTile, drop: dropTile });
let results = []; // all that were loaded, nearest first
let isAll = false;
let active = -1; // index of the tile that the Tab key reaches

export function clearGrid() {
  [results, active] = [[], -1];
  rows.setCount(0);
}

export function addTiles(found, isLast) {
  isAll = isLast;
  results.push(...found);
  rows.setCount(results.length);
  for (const each of rows.tiles.values()) tellSize(each);
  if (active < 0 && results.length) activate(0);
}

export function markExamples() {
  for (const each of rows.tiles.values()) mark(each);
}

function mark(item) {
  const { id } = item.dataset;
  const { plus, minus } = current();
  const sign = plus.includes(id) ? "plus" : minus.includes(id) ? "minus" : "";
  item.dataset.sign = sign;
  item.querySelector("[data-act=plus]").ariaPressed = sign === "plus";
  item.querySelector("[data-act=minus]").ariaPressed = sign === "minus";
}

export const resultsShown = () => results;

export function focusedTile() {
  return document.activeElement.closest(".tile")?.dataset.id ?? null;
}

export function focusTile(id) {
  const found = results.findIndex((each) => each.id === id);
  if (found >= 0 || active >= 0) focusAt(found >= 0 ? found : active);
}

// Return the index of the first result in view, once scrolling has ended; `showPlace` goes back to it.
// Whoever scrolled away from the tile of the Tab key finds it where they look.
export function settle() {
  const place = results.length ? rows.inView().index : 0;
  if (active >= 0 && !rows.tiles.has(active)) activate(place);
  return place;
}

export function showPlace(index) {
  if (!(index > 0 && index < results.length)) return;
  rows.place(index, EDGE);
  activate(index);
}

function focusAt(index) {
  if (!rows.tiles.has(index)) rows.place(index, EDGE);
  activate(index);
  rows.tiles.get(index).querySelector(".picture").focus();
}

function makeTile(index) {
  const item = tile(results[index]);
  item.dataset.index = index;
  item.ariaPosInSet = index + 1;
  tellSize(item);
  mark(item);
  if (index === active) reach(item, 0);
  return item;
}

function tellSize(item) {
  item.ariaSetSize = isAll ? results.length : -1;
}

function dropTile(item) {
  const image = item.querySelector("img");
  if (image) dropPicture(image);
}

function tile(result) {
  const { problem, path } = result;
  const told = likenessOf(result);
  const distance = result.distance === null ? "" : `distance ${result.distance.toFixed(3)}`;
  const picture = element("button", { type: "button", className: "picture", tabIndex: -1 });
  picture.onclick = () => openPair(result);
  const spoken = [told && told.words, told?.share, distance, result.class && `class ${result.class}`, path, PROBLEMS[problem]];
  picture.ariaLabel = `${spoken.filter(Boolean).join(", ")}. Open`;
  if (problem) picture.append(element("span", { className: "lost" }, PROBLEMS[problem]));
  else picture.append(thumbnail(result, current().collection));
  const item = element("li", { className: "tile" }, picture, buttons(result), caption(result, told, distance));
  item.dataset.id = result.id;
  item.title = path;
  item.addEventListener("focusin", () => activate(Number(item.dataset.index)));
  return item;
}

function thumbnail(result, collection) {
  const image = element("img", { alt: "", draggable: false, decoding: "async" });
  image.addEventListener(
    "error",
    () => image.replaceWith(element("span", { className: "lost" }, "This picture cannot be shown now.")),
    { once: true },
  );
  showPicture(image, thumbnailAddress(result.id, collection, 256));
  return image;
}

function buttons(result) {
  const made = [
    ["more", "more", "More like this (M)", () => searchFor(result)],
    ["plus", "plus", "More of this: plus example (+)", () => toggleExample("plus", result)],
    ["minus", "minus", "Less of this: minus example (−)", () => toggleExample("minus", result)],
    ["open", "original", "Open original (O)", () => openOriginal(result.id, current().collection)],
  ].map(([name, act, label, action]) => {
    const button = iconButton(name, label, action);
    button.dataset.act = act;
    button.tabIndex = -1;
    return button;
  });
  return element("div", { className: "actions" }, ...made);
}

function caption(result, told, distance) {
  const folder = folderOf(result.path);
  const inner = folder.startsWith(`${result.class}/`) ? folder.slice(result.class.length + 1) : folder;
  const lines = element("div", { className: "caption" });
  const isLine = result.probability !== null; // so that all tiles of a grid have as many
  if (isLine) lines.append(element("p", { className: `likeness ${told.kind}` }, told.words));
  const places = element("p", { className: "places" });
  const link = (text, label, onclick) => (current().view === "search" ? element("button", { type: "button", className: "link", tabIndex: -1, title: label, onclick }, text) : element("span", {}, text));
  if (result.class) places.append(link(result.class, `Only the class ${result.class}`, () => setFilters({ class: result.class })));
  if (folder && folder !== result.class) places.append(link(inner, `Only the folder ${folder}`, () => setFilters({ folder })));
  if (!places.childElementCount) places.append(nameOf(result.path));
  const number = isLine ? [told.share, distance].filter(Boolean).join(" · ") : (told?.words ?? distance);
  if (number) lines.append(element("p", { className: "distance" }, number));
  lines.append(places);
  return lines;
}

function reach(item, tabIndex) {
  item?.querySelectorAll("button").forEach((each) => (each.tabIndex = tabIndex));
}

function activate(index) {
  if (active === index) return;
  reach(rows.tiles.get(active), -1);
  reach(rows.tiles.get(index), 0);
  active = index;
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || active < 0) return;
  const step = rows.columns();
  const last = results.length - 1;
  const places = { ArrowLeft: active - 1, ArrowRight: active + 1, ArrowUp: active - step, ArrowDown: active + step, Home: 0, End: last };
  const acts = { m: "more", "+": "plus", "=": "plus", "-": "minus", o: "original" };
  if (event.key in places) {
    const next = places[event.key];
    if (next >= 0 && next <= last) focusAt(next);
  } else if (event.key.toLowerCase() in acts) {
    rows.tiles.get(active).querySelector(`[data-act=${acts[event.key.toLowerCase()]}]`).click();
  } else if (event.key.toLowerCase() === "c") pin(results[active]);
  else return;
  event.preventDefault();
}

grid.onkeydown = press;
