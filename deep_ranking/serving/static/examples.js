// Plus and minus examples: pictures of the collection, and pictures of one's own.
import { showPicture, thumbnailAddress } from "./api.js";
import { byId, element, icon } from "./dom.js";
import { markExamples } from "./grid.js";
import { problem } from "./problem.js";
import { fileOf } from "./state.js";
import { known, removeExample, server } from "./store.js";
import { loadView } from "./views.js";

const SIGNS = { plus: "more of", minus: "less of" };

export function showExamples(state) {
  for (const sign of Object.keys(SIGNS)) {
    const chips = state[sign].map((each) => chip(each, sign, state.collection));
    byId(`${sign}-chips`).replaceChildren(...chips);
  }
  markExamples();
  showTeaching(state);
}

// What the examples say can be taught where the query and a plus example are of the collection.
function showTeaching({ id, upload, box, plus }) {
  const canTeach = id && !upload && !box && plus.some((each) => typeof each === "string");
  byId("teach-examples").hidden = !(server.teach && plus.length);
  byId("teach-this").disabled = !canTeach;
  byId("teach-this").onclick = async () => (await loadView("teach_this").catch(problem))?.teachThis();
  byId("teach-this-note").textContent = canTeach ? "The model learns it at “Learn now”." : "It takes a whole picture of the collection as the query, and one as an example.";
}

function chip(example, sign, collection) {
  const file = fileOf(example);
  const image = element("img", { alt: "" });
  const name = file ? file.name || "your picture" : (known.get(example)?.path ?? "an example");
  if (file) showOwn(image, file, name);
  else showPicture(image, thumbnailAddress(example, collection, 96), { isLazy: false });
  const label = `Remove ${SIGNS[sign]} ${name}`;
  const onclick = () => {
    removeExample(sign, example);
    (byId(`${sign}-chips`).querySelector("button") ?? byId(`add-${sign}`)).focus();
  };
  const button = element("button", { type: "button", className: `chip ${sign}`, title: label, onclick }, image, element("i", {}, icon(sign)), element("b", {}, icon("close")));
  button.ariaLabel = label;
  return element("li", {}, button);
}

function showOwn(image, file, name) {
  const address = URL.createObjectURL(file);
  image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
  image.addEventListener("error", () => image.replaceWith(element("span", { className: "unshown" }, name)), { once: true });
  image.src = address;
}
