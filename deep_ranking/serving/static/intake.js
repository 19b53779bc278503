// Pictures that come in: dropped, pasted, chosen, photographed, or the text of a path.
import { byId, isTyping } from "./dom.js";

const CHOOSERS = { choose: "query", photograph: "query", replace: "query", "photograph-again": "query", "add-plus": "plus", "add-minus": "minus" };

const zoneOf = (place) => place?.closest?.("[data-zone]")?.dataset.zone;

const textOf = (data) => data.getData("text/plain").trim();

// `take` gets "query", "plus" or "minus", and the files; `takeText` the text instead.
export function startIntake(take, takeText, hasQuery) {
  for (const [id, zone] of Object.entries(CHOOSERS)) {
    const input = byId(id);
    input.accept ||= "image/*,.heic,.heif,.avif,.jxl,.tif,.tiff";
    input.addEventListener("change", () => {
      take(zone, [...input.files]);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length && isTyping(event.target)) return;
    event.preventDefault();
    const zone = zoneOf(document.activeElement) ?? zoneOf(document.querySelector(".zone:hover")) ?? "query";
    if (files.length) take(zone, files);
    else takeText(zone, textOf(event.clipboardData));
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
    if (!hasFiles(event) && isTyping(event.target)) return;
    event.preventDefault();
    if (hasFiles(event)) veil.dataset.over = zoneOf(event.target) ?? "query";
  });
  document.addEventListener("drop", (event) => {
    const files = [...event.dataTransfer.files];
    if (!files.length && isTyping(event.target)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    const zone = zoneOf(event.target) ?? "query";
    if (files.length) take(zone, files);
    else takeText(zone, textOf(event.dataTransfer));
  });
}
