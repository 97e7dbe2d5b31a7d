// From the pixels of a picture to what the network sees, as preprocessing.py of the bundle does it.
//
// The arithmetic of the resize is Pillow's for 8 bits (src/libImaging/Resample.c): first across, then down, each pass in
// integers with 22 bits behind the point, rounded to a level. (Pillow 13 goes down first where that shrinks more, which
// with the bilinear filter moves a pixel by a level at most.) Where libjpeg reduces a large JPEG while it decodes, the
// means of 2 x 2, 4 x 4 or 8 x 8 pixels are taken here, which differ from it by a fraction of a level.

const KEPT = 2; // times the size that is needed is left when a large picture is reduced
const LONGEST_ASPECT = 8;
const BITS = 22;

const FILTERS = {
  bilinear: { support: 1, value: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    value: (x) => {
      x = Math.abs(x);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
};

/** {width, height, data: RGB or RGBA, upright} -> Uint8Array (H, W, 3) at the network's size. `spec`: of the manifest. */
export function prepared(picture, spec, isJpeg) {
  if (spec.mean_unit.length !== 3) throw new Error("only pictures in colour are prepared here");
  const [height, width] = spec.size;
  const exact = Array.isArray(spec.resize);
  const enough = exact ? Math.max(...spec.resize) : spec.resize;
  let small = withoutAlpha(picture);
  const size = [small.width, small.height];
  if (isJpeg) small = reduced(small, [8, 4, 2].find((s) => Math.min(...size) / (KEPT * enough) >= s) ?? 1);
  small = reduced(small, Math.max(1, Math.floor(Math.min(small.width, small.height) / (KEPT * enough))));
  if (!exact && Math.max(small.width, small.height) > LONGEST_ASPECT * Math.min(small.width, small.height)) {
    throw new Error(`a strip more than ${LONGEST_ASPECT} times as long as wide is not prepared here`);
  }
  const scale = enough / Math.min(...size);
  let [wide, high] = size.map((side) => Math.max(enough, even(side * scale)));
  if (spec.letterbox) [wide, high] = inside(size, width, height);
  else if (exact) [high, wide] = spec.resize;
  const factor = Math.max(Math.round(size[0] / small.width), Math.round(size[1] / small.height));
  const filter = FILTERS[spec.interpolation ?? "bilinear"];
  const image = resized(small, wide, high, size[0] / factor, size[1] / factor, filter);
  const left = Math.floor((wide - width) / 2), top = Math.floor((high - height) / 2);
  if (spec.letterbox) return onPage(image, -left, -top, spec);
  if (left < 0 || top < 0) throw new Error("the manifest's size is larger than its resize");
  const seen = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const from = ((y + top) * wide + left) * 3;
    seen.set(image.data.subarray(from, from + width * 3), y * width * 3);
  }
  return seen;
}

/** [width, height] of a picture of that size, made as large as fits, its shape kept. */
function inside(size, width, height) {
  const scale = Math.min(width / size[0], height / size[1]);
  return size.map((side) => Math.max(1, even(side * scale)));
}

/** A picture on a page of the mean colour. */
function onPage(image, left, top, spec) {
  const [height, width] = spec.size, colour = spec.mean_unit.map((mean) => even(255 * mean));
  const page = Uint8Array.from({ length: height * width * 3 }, (_, i) => colour[i % 3]);
  for (let y = 0; y < image.height; y++) {
    const row = image.data.subarray(y * image.width * 3, (y + 1) * image.width * 3);
    page.set(row, ((y + top) * width + left) * 3);
  }
  return page;
}

/** Uint8Array (H, W, 3) -> Float32Array (3, H, W): (x / 255 - mean) / std. */
export function normalised(pixels, spec) {
  const count = pixels.length / 3, tensor = new Float32Array(pixels.length);
  for (let c = 0; c < 3; c++) {
    const mean = Math.fround(255 * Math.fround(spec.mean_unit[c])), std = Math.fround(255 * Math.fround(spec.std_unit[c]));
    for (let i = 0; i < count; i++) tensor[c * count + i] = Math.fround(pixels[i * 3 + c] - mean) / std;
  }
  return tensor;
}

/**
 * A prepared picture -> {classes: [{name, confidence}, ...], sure, unlike}, the most likely first. Confidence is tempered
 * as the bundle's predict.py does it, and below the threshold of the manifest the answer is not sure. Unlike the training
 * pictures is what lies beyond the other threshold; where the file does not tell, nothing is.
 */
export async function classify(ort, session, manifest, pixels) {
  const facts = manifest.models[manifest.chosen];
  const shape = [1, ...facts.input.shape.slice(1)];
  const given =
    facts.input_form === "image"
      ? new ort.Tensor("uint8", pixels, shape)
      : new ort.Tensor("float32", normalised(pixels, manifest.image), shape);
  const found = await session.run({ [facts.input_form]: given });
  const { temperature, threshold } = manifest.confidence ?? { temperature: 1, threshold: 0 };
  const logits = Array.from(found.probabilities.data, (p) => Math.log(Math.max(p, 1e-38)) / temperature);
  const most = Math.max(...logits);
  const sum = logits.reduce((total, x) => total + Math.exp(x - most), 0);
  const classes = manifest.classes.map((name, i) => ({ name, confidence: Math.exp(logits[i] - most) / sum }));
  classes.sort((a, b) => b.confidence - a.confidence);
  const unlike = Boolean(found.novelty) && found.novelty.data[0] > manifest.novelty.threshold;
  return { classes, sure: classes[0].confidence >= threshold, unlike };
}

/** The ONNX file of a bundle that is run here: in float, the one that takes pixels first. */
export function chosen(models, wanted) {
  if (wanted) {
    if (models[wanted]?.file_format !== "ONNX") throw new Error(`${wanted}: no ONNX file of this bundle`);
    return wanted;
  }
  const fits = ({ file_format, precision, input }) =>
    file_format === "ONNX" && precision === "float" && [-1, 1].includes(input.shape[0]);
  const names = Object.keys(models).filter((name) => fits(models[name]));
  names.sort((a, b) => models[a].input_form.localeCompare(models[b].input_form)); // image, tensor
  if (!names.length) throw new Error("no ONNX file here that takes one picture. Export it again with --file_format ONNX, without --batch_size");
  return names[0];
}

function withoutAlpha({ width, height, data }) {
  if (data.length === width * height * 3) return { width, height, data };
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; j < rgb.length; i += 4, j += 3) {
    rgb[j] = data[i];
    rgb[j + 1] = data[i + 1];
    rgb[j + 2] = data[i + 2];
  }
  return { width, height, data: rgb };
}

/** Means of `factor` x `factor` pixels; of fewer at the right and lower edge. */
function reduced(from, factor) {
  if (factor === 1) return from;
  const width = Math.ceil(from.width / factor), height = Math.ceil(from.height / factor);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const lower = Math.min((y + 1) * factor, from.height);
    for (let x = 0; x < width; x++) {
      const right = Math.min((x + 1) * factor, from.width);
      const count = (lower - y * factor) * (right - x * factor);
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let v = y * factor; v < lower; v++) {
          for (let u = x * factor; u < right; u++) sum += from.data[(v * from.width + u) * 3 + c];
        }
        data[(y * width + x) * 3 + c] = Math.floor((sum + count / 2) / count);
      }
    }
  }
  return { width, height, data };
}

/** Which pixels make each of `wanted` ones, and their integer weights; `to`: the end of what the picture fills. */
function passes(size, to, wanted, { support, value }) {
  const scale = to / wanted, stretch = Math.max(scale, 1), reach = support * stretch;
  return Array.from({ length: wanted }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5)), end = Math.min(size, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({ length: end - first }, (_, k) => value((k + first - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => Math.trunc((w / sum) * 2 ** BITS + (w < 0 ? -0.5 : 0.5))) };
  });
}

const level = (sum) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));

function resized(from, width, height, right, lower, filter) {
  let across = from;
  if (width !== from.width || right !== width) {
    const columns = passes(from.width, right, width, filter);
    const data = new Uint8Array(width * from.height * 3);
    for (let y = 0; y < from.height; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights } = columns[x];
        for (let c = 0; c < 3; c++) {
          let sum = 2 ** (BITS - 1), at = (y * from.width + first) * 3 + c;
          for (const weight of weights) {
            sum += from.data[at] * weight;
            at += 3;
          }
          data[(y * width + x) * 3 + c] = level(sum);
        }
      }
    }
    across = { width, height: from.height, data };
  }
  if (height === across.height && lower === height) return across;
  const rows = passes(across.height, lower, height, filter), stride = width * 3;
  const data = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const { first, weights } = rows[y];
    for (let i = 0; i < stride; i++) {
      let sum = 2 ** (BITS - 1), at = first * stride + i;
      for (const weight of weights) {
        sum += across.data[at] * weight;
        at += stride;
      }
      data[y * stride + i] = level(sum);
    }
  }
  return { width, height, data };
}

/** Python's round: halves go to the even number. */
function even(x) {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
}
