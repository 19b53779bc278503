// Where the model errs on the classes of the collection: likely wrong labels, confused classes. A person says what is so.
import { ask, post, Refusal, showPicture, thumbnailAddress } from "./api.js";
import { breakable, byId, element, isTyping } from "./dom.js";
import { problem } from "./problem.js";
import { entitle } from "./sections.js";
import { learn, openBoth, server } from "./store.js";
import { counted, nameOf } from "./words.js";

const RATER = "deep-ranking-rater"; // as the view "Teach" keeps who answers
const list = byId("errors-list");
const items = new WeakMap(); // of each card: its buttons by their keys, and what was opened
let state = null;
let running = null;
let opened = null; // the card over which two pictures are shown

export function start() {
  list.onkeydown = press;
  byId("errors-again").onclick = () => load(true).catch(problem);
}

export function leave() {
  running?.abort();
}

export function focusAgain() {
  (opened?.isConnected ? opened : list.querySelector(".error"))?.focus();
}

export async function show(newState) {
  const isSame = state && newState.collection === state.collection && list.childElementCount;
  state = newState;
  entitle("Errors");
  if (!isSame) await load(false);
}

async function load(anew) {
  leave();
  running = new AbortController();
  list.replaceChildren();
  byId("errors-again").hidden = true;
  byId("errors-summary").textContent = "Each picture is judged by all others …";
  list.ariaBusy = "true";
  try {
    const found = await patiently(running.signal, anew);
    draw(found);
    await showCorrections();
  } catch (error) {
    byId("errors-summary").textContent = "";
    throw error;
  } finally {
    list.ariaBusy = "false";
  }
}

async function patiently(signal, anew) {
  for (let isFirst = true; ; isFirst = false) {
    try {
      return await ask("errors", { collection: state.collection, anew: anew && isFirst ? "true" : "" }, signal);
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 503 || !error.retryAfter) throw error;
      await new Promise((done) => setTimeout(done, error.retryAfter * 1000));
      if (signal.aborted) throw new DOMException("stopped", "AbortError");
    }
  }
}

function draw(found) {
  const left = found.left_out ? ` ${counted(found.left_out, "picture")} more were not compared.` : "";
  const alone = found.alone ? ` ${counted(found.alone, "picture")} alone in a class cannot be judged.` : "";
  const right = found.num_right ? ` Not suspected, because people said that it is right: ${counted(found.num_right, "label")}.` : "";
  byId("errors-summary").textContent = `${counted(found.images, "picture")} of ${found.classes.length.toLocaleString("en")} classes: ${counted(found.num_suspects, "label")} likely wrong, ${counted(found.num_wrong, "picture")} besides whose nearest is of another class.${left}${alone}${right}`;
  byId("errors-again").hidden = !found.since;
  byId("errors-hint").hidden = server.corrections && server.teach;
  byId("errors-hint").textContent = hint();
  byId("errors-classes").replaceChildren(...found.classes.map((name) => element("option", { value: name })));
  const parts = [
    part("Likely wrong labels", "Another class fits the picture on the left better than its own. The likeliest come first; further down, the label may be right and the model wrong.", found.num_suspects, found.suspects.map(suspect)),
    ...found.confused.filter((each) => each.examples.length).map(confused),
    part("Nearest of another class", "A picture, its nearest, which is of another class, and the nearest of its own.", found.num_wrong, found.wrong.map(wrong)),
    part("Far from their class", "No other class fits these better: strange views, or a class that is missing.", found.num_far, found.far.map(far)),
  ];
  list.replaceChildren(...parts.filter(Boolean));
  if (!list.childElementCount) list.append(element("p", {}, "Each picture fits its class best, and so does its nearest."));
}

function hint() {
  const flags = [!server.corrections && "--corrections to say that a class is wrong", !server.teach && "--teach to say what is alike"].filter(Boolean);
  return `Start the server with ${flags.join(", and with ")}.`;
}

function part(title, how, total, cards) {
  if (!cards.length) return null;
  const more = total > cards.length ? element("p", { className: "fine" }, `The first ${cards.length} of ${total.toLocaleString("en")}.`) : null;
  return element("section", { className: "errors-part" }, element("h2", {}, title), element("p", { className: "fine" }, how), more, element("ul", { className: "errors-cards" }, ...cards));
}

const tail = (name) => nameOf(name);

function suspect({ image, proposed, evidence, witness }) {
  return card([[image, image.class, "odd"], [witness, `like ${tail(proposed)}?`, "like"]], evidence, { proposed });
}

function wrong({ image, nearest, own, lead }) {
  return card([[image, image.class, ""], [nearest, nearest.class, "odd"], [own, own.class, "like"]], `Nearer by ${lead.toFixed(3)} than the nearest of its class.`, { nearest, own });
}

function far({ image, own, cosine, usual }) {
  return card([[image, image.class, ""], [own, own.class, "like"]], `Cosine with its class ${cosine.toFixed(2)}, where ${usual.toFixed(2)} is usual.`, {});
}

function confused({ first, second, num_first, num_second, examples }) {
  const back = num_second ? `, ${num_second} the other way` : "";
  return part(`${tail(first)} ↔ ${tail(second)}`, `${counted(num_first, "picture")} of the first nearest to one of the second${back}.`, 0, examples.map(wrong));
}

// A picture with what it is compared with, and what a person can say of it.
function card(pictures, text, { proposed = "", nearest = null, own = null }) {
  const [[image], [other]] = pictures;
  const acts = element("div", { className: "errors-acts" });
  const say = element("p", { className: "errors-said", role: "status", hidden: true });
  const item = element("li", { className: "error", tabIndex: -1 }, element("ul", { className: "errors-pictures" }, ...pictures.map((each) => figure(...each))), element("p", { className: "errors-text" }, text), acts, say);
  item.ariaLabel = `${image.path}, labelled ${image.class}. ${text}`;
  const keys = {};
  const button = (key, label, action, kind = "quiet") => {
    const made = element("button", { type: "button", className: kind, onclick: action }, label, element("kbd", { ariaHidden: "true" }, key.toUpperCase()));
    made.setAttribute("aria-keyshortcuts", key);
    keys[key] = made;
    acts.append(made);
  };
  const done = { item, acts, say };
  if (server.corrections) {
    if (proposed) button("y", `It is ${tail(proposed)}`, () => correct(done, image, proposed), "primary");
    button("o", proposed ? "Another class" : "The label is wrong", () => choose(done, image));
    button("n", "No class", () => correct(done, image, null));
    if (proposed) button("r", "Label is right", () => confirm(done, image));
  }
  if (server.teach && nearest) {
    button("a", "Truly alike", () => answer(done, { image, nearest, own }, "a"));
    button("t", "Teach this", () => answer(done, { image, nearest, own }, "b"));
  }
  button("w", "Why?", () => {
    opened = item;
    for (const [each] of pictures) learn(each);
    openBoth(image, other);
  });
  items.set(item, keys);
  return item;
}

function figure(image, label, kind) {
  const picture = element("img", { alt: "", decoding: "async" });
  showPicture(picture, thumbnailAddress(image.id, state.collection, 256));
  const said = element("p", { className: "name" }, tail(label));
  said.title = label;
  const file = element("p", { className: "fine" }, ...breakable(nameOf(image.path)));
  file.title = image.path;
  return element("li", { className: `errors-picture ${kind}` }, element("div", { className: "picture" }, picture), said, file);
}

// The class is asked for in the card.
function choose(given, image) {
  const { item, acts } = given;
  const input = element("input", { autocomplete: "off", spellcheck: false, required: true, maxLength: 1000 });
  input.setAttribute("list", "errors-classes");
  input.ariaLabel = "Its right class";
  input.placeholder = "Its right class";
  const form = element("form", { className: "errors-choose" }, input, element("button", { className: "primary" }, "Correct"), element("button", { type: "button", className: "quiet", onclick: () => close() }, "Cancel"));
  const close = () => {
    form.remove();
    acts.hidden = false;
    item.focus();
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (!name) return;
    close();
    correct(given, image, name);
  };
  form.onkeydown = (event) => {
    if (event.key === "Escape") close();
  };
  acts.hidden = true;
  acts.after(form);
  input.focus();
}

function correct(given, image, name) {
  const fields = [["collection", state.collection], ["id", image.id], ["class", name], ["none", name === null ? "true" : ""], ["who", rater()]];
  act(given, async () => {
    const done = await post("errors/correct", fields);
    byId("errors-again").hidden = false;
    showCorrections().catch(problem);
    const isNew = done.is_new_class ? ", a new class" : "";
    return [done.to_class ? `Corrected to ${done.to_class}${isNew}.` : "Corrected: it belongs to no class.", () => takeBack(image.id)];
  });
}

function confirm(given, image) {
  act(given, async () => {
    await post("errors/correct", [["collection", state.collection], ["id", image.id], ["right", "true"], ["who", rater()]]);
    showCorrections().catch(problem);
    return [`Kept: ${image.class} is right. It is suspected no more.`, () => takeBack(image.id)];
  });
}

async function takeBack(id) {
  await post("errors/take_back", [["collection", state.collection], ["id", id], ["who", rater()]]);
  showCorrections().catch(problem);
}

const rater = () => localStorage.getItem(RATER) || server.rater || "";

// Which of its nearest and the nearest of its class is more like it: an answer as in the view "Teach".
function answer(given, { image, nearest, own }, side) {
  const ids = [["collection", state.collection], ["rater", rater()], ["query", image.id], ["a", nearest.id], ["b", own.id]];
  act(given, async () => {
    await post("teach/answers", [...ids, ["answer", side]]);
    const text = side === "a" ? "Kept: its nearest is truly more alike." : "Kept: the one of its class is more alike.";
    return [text, () => post("teach/take_back", ids)];
  });
}

// Do it, and say so in the card, with an undo; go on to the next card.
async function act(given, action) {
  const { item, acts, say } = given;
  if (item.ariaBusy === "true") return;
  item.ariaBusy = "true";
  try {
    const [text, undo] = await action();
    const back = element("button", { type: "button", className: "link", onclick: () => revert(given, undo) }, "Undo");
    say.replaceChildren(element("span", {}, text), " ", back);
    say.className = "errors-said";
    [say.hidden, acts.hidden] = [false, true];
    item.classList.add("done");
    items.get(item).u = back;
    if (item.contains(document.activeElement) || document.activeElement === document.body) step(item, 1);
  } catch (error) {
    refuse(say, error);
  } finally {
    item.ariaBusy = "false";
  }
}

async function revert({ item, acts, say }, undo) {
  try {
    await undo();
    [say.hidden, acts.hidden] = [true, false];
    item.classList.remove("done");
    delete items.get(item).u;
    item.focus();
  } catch (error) {
    refuse(say, error, true);
  }
}

function refuse(say, error, keeps = false) {
  if (error.status === 401 || !(error instanceof Refusal)) return problem(error);
  if (keeps) say.append(` ${error.message}`);
  else say.replaceChildren(error.status === 422 && /^Rater/.test(error.message) ? "Who says so? Open “Teach” once and give your name." : error.message);
  say.classList.add("wrong");
  say.hidden = false;
}

async function showCorrections() {
  const place = byId("errors-corrections");
  if (!server.corrections) return place.replaceChildren();
  const { total, corrections } = await ask("errors/corrections", { collection: state.collection }, running.signal);
  if (!total) return place.replaceChildren();
  const wasOpen = place.querySelector("details")?.open ?? false;
  const rows = corrections.map((each) =>
    element(
      "li",
      {},
      element("span", {}, said(each)),
      each.id && element("button", { type: "button", className: "quiet", onclick: (event) => takeBackListed(event.target, each.id) }, "Take back"),
    ),
  );
  const more = total > rows.length ? element("p", { className: "fine" }, `The last ${rows.length} of ${total.toLocaleString("en")}.`) : null;
  place.replaceChildren(element("details", { open: wasOpen }, element("summary", {}, `Said so far: ${counted(total, "label")}`), more, element("ul", {}, ...rows)));
}

function said({ path, from_class, to_class }) {
  if (from_class === to_class) return `${path}: ${to_class} is right`;
  return `${path}: ${from_class || "no class"} → ${to_class || "no class"}`;
}

async function takeBackListed(button, id) {
  button.disabled = true;
  try {
    await takeBack(id);
    byId("errors-again").hidden = false;
    byId("errors-again").focus();
  } catch (error) {
    button.disabled = false;
    problem(error);
  }
}

function step(item, by) {
  const all = [...list.querySelectorAll(".error")];
  all[all.indexOf(item) + by]?.focus();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const item = event.target.closest(".error");
  if (!item) return;
  const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const key = event.key.toLowerCase();
  const button = items.get(item)[key];
  if (by) step(item, by);
  else if (button && (key === "u" || !item.classList.contains("done") || key === "w")) button.click();
  else return;
  event.preventDefault();
}
