// Two pictures side by side, as the address bar has them; one that waits for another.
import { imageAddress, showPicture, thumbnailAddress } from "./api.js";
import { byId } from "./dom.js";
import { focusTile, resultsShown } from "./grid.js";
import { problem } from "./problem.js";
import { queryAddress } from "./query.js";
import { shownSection } from "./sections.js";
import { hasQuery, uploadOf } from "./state.js";
import { closePair, current, known, pin, watch } from "./store.js";
import { loadView } from "./views.js";
import { captionOf, nameOf } from "./words.js";

let viewer = null; // once a pair was opened
let shownView = () => null;
let opened = ""; // id of the picture at the right
let pinShown = "";

export function startCompared(given) {
  shownView = given;
  byId("pin-cancel").onclick = cancelPin;
  byId("viewer").addEventListener("close", () => {
    closePair();
    focusAgain(opened);
  });
  watch("pair", showCompared);
  watch("known", ({ id }) => id === current().pinned?.id && showPinned());
}

export function showCompared() {
  const state = current();
  showPinned();
  const { collection, compare: ids } = state;
  const right = ids.at(-1);
  if (!right || shownSection() === "token") return viewer?.leave();
  if (!viewer) return openViewer();
  opened = right;
  const found = resultsShown().find((each) => each.id === right);
  const isTold = ids.length === 1 && hasQuery(state) && found && found.distance !== null;
  const isMoved = state.plus.length + state.minus.length > 0;
  const left = ids.length > 1 ? pictureOf(ids[0], "") : query(state);
  viewer.showPair({ left, right: known.get(right) ?? { id: right }, told: isTold ? found : null, isMoved, list: resultsShown(), collection });
}

async function openViewer() {
  try {
    viewer = await loadView("viewer");
    showCompared(); // as the address is by now
  } catch (error) {
    problem(error);
  }
}

function query(state) {
  const upload = uploadOf(state);
  if (upload) return { upload: state.upload, file: upload, box: state.box, address: queryAddress(), caption: `Query: ${upload.name || "pasted picture"}` };
  return state.id ? { ...pictureOf(state.id, "Query: "), box: state.box } : null;
}

function pictureOf(id, before) {
  return { id, address: imageAddress(id, current().collection), before, caption: before + captionOf(known.get(id) ?? {}) };
}

function focusAgain(id) {
  (shownView()?.focusAgain ?? focusTile)(id);
}

function showPinned() {
  const { pinned, collection } = current();
  byId("pin").hidden = pinned === null;
  const key = pinned ? `${collection} ${pinned.id}` : "";
  if (pinned) byId("pin-text").textContent = `Choose a picture to compare with ${nameOf(known.get(pinned.id)?.path ?? "this picture")}.`;
  if (key && key !== pinShown) showPicture(byId("pin-image"), thumbnailAddress(pinned.id, collection, 96), { isLazy: false });
  pinShown = key;
}

// Let no picture wait; return whether one did.
export function cancelPin() {
  if (!current().pinned) return false;
  pin(null);
  focusAgain(null);
  return true;
}
