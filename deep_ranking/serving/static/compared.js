// Two pictures side by side, as the address bar has them; one that waits for another.
import { imageAddress, showPicture, thumbnailAddress } from "./api.js";
import { byId } from "./dom.js";
import { known, resultsShown } from "./grid.js";
import { hasQuery, uploadOf } from "./state.js";
import { captionOf, leave, showPair, startViewer } from "./viewer.js";
import { nameOf } from "./words.js";

let page = null;
let pinned = null;
let isLeaving = false; // the browser goes back to the address without the pair
addEventListener("popstate", () => (isLeaving = false));

export function startCompared(given) {
  page = given;
  startViewer(closed);
  byId("pin-cancel").onclick = cancelPin;
}

// What changes the address waits until the browser is back.
export function onceBack(action) {
  if (isLeaving) addEventListener("popstate", action, { once: true });
  else action();
}

export function openBeside(result) {
  onceBack(() => compare(pinned && pinned.id !== result.id ? [pinned.id, result.id] : [result.id]));
}

export function stepTo(result) {
  compare([...page.state().compare.slice(0, -1), result.id], { replaces: true });
}

// Open two pictures side by side, or close them: what is behind them stays as it is.
function compare(ids, { replaces = false } = {}) {
  page.keep({ compare: ids, isOpened: replaces ? page.state().isOpened : true }, { replaces });
  showCompared();
}

export function showCompared() {
  const state = page.state();
  const { collection, compare: ids } = state;
  const right = ids.at(-1);
  if (!right || document.body.dataset.view === "token") return leave();
  const found = resultsShown().find((each) => each.id === right);
  const isTold = ids.length === 1 && hasQuery(state) && found && found.distance !== null;
  const isMoved = state.plus.length + state.minus.length > 0;
  const left = ids.length > 1 ? pictureOf(ids[0], "") : query(state);
  showPair({ left, right: known.get(right) ?? { id: right }, told: isTold ? found : null, isMoved, list: resultsShown(), collection }, page.actions);
}

function query(state) {
  const upload = uploadOf(state);
  if (upload) return { upload: state.upload, file: upload, box: state.box, address: page.pictureAddress(), caption: `Query: ${upload.name || "pasted picture"}` };
  return state.id ? { ...pictureOf(state.id, "Query: "), box: state.box } : null;
}

function pictureOf(id, before) {
  return { id, address: imageAddress(id, page.state().collection), caption: before + captionOf(known.get(id) ?? {}) };
}

function closed(id) {
  const { compare: ids, isOpened } = page.state();
  if (ids.length) {
    if (isOpened) {
      isLeaving = true;
      history.back();
    } else compare([], { replaces: true });
  }
  page.focusAgain(id);
}

export function pin(result) {
  pinned = result;
  byId("pin").hidden = false;
  const name = known.get(pinned.id)?.path ?? "this picture";
  byId("pin-text").textContent = `Choose a picture to compare with ${nameOf(name)}.`;
  showPicture(byId("pin-image"), thumbnailAddress(pinned.id, page.state().collection, 96), { isLazy: false });
  leave();
}

export function unpin() {
  pinned = null;
  byId("pin").hidden = true;
}

// Let no picture wait; return whether one did.
export function cancelPin() {
  if (!pinned) return false;
  unpin();
  page.focusAgain(null);
  return true;
}
