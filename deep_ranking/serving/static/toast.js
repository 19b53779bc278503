// One sentence at the lower side of the page, for some seconds; it may offer to undo what it tells.
import { byId } from "./dom.js";

let timer = 0;

export function toast(text, undo = null) {
  byId("toast-text").textContent = text;
  byId("toast-undo").hidden = undo === null;
  byId("toast-undo").onclick = undo;
  byId("toast").hidden = false;
  clearTimeout(timer);
  timer = setTimeout(hideToast, undo ? 20_000 : 6000);
}

// Return whether there was one.
export function hideToast() {
  const isShown = !byId("toast").hidden;
  byId("toast").hidden = true;
  return isShown;
}
