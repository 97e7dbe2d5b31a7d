// Pictures in by drop, paste, choice or camera; answers out. One request a picture, a few at once.

import { element, showCard } from "./card.js";
import { drawMap, strongestOf } from "./map.js";
import { knows, percent, say } from "./words.js";

const AT_ONCE = 4;
const KEPT = 60; // answers from before that stay on the page when new pictures come
const BARS = 10;
const RETRIES = 5;
const find = (id) => document.getElementById(id);

let card = null;
const waiting = [];
let running = 0;

/** All of them get an answer, in their order, above those that are there. */
function take(files) {
  if (!files.length) return;
  for (const item of [...find("list").children].slice(KEPT)) drop(item);
  find("list").prepend(...files.map((file) => {
    const item = element("li");
    item.append(element("bdi", file.name || "", "file"), say(element("p", "", "quiet"), "waiting"));
    waiting.push({ file, item });
    return item;
  }));
  find("answers").hidden = false;
  work();
}

/** A sentence about what was dropped or pasted and is no file. */
function takeNothing(reason, name = "") {
  const item = element("li");
  find("list").prepend(item);
  find("answers").hidden = false;
  showError(item, { name }, new Refused(reason, ""));
}

// Maps far outside of the window are given up: hundreds of them would take gigabytes.
const painters = new WeakMap();
const seen = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => painters.get(target)(isIntersecting)),
  { rootMargin: "1000px" },
);

function drop(item) {
  seen.unobserve(item);
  URL.revokeObjectURL(item.querySelector("img")?.src ?? "");
  item.remove();
}

async function work() {
  while (running < AT_ONCE && waiting.length) {
    const { file, item } = waiting.shift();
    if (!item.isConnected) continue; // cleared meanwhile
    running += 1;
    ask(file)
      .then((answer) => show(item, file, answer), (error) => showError(item, file, error))
      .finally(() => { running -= 1; work(); });
  }
}

class Refused extends Error {
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

async function ask(file) {
  if (card && file.size > card.limits.bytes) throw new Refused("upload_too_large", "");
  for (let attempt = 1; ; attempt += 1) {
    const form = new FormData();
    form.append("picture", file, file.name || "picture");
    let response;
    try {
      response = await fetch("predict?maps=true", { method: "POST", body: form });
    } catch {
      throw new Refused("unreachable", "");
    }
    const content = await response.json().catch(() => ({}));
    if (response.ok) return content.pictures[0];
    const error = content.error ?? { reason: "other", message: `${response.status} ${response.statusText}` };
    if (![429, 503].includes(response.status) || attempt === RETRIES) throw new Refused(error.reason, error.message);
    await new Promise((done) => setTimeout(done, 500 * attempt));
  }
}

function showError(item, file, error) {
  const key = knows(`error_${error.reason}`) ? `error_${error.reason}` : "error_other";
  const megabytes = card ? Math.floor(card.limits.bytes / 2 ** 20) : "";
  const words = say(element("p", "", "error"), key, { message: error.message, megabytes });
  words.setAttribute("role", "alert");
  item.replaceChildren(element("bdi", file.name, "file"), words);
  item.className = "failed";
}

function show(item, file, answer) {
  const picture = element("div", "", "picture");
  const image = element("img");
  image.alt = file.name;
  image.onerror = () => picture.replaceChildren(say(element("div", "", "placeholder"), "noPreview")); // no map over it
  image.src = URL.createObjectURL(file);
  picture.append(image);

  const text = element("div", "", "text");
  text.append(element("bdi", file.name, "file"), verdict(answer));
  const bars = element("div", "", "bars");
  text.append(bars);
  const shares = tempered(answer.probabilities);
  shares.slice(0, BARS).forEach(([name, share]) => bars.append(bar(name, share, answer)));
  if (shares.length > BARS) text.append(say(element("p", "", "quiet"), "more", { count: shares.length - BARS }));
  if (answer.maps) {
    const canvas = element("canvas");
    canvas.setAttribute("aria-hidden", "true");
    picture.append(canvas);
    const strongest = strongestOf(answer.maps);
    let chosen = bars.firstElementChild;
    const draw = () => drawMap(canvas, answer.maps[chosen.dataset.name], answer.seen, strongest, ...answer.size);
    const choose = (button) => {
      chosen = button;
      bars.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", other === button));
      draw();
    };
    bars.querySelectorAll("button").forEach((button) => button.addEventListener("click", () => choose(button)));
    choose(chosen);
    painters.set(item, (visible) => (visible ? draw() : (canvas.width = 0)));
    seen.observe(item);
  }
  item.replaceChildren(picture, text);
}

function verdict(answer) {
  const line = element("div", "", "verdict");
  if (answer.sure === false) {
    line.append(say(element("strong", "", "unsure"), "notSure"), say(element("p", "", "quiet"), "notSureWhy", {
      confidence: percent(answer.confidence), threshold: percent(card.confidence.threshold), name: answer.predicted,
    }));
  } else {
    const name = element("strong");
    name.append(element("bdi", answer.predicted));
    line.append(name, ` ${percent(answer.confidence)}`);
  }
  if (answer.unlike) line.append(say(element("p", "", "unlike"), "unlike"));
  return line;
}

/** [name, share] in falling order, with the fitted temperature: as sure as it is right. */
function tempered(probabilities) {
  const power = 1 / (card.confidence?.temperature ?? 1);
  const shares = Object.entries(probabilities).map(([name, p]) => [name, p ** power]);
  const sum = shares.reduce((total, [, share]) => total + share, 0);
  return shares.map(([name, share]) => [name, share / sum]).sort((a, b) => b[1] - a[1]);
}

function bar(name, share, answer) {
  const made = element(answer.maps ? "button" : "div", undefined, "bar");
  if (answer.maps) made.type = "button";
  made.dataset.name = name;
  made.style.setProperty("--share", share);
  made.append(element("bdi", name), element("span", percent(share)));
  return made;
}

const zone = find("drop");
for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
  find(button).addEventListener("click", () => find(input).click());
  find(input).addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // the same picture again is a change too
  });
}
document.addEventListener("paste", (event) => takeTransfer(event.clipboardData));
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser leaves the page for what is dropped
    zone.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) zone.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  zone.classList.remove("over");
  event.preventDefault();
  takeTransfer(event.dataTransfer);
});

/** What was dropped or pasted: files, folders with all files below them, or something that is neither. */
async function takeTransfer(transfer) {
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean); // before any await
  if (!files.length && !entries.length) return takeNothing("link", transfer.getData("text/plain").slice(0, 80));
  if (!entries.some((entry) => entry.isDirectory)) return take(files);
  for (const entry of entries.reverse()) { // each is put above the one before
    const found = await filesOf(entry);
    if (found.length) take(found);
    else takeNothing("folder", entry.name);
  }
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((found, failed) => entry.file(found, failed))];
  const reader = entry.createReader();
  const files = [];
  for (;;) { // a hundred at a time
    const some = await new Promise((found, failed) => reader.readEntries(found, failed));
    if (!some.length) return files;
    for (const inner of some.sort((a, b) => a.name.localeCompare(b.name))) files.push(...await filesOf(inner));
  }
}

find("clear").addEventListener("click", () => {
  waiting.length = 0;
  [...find("list").children].forEach(drop);
  find("answers").hidden = true;
  find("choose").focus();
});
find("show-map").addEventListener("change", (event) => find("list").classList.toggle("plain", !event.target.checked));

card = await (await fetch("card")).json();
showCard(card);
say(find("map-note"), card.no_maps ? `map_${card.no_maps}` : "mapNote");
find("show-map").closest("label").hidden = Boolean(card.no_maps);
document.body.dataset.ready = "yes";
