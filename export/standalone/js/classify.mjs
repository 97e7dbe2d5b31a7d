// Classify pictures in Node with the ONNX file of this bundle.
//
//     npm install
//     node classify.mjs photo.jpg ... [--model mobilenetv2.onnx]
//
// Exit status: 0 done, 1 a picture or file cannot be read, 2 wrong arguments.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import * as ort from "onnxruntime-web";
import sharp from "sharp";

import { chosen, classify, prepared } from "./prepare.mjs";

const BUNDLE = join(dirname(fileURLToPath(import.meta.url)), "..");

/** The upright pixels of a picture file, over white where it is transparent. */
async function decode(content) {
  const file = sharp(content, { ignoreIcc: true }).rotate().flatten({ background: "white" }).toColourspace("srgb");
  const { data, info } = await file.raw().toBuffer({ resolveWithObject: true });
  const rgb = info.channels === 1 ? new Uint8Array(data.length * 3).map((_, i) => data[Math.floor(i / 3)]) : data;
  return { width: info.width, height: info.height, data: rgb };
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { model: { type: "string" } } });
if (!positionals.length) {
  console.error("usage: node classify.mjs PICTURE ... [--model FILE]");
  process.exit(2);
}
let manifest, session;
try {
  manifest = JSON.parse(readFileSync(join(BUNDLE, "manifest.json"), "utf8"));
  manifest.chosen = chosen(manifest.models, values.model);
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(readFileSync(join(BUNDLE, manifest.chosen)));
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(1);
}
for (const path of positionals) {
  try {
    const content = readFileSync(path);
    const pixels = prepared(await decode(content), manifest.image, content[0] === 0xff && content[1] === 0xd8);
    const { classes, sure, unlike } = await classify(ort, session, manifest, pixels);
    const [{ name, confidence }] = classes;
    const words = `${sure ? "" : "  not sure"}${unlike ? "  unlike the training pictures" : ""}`;
    console.log(`${path}  ${name}  ${(100 * confidence).toFixed(1)} %${words}`);
  } catch (error) {
    console.error(`left out: ${path}: ${error.message}`);
    process.exitCode = 1;
  }
}
