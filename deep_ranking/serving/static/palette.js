// Colours of classes, in light and dark, that colour-blind people tell apart as far as ten hues
// allow. With more classes than colours, those of one colour lie far from each other on the map.

// Of Okabe and Ito, and of Paul Tol, made darker or lighter where the ground asks for it.
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#c45a95", "#a07800", "#3fa3dc", "#332288", "#882255", "#6b7a00", "#cc6677"];
const DARK = ["#56b4e9", "#ee8866", "#44bb99", "#e58bbd", "#eedd88", "#a6e0ff", "#a996ee", "#ffb3c1", "#bbcc33", "#c98f5a"];
export const NUM_COLOURS = LIGHT.length;

export const isDark = matchMedia("(prefers-color-scheme: dark)");

export const colours = () => (isDark.matches ? DARK : LIGHT);

// A colour of the style sheet, such as "--ink".
export const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A colour as a pixel of ImageData: four bytes, red first.
export function pixelOf(colour) {
  const digits = colour.slice(1).replace(/^(.)(.)(.)$/, "$1$1$2$2$3$3");
  const [red, green, blue] = [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// The number of a colour for each class; -1, grey, for images without a class.
export function chooseColours({ classes, x, y, of }) {
  const middles = classes.map(() => [0, 0]);
  of.forEach((number, at) => {
    middles[number][0] += x[at] / classes[number].images;
    middles[number][1] += y[at] / classes[number].images;
  });
  const chosen = classes.map(() => -1);
  const places = LIGHT.map(() => []); // the middles that have each colour
  const bySize = classes.map((_, number) => number).filter((number) => classes[number].name);
  bySize.sort((one, other) => classes[other].images - classes[one].images);
  for (const number of bySize) {
    const [left, top] = middles[number];
    const room = places.map((taken) => Math.min(...taken.map(([a, b]) => Math.hypot(a - left, b - top))));
    chosen[number] = room.indexOf(Math.max(...room));
    places[chosen[number]].push(middles[number]);
  }
  return chosen;
}
