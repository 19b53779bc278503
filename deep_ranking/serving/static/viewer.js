// A picture in large, beside the query.
import { hasToken, imageAddress, openPicture, showPicture } from "./api.js";
import { byId } from "./dom.js";
import { likeness, nameOf, percent } from "./words.js";

const viewer = byId("viewer");
let shown = null;
let list = [];
let collection = "";
let actions = {};

function show(result) {
  shown = result;
  const told = result.probability == null ? null : likeness(result.probability);
  const number = result.distance === null ? "" : `distance ${result.distance.toFixed(3)}`;
  byId("viewer-title").textContent = !number ? nameOf(result.path) : told ? `${told.words}, ${percent(result.probability)} · ${number}` : `Like it: ${number}`;
  byId("viewer-path").textContent = [result.class, result.path].filter(Boolean).join(" · ");
  const address = imageAddress(result.id, collection);
  const image = byId("viewer-image");
  image.alt = result.path;
  image.removeAttribute("src");
  showPicture(image, address, { isLazy: false });
  byId("viewer-open").href = address;
}

export function openViewer(result, results, state, queryImage, given) {
  [list, collection, actions] = [results, state.collection, given];
  byId("viewer-query").hidden = !queryImage;
  if (queryImage) byId("viewer-query-image").src = queryImage;
  show(result);
  viewer.showModal();
}

export function openOriginal(result, of) {
  const address = imageAddress(result.id, of);
  if (hasToken()) openPicture(address).catch(() => {});
  else window.open(address, "_blank", "noopener");
}

function closeAnd(action) {
  return () => {
    viewer.close();
    action()(shown);
  };
}

export function startViewer(focusAgain) {
  byId("viewer-close").addEventListener("click", () => viewer.close());
  byId("viewer-more").addEventListener("click", closeAnd(() => actions.more));
  byId("viewer-plus").addEventListener("click", closeAnd(() => actions.plus));
  byId("viewer-minus").addEventListener("click", closeAnd(() => actions.minus));
  byId("viewer-open").addEventListener("click", (event) => {
    if (!hasToken()) return;
    event.preventDefault();
    openOriginal(shown, collection);
  });
  viewer.addEventListener("close", () => focusAgain(shown.id));
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = list[list.indexOf(shown) + step];
    if (next) show(next);
    event.preventDefault();
  });
}
