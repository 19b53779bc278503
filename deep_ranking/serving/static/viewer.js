// Two pictures in large, side by side, and why they are alike.
import { hasToken, imageAddress, openOriginal, post, Refusal, showPicture } from "./api.js";
import { parseBox } from "./box.js";
import { byId } from "./dom.js";
import { problem } from "./problem.js";
import { DIGITS, isSame } from "./same.js";
import { pin, searchFor, stepPair, toggleExample } from "./store.js";
import { loadView } from "./views.js";
import { captionOf, likenessOf, nameOf } from "./words.js";

const MOST_KEPT = 50; // explanations that the tab keeps
const viewer = byId("viewer");
const sides = ["left", "right"].map((name) => ({
  figure: byId(`viewer-${name}`),
  image: byId(`viewer-${name}-image`),
  canvas: byId(`viewer-${name}-heat`),
  path: byId(`viewer-${name}-path`),
  words: byId(`viewer-${name}-words`),
}));
const explained = new Map();
let pair = null; // { left: { id or file, box, address, before, caption } or null, right: { id }, told }
let isWhy = false;
let comparing = null;
let asking = null;

const keyOf = ({ left, right, collection }) => [collection, left?.id ?? left?.upload ?? "", left?.box ?? "", right.id].join(" ");

export function showPair(given) {
  const isShown = pair !== null && viewer.open && keyOf(given) === keyOf(pair);
  if (isShown && pair.told === given.told) {
    pair.list = given.list; // a search may have ended meanwhile
    return;
  }
  const before = pair;
  pair = given;
  tell(pair.told);
  if (isShown) return;
  const { left, right, collection } = pair;
  viewer.classList.toggle("alone", left === null);
  sides[0].figure.hidden = left === null;
  byId("viewer-why").hidden = left === null;
  if (left !== null) {
    sides[0].image.alt = left.caption;
    sides[0].path.textContent = left.caption;
    if (!viewer.open || keyOf({ ...pair, right: before.right }) !== keyOf(before)) showSide(sides[0], left.address);
  }
  sides[1].image.alt = right.path ?? "";
  showSide(sides[1], imageAddress(right.id, collection));
  byId("viewer-open").href = imageAddress(right.id, collection);
  if (!viewer.open) viewer.showModal();
  if (pair.told === null && left === null && right.path) tell(right);
  else if (pair.told === null) compare();
  setWhy(false); // an explanation takes seconds of the server: of each pair it is asked for anew
}

function showSide({ image }, address) {
  image.removeAttribute("src");
  if (address.startsWith("blob:")) image.src = address;
  else showPicture(image, address, { isLazy: false });
}

function tell(told) {
  if (told === null) {
    byId("viewer-title").textContent = "Comparing …";
    sides[1].path.textContent = "";
    return;
  }
  const chance = likenessOf({ probability: null, ...told });
  const isAlone = pair.left === null && pair.told === null;
  const moved = pair.isMoved && pair.told ? " with the examples" : "";
  const number = `${told.distance?.toFixed(3)}${moved}`;
  byId("viewer-title").textContent = isAlone ? nameOf(told.path ?? "") : chance ? `${[chance.words, chance.share].filter(Boolean).join(", ")} · distance ${number}` : `Distance ${number}${moved ? "" : " (the same picture has 0)"}`;
  sides[1].path.textContent = captionOf(told);
  sides[1].image.alt = told.path ?? "";
}

function fieldsOf({ left, right, collection }) {
  return [["first", left.file ?? left.id], ["second", right.id], ["box", left.box], ["collection", collection]];
}

// What no search told: two pictures of the address bar, or one that is on the map or far down the results.
async function compare() {
  comparing?.abort();
  comparing = new AbortController();
  const asked = pair;
  const known = asked.left ? asked : { ...asked, left: { id: asked.right.id } };
  try {
    const answer = await post("compare", fieldsOf(known), comparing.signal);
    if (pair !== asked) return;
    if (answer.first && asked.left) sides[0].path.textContent = sides[0].image.alt = asked.left.before + captionOf(answer.first);
    const { distance, second } = answer;
    const content = asked.left?.box ? "" : (answer.first?.id.slice(0, DIGITS) ?? "");
    const same = isSame({ id: second.id, distance }, content);
    tell({ ...answer, ...second, probability: null, isSame: same }); // that of a pair is another chance than those of results
  } catch (error) {
    if (error.name === "AbortError" || pair !== asked) return;
    byId("viewer-title").textContent = sentenceOf(error);
    if (error.status === 401) problem(error);
  }
}

const sentenceOf = (error) => {
  if (error instanceof Refusal) return error.message;
  console.error(error);
  return "This page made an error. Load it again.";
};

export function leave() {
  if (viewer.open) viewer.close();
}

function clearHeat() {
  asking?.abort();
  asking = null;
  viewer.classList.remove("warm");
  for (const { canvas, words } of sides) canvas.hidden = words.hidden = true;
  byId("why-busy").hidden = byId("why-problem").hidden = true;
  byId("heat-legend").hidden = true;
  viewer.ariaBusy = "false";
}

function setWhy(is) {
  isWhy = is;
  byId("viewer-why").ariaPressed = is;
  clearHeat();
  if (is && pair.left !== null) explain();
}

async function explain() {
  clearHeat();
  const asked = pair;
  asking = new AbortController();
  const { signal } = asking;
  byId("why-busy").hidden = false;
  viewer.ariaBusy = "true";
  try {
    const [answer, { drawHeat }] = await Promise.all([explained.get(keyOf(asked)) ?? post("explain", fieldsOf(asked), signal), loadView("heat")]);
    if (explained.size >= MOST_KEPT) explained.clear();
    explained.set(keyOf(asked), answer);
    await Promise.all(sides.map(({ image }) => image.decode().catch(() => {})));
    if (signal.aborted) return;
    clearHeat();
    viewer.classList.add("warm");
    byId("heat-legend").hidden = false;
    sides.forEach(({ canvas, image, words }, number) => {
      drawHeat(canvas, image, answer.heat[number].grid, number ? null : parseBox(asked.left.box ?? ""));
      words.textContent = answer.heat[number].words;
      canvas.hidden = words.hidden = false;
    });
  } catch (error) {
    if (error.name === "AbortError") return;
    clearHeat();
    byId("why-problem").hidden = false;
    byId("why-problem-text").textContent = sentenceOf(error);
    if (error.status === 401) problem(error);
  }
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const key = event.key.toLowerCase();
  if (step) {
    const { list, right } = pair;
    const next = list[list.findIndex((each) => each.id === right.id) + step];
    if (next && list.some((each) => each.id === right.id)) stepPair(next);
  } else if (key === "w" && pair.left !== null) setWhy(!isWhy);
  else if (key === "c") pinRight();
  else return;
  event.preventDefault();
}

function pinRight() {
  pin(pair.right);
  leave();
}

export function start() {
  byId("viewer-close").onclick = leave;
  byId("viewer-more").onclick = () => searchFor(pair.right);
  byId("viewer-plus").onclick = () => toggleExample("plus", pair.right);
  byId("viewer-minus").onclick = () => toggleExample("minus", pair.right);
  byId("viewer-pin").onclick = pinRight;
  byId("viewer-why").onclick = () => setWhy(!isWhy);
  byId("why-again").onclick = () => {
    byId("viewer-why").focus();
    explain();
  };
  byId("viewer-open").addEventListener("click", (event) => {
    if (!hasToken()) return;
    event.preventDefault();
    openOriginal(pair.right.id, pair.collection);
  });
  viewer.addEventListener("close", () => {
    comparing?.abort();
    clearHeat();
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) leave();
  });
  viewer.addEventListener("keydown", press);
}
