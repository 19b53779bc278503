// The rows of a long grid near the view; padding keeps the room of the others.
// Heights are measured, so what is in view stays where it is when rows come and go.

const AROUND = 2; // heights of the view that are filled above it, and below
const GUESS = 280; // pixels of a row, until one was measured

export function rowsOf(grid, { make, drop }) {
  const tiles = new Map(); // index -> element, of those in the page
  let count = 0;
  let columns = 1;
  let width = 0;
  let gap = 0;
  let heights = []; // pixels of each row that was measured, with the gap
  let usual = 0; // pixels of those that were not; 0 until one was
  let shown = [0, 0, 0]; // rows from, up to; tiles up to
  let seen = { index: 0, top: 0 }; // the first tile in view, as it was last

  const heightOf = (row) => heights[row] ?? (usual || GUESS);
  const numRows = () => Math.ceil(count / columns);

  function offsetOf(row) {
    let sum = 0;
    for (let at = 0; at < row; at++) sum += heightOf(at);
    return sum;
  }

  function rowAt(pixels) {
    const last = numRows() - 1;
    let sum = 0;
    for (let row = 0; row < last; row++) {
      sum += heightOf(row);
      if (sum > pixels) return row;
    }
    return Math.max(0, last);
  }

  function measureColumns() {
    if (grid.clientWidth === width || !grid.clientWidth) return;
    const style = getComputedStyle(grid);
    width = grid.clientWidth;
    columns = style.gridTemplateColumns.split(" ").length;
    gap = parseFloat(style.rowGap) || 0;
    [heights, usual] = [[], 0];
    if (tiles.size) place(Math.min(seen.index, count - 1), seen.top);
  }

  // The first tile in view, and where its upper side is.
  function inView() {
    const row = rowAt(-grid.getBoundingClientRect().top);
    for (let index = row * columns; index < count; index += columns) {
      const top = tiles.get(index)?.getBoundingClientRect().top ?? -1;
      if (top >= 0) return { index, top };
    }
    return { index: Math.min(row * columns, Math.max(0, count - 1)), top: 0 };
  }

  function fill(first, end) {
    for (const [index, tile] of tiles) {
      const row = Math.floor(index / columns);
      if (row >= first && row < end) settle(tile);
      else if (tile.contains(document.activeElement)) float(tile, row, index % columns);
      else {
        drop(tile);
        tile.remove();
        tiles.delete(index);
      }
    }
    let next = null;
    for (let index = Math.min(end * columns, count) - 1; index >= first * columns; index--) {
      let tile = tiles.get(index);
      if (!tile) {
        tile = make(index);
        tiles.set(index, tile);
        if (next) next.before(tile);
        else insertAfterOthers(index, tile);
      }
      next = tile;
    }
    shown = [first, end, Math.min(end * columns, count)];
    pad();
    measure();
    pad();
  }

  function insertAfterOthers(index, tile) {
    const later = [...tiles.keys()].filter((each) => each > index);
    if (later.length) tiles.get(Math.min(...later)).before(tile);
    else grid.append(tile);
  }

  function pad() {
    grid.style.paddingTop = `${offsetOf(shown[0])}px`;
    grid.style.paddingBottom = `${offsetOf(numRows()) - offsetOf(shown[1])}px`;
  }

  // A tile that has the focus stays in the page, at its place, when its row is left out.
  function float(tile, row, column) {
    const step = (width + gap) / columns;
    tile.classList.add("away");
    Object.assign(tile.style, { top: `${offsetOf(row)}px`, left: `${column * step}px`, width: `${step - gap}px` });
  }

  function settle(tile) {
    if (!tile.classList.contains("away")) return;
    tile.classList.remove("away");
    Object.assign(tile.style, { top: "", left: "", width: "" });
  }

  function measure() {
    let sum = 0;
    for (let row = shown[0]; row < shown[1]; row++) {
      heights[row] = tiles.get(row * columns).getBoundingClientRect().height + gap;
      sum += heights[row];
    }
    usual ||= sum / (shown[1] - shown[0]) || 0;
  }

  function update() {
    measureColumns();
    if (!grid.clientWidth) return;
    const top = -grid.getBoundingClientRect().top;
    const around = AROUND * innerHeight;
    seen = inView();
    const first = count ? rowAt(top - around) : 0;
    const end = count ? rowAt(top + innerHeight + around) + 1 : 0;
    if (first === shown[0] && end === shown[1] && shown[2] === Math.min(end * columns, count)) return;
    fill(first, end);
    const moved = tiles.has(seen.index) ? tiles.get(seen.index).getBoundingClientRect().top - seen.top : 0;
    if (Math.abs(moved) > 0.5 && seen.top > 0) scrollBy(0, moved);
  }

  // Bring a tile into the page, and its upper side to some pixels below that of the view.
  function place(index, pixels) {
    const row = Math.floor(index / columns);
    const around = Math.ceil((AROUND * innerHeight) / heightOf(row));
    fill(Math.max(0, row - around), Math.min(numRows(), row + 2 * around + 1));
    scrollBy(0, tiles.get(index).getBoundingClientRect().top - pixels);
  }

  addEventListener("scroll", update, { passive: true });
  addEventListener("resize", update);
  new ResizeObserver(update).observe(grid);

  return {
    place,
    inView,
    tiles,
    columns: () => columns,
    setCount(number) {
      count = number;
      if (count) {
        update();
        return pad();
      }
      for (const tile of tiles.values()) {
        drop(tile);
        tile.remove();
      }
      tiles.clear();
      [heights, usual, shown] = [[], 0, [0, 0, 0]];
      pad();
    },
  };
}
