// Pictures on the map, where there is room: loaded when the map rests, a few at a time, few kept.
import { showPicture, thumbnailAddress } from "./api.js";

const MOST_KEPT = 400;
const AT_ONCE = 6;
const REST = 120; // milliseconds
const kept = new Map(); // id -> picture; those not used for longest come first
let waiting = [];
let wanted = "";
let loading = 0;
let timer = 0;

export function forgetThumbnails() {
  clearTimeout(timer);
  waiting = [];
  wanted = "";
  kept.clear();
}

function load(collection, size, done) {
  while (loading < AT_ONCE && waiting.length) {
    const id = waiting.shift();
    if (kept.has(id)) continue;
    const image = new Image();
    const picture = { image, isThere: false };
    kept.set(id, picture);
    loading += 1;
    const end = (isThere) => () => {
      loading -= 1;
      picture.isThere = isThere;
      if (isThere) done();
      load(collection, size, done);
    };
    image.addEventListener("load", end(true), { once: true });
    image.addEventListener("error", end(false), { once: true });
    showPicture(image, thumbnailAddress(id, collection, size), { isLazy: false });
  }
  for (const id of kept.keys()) {
    if (kept.size <= MOST_KEPT) break;
    kept.delete(id);
  }
}

// Return the pictures of some ids that are there; ask for the others once the map rests.
export function thumbnails(ids, collection, size, done) {
  const found = new Map();
  const missing = [];
  for (const id of ids) {
    const picture = kept.get(id);
    if (!picture) {
      missing.push(id);
      continue;
    }
    kept.delete(id);
    kept.set(id, picture);
    if (picture.isThere) found.set(id, picture.image);
  }
  if (ids.join() === wanted) return found; // those that are missing are on their way
  wanted = ids.join();
  clearTimeout(timer);
  waiting = [];
  if (missing.length) {
    timer = setTimeout(() => {
      waiting = missing;
      load(collection, size, done);
    }, REST);
  }
  return found;
}

// Choose places whose pictures would not lie on each other, the first ones first.
export function withRoom(count, at, side, isLit) {
  const cells = new Map();
  const found = [];
  for (let each = 0; each < count; each++) {
    if (!isLit(each)) continue;
    const [x, y] = [at[2 * each], at[2 * each + 1]];
    const [column, row] = [Math.floor(x / side), Math.floor(y / side)];
    let isFree = true;
    for (let down = row - 1; isFree && down <= row + 1; down++) {
      for (let right = column - 1; right <= column + 1; right++) {
        const other = cells.get(down * 65536 + right);
        if (other && Math.abs(other[0] - x) < side && Math.abs(other[1] - y) < side) isFree = false;
      }
    }
    if (!isFree) continue;
    cells.set(row * 65536 + column, [x, y]);
    found.push(each);
  }
  return found;
}
