// Pictures that come in: dropped, pasted, chosen or photographed; as the query, or as examples.
import { byId } from "./dom.js";

const CHOOSERS = { choose: "query", photograph: "query", replace: "query", "photograph-again": "query", "add-plus": "plus", "add-minus": "minus" };

const zoneOf = (place) => place?.closest?.("[data-zone]")?.dataset.zone;

// `take` gets "query", "plus" or "minus", and the files; `hasQuery` tells whether there is a query that examples can move.
export function startIntake(take, hasQuery) {
  for (const [id, zone] of Object.entries(CHOOSERS)) {
    const input = byId(id);
    input.addEventListener("change", () => {
      take(zone, [...input.files]);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    const zone = zoneOf(document.activeElement) ?? zoneOf(document.querySelector(".zone:hover"));
    take(zone ?? "query", files);
  });
  let depth = 0;
  const veil = byId("veil");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    veil.hidden = ++depth <= 0;
    byId("veil-examples").hidden = !hasQuery();
  });
  document.addEventListener("dragleave", (event) => {
    if (hasFiles(event)) veil.hidden = --depth <= 0;
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    if (hasFiles(event)) veil.dataset.over = zoneOf(event.target) ?? "query";
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    take(zoneOf(event.target) ?? "query", [...event.dataTransfer.files]);
  });
}
