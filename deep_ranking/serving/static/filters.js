// The filters of a search: class, folder, least chance.
import { byId, element, later } from "./dom.js";
import { hasFilter } from "./state.js";
import { clearFilters, currentCollection, setFilters, watch } from "./store.js";
import { counted, folderOf, percent } from "./words.js";

const MOST_FOLDERS = 500; // that are offered
const folders = new Set();
let offered = ""; // the collection whose classes and folders these are

export function showFilters(state) {
  byId("class").value = state.class;
  byId("folder").value = state.folder;
  byId("least").value = state.min || "0";
  tellLeast();
  byId("clear-filters").hidden = !hasFilter(state);
}

// Offer what the collection has; what is known of the folders of another one is forgotten.
export function offerFilters() {
  const { name, classes, probabilities, shards } = currentCollection();
  byId("least-field").hidden = !probabilities;
  byId("no-chances").hidden = probabilities;
  if (name === offered) return;
  offered = name;
  byId("no-chances-why").textContent = shards ? `Each of the ${counted(shards, "index", "indexes")} that are searched here knows chances among its own pictures alone.` : "Chances need classes: folders with enough pictures of each.";
  folders.clear();
  byId("folders").replaceChildren();
  const names = classes.map((each) => each.name).filter(Boolean);
  const options = [element("option", { value: "" }, "any"), ...names.map((each) => element("option", { value: each }, each))];
  byId("class").replaceChildren(...options);
  byId("class").parentElement.hidden = names.length < 2;
}

function learnFolder({ path }) {
  const folder = folderOf(path);
  if (!folder || folders.has(folder) || folders.size > MOST_FOLDERS) return;
  folders.add(folder);
  byId("folders").append(element("option", { value: folder }));
}

function tellLeast() {
  const least = Number(byId("least").value);
  byId("least-text").textContent = least ? `at least ${percent(least)}` : "any";
}

function clear() {
  clearFilters();
  byId("folder").focus();
}

export function startFilters() {
  watch("known", learnFolder);
  byId("filters").onsubmit = (event) => event.preventDefault();
  byId("class").onchange = (event) => setFilters({ class: event.target.value });
  byId("folder").onchange = (event) => setFilters({ folder: event.target.value.trim().replace(/^\/+|\/+$/g, "") });
  const setLeast = later((min) => setFilters({ min: min === "0" ? "" : min }, { replaces: true }));
  byId("least").addEventListener("input", (event) => {
    tellLeast();
    setLeast(event.target.value);
  });
  byId("clear-filters").onclick = clear;
  byId("nothing-clear").onclick = clear;
}
