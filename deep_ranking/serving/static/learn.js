// "Learn now": how far it is, what was learned, the order of a search before and after, and the way back.
import { ask, post, showPicture, thumbnailAddress } from "./api.js";
import { byId, element, iconButton } from "./dom.js";
import { problem } from "./problem.js";
import { shownSection } from "./sections.js";
import { addressOf } from "./state.js";
import { current, currentCollection, searchFor } from "./store.js";
import { counted } from "./words.js";

const POLL = 1000; // milliseconds
const SHOWN = 6; // pictures of an order
const OWN = "The index’s own order";
const dialog = element("dialog", { className: "learn" });
dialog.setAttribute("aria-labelledby", "learn-title");
const open = element("button", { type: "button", className: "quiet", onclick: () => openDialog() }, "Learn now …");
const status = element("p", { className: "learn-status", role: "status" });
const bar = element("progress", { hidden: true });
bar.ariaLabel = "How far it is";
const begin = element("button", { type: "button", className: "primary", onclick: () => change("teach/learn", []) }, "Learn now");
const report = element("section", { className: "learn-report" });
const orders = element("section", { className: "learn-orders" });
const choice = element("select", { id: "learn-shown", onchange: () => showGeneration(choice.value) });
const ways = element("div", { className: "learn-ways" });
let state = null;
let picture = null; // id of the picture whose order is shown
let before = null; // the order that it had when this dialog was opened, or before the last learning
let now = null;
let news = ""; // what the last learning brought, until the next one
let waiting = 0;
let turn = 0;
let askedFor = () => null;

export function start() {
  const close = iconButton("close", "Close", () => dialog.close());
  close.className = "quiet icon-only";
  const shown = element("div", { className: "field" }, element("label", { htmlFor: "learn-shown" }, "Searches are ordered by"), choice);
  dialog.append(
    element("header", {}, element("h2", { id: "learn-title" }, "Learn now"), close),
    element("div", { className: "learn-now" }, status, bar, begin),
    report,
    orders,
    element("footer", {}, shown, ways),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  byId("teach-view").append(dialog);
}

// Put the button into the view of questions; `ofPicture` returns the id of a picture to show the order of.
export function show(ofPicture) {
  askedFor = ofPicture;
  byId("teach-learn").replaceChildren(open);
  poll();
}

export function leave() {
  clearTimeout(waiting);
  turn += 1;
  dialog.close();
}

const collection = () => currentCollection().name;

// One at a time: a later call takes the place of one that still waits.
async function poll() {
  clearTimeout(waiting);
  turn += 1;
  const mine = turn;
  try {
    const answer = await ask("teach/learning", { collection: collection() });
    if (mine !== turn) return;
    await take(answer);
  } catch (error) {
    if (error.status === 401) return problem(error);
    status.textContent = error.message;
  }
  if (mine !== turn || shownSection() !== "teach") return;
  if (!state || ["preparing", "learning"].includes(state.status)) waiting = setTimeout(poll, POLL);
}

async function take(answer) {
  if (answer.status === "learning") news = "";
  else if (state?.status === "learning" && answer.made) news = doneWords(answer);
  const hasChanged = state !== null && state.shown !== answer.shown;
  state = answer;
  draw();
  if (hasChanged && picture) await showOrder();
}

function doneWords({ made, shown }) {
  return made === shown ? "Learned. Searches have the new order." : "Learned, and searches stay as they were: it is not better yet.";
}

function draw() {
  const isBusy = ["preparing", "learning"].includes(state.status);
  const step = state.step ? `${state.step.charAt(0).toUpperCase()}${state.step.slice(1)} …` : "";
  const said = {
    preparing: `${step} This happens once; you can answer meanwhile.`,
    ready: state.problem ? `Nothing was learned. ${state.problem}` : news || "Ready. Searches go on while it learns.",
    learning: step,
    unavailable: `Nothing can be learned here. ${state.problem}`,
  };
  status.textContent = said[state.status];
  status.classList.toggle("wrong", Boolean(state.problem));
  bar.hidden = !isBusy;
  if (state.total) Object.assign(bar, { max: state.total, value: state.done });
  else bar.removeAttribute("value");
  begin.disabled = state.status !== "ready";
  begin.hidden = state.status === "unavailable";
  open.textContent = { preparing: "Learn now …", learning: "Learning …" }[state.status] ?? "Learn now …";
  drawReport();
  drawWays();
}

const rounded = (value) => Math.round(value * 100);
const between = ({ share, low, high }) => `${rounded(share)} % (${rounded(low)} to ${rounded(high)})`;

// Of the newest model: it is the one to judge, whether it is shown or not.
function drawReport() {
  const newest = state.generations[0];
  report.hidden = !newest;
  if (!newest) return report.replaceChildren();
  const { verdict, held_back: held, steadiness, recall_at_1: recall, left_out: left = [], notes = [] } = newest.report;
  const rows = [];
  if (held) rows.push(figure("Agrees with answers that it did not see", held.before.share, held.after.share, `${between(held.before)} before, ${between(held.after)} now`));
  if (steadiness) {
    const words = steadiness.compared ? between(steadiness) : "Not known: no question came again yet.";
    rows.push(figure("People with themselves: no model can agree more", null, steadiness.share, words));
  }
  if (recall) rows.push(figure(`Nearest picture is of the same class, of ${counted(recall.images, "picture")}`, recall.before, recall.after, `${(recall.before * 100).toFixed(1)} % before, ${(recall.after * 100).toFixed(1)} % now`));
  const fine = [...notes, ...left.map((each) => `Left out: ${each}.`)];
  report.replaceChildren(
    element("h3", {}, verdict ?? newest.words),
    element("dl", {}, ...rows.flat()),
    element("p", { className: "fine" }, [`Model ${newest.generation}, from ${counted(newest.answers, "answer")}.`, ...fine].join(" ")),
  );
}

function figure(name, from, to, words) {
  const track = element("span", { className: "learn-track" });
  track.ariaHidden = "true";
  for (const [kind, value] of [["to", to], ["from", from]]) {
    if (value === null) continue;
    const mark = element("i", { className: kind });
    mark.style.setProperty("--share", value);
    track.append(mark);
  }
  return [element("dt", {}, name), element("dd", {}, words, to === null ? "" : track)];
}

const named = (each) => `Model ${each.generation}: ${counted(each.answers, "answer")}, ${each.is_better ? "better" : "not better yet"}`;

function drawWays() {
  const { generations, shown } = state;
  choice.parentElement.hidden = !generations.length;
  const options = [element("option", { value: "0" }, OWN), ...generations.map((each) => element("option", { value: String(each.generation) }, named(each)))];
  choice.replaceChildren(...options);
  choice.value = String(shown);
  const newest = generations[0]?.generation ?? 0;
  const earlier = generations.find((each) => each.generation < shown)?.generation ?? 0;
  const had = document.activeElement?.parentElement === ways;
  ways.replaceChildren(
    ...(shown ? [element("button", { type: "button", className: "quiet", onclick: () => showGeneration(earlier) }, "Go back")] : []),
    ...(newest > shown ? [element("button", { type: "button", className: "quiet", onclick: () => showGeneration(newest) }, generations[0].is_better ? "Go forward again" : "Use it all the same")] : []),
  );
  if (had) ways.querySelector("button")?.focus();
  if (state.is_behind) ways.append(element("p", { className: "fine" }, "The index has changed since this model: learn again to see all its pictures."));
}

const showGeneration = (generation) => change("teach/shown", [["generation", String(generation)]]);

async function change(address, fields) {
  if (address === "teach/learn" && picture) before = now ?? before;
  news = "";
  try {
    await take(await post(address, [["collection", collection()], ...fields]));
    poll();
  } catch (error) {
    if (error.status === 401) return problem(error);
    status.textContent = error.message;
    status.classList.add("wrong");
  }
}

async function openDialog() {
  dialog.showModal();
  [before, now] = [null, null];
  picture = current().id || askedFor();
  orders.hidden = !picture;
  poll();
  if (picture) await showOrder();
}

// The pictures that are nearest to one, and those that were before something changed.
async function showOrder() {
  try {
    const found = await ask(`images/${picture}/neighbours`, { top: String(SHOWN), collection: collection() });
    if (before === null) before = found.results;
    now = found.results;
  } catch (error) {
    orders.hidden = true;
    return;
  }
  const isOther = now.some((each, rank) => each.id !== before[rank]?.id);
  const link = element("a", { href: addressOf({ ...current(), view: "search", id: picture, compare: [] }) }, "See this search");
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    dialog.close();
    searchFor({ id: picture });
  });
  orders.replaceChildren(
    element("h3", {}, isOther ? "What is nearest to it, before and now" : "What is nearest to it now", " ", link),
    element("div", { className: "learn-order" }, shownPicture(picture, "The picture that is searched for"), ...(isOther ? [row("Before", before)] : []), row("Now", now)),
  );
}

function row(name, results) {
  const was = new Set((name === "Now" ? before : now).map((each) => each.id));
  const items = results.map((each) => element("li", { className: was.has(each.id) ? "" : "new" }, shownPicture(each.id, each.path)));
  const list = element("ol", {}, ...items);
  list.ariaLabel = name;
  return element("div", {}, element("p", { className: "fine" }, name), list);
}

function shownPicture(id, alt) {
  const image = element("img", { alt, title: alt, decoding: "async" });
  showPicture(image, thumbnailAddress(id, collection(), 96), { isLazy: false });
  return image;
}
