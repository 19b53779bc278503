// The grid of results: tiles, and the keys that move between them.
import { showPicture, thumbnailAddress } from "./api.js";
import { byId, element, iconButton } from "./dom.js";
import { folderOf, likeness, nameOf, percent } from "./words.js";

const PROBLEMS = {
  gone: "The file is gone since it was indexed.",
  changed: "The file has changed since it was indexed.",
};
const grid = byId("grid");
let active = null;

export const known = new Map(); // id -> result, of all that was shown

export function clearGrid() {
  grid.replaceChildren();
  active = null;
}

export function addTiles(results, state, actions) {
  const tiles = results.map((each) => tile(each, state, actions));
  grid.append(...tiles);
  if (active === null && tiles.length) activate(tiles[0]);
}

export function markExamples(state) {
  for (const each of grid.children) {
    const { id } = each.dataset;
    const sign = state.plus.includes(id) ? "plus" : state.minus.includes(id) ? "minus" : "";
    each.dataset.sign = sign;
    each.querySelector("[data-act=plus]").setAttribute("aria-pressed", String(sign === "plus"));
    each.querySelector("[data-act=minus]").setAttribute("aria-pressed", String(sign === "minus"));
  }
}

export function resultsShown() {
  return [...grid.children].map((each) => known.get(each.dataset.id));
}

export function focusedTile() {
  return document.activeElement.closest(".tile")?.dataset.id ?? null;
}

export function focusTile(id) {
  const found = [...grid.children].find((each) => each.dataset.id === id) ?? active;
  if (!found) return;
  activate(found);
  found.querySelector(".picture").focus();
}

function tile(result, state, actions) {
  known.set(result.id, result);
  const { probability, problem, path } = result;
  const told = probability === null ? null : likeness(probability);
  const distance = result.distance === null ? "" : `distance ${result.distance.toFixed(3)}`;
  const picture = element("button", { type: "button", className: "picture", tabIndex: -1 });
  picture.onclick = () => actions.open(result);
  const spoken = [told && `${told.words}, ${percent(probability)}`, distance, result.class && `class ${result.class}`, path, PROBLEMS[problem]];
  picture.setAttribute("aria-label", `${spoken.filter(Boolean).join(", ")}. Open`);
  if (problem) picture.append(element("span", { className: "lost" }, PROBLEMS[problem]));
  else picture.append(thumbnail(result, state.collection));
  const item = element("li", { className: "tile" }, picture, buttons(result, actions), caption(result, told, distance, actions));
  item.dataset.id = result.id;
  item.title = path;
  item.addEventListener("focusin", () => activate(item));
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

function buttons(result, actions) {
  const made = [
    ["more", "more", "More like this (M)", actions.more],
    ["plus", "plus", "More of this: plus example (+)", actions.plus],
    ["minus", "minus", "Less of this: minus example (−)", actions.minus],
    ["open", "original", "Open original (O)", actions.original],
  ].map(([name, act, label, action]) => {
    const button = iconButton(name, label, () => action(result));
    button.dataset.act = act;
    button.tabIndex = -1;
    return button;
  });
  return element("div", { className: "actions" }, ...made);
}

function caption(result, told, distance, actions) {
  const folder = folderOf(result.path);
  const inner = folder.startsWith(`${result.class}/`) ? folder.slice(result.class.length + 1) : folder;
  const lines = element("div", { className: "caption" });
  if (told) {
    lines.append(element("p", { className: `likeness ${told.kind}` }, told.words));
  }
  const places = element("p", { className: "places" });
  const link = (text, label, onclick) => (actions.filter ? element("button", { type: "button", className: "link", tabIndex: -1, title: label, onclick }, text) : element("span", {}, text));
  if (result.class) places.append(link(result.class, `Only the class ${result.class}`, () => actions.filter({ class: result.class })));
  if (folder && folder !== result.class) places.append(link(inner, `Only the folder ${folder}`, () => actions.filter({ folder })));
  if (!places.childElementCount) places.append(nameOf(result.path));
  const number = told ? `${percent(result.probability)} · ${distance}` : distance;
  if (number) lines.append(element("p", { className: "distance" }, number));
  lines.append(places);
  return lines;
}

function activate(item) {
  if (active === item) return;
  const set = (of, tabIndex) => of?.querySelectorAll("button").forEach((each) => (each.tabIndex = tabIndex));
  set(active, -1);
  set(item, 0);
  active = item;
}

function columns() {
  return getComputedStyle(grid).gridTemplateColumns.split(" ").length;
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || active === null) return;
  const tiles = [...grid.children];
  const at = tiles.indexOf(active);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -at, End: tiles.length - 1 - at };
  const acts = { m: "more", "+": "plus", "=": "plus", "-": "minus", o: "original" };
  if (event.key in steps) {
    const next = tiles[at + steps[event.key]];
    if (next) next.querySelector(".picture").focus();
  } else if (event.key.toLowerCase() in acts) {
    active.querySelector(`[data-act=${acts[event.key.toLowerCase()]}]`).click();
  } else return;
  event.preventDefault();
}

grid.addEventListener("keydown", press);
