// The query: its picture, the box on it, its name, and the panel that refines it.
import { imageAddress, post, showPicture } from "./api.js";
import { canBox, showBox, startBox } from "./box.js";
import { byId, later } from "./dom.js";
import { entitle } from "./sections.js";
import { uploadOf } from "./state.js";
import { current, known, learn, removeQuery, setBox, watch } from "./store.js";
import { nameOf } from "./words.js";

let shown = ""; // which picture
let address = "";

// Where the picture of the query is.
export const queryAddress = () => address;

export const forgetQuery = () => (shown = "");

export function showQuery(state) {
  const upload = uploadOf(state);
  const key = upload ? `upload ${state.upload}` : state.id;
  byId("stage").parentElement.hidden = !key;
  showBox(key ? state.box : "");
  showName(upload ? upload.name || "Pasted picture" : nameOf(known.get(state.id)?.path ?? ""));
  if (key === shown) return;
  shown = key;
  if (address.startsWith("blob:")) URL.revokeObjectURL(address);
  address = "";
  if (!key) return;
  const image = byId("query-image");
  image.hidden = false;
  byId("query-unseen").hidden = true;
  canBox(false);
  if (upload) {
    address = URL.createObjectURL(upload);
    image.src = address;
  } else {
    showPicture(image, imageAddress(state.id, state.collection), { isLazy: false, keeps: true });
  }
}

// Where no result told it, as with a filter that leaves the query itself out.
export async function nameQuery({ id, collection }) {
  if (!id || known.has(id)) return;
  const { images } = await post("images", [["collection", collection], ["ids", id]]).catch(() => ({ images: [] }));
  images.forEach(learn);
}

function showName(name) {
  byId("query-name").textContent = name;
  entitle(name || "Search");
}

export function startQuery() {
  const setBoxOf = later(([key, box]) => {
    if (key === shown) setBox(box);
  });
  startBox((box) => setBoxOf([shown, box]));
  watch("known", ({ id, path }) => {
    if (current().view === "search" && id === current().id) showName(nameOf(path));
  });
  const image = byId("query-image");
  image.addEventListener("load", () => {
    byId("stage").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight || 1);
    canBox(true);
    if (!uploadOf(current())) address = image.src;
  });
  image.addEventListener("error", () => {
    if (!shown) return;
    image.hidden = true;
    byId("query-unseen").hidden = false;
  });
  byId("remove-query").onclick = () => {
    removeQuery();
    byId("choose").focus();
  };
  const [panel, button] = [byId("query"), byId("panel-button")];
  byId("stage").parentElement.addEventListener("click", (event) => {
    const isSmall = !panel.classList.contains("open") && button.checkVisibility();
    if (isSmall && !event.target.closest(".about")) button.click();
  });
  button.addEventListener("click", () => {
    const isOpen = panel.classList.toggle("open");
    button.ariaExpanded = isOpen;
    button.lastElementChild.textContent = isOpen ? "Done" : "Refine";
  });
}
