// The class-activation map over a picture: orange where a place speaks for the class, blue where against it.

const FOR = [232, 119, 34];
const AGAINST = [40, 96, 200];
const STRONGEST = 0.72; // opacity of the strongest place of all classes

/** Draw rows of logits onto a canvas that lies over the picture. `seen`: left, top, width, height as shares. */
export function drawMap(canvas, rows, seen, strongest, width, height) {
  const scale = Math.min(1, 800 / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const place = [seen[0] * canvas.width, seen[1] * canvas.height, seen[2] * canvas.width, seen[3] * canvas.height];
  const context = canvas.getContext("2d");
  if (rows) {
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    // Two sheets, because smoothing between orange and blue on one would give grey.
    for (const [sign, colour] of [[1, FOR], [-1, AGAINST]]) {
      context.drawImage(sheet(rows, sign, colour, strongest), ...place);
    }
  }
  context.lineWidth = Math.max(1, canvas.width / 300);
  context.strokeStyle = "rgba(255, 255, 255, 0.9)";
  context.setLineDash([6 * context.lineWidth, 4 * context.lineWidth]);
  const half = context.lineWidth / 2;
  context.strokeRect(place[0] + half, place[1] + half, place[2] - 2 * half, place[3] - 2 * half);
}

function sheet(rows, sign, colour, strongest) {
  const canvas = document.createElement("canvas");
  canvas.height = rows.length;
  canvas.width = rows[0].length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, i) => {
    const share = Math.max(0, sign * value) / strongest;
    image.data.set([...colour, Math.round(255 * STRONGEST * Math.min(1, share))], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The largest absolute value of all maps: one scale for all classes of a picture. */
export function strongestOf(maps) {
  return Math.max(1e-6, ...Object.values(maps).map((rows) => Math.max(...rows.flat().map(Math.abs))));
}
