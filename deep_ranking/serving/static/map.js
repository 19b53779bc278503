// The map of a collection: every picture is a dot, near those that are like it. A lasso chooses some.
import { askTagged, post, Refusal, showPicture, thumbnailAddress } from "./api.js";
import { byId, element } from "./dom.js";
import { addTiles, clearGrid, focusTile, markExamples, resultsShown } from "./grid.js";
import { inside, parseLasso, rectangle, writeLasso } from "./lasso.js";
import { chooseColours, colours, cssColour, isDark, NUM_COLOURS, pixelOf } from "./palette.js";
import * as plane from "./plane.js";
import { problem } from "./problem.js";
import { contentOf } from "./same.js";
import { entitle } from "./sections.js";
import { uploadOf } from "./state.js";
import { chooseOnMap, keepSight, learn, openPair, openView } from "./store.js";
import { forgetThumbnails } from "./thumbnails.js";
import { counted } from "./words.js";

const PAGE = 60;
const POLL = 1000; // milliseconds
const NO_CLASS = "/"; // in an address; the name of a class never is a slash alone
const canvas = byId("map");
let state = null;
let map = null;
let running = null;
let chosen = [];
let numShown = 0;
let numGone = 0; // of those, the collection has lost
let chosenKey = null;
let timer = 0;
let knownAt = ""; // what is in sight, as the address has it
let middle = ""; // class of the picture in the middle, for who uses the keyboard

export function start() {
  plane.startPlane({ moved, pointed, opened: open, drawn: (line) => choose(writeLasso(line)) });
  byId("map-in").onclick = () => plane.zoomBy(1.6);
  byId("map-out").onclick = () => plane.zoomBy(1 / 1.6);
  byId("map-whole").onclick = plane.showWhole;
  byId("map-lasso").onclick = (event) => {
    const isOn = event.currentTarget.ariaPressed !== "true";
    event.currentTarget.ariaPressed = isOn;
    plane.setLasso(isOn);
  };
  byId("map-sight").onclick = chooseSight;
  byId("map-clear").onclick = clear;
  byId("map-more").onclick = () => showMore().catch(problem);
  byId("map-search").onclick = () => openView("search");
  byId("map-view").onkeydown = press;
  isDark.addEventListener("change", () => {
    if (!map) return;
    paint();
    showLegend();
  });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
  if (event.key === "Escape" && state.lasso) clear();
  else if (event.key === "Escape" && state.only) change({ only: "" });
  else if (event.key.toLowerCase() === "v") chooseSight();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function change(changes) {
  knownAt = plane.sightText();
  chooseOnMap({ ...changes, at: knownAt });
}

const choose = (lasso) => change({ lasso, map: map.tag });
const chooseSight = () => map && choose(rectangle(...plane.sightSides()));

function clear() {
  change({ lasso: "", map: "" });
  canvas.focus();
}

// The grid of results is shown here while the map is, and goes back to the search.
export function leave() {
  running?.abort();
  clearTimeout(timer);
  if (chosenKey === null) return;
  chosenKey = null;
  clearGrid();
  byId("grid").ariaLabel = "Pictures, nearest first";
  byId("results").hidden = false;
  byId("search-view").append(byId("results"));
}

export async function show(newState) {
  entitle("Map");
  const isOther = state?.collection !== newState.collection;
  const isEntered = chosenKey === null;
  state = newState;
  if (isEntered) {
    byId("map-chosen").append(byId("results"));
    byId("grid").ariaLabel = "Chosen pictures";
    clearGrid();
    chosenKey = "";
  }
  if (isOther || isEntered || !map) {
    running?.abort();
    running = new AbortController();
    if (isOther) {
      map = null;
      plane.setMap(null);
      forgetThumbnails();
      byId("legend").replaceChildren();
    }
    await load(running.signal);
  }
  if (state.at !== knownAt || isEntered) {
    knownAt = state.at;
    clearTimeout(timer);
    plane.setSight(state.at);
  }
  const { signal } = running;
  const query = await queryNumber();
  if (signal.aborted) return; // the map was left meanwhile
  byId("map-query").hidden = query < 0;
  await mark(query);
}

async function load(signal) {
  const wait = byId("map-wait");
  wait.hidden = map !== null;
  byId("results").hidden = true;
  wait.textContent = "Opening the map …";
  try {
    let [answer, tag] = await askFor(signal);
    while (!answer.ids) {
      wait.textContent = waiting(answer);
      await new Promise((done) => setTimeout(done, POLL));
      [answer, tag] = await askFor(signal);
    }
    take(answer, tag);
  } finally {
    if (!signal.aborted) wait.hidden = true;
  }
}

const askFor = (signal) => askTagged("map", { collection: state.collection }, signal);

function waiting({ status, placed, images }) {
  if (status === "waiting") return "The map of another collection is being made; this one comes next.";
  const far = placed ? ` ${placed.toLocaleString("en")} of ${counted(images, "picture")} have their place.` : "";
  return `The map is being made. That takes about half a minute, once.${far}`;
}

function take(answer, tag) {
  const { ids, classes, left_out: leftOut } = answer;
  map = { ids, classes, leftOut, collection: state.collection, x: Uint16Array.from(answer.x), y: Uint16Array.from(answer.y), of: Int32Array.from(answer.class), numberOf: new Map(ids.map((id, at) => [id, at])) };
  map.tag = tag.match(/[0-9a-f]{12}/)?.[0] ?? "";
  map.colour = chooseColours(map);
  map.order = shuffled(ids.length);
  paint();
  plane.setMap(map);
}

function paint() {
  const palette = colours();
  const pixels = map.colour.map((each) => pixelOf(palette[each] ?? cssColour("--quiet")));
  map.pixels = Uint32Array.from(map.of, (each) => pixels[each]);
  plane.redraw();
}

// An order in which no class lies on all others, the same each time.
function shuffled(count) {
  const order = Int32Array.from({ length: count }, (_, at) => at);
  let drawn = 1;
  for (let at = count - 1; at > 0; at--) {
    drawn = (Math.imul(drawn, 1664525) + 1013904223) >>> 0;
    const other = Math.floor((drawn / 4294967296) * (at + 1));
    [order[at], order[other]] = [order[other], order[at]];
  }
  return order;
}

// An uploaded picture finds itself by its content.
async function queryNumber() {
  if (!uploadOf(state)) return map.numberOf.get(state.id) ?? -1;
  const content = await contentOf(state);
  return content ? map.ids.findIndex((id) => id.startsWith(content)) : -1;
}

// The number of the class that is shown alone; -1 for all.
function numberShown() {
  const only = state.only === NO_CLASS ? "" : state.only;
  return state.only ? map.classes.findIndex((each) => each.name === only) : -1;
}

async function mark(query) {
  const number = numberShown();
  const isAllowed = (each) => number < 0 || map.of[each] === number;
  const corners = parseLasso(state.lasso);
  const key = `${state.lasso} ${number}`;
  const isNew = key !== chosenKey || !corners;
  if (isNew) chosen = corners ? inside(corners, map, isAllowed) : [];
  const lit = new Uint8Array(map.ids.length);
  if (corners) for (const each of chosen) lit[each] = 1;
  else lit.forEach((_, each) => (lit[each] = isAllowed(each) ? 1 : 0));
  plane.setMarks({ lit, corners, query });
  showLegend();
  requestAnimationFrame(tellSight); // once it is drawn
  byId("map-clear").hidden = !corners;
  byId("map-changed").hidden = !corners || !state.map || !map.tag || state.map === map.tag;
  byId("map-help").hidden = corners !== null;
  byId("results").hidden = !corners;
  const examples = state.plus.length + state.minus.length;
  byId("map-search").hidden = !examples;
  byId("map-search").textContent = `Search with ${counted(examples, "example")}`;
  chosenKey = key;
  if (!isNew) return markExamples();
  clearGrid();
  [numShown, numGone] = [0, 0];
  byId("map-more").hidden = true;
  if (corners) await showMore();
}

async function showMore() {
  const part = chosen.slice(numShown, numShown + PAGE);
  const key = chosenKey;
  tellChosen();
  if (!part.length) return;
  byId("map-more").hidden = true;
  byId("results").ariaBusy = "true";
  let images = [];
  try {
    images = await describe(part);
  } finally {
    byId("results").ariaBusy = "false";
    if (key === chosenKey && !images.length) tellMore(); // to try again
  }
  if (key !== chosenKey) return; // others were chosen meanwhile
  const last = resultsShown().at(-1)?.id;
  numShown += part.length;
  numGone += part.length - images.length;
  addTiles(images, numShown === chosen.length);
  markExamples();
  tellChosen();
  tellMore();
  if (last && byId("map-more").hidden) focusTile(last);
}

function tellMore() {
  const left = chosen.length - numShown;
  byId("map-more").hidden = left === 0;
  byId("map-more").textContent = `Show ${Math.min(PAGE, left)} more`;
}

function tellChosen() {
  const parts = [chosen.length ? `${counted(chosen.length, "picture")} chosen` : "No picture is inside."];
  if (numShown && numShown < chosen.length) parts.push(`${numShown} shown`);
  if (numGone) parts.push(`${numGone} no longer in the collection`);
  byId("status").textContent = parts.join(", ");
}

async function describe(numbers) {
  const fields = [["collection", state.collection], ["ids", numbers.map((each) => map.ids[each]).join(",")]];
  const { images } = await post("images", fields, running.signal);
  const found = images.map((each) => ({ ...each, probability: null, distance: null }));
  found.forEach(learn);
  return found;
}

async function open(number) {
  rest();
  try {
    const [image] = await describe([number]);
    if (!image) throw new Refusal(410, "This picture is no longer in the collection. Load the page again.");
    openPair(image);
  } catch (error) {
    problem(error);
  }
}

// After the viewer: back to the tile, or to the map if the picture came from there.
export function focusAgain(id) {
  if (resultsShown().some((each) => each.id === id)) focusTile(id);
  else canvas.focus();
}

const hasClasses = () => map.classes.some((each) => each.name);

function showLegend() {
  const [only, isChosen] = [numberShown(), parseLasso(state.lasso) !== null];
  const inLasso = new Int32Array(map.classes.length);
  for (const each of chosen) inLasso[map.of[each]] += 1;
  const order = map.classes.map((_, number) => number).sort((one, other) => map.classes[other].images - map.classes[one].images);
  const focused = document.activeElement?.dataset.number;
  const palette = colours();
  const items = order.map((number) => {
    const { name, images } = map.classes[number];
    const count = isChosen ? `${inLasso[number].toLocaleString("en")} of ${images.toLocaleString("en")}` : images.toLocaleString("en");
    const swatch = element("i", { className: "swatch" });
    swatch.style.backgroundColor = palette[map.colour[number]] ?? "";
    const onclick = () => change({ only: number === only ? "" : name || NO_CLASS });
    const button = element("button", { type: "button", title: number === only ? "Show all classes" : "Show this class alone", onclick }, swatch, element("span", {}, name || "no class"), element("b", {}, count));
    button.ariaPressed = number === only;
    button.dataset.number = number;
    return element("li", { className: isChosen && !inLasso[number] ? "absent" : "" }, button);
  });
  byId("legend").replaceChildren(...items);
  if (focused !== undefined) byId("legend").querySelector(`[data-number="${focused}"]`)?.focus();
  byId("legend-note").hidden = map.classes.length <= NUM_COLOURS;
  byId("legend").parentElement.hidden = !hasClasses();
}

function tellSight() {
  if (!map) return;
  const numbers = plane.numbersInSight();
  const all = counted(map.ids.length, "picture");
  const isWhole = numbers.length === map.ids.length;
  const parts = [isWhole ? `${all} on the map.` : `${numbers.length.toLocaleString("en")} of ${all} in sight.`];
  if (map.leftOut) parts.push(`The map holds no more: ${counted(map.leftOut, "picture")} of the collection are not on it.`);
  if (middle) parts.push(`In the middle: ${middle}.`);
  byId("map-told").textContent = parts.join(" ");
}

// The address follows once the map rests.
function moved() {
  clearTimeout(timer);
  timer = setTimeout(rest, 300);
}

function rest() {
  clearTimeout(timer);
  knownAt = plane.sightText();
  keepSight(knownAt);
  tellSight();
}

// Show the picture that is meant: beside the pointer, or in the corner if the keyboard means it.
function pointed(number, place) {
  const hint = byId("map-hint");
  hint.hidden = number < 0;
  const label = number < 0 || !hasClasses() ? "" : map.classes[map.of[number]].name || "no class";
  middle = place ? "" : label;
  if (!place) tellSight();
  if (number < 0) return;
  hint.lastElementChild.textContent = label;
  hint.lastElementChild.hidden = !label;
  const image = element("img", { alt: "" });
  showPicture(image, thumbnailAddress(map.ids[number], map.collection, 128), { isLazy: false });
  hint.firstElementChild.replaceWith(image);
  const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
  const { x, y } = place ?? { x: 0, y: 0 };
  hint.classList.toggle("left", x > wide / 2);
  hint.classList.toggle("above", y > high / 2);
  hint.style.left = `${Math.min(wide, Math.max(0, x))}px`;
  hint.style.top = `${Math.min(high, Math.max(0, y))}px`;
}
