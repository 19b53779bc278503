// A lasso: a closed line around images. It is drawn in the map's own numbers, 0 to 65535.

const MOST_CORNERS = 32;
export const LARGEST = 65535;

export function parseLasso(text) {
  const numbers = text.split(",").map(Number);
  if (numbers.length < 6 || numbers.length % 2 || numbers.length > 200 || !numbers.every(Number.isFinite)) return null;
  return numbers;
}

// How far a corner lies from the line between two others.
function off([x, y], [left, top], [right, bottom]) {
  const [wide, high] = [right - left, bottom - top];
  const length = Math.hypot(wide, high);
  return length ? Math.abs(wide * (top - y) - (left - x) * high) / length : Math.hypot(x - left, y - top);
}

// The fewest corners of a line from which no other is farther off (Douglas and Peucker 1973).
function simpler(line, most) {
  const far = line.map((each) => off(each, line[0], line.at(-1)));
  const farthest = far.indexOf(Math.max(...far));
  if (line.length < 3 || far[farthest] <= most) return [line[0], line.at(-1)];
  return [...simpler(line.slice(0, farthest + 1), most).slice(0, -1), ...simpler(line.slice(farthest), most)];
}

// The corners of a line that was drawn: so few that an address can hold them.
export function writeLasso(line) {
  let kept = line;
  for (let most = LARGEST / 2000; kept === line || kept.length > MOST_CORNERS; most *= 1.5) kept = simpler(line, most);
  return kept.flat().map(Math.round).join(",");
}

export const rectangle = (left, top, right, bottom) => [left, top, right, top, right, bottom, left, bottom].map(Math.round).join(",");

// The numbers of the images inside (even-odd rule), of those that `isAllowed`.
export function inside(corners, { x, y }, isAllowed) {
  const [xs, ys] = [0, 1].map((part) => corners.filter((_, at) => at % 2 === part));
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const found = [];
  for (let each = 0; each < x.length; each++) {
    const [a, b] = [x[each], y[each]];
    if (a < left || a > right || b < top || b > bottom || !isAllowed(each)) continue;
    let isIn = false;
    for (let one = 0, other = xs.length - 1; one < xs.length; other = one++) {
      if (ys[one] > b !== ys[other] > b && a < ((xs[other] - xs[one]) * (b - ys[one])) / (ys[other] - ys[one]) + xs[one]) isIn = !isIn;
    }
    if (isIn) found.push(each);
  }
  return found;
}
