// Make one HTML file of this bundle: it classifies pictures in any browser, from a double click, without a server.
//
//     npm install
//     node build.mjs [classify.html] [--model mobilenetv2.onnx]
//
// The runtime (onnxruntime-web, WebAssembly), the model and the facts of the manifest are written into the page, because
// a page that was opened as a file may load no other.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

import { chosen } from "./prepare.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const BUNDLE = join(HERE, "..");

const { values, positionals } = parseArgs({ allowPositionals: true, options: { model: { type: "string" } } });
const place = positionals[0] ?? "classify.html";
const manifest = JSON.parse(readFileSync(join(BUNDLE, "manifest.json"), "utf8"));
const { name, models, classes, image, confidence, novelty } = manifest;
const model = chosen(models, values.model);
const runtime = dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
const parts = {
  FACTS: { name, classes, image, confidence, novelty, chosen: model, models: { [model]: models[model] } },
  RUNTIME: readFileSync(join(runtime, "ort.wasm.bundle.min.mjs")),
  WASM: readFileSync(join(runtime, "ort-wasm-simd-threaded.wasm")),
  MODEL: readFileSync(join(BUNDLE, model)),
  PREPARE: readFileSync(join(HERE, "prepare.mjs")),
};
const page = readFileSync(join(HERE, "page.html"), "utf8").replace(/{{(\w+)}}/g, (_, part) =>
  part === "FACTS" ? JSON.stringify(parts.FACTS).replaceAll("<", "\\u003c") : gzipSync(parts[part]).toString("base64"),
);
writeFileSync(place, page);
console.log(`${place}: ${model}, ${(page.length / 1e6).toFixed(1)} MB. Open it in a browser.`);
