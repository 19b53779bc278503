// The box on the query: drawn, moved and resized by pointer or by keyboard.
// A box is {x, y, width, height}, as shares of the upright picture.
import { byId, within } from "./dom.js";

const SMALLEST = 0.04;
const STEP = 0.02;
const stage = byId("stage");
const view = byId("box");
const button = byId("box-button");
let box = null;
let drag = null;
let told = () => {};

export function parseBox(text) {
  const numbers = text.split(",").map(Number);
  if (numbers.length !== 4 || numbers.some(Number.isNaN)) return null;
  const [x, y, width, height] = numbers;
  if (x < 0 || y < 0 || width <= 0 || height <= 0 || x + width > 1.001 || y + height > 1.001) return null;
  return { x, y, width, height };
}

export function writeBox({ x, y, width, height }) {
  const left = Math.floor(x * 1000) / 1000;
  const top = Math.floor(y * 1000) / 1000;
  const short = (begin, size) => Math.min(Math.round(size * 1000), Math.round((1 - begin) * 1000)) / 1000;
  return [left, top, short(left, width), short(top, height)].join(",");
}

export function showBox(text) {
  box = parseBox(text);
  draw();
}

export function canBox(can) {
  button.hidden = !can;
  byId("query-hint").hidden = !can;
  stage.classList.toggle("can-box", can);
}

function draw() {
  view.hidden = box === null;
  button.ariaPressed = box !== null;
  button.title = box === null ? "Search with a part of the picture" : "Remove the box";
  if (box === null) return;
  const [left, top, width, height] = [box.x, box.y, box.width, box.height].map((each) => `${each * 100}%`);
  Object.assign(view.style, { left, top, width, height });
  const share = (value) => `${Math.round(value * 100)} %`;
  view.ariaLabel = `The part that counts: from the left ${share(box.x)}, from above ${share(box.y)}, ${share(box.width)} wide, ${share(box.height)} high. Arrow keys move it, with Shift they resize it, Delete removes it.`;
}

function place(event) {
  const area = stage.getBoundingClientRect();
  return { x: within((event.clientX - area.left) / area.width, 0, 1), y: within((event.clientY - area.top) / area.height, 0, 1) };
}

function spanned(one, other) {
  return { x: Math.min(one.x, other.x), y: Math.min(one.y, other.y), width: Math.abs(one.x - other.x), height: Math.abs(one.y - other.y) };
}

function fixedCorner(name) {
  return { x: name.includes("w") ? box.x + box.width : box.x, y: name.includes("n") ? box.y + box.height : box.y };
}

function begin(event) {
  if (event.button !== 0 || !stage.classList.contains("can-box")) return;
  const at = place(event);
  const before = box;
  if (event.target.parentElement === view) drag = { corner: fixedCorner(event.target.className), before };
  else if (event.target === view) drag = { hold: { x: at.x - box.x, y: at.y - box.y }, before };
  else drag = { corner: at, before };
  stage.setPointerCapture(event.pointerId);
  event.preventDefault();
}

function move(event) {
  if (drag === null) return;
  const at = place(event);
  if (drag.corner) {
    box = spanned(drag.corner, at);
  } else {
    const { width, height } = box;
    box = { x: within(at.x - drag.hold.x, 0, 1 - width), y: within(at.y - drag.hold.y, 0, 1 - height), width, height };
  }
  draw();
}

function end() {
  if (drag === null) return;
  if (box && (box.width < SMALLEST || box.height < SMALLEST)) box = drag.before;
  const isNew = box !== drag.before;
  drag = null;
  draw();
  if (isNew) told(box && writeBox(box));
}

function cancel() {
  if (drag === null) return;
  box = drag.before;
  drag = null;
  draw();
}

function remove() {
  box = null;
  draw();
  button.focus();
  told("");
}

function press(event) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const way = ways[event.key];
  if (["Delete", "Backspace", "Escape"].includes(event.key)) {
    event.stopPropagation();
    remove();
  } else if (way) {
    const [right, down] = [way[0] * STEP, way[1] * STEP];
    if (event.shiftKey) {
      box.width = within(box.width + right, SMALLEST, 1 - box.x);
      box.height = within(box.height + down, SMALLEST, 1 - box.y);
    } else {
      box.x = within(box.x + right, 0, 1 - box.width);
      box.y = within(box.y + down, 0, 1 - box.height);
    }
    draw();
    told(writeBox(box));
  } else return;
  event.preventDefault();
}

export function startBox(changed) {
  told = changed;
  stage.onpointerdown = begin;
  stage.onpointermove = move;
  stage.onpointerup = end;
  stage.onpointercancel = cancel;
  view.onkeydown = press;
  button.addEventListener("click", () => {
    if (box !== null) return remove();
    box = { x: 0.25, y: 0.25, width: 0.5, height: 0.5 };
    draw();
    view.focus();
    told(writeBox(box));
  });
}
