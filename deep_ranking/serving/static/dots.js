// Dots drawn as pixels: 100,000 of them take a few milliseconds, on any graphics card or none.
import { pixelOf } from "./palette.js";

const MARGIN = 48; // pixels around what is shown, so that dots at the edge are drawn as others
const PIXELS = 1_200_000; // that all dots together may cover
const SMALLEST = 1.3;
const MOST_RIMS = 10_000;

let image = new ImageData(1, 1);
let pixels = new Uint32Array(image.data.buffer);

// The radius of each of so many dots, in pixels of the screen.
export function radiusFor(count, largest) {
  const fitting = Math.sqrt(PIXELS / Math.PI / Math.max(1, count));
  const calm = (1.9 * largest) / Math.max(1, Math.log10(count / 300));
  return Math.max(SMALLEST, Math.min(largest, fitting, calm));
}

function disc(radius, width) {
  const reach = Math.ceil(radius + 0.5);
  const found = { offsets: [], shares: [] };
  for (let down = -reach; down <= reach; down++) {
    for (let right = -reach; right <= reach; right++) {
      const share = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(down, right)));
      if (share < 0.02) continue;
      found.offsets.push(down * width + right);
      found.shares.push(Math.round(share * 256));
    }
  }
  return { offsets: Int32Array.from(found.offsets), shares: Int32Array.from(found.shares) };
}

function put({ offsets, shares }, at, colour) {
  const redBlue = colour & 0xff00ff;
  const green = colour & 0xff00;
  for (let each = 0; each < offsets.length; each++) {
    const place = at + offsets[each];
    const share = shares[each];
    if (share === 256) {
      pixels[place] = colour;
      continue;
    }
    const below = pixels[place];
    const rest = 256 - share;
    const mixed = ((((below & 0xff00ff) * rest + redBlue * share) >>> 8) & 0xff00ff) | ((((below & 0xff00) * rest + green * share) >>> 8) & 0xff00);
    pixels[place] = (0xff000000 | mixed) >>> 0;
  }
}

// Draw dots: those that are faint below the others.
//   count, numbers, at: how many; the image of each; x and y of each, in pixels
//   colourOf, lit: for each image, its pixel, and 1 if it is not faint
export function drawDots(canvas, context, { count, numbers, at, colourOf, lit, ground, faint, radius }) {
  const [width, height] = [canvas.width + 2 * MARGIN, canvas.height + 2 * MARGIN];
  if (image.width !== width || image.height !== height) {
    image = new ImageData(width, height);
    pixels = new Uint32Array(image.data.buffer);
  }
  const base = pixelOf(ground);
  pixels.fill(base);
  const dot = disc(radius, width);
  const rim = radius >= 3 && count <= MOST_RIMS ? disc(radius + 1, width) : null; // sets dots on each other apart
  const grey = pixelOf(faint);
  for (const front of [0, 1]) {
    for (let each = 0; each < count; each++) {
      const number = numbers[each];
      if (lit[number] !== front) continue;
      const place = (Math.round(at[2 * each + 1]) + MARGIN) * width + Math.round(at[2 * each]) + MARGIN;
      if (rim) put(rim, place, base);
      put(dot, place, front ? colourOf[number] : grey);
    }
  }
  context.putImageData(image, -MARGIN, -MARGIN);
}

export const DRAWN_BEYOND = MARGIN / 2;
