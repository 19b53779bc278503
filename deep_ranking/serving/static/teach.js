// Questions to a person: which of A and B is more like Q? An answer is confirmed once it is on the server's disk.
import { post, Refusal, showPicture, thumbnailAddress } from "./api.js";
import { byId, element, isTyping } from "./dom.js";
import { problem } from "./problem.js";
import { entitle, shownSection } from "./sections.js";
import { current, currentCollection, server } from "./store.js";
import { loadView } from "./views.js";
import { counted } from "./words.js";

const KEPT = "deep-ranking-rater";
const SIDES = ["query", "a", "b"];
const SAID = { a: "A", b: "B", cannot_say: "Can’t say" };
const KEYS = { a: "a", arrowleft: "a", b: "b", arrowright: "b", c: "cannot_say", " ": "cannot_say", u: "undo", backspace: "undo" };
const FEW_REPEATS = 10;
const UNSEEN_MS = 400;
let rater = "";
let asked = null; // the question that is shown, with its pictures
let ahead = null; // a promise of the one after it, or of the error in its place
let given = []; // what was answered here and could be taken back
let isBusy = false;
let shownAt = 0;
let learning = null; // the part that learns from the answers, once it is there
let turn = 0; // of the rater: what arrives for another one is dropped

export function start() {
  byId("teach-who").onsubmit = (event) => {
    event.preventDefault();
    begin(byId("teach-name").value.trim());
  };
  byId("teach-rename").onclick = askName;
  for (const side of ["a", "b"]) byId(`teach-${side}`).onclick = (event) => chosen(event, () => answer(side));
  byId("teach-neither").onclick = (event) => chosen(event, () => answer("cannot_say"));
  byId("teach-undo").onclick = (event) => chosen(event, undo);
  document.addEventListener("keydown", press);
}

export const leave = () => learning?.leave();

export async function show() {
  entitle("Teach");
  showLearning().catch(problem);
  if (asked) return;
  const name = localStorage.getItem(KEPT) || server.rater;
  if (name) await begin(name);
  else askName();
}

async function showLearning() {
  learning = await loadView("learn");
  learning.show(() => asked?.query.id);
}

function chosen(event, action) {
  if (event.detail) byId("teach-ask").focus(); // of a pointer: so that the space bar presses no button
  // The second click of a double click would answer the question after, unseen.
  if (event.detail < 2 || performance.now() - shownAt > UNSEEN_MS) action();
}

function press(event) {
  if (shownSection() !== "teach" || byId("teach-ask").hidden || document.querySelector("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isTyping(event.target)) return;
  if (event.key === " " && event.target.closest("a, button, summary")) return;
  const action = KEYS[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  if (action === "undo") undo();
  else answer(action);
}

function askName() {
  byId("teach-name").value = rater || server.rater || "";
  byId("teach-who").hidden = false;
  byId("teach-ask").hidden = true;
  byId("teach-foot").hidden = true;
  byId("teach-name").focus();
}

async function begin(name) {
  turn += 1;
  [rater, asked, ahead, given, isBusy] = [name, null, null, [], false];
  byId("teach-rename").textContent = name;
  await work(async () => {
    await anew();
    localStorage.setItem(KEPT, name);
    byId("teach-who").hidden = true;
    byId("teach-foot").hidden = false;
    byId("teach-ask").hidden = false;
    byId("teach-ask").focus();
  }, () => begin(name));
}

const fields = (more) => [["collection", current().collection || currentCollection().name], ["rater", rater], ...Object.entries(more)];

const idsOf = (question) => Object.fromEntries(SIDES.map((side) => [side, question[side].id]));

// Ask for the next question, or for the one after `pending`; its pictures begin to load.
async function request(pending = null) {
  const { question, rater: figures } = await post("teach/question", fields(pending ? idsOf(pending) : {}));
  return { question: question && withPictures(question), figures };
}

function withPictures(question) {
  const most = Math.max(window.innerWidth, window.innerHeight) / 2;
  const pictures = SIDES.map((side) => {
    const name = { query: "Q", a: "A", b: "B" }[side];
    const picture = element("img", { alt: `Picture ${name}: ${question[side].path}`, draggable: false });
    const place = element("span", {}, picture); // it may fail before it is in the page
    picture.onerror = () => place.replaceChildren(element("span", { className: "unshown" }, "This picture cannot be shown. Its file may be gone."));
    showPicture(picture, thumbnailAddress(question[side].id, currentCollection().name, most), { isLazy: false });
    return place;
  });
  return { ...question, pictures };
}

// Show the question of a new request.
async function anew() {
  const mine = turn;
  const { question, figures } = await request();
  if (mine !== turn) return;
  tellProgress(figures);
  put(question);
}

// Show a question, and ask for the one after it while the person looks.
function put(question) {
  asked = question;
  shownAt = performance.now();
  byId("teach-ask").classList.toggle("done", !question);
  byId("teach-question").hidden = !question;
  byId("teach-end").hidden = Boolean(question);
  for (const [at, side] of SIDES.entries()) byId(`teach-${side}-picture`).replaceChildren(...(question ? [question.pictures[at]] : []));
  for (const name of ["a", "b", "neither"]) byId(`teach-${name}`).disabled = !question;
  ahead = question && request(question);
  ahead?.catch(() => {}); // it is asked for again when it is needed
}

// Show what was asked for ahead, or of a new request if that failed.
async function next() {
  const mine = turn;
  const found = await ahead.catch(() => null);
  if (mine !== turn) return;
  if (found) put(found.question);
  else await anew();
}

async function answer(side) {
  if (!asked || isBusy) return;
  const question = asked;
  const ids = idsOf(question);
  mark(side);
  await work(async () => {
    const { already, rater: figures } = await post("teach/answers", fields({ ...ids, answer: side, asked: question.asked, before: question.before }));
    given.push(ids);
    tellProgress(figures);
    say(already ? `${SAID[side]}: it was kept already, and once.` : `${SAID[side]}. ${counted(figures.answers, "answer")}.`);
    await next();
  }, () => answer(side), async (error) => {
    // Another answer stands, or a picture left the collection: there is nothing to send again.
    await anew();
    tellProblem(error.message);
  });
  mark(null);
}

async function undo() {
  if (isBusy) return;
  const ids = given.at(-1) ?? {};
  await work(async () => {
    const back = await post("teach/take_back", fields(ids));
    given.pop();
    tellProgress(back.rater);
    say(`Taken back: ${SAID[back.answer]}.`);
    if (back.question) put(withPictures(back.question));
    else await anew();
  }, undo, async (error) => {
    given.pop();
    tellProblem(error.message);
  });
}

// Do one thing at a time. What fails is told in place: it can be sent again, or cannot (`final`).
async function work(action, again, final = null) {
  const mine = turn;
  isBusy = true;
  tellProblem("");
  try {
    await action();
  } catch (error) {
    if (mine !== turn || error.name === "AbortError") return;
    if (!(error instanceof Refusal) || error.status === 401) problem(error);
    else if (final && (error.status === 409 || error.status === 404)) await final(error).catch((other) => tellProblem(other.message, again));
    else tellProblem(error.message, error.status === 422 || error.status === 403 ? null : again);
  } finally {
    if (mine === turn) isBusy = false;
  }
}

function mark(side) {
  for (const name of ["a", "b"]) byId(`teach-${name}`).classList.toggle("chosen", name === side);
}

function tellProblem(text, again = null) {
  byId("teach-problem").hidden = !text;
  byId("teach-problem-text").textContent = text;
  byId("teach-again").hidden = !again;
  byId("teach-again").onclick = again;
}

const say = (text) => (byId("teach-said").textContent = text);

function tellProgress({ answers, cannot_say: cannotSay, steadiness }) {
  const { compared, agreed } = steadiness;
  let steady = "";
  if (compared) {
    steady = `you agree with yourself in ${agreed} of ${counted(compared, "repeat")}`;
    if (compared < FEW_REPEATS) steady += ", too few to tell much";
  } else if (answers) steady = "how steady you are shows when questions come again";
  const count = answers ? `${counted(answers, "answer")}${cannotSay ? ` (${cannotSay.toLocaleString("en")} can’t say)` : ""}` : "No answer yet";
  byId("teach-progress").textContent = `${[count, steady].filter(Boolean).join("; ")}.`;
  byId("teach-undo").disabled = !answers;
}
