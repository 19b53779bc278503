// Heat over a picture: the grid of an answer, drawn smoothly on a canvas of the picture's shape.

const LONG = 360; // pixels of the canvas; the browser stretches it
const OPACITY = 0.8;
// As in reports/heat_picture.py: heat, and its colour.
const STOPS = [0, 0.35, 0.7, 1];
const WARM = [[150, 20, 90], [214, 40, 70], [255, 145, 40], [255, 236, 130]];

export function drawHeat(canvas, image, grid, box) {
  const ratio = image.naturalWidth / image.naturalHeight || 1;
  canvas.width = Math.round(LONG * Math.min(1, ratio));
  canvas.height = Math.round(LONG / Math.max(1, ratio));
  const drawn = canvas.getContext("2d");
  const { x, y, width, height } = box ?? { x: 0, y: 0, width: 1, height: 1 };
  const left = Math.floor(x * canvas.width);
  const top = Math.floor(y * canvas.height);
  const wide = Math.max(1, Math.min(canvas.width - left, Math.round(width * canvas.width)));
  const high = Math.max(1, Math.min(canvas.height - top, Math.round(height * canvas.height)));
  drawn.putImageData(pixelsOf(grid, wide, high), left, top);
  if (!box) return;
  drawn.strokeStyle = "#fff";
  drawn.lineWidth = 2;
  drawn.strokeRect(left + 1, top + 1, wide - 2, high - 2);
}

function pixelsOf(grid, wide, high) {
  const across = weights(wide, grid[0].length);
  const down = weights(high, grid.length);
  const rows = grid.map((row) => across.map((each) => mixed(each, (at) => row[at])));
  const pixels = new ImageData(wide, high);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const heat = Math.min(1, Math.max(0, mixed(down[y], (at) => rows[at][x])));
      pixels.data.set([...colour(heat), 255 * OPACITY * heat], 4 * (y * wide + x));
    }
  }
  return pixels;
}

const mixed = (parts, value) => parts.reduce((sum, [at, weight]) => sum + weight * value(at), 0);

// For each pixel the four cells around it, and their weights: cubic convolution (Keys 1981).
function weights(count, cells) {
  return Array.from({ length: count }, (_, pixel) => {
    const place = ((pixel + 0.5) / count) * cells - 0.5;
    const first = Math.floor(place) - 1;
    return [0, 1, 2, 3].map((step) => {
      const at = Math.min(cells - 1, Math.max(0, first + step));
      return [at, cubic(Math.abs(place - first - step))];
    });
  });
}

function cubic(far) {
  const sharp = -0.75;
  if (far <= 1) return ((sharp + 2) * far - (sharp + 3)) * far * far + 1;
  return ((sharp * far - 5 * sharp) * far + 8 * sharp) * far - 4 * sharp;
}

function colour(heat) {
  const above = Math.max(1, STOPS.findIndex((each) => heat <= each));
  const share = (heat - STOPS[above - 1]) / (STOPS[above] - STOPS[above - 1]);
  return WARM[above].map((value, band) => value * share + WARM[above - 1][band] * (1 - share));
}
