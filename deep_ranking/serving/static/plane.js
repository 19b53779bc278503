// The canvas of the map: what is in sight, drawn; zoom, pan and lasso by pointer and by keyboard.
import { byId, within } from "./dom.js";
import { drawDots, DRAWN_BEYOND, radiusFor } from "./dots.js";
import { LARGEST } from "./lasso.js";
import { colours, cssColour } from "./palette.js";
import { thumbnails, withRoom } from "./thumbnails.js";

const MOST_ZOOM = 400;
const FILLED = 0.92; // share of the canvas that the whole map takes
const STEP = 0.15; // of the canvas, by an arrow key
const STILL = 5; // pixels that a click may move
const NEAR = 14; // pixels around a dot that mean it
const CROWD = 3; // images for each place of a thumbnail; with more, there are only dots
const canvas = byId("map");
const context = canvas.getContext("2d", { alpha: false });
const whole = () => ({ x: LARGEST / 2, y: LARGEST / 2, zoom: 1 });

let told = {}; // moved, pointed, opened, drawn: what the plane calls
let map = null; // ids, x, y, of, colour: an entry an image; order
let lit = null; // 1 for each image that is not faint
let corners = null; // of the lasso
let query = -1;
let sight = whole();
let inSight = new Int32Array(0);
let places = new Float32Array(0); // x and y of each image in sight, in pixels of the screen
let count = 0;
let shown = []; // images whose thumbnail is drawn: {image, left, top}
let pointed = -1;
let isWaiting = false;
let isDrawing = false; // a lasso, by one finger or the left button
const pointers = new Map();
let gesture = null;

const AROUND = LARGEST / 10; // what a lasso may take in beyond the map, so that it holds the outermost
const ratio = () => Math.min(2, devicePixelRatio || 1);
const scale = () => (sight.zoom * FILLED * Math.min(canvas.clientWidth, canvas.clientHeight)) / LARGEST; // pixels a unit

export const sightText = () => (sight.zoom === 1 && sight.x === LARGEST / 2 && sight.y === LARGEST / 2 ? "" : `${Math.round(sight.x)},${Math.round(sight.y)},${Number(sight.zoom.toFixed(2))}`);

export function setSight(text) {
  const [x, y, zoom] = text.split(",").map(Number);
  move(Number.isFinite(zoom + x + y) ? { x, y, zoom } : whole(), { isTold: false });
}

function move({ x, y, zoom }, { isTold = true } = {}) {
  sight = { x: within(x, 0, LARGEST), y: within(y, 0, LARGEST), zoom: within(zoom, 1, MOST_ZOOM) };
  redraw();
  if (isTold) told.moved();
}

export function zoomBy(factor, place = { x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 }) {
  const before = unitAt(place);
  const zoom = within(sight.zoom * factor, 1, MOST_ZOOM);
  const kept = sight.zoom / zoom;
  move({ x: before.x + (sight.x - before.x) * kept, y: before.y + (sight.y - before.y) * kept, zoom });
}

export const showWhole = () => move(whole());

function unitAt({ x, y }) {
  return { x: sight.x + (x - canvas.clientWidth / 2) / scale(), y: sight.y + (y - canvas.clientHeight / 2) / scale() };
}

// What is in sight, as a rectangle of the map: left, top, right, bottom.
export function sightSides() {
  const first = unitAt({ x: 0, y: 0 });
  const last = unitAt({ x: canvas.clientWidth, y: canvas.clientHeight });
  return [first.x, first.y, last.x, last.y].map((each) => within(each, -AROUND, LARGEST + AROUND));
}

export const numbersInSight = () => inSight.subarray(0, count);

export function setMap(given) {
  map = given;
  byId("map-view").classList.toggle("bare", !map);
  [pointed, query, corners] = [-1, -1, null];
  lit = new Uint8Array(map ? map.ids.length : 0).fill(1);
  inSight = new Int32Array(map ? map.ids.length : 0);
  places = new Float32Array(2 * inSight.length);
  redraw();
}

export function setMarks(given) {
  ({ lit, corners, query } = given);
  redraw();
}

export function setLasso(isOn) {
  isDrawing = isOn;
  canvas.classList.toggle("lassoing", isOn);
}

export function redraw() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    if (map) draw();
  });
}

function draw() {
  const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
  if (!wide || !high) return;
  const dense = ratio();
  const size = [Math.round(wide * dense), Math.round(high * dense)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const [unit, beyond] = [scale() * dense, DRAWN_BEYOND];
  const [left, top] = [size[0] / 2 - sight.x * unit, size[1] / 2 - sight.y * unit];
  count = 0;
  for (const each of map.order) {
    const x = map.x[each] * unit + left;
    const y = map.y[each] * unit + top;
    if (x < -beyond || y < -beyond || x > size[0] + beyond || y > size[1] + beyond) continue;
    inSight[count] = each;
    places[2 * count] = x;
    places[2 * count + 1] = y;
    count += 1;
  }
  const radius = radiusFor(count, within(0.0065 * Math.sqrt(wide * high), 4.5, 8) * dense);
  drawDots(canvas, context, { count, numbers: inSight, at: places, colourOf: map.pixels, lit, ground: cssColour("--surface"), faint: cssColour("--line"), radius });
  drawThumbnails(dense);
  drawLasso(corners ? pairs(corners) : null, dense, unit, left, top);
  if (gesture?.line) drawLasso(gesture.line, dense, unit, left, top);
  if (query >= 0) ring(query, 9 * dense, unit, left, top, 3.5 * dense, cssColour("--accent"));
  if (pointed >= 0) ring(pointed, 8 * dense, unit, left, top, 2 * dense, cssColour("--ink"));
  if (canvas.matches(":focus-visible")) drawCross(dense);
}

const pairs = (numbers) => numbers.reduce((all, each, at) => (at % 2 ? all.at(-1).push(each) : all.push([each]), all), []);

function drawThumbnails(dense) {
  const side = within(0.075 * Math.sqrt(canvas.clientWidth * canvas.clientHeight), 48, 112) * dense;
  shown = [];
  const room = (canvas.width * canvas.height) / (side * side);
  if (count > CROWD * room) return;
  const chosen = withRoom(count, places, side * 1.12, (each) => lit[inSight[each]] === 1);
  const ids = chosen.map((each) => map.ids[inSight[each]]);
  const found = thumbnails(ids, map.collection, side / dense, redraw);
  const palette = colours();
  chosen.forEach((each, at) => {
    const image = found.get(ids[at]);
    if (!image) return;
    const number = inSight[each];
    const [left, top] = [places[2 * each] - side / 2, places[2 * each + 1] - side / 2];
    const { naturalWidth: width, naturalHeight: height } = image;
    const cut = Math.min(width, height);
    context.save();
    context.beginPath();
    context.roundRect(left, top, side, side, 5 * dense);
    context.clip();
    context.drawImage(image, (width - cut) / 2, (height - cut) / 2, cut, cut, left, top, side, side);
    context.lineWidth = 6 * dense; // half of it is cut off
    context.strokeStyle = palette[map.colour[map.of[number]]] ?? cssColour("--quiet");
    context.stroke();
    context.restore();
    shown.push({ number, left: left / dense, top: top / dense, side: side / dense });
  });
}

function drawLasso(line, dense, unit, left, top) {
  if (!line || line.length < 2) return;
  context.beginPath();
  line.forEach(([x, y], at) => (at ? context.lineTo(x * unit + left, y * unit + top) : context.moveTo(x * unit + left, y * unit + top)));
  context.closePath();
  context.lineJoin = "round";
  const accent = cssColour("--accent");
  context.fillStyle = `${accent}14`;
  context.fill();
  context.strokeStyle = cssColour("--surface");
  context.lineWidth = 5 * dense;
  context.stroke();
  context.strokeStyle = accent;
  context.lineWidth = 2 * dense;
  context.stroke();
}

function ring(number, radius, unit, left, top, width, colour) {
  const large = shown.find((each) => each.number === number);
  const around = large ? (large.side / 2) * ratio() * 1.12 : radius;
  for (const [wider, stroke] of [[width + 3 * ratio(), cssColour("--surface")], [width, colour]]) {
    context.beginPath();
    context.arc(map.x[number] * unit + left, map.y[number] * unit + top, around, 0, 2 * Math.PI);
    context.lineWidth = wider;
    context.strokeStyle = stroke;
    context.stroke();
  }
}

function drawCross(dense) {
  const [x, y, arm] = [canvas.width / 2, canvas.height / 2, 12 * dense];
  for (const [width, colour] of [[5, "--surface"], [2, "--ink"]]) {
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(x + side * arm * 0.35, y);
      context.lineTo(x + side * arm, y);
      context.moveTo(x, y + side * arm * 0.35);
      context.lineTo(x, y + side * arm);
    }
    context.lineWidth = width * dense;
    context.strokeStyle = cssColour(colour);
    context.stroke();
  }
}

function imageAt({ x, y }, reach = NEAR) {
  const over = shown.findLast(({ left, top, side }) => x >= left && y >= top && x <= left + side && y <= top + side);
  if (over) return over.number;
  const dense = ratio();
  let [nearest, best] = [-1, (reach * dense) ** 2];
  for (let each = 0; each < count; each++) {
    const distance = (places[2 * each] - x * dense) ** 2 + (places[2 * each + 1] - y * dense) ** 2;
    if (distance >= best || lit[inSight[each]] !== 1) continue;
    [nearest, best] = [inSight[each], distance];
  }
  return nearest;
}

function point(number, place = null) {
  if (number === pointed) return;
  pointed = number;
  told.pointed(number, place);
  redraw();
}

// By the keyboard, the picture in the middle is meant.
function pointInTheMiddle() {
  requestAnimationFrame(() => point(imageAt({ x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 }, Infinity)));
}

function placeOf(number) {
  return { x: (map.x[number] - sight.x) * scale() + canvas.clientWidth / 2, y: (map.y[number] - sight.y) * scale() + canvas.clientHeight / 2 };
}

const placed = (event) => ({ x: event.offsetX, y: event.offsetY });

function press(event) {
  if (!map || event.button > 0) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, placed(event));
  const at = placed(event);
  if (pointers.size === 2) gesture = { pinch: spread() };
  else if (isDrawing || event.shiftKey) gesture = { line: [corner(at)], from: at };
  else gesture = { from: at, last: at, isClick: true };
}

const corner = (at) => Object.values(unitAt(at)).map((each) => within(each, -AROUND, LARGEST + AROUND));

function spread() {
  const [one, other] = [...pointers.values()];
  return { size: Math.hypot(one.x - other.x, one.y - other.y), x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 };
}

function drag(event) {
  if (!map) return;
  const at = placed(event);
  if (!pointers.has(event.pointerId)) {
    const number = event.pointerType === "mouse" ? imageAt(at) : -1;
    point(number, number < 0 ? null : placeOf(number));
    return;
  }
  pointers.set(event.pointerId, at);
  if (gesture?.pinch && pointers.size === 2) {
    const now = spread();
    pan(now.x - gesture.pinch.x, now.y - gesture.pinch.y);
    zoomBy(now.size / gesture.pinch.size, now);
    gesture.pinch = now;
  } else if (gesture?.line) {
    gesture.line.push(corner(at));
    redraw();
  } else if (gesture?.last) {
    if (gesture.isClick && Math.hypot(at.x - gesture.from.x, at.y - gesture.from.y) < STILL) return;
    gesture.isClick = false;
    point(-1);
    pan(at.x - gesture.last.x, at.y - gesture.last.y);
    gesture.last = at;
  }
}

function release(event) {
  if (!pointers.delete(event.pointerId)) return;
  const done = gesture;
  gesture = null;
  redraw();
  if (event.type === "pointercancel" || !done) return;
  if (done.line) {
    if (done.line.length > 2 && Math.hypot(event.offsetX - done.from.x, event.offsetY - done.from.y) + done.line.length > STILL) told.drawn(done.line);
  } else if (done.isClick) {
    const number = imageAt(placed(event));
    if (number >= 0) told.opened(number);
  }
}

const pan = (right, down) => move({ x: sight.x - right / scale(), y: sight.y - down / scale(), zoom: sight.zoom });

function type(event) {
  if (!map || event.ctrlKey || event.metaKey || event.altKey) return;
  const ways = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.key in ways) {
    const [right, down] = ways[event.key];
    pan(right * STEP * canvas.clientWidth, down * STEP * canvas.clientHeight);
  } else if (["+", "="].includes(event.key)) zoomBy(1.5);
  else if (event.key === "-") zoomBy(1 / 1.5);
  else if (["0", "Home"].includes(event.key)) showWhole();
  else if (event.key === "Enter" && pointed >= 0) told.opened(pointed);
  else if (event.key === "Escape" && gesture?.line) gesture = null;
  else return;
  event.preventDefault();
  event.stopPropagation();
  pointInTheMiddle();
}

export function startPlane(given) {
  told = given;
  canvas.onpointerdown = press;
  canvas.onpointermove = drag;
  canvas.onpointerup = release;
  canvas.onpointercancel = release;
  canvas.onpointerleave = () => point(-1);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomBy(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), placed(event));
  }, { passive: false });
  canvas.onkeydown = type;
  canvas.addEventListener("focus", () => {
    redraw();
    if (map && canvas.matches(":focus-visible")) pointInTheMiddle();
  });
  canvas.onblur = () => point(-1);
  new ResizeObserver(redraw).observe(canvas);
}
