// The page: takes pictures in, keeps the state and the address bar alike, and shows its view.
import { ask, imageAddress, post, Refusal, setToken, showPicture } from "./api.js";
import { canBox, showBox, startBox } from "./box.js";
import { cancelPin, onceBack, openBeside, pin, showCompared, startCompared, stepTo, unpin } from "./compared.js";
import { byId, element, isTyping } from "./dom.js";
import { showDuplicates, startDuplicates, stopDuplicates } from "./duplicates.js";
import { showExamples } from "./examples.js";
import { clearGrid, focusTile, known } from "./grid.js";
import { startIntake } from "./intake.js";
import { leaveMap, returnToMap, showMap, startMap } from "./map.js";
import { newSearch, sayRefused, stopSearch } from "./search.js";
import { addressOf, countOwn, emptyOf, hasFilter, hasQuery, keepUpload, leaveOutCollection, readState, uploadOf, writeState } from "./state.js";
import { openOriginal } from "./viewer.js";
import { counted, folderOf, nameOf, percent } from "./words.js";

const MOST_OWN = 31; // pictures of one's own beside the query: a request holds 32
const LINKED = ["search", "duplicates", "map"];
const VIEWS = ["token", "empty", ...LINKED];
const MOST_PATH = 4096; // characters
let state = readState();
let collections = [];
let mayChange = false;
let shownCollection = "";
let pictureKey = "";
let pictureAddress = "";
let waiting = 0;
const folders = new Set();

const actions = {
  more: (result) => go({ view: "search", id: result.id, upload: 0, box: "", plus: [], minus: [] }),
  plus: (result) => toggle("plus", "minus", result.id),
  minus: (result) => toggle("minus", "plus", result.id),
  open: openBeside,
  step: stepTo,
  pin,
  original: (result) => openOriginal(result, state.collection),
  filter: (changes) => go(changes),
  learn,
  problem,
};

const go = (changes, options = {}) =>
  onceBack(() => {
    state = { ...state, compare: [], isOpened: false, ...changes };
    writeState(state, options);
    render();
  });

// Change the address without showing anything anew.
function keep(changes, { replaces = true } = {}) {
  state = { ...state, ...changes };
  writeState(state, { replaces });
}

function toggle(name, other, id) {
  const has = state[name].includes(id);
  const kept = state[name].filter((each) => each !== id);
  go({ [name]: has ? kept : [...kept, id], [other]: state[other].filter((each) => each !== id) });
}

function take(zone, files) {
  if (!files.length) return;
  if (zone === "query") {
    if (files.length > 1) toast(`Only the first of ${files.length} pictures is searched for.`);
    go({ view: "search", upload: keepUpload(files[0]), id: "", box: "", plus: [], minus: [] });
    return;
  }
  const taken = files.slice(0, MOST_OWN - countOwn(state));
  if (taken.length < files.length) toast(`${counted(files.length - taken.length, "picture")} left out: a search takes ${MOST_OWN} of your own.`);
  if (taken.length) go({ [zone]: [...state[zone], ...taken.map(keepUpload)] });
}

// A path in the collection, or an address of this page. The server asks no other machine for a picture.
async function takeText(zone, text) {
  if (!text || document.body.dataset.view === "token") return;
  const { collection } = state;
  let id = text.startsWith(`${location.origin}/`) && text.match(/\b[0-9a-f]{32}\b/)?.[0];
  if (!id && /^https?:/i.test(text)) return toast("This server loads nothing from other machines. Save the picture, and drop it here.");
  try {
    const found = id || text.length > MOST_PATH ? [] : (await post("images", [["collection", collection], ["path", text]])).images;
    found.forEach(learn);
    id ||= found[0]?.id;
  } catch (error) {
    return problem(error);
  }
  if (collection !== state.collection) return;
  if (!id) toast(`No picture of the collection has this path: ${text.slice(0, 80)}`);
  else if (zone === "query") actions.more({ id });
  else if (!state[zone].includes(id)) actions[zone]({ id });
}

function show(view) {
  document.body.dataset.view = view;
  for (const each of VIEWS) byId(`${each}-view`).hidden = each !== view;
  const here = byId(`to-${view}`) ?? byId("to-search");
  for (const each of here.parentElement.children) each.ariaCurrent = each === here ? "page" : null;
}

const entitle = (name) => (document.title = name ? `${name} · Deep Ranking` : "Deep Ranking");

async function render() {
  byId("problem").hidden = true;
  byId("nothing").hidden = true;
  for (const view of LINKED) byId(`to-${view}`).href = addressOf({ ...state, compare: [], view });
  showCollection();
  try {
    if (state.view === "map") {
      stopSearch();
      stopDuplicates();
      show("map");
      entitle("Map");
      await showMap({ ...state }, uploadOf(state));
      showCompared();
      return;
    }
    leaveMap();
    if (state.view === "duplicates") {
      stopSearch();
      show("duplicates");
      entitle("Duplicates");
      showCompared();
      await showDuplicates({ ...state }, mayChange);
      return;
    }
    stopDuplicates();
    if (!hasQuery(state)) {
      stopSearch();
      clearGrid();
      pictureKey = "";
      show("empty");
      entitle("");
      const isLost = history.state?.upload;
      byId("empty-text").textContent = isLost
        ? "The picture was not kept. Drop it once more, or paste it."
        : "Drop a picture anywhere on this page, or paste one.";
      showCompared();
      return;
    }
    show("search");
    showQuery();
    showFilters();
    showExamples(state, removeExample);
    showCompared();
    await newSearch(state, actions);
    showCompared();
  } catch (error) {
    problem(error);
  }
}

function problem(error) {
  if (error.name === "AbortError") return;
  byId("results").ariaBusy = "false";
  if (error.status === 401) {
    show("token");
    byId("token").focus();
    return;
  }
  if (error.status === 422 && hasFilter(state) && /^(Class|Folder): /.test(error.message)) {
    sayRefused(error.message);
    return;
  }
  byId("problem").hidden = false;
  byId("problem-text").textContent = error instanceof Refusal ? error.message : "This page made an error. Load it again.";
  byId("problem-again").hidden = error instanceof Refusal && error.status >= 400 && error.status < 500 && error.status !== 408;
  if (!(error instanceof Refusal)) console.error(error);
  byId("status").textContent = "";
  byId("duplicates-summary").textContent = "";
}

const emptyState = () => ({ ...emptyOf(), collection: state.collection });

function showCollection() {
  const found = currentCollection();
  if (!found) return;
  byId("collection").hidden = collections.length < 2;
  byId("collection").value = found.name;
  byId("collection-size").textContent = counted(found.images, "picture");
  byId("least-field").hidden = !found.probabilities;
  byId("no-chances").hidden = found.probabilities;
  if (found.name === shownCollection) return;
  shownCollection = found.name;
  unpin(); // a picture of another collection
  folders.clear();
  byId("folders").replaceChildren();
  const names = found.classes.map((each) => each.name).filter(Boolean);
  const options = [element("option", { value: "" }, "any"), ...names.map((each) => element("option", { value: each }, each))];
  byId("class").replaceChildren(...options);
  byId("class").parentElement.hidden = names.length < 2;
}

function currentCollection() {
  return collections.find((each) => each.name === state.collection) ?? collections[0];
}

function showQuery() {
  const upload = uploadOf(state);
  const key = upload ? `upload ${state.upload}` : state.id;
  byId("stage").parentElement.hidden = !key;
  showBox(key ? state.box : "");
  const told = upload ? upload.name || "Pasted picture" : state.id ? nameOf(known.get(state.id)?.path ?? "") : "";
  byId("query-name").textContent = told;
  entitle(told || "Search");
  if (key === pictureKey) return;
  pictureKey = key;
  if (pictureAddress.startsWith("blob:")) URL.revokeObjectURL(pictureAddress);
  pictureAddress = "";
  if (!key) return;
  const image = byId("query-image");
  image.hidden = false;
  byId("query-unseen").hidden = true;
  canBox(false);
  if (upload) {
    pictureAddress = URL.createObjectURL(upload);
    image.src = pictureAddress;
  } else {
    showPicture(image, imageAddress(state.id, state.collection), { isLazy: false, keeps: true });
  }
}

function learn(result) {
  known.set(result.id, result);
  if (result.id === state.id) {
    byId("query-name").textContent = nameOf(result.path);
    entitle(nameOf(result.path));
  }
  const folder = folderOf(result.path);
  if (!folder || folders.has(folder) || folders.size > 500) return;
  folders.add(folder);
  byId("folders").append(element("option", { value: folder }));
}

function showFilters() {
  byId("class").value = state.class;
  byId("folder").value = state.folder;
  byId("least").value = state.min || "0";
  tellLeast();
  byId("clear-filters").hidden = !hasFilter(state);
}

function tellLeast() {
  const least = Number(byId("least").value);
  byId("least-text").textContent = least ? `at least ${percent(least)}` : "any";
}

function removeExample(sign, example) {
  go({ [sign]: state[sign].filter((each) => each !== example) });
}

function clearFilters() {
  go({ class: "", folder: "", min: "" });
  byId("folder").focus();
}

function toast(text, undo = "") {
  byId("toast-text").textContent = text;
  byId("toast-undo").hidden = !undo;
  byId("toast-undo").dataset.undo = undo;
  byId("toast").hidden = false;
  clearTimeout(waiting);
  waiting = setTimeout(() => (byId("toast").hidden = true), undo ? 20_000 : 6000);
}

function later(action) {
  let timer = 0;
  return (given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(given), 250);
  };
}

function follow(link, changes) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(changes());
  });
}

function press(event) {
  if (event.key === "/" && !isTyping(event.target) && !byId("viewer").open) {
    event.preventDefault();
    byId(document.body.dataset.view === "search" ? "replace" : "choose").focus();
  } else if (event.key === "Escape" && !byId("viewer").open) {
    if (!byId("toast").hidden) byId("toast").hidden = true;
    else if (cancelPin()) return;
    else if (event.target.closest("#grid")) byId("replace").focus();
    else if (event.target.closest("#query")) focusTile(null);
  }
}

function listen() {
  startIntake(take, takeText, () => state.view === "search" && hasQuery(state));
  const setBox = later(([key, box]) => {
    if (key === pictureKey) go({ box }, { replaces: state.box !== "" && box !== "" });
  });
  startBox((box) => setBox([pictureKey, box]));
  const focusAgain = (id) => (state.view === "map" ? returnToMap(id) : focusTile(id));
  startCompared({ state: () => state, pictureAddress: () => pictureAddress, keep, focusAgain, actions });
  startMap({ go, keep, actions, problem });
  startDuplicates({ toast, problem, search: (id) => actions.more({ id }) });
  const image = byId("query-image");
  image.addEventListener("load", () => {
    byId("stage").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight || 1);
    canBox(true);
    if (!uploadOf(state)) pictureAddress = image.src;
  });
  image.addEventListener("error", () => {
    if (!pictureKey) return;
    image.hidden = true;
    byId("query-unseen").hidden = false;
  });
  follow(byId("brand"), emptyState);
  for (const view of LINKED) follow(byId(`to-${view}`), () => ({ view }));
  byId("remove-query").onclick = () => {
    go({ id: "", upload: 0, box: "" });
    byId("choose").focus();
  };
  byId("filters").onsubmit = (event) => event.preventDefault();
  byId("class").onchange = (event) => go({ class: event.target.value });
  byId("folder").onchange = (event) => go({ folder: event.target.value.trim().replace(/^\/+|\/+$/g, "") });
  byId("least").addEventListener("input", tellLeast);
  const setLeast = later((min) => go({ min: min === "0" ? "" : min }, { replaces: true }));
  byId("least").addEventListener("input", (event) => setLeast(event.target.value));
  byId("clear-filters").onclick = clearFilters;
  byId("nothing-clear").onclick = clearFilters;
  byId("problem-again").onclick = begin;
  byId("threshold").onchange = (event) => go({ threshold: event.target.value });
  byId("collection").addEventListener("change", (event) => {
    const kept = { upload: state.upload, box: state.upload ? state.box : "", view: state.view, threshold: state.threshold };
    go({ ...emptyState(), ...kept, collection: event.target.value });
  });
  byId("stage").parentElement.addEventListener("click", (event) => {
    const isSmall = !byId("query").classList.contains("open") && byId("panel-button").checkVisibility();
    if (isSmall && !event.target.closest(".about")) byId("panel-button").click();
  });
  byId("panel-button").addEventListener("click", (event) => {
    const isOpen = byId("query").classList.toggle("open");
    event.currentTarget.ariaExpanded = isOpen;
    event.currentTarget.lastElementChild.textContent = isOpen ? "Done" : "Refine";
  });
  byId("token-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    setToken(byId("token").value.trim());
    byId("token-wrong").hidden = true;
    await begin();
    byId("token-wrong").hidden = document.body.dataset.view !== "token";
  });
  document.addEventListener("keydown", press);
  window.addEventListener("popstate", () => {
    const before = searched(state);
    const { collection, at, lasso, only } = state;
    state = readState();
    useCollection();
    if (state.view !== "map" && state.collection === collection) Object.assign(state, { at, lasso, only });
    if (searched(state) === before) showCompared();
    else render();
  });
}

// What a search depends on: not the pictures that are compared.
const searched = (of) => JSON.stringify({ ...of, compare: [], isOpened: false });

function useCollection() {
  if (!collections.some((each) => each.name === state.collection)) state.collection = collections[0]?.name ?? "";
}

async function begin() {
  byId("problem").hidden = true;
  try {
    const [health, found] = await Promise.all([ask("health"), ask("collections")]);
    mayChange = health.allow_changes;
    collections = found.collections;
    leaveOutCollection(collections[0].name);
  } catch (error) {
    if (document.body.dataset.view !== "token") show("empty");
    return problem(error);
  }
  byId("collection").replaceChildren(...collections.map((each) => element("option", { value: each.name }, each.name.replace(/\.index$/, ""))));
  useCollection();
  if (state.lost) toast(`${counted(state.lost, "example picture")} ${state.lost === 1 ? "was" : "were"} not kept. Add them again.`);
  await render();
}

listen();
begin();
