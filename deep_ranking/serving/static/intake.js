// Pictures that come in: dropped, pasted, chosen, photographed, or the text of a path.
import { post } from "./api.js";
import { byId, isTyping } from "./dom.js";
import { problem } from "./problem.js";
import { shownSection } from "./sections.js";
import { addOwnExamples, current, learn, MOST_OWN, searchFor, searchWith, toggleExample } from "./store.js";
import { toast } from "./toast.js";
import { counted } from "./words.js";

const MOST_PATH = 4096; // characters
const CHOOSERS = { choose: "query", photograph: "query", replace: "query", "photograph-again": "query", "add-plus": "plus", "add-minus": "minus" };

const zoneOf = (place) => place?.closest?.("[data-zone]")?.dataset.zone;

const textOf = (data) => data.getData("text/plain").trim();

// Into a zone: "query", "plus" or "minus".
function take(zone, files) {
  if (!files.length) return;
  if (zone === "query") {
    if (files.length > 1) toast(`Only the first of ${files.length} pictures is searched for.`);
    searchWith(files[0]);
    return;
  }
  const left = addOwnExamples(zone, files);
  if (left) toast(`${counted(left, "picture")} left out: a search takes ${MOST_OWN} of your own.`);
}

// A path in the collection, or an address of this page. The server asks no other machine for a picture.
async function takeText(zone, text) {
  if (!text || shownSection() === "token") return;
  const { collection } = current();
  let id = text.startsWith(`${location.origin}/`) && text.match(/\b[0-9a-f]{32}\b/)?.[0];
  if (!id && /^https?:/i.test(text)) return toast("This server loads nothing from other machines. Save the picture, and drop it here.");
  try {
    const found = id || text.length > MOST_PATH ? [] : (await post("images", [["collection", collection], ["path", text]])).images;
    found.forEach(learn);
    id ||= found[0]?.id;
  } catch (error) {
    return problem(error);
  }
  if (collection !== current().collection) return;
  if (!id) toast(`No picture of the collection has this path: ${text.slice(0, 80)}`);
  else if (zone === "query") searchFor({ id });
  else if (!current()[zone].includes(id)) toggleExample(zone, { id });
}

export function startIntake() {
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
    byId("veil-examples").hidden = shownSection() !== "search";
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
