// What is known of the model: facts, the confusion table, and the pictures it got wrong.

import { percent, say } from "./words.js";

const TABLE_CLASSES = 15;
const find = (id) => document.getElementById(id);

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function showCard(card) {
  const { accuracy, interval, pictures } = card.measured;
  find("name").textContent = card.name;
  say(find("headline"), "headline", { accuracy: percent(accuracy), pictures });
  const [low, high] = interval.map(percent);
  fact("accuracy").append(say(element("span"), "accuracyValue", { accuracy: percent(accuracy), pictures, low, high }));
  fact("threshold").append(card.confidence
    ? say(element("span"), "thresholdValue", { threshold: percent(card.confidence.threshold) })
    : say(element("span"), "thresholdNone"));
  fact("novelty").append(say(element("span"), card.tells_novelty ? "noveltyValue" : "noveltyNone"));
  const classes = fact("classes");
  classes.className = "names";
  card.classes.forEach((name) => classes.append(element("bdi", name)));
  fact("served").append(say(element("span"), "servedValue", { file: card.served_from, runtime: card.runtime }));
  fact("weights").append(element("bdi", card.weights.source));
  fact("licence").append(element("bdi", card.weights.licence));
  const time = element("time");
  time.dateTime = card.created;
  fact("exported").append(say(time, "exportedValue", { time: new Date(card.created) }));
  showConfusion(card);
  showMistakes(card);
  find("card").hidden = find("mistakes").hidden = false;
}

function fact(key) {
  const value = element("dd");
  find("facts").append(say(element("dt"), key), value);
  return value;
}

function showConfusion(card) {
  const place = find("confusion");
  if (!card.confusion) return place.append(say(element("p", "", "quiet"), "noConfusion"));
  if (card.classes.length > TABLE_CLASSES) {
    return place.append(say(element("p", "", "quiet"), "bigConfusion", { count: card.classes.length }));
  }
  const table = element("table");
  const title = say(element("p", "", "quiet"), "confusion");
  title.id = "confusion-title";
  table.setAttribute("aria-labelledby", title.id);
  const head = table.createTHead().insertRow();
  head.append(say(element("th"), "trueClass"));
  card.classes.forEach((name) => head.append(heading(name, "col")));
  const body = table.createTBody();
  card.confusion.forEach((counts, truth) => {
    const row = body.insertRow();
    row.append(heading(card.classes[truth], "row"));
    const all = counts.reduce((sum, count) => sum + count, 0) || 1;
    counts.forEach((count, answer) => {
      const cell = row.insertCell();
      cell.textContent = count;
      cell.className = answer === truth ? "right" : count ? "wrong" : "none";
      cell.style.setProperty("--share", count / all);
    });
  });
  const frame = element("div", "", "scroll");
  frame.tabIndex = 0; // so that it can be scrolled by keyboard
  frame.append(table);
  place.append(title, frame);
}

function heading(name, scope) {
  const cell = element("th");
  cell.scope = scope;
  cell.append(element("bdi", name));
  return cell;
}

function showMistakes(card) {
  const note = find("mistakes-note");
  if (!card.mistakes) return say(note, "bundleMistakes");
  if (!card.mistakes.length) return say(note, "noMistakes");
  const counts = { count: card.mistakes_in_all, shown: card.mistakes.length };
  say(note, counts.shown < counts.count ? "mistakesSome" : "mistakesNote", counts);
  for (const mistake of card.mistakes) {
    const figure = element("figure");
    if (mistake.there) {
      const image = element("img");
      image.loading = "lazy";
      image.alt = mistake.name;
      image.src = `mistakes/${mistake.number}`;
      image.onerror = () => image.replaceWith(gone());
      figure.append(image);
    } else {
      figure.append(gone());
    }
    const caption = element("figcaption");
    const words = { answer: mistake.predicted, confidence: percent(mistake.confidence), truth: mistake.true };
    caption.append(say(element("span"), "mistake", words), element("bdi", mistake.name, "quiet path"));
    figure.append(caption);
    const item = element("li");
    item.append(figure);
    find("grid").append(item);
  }
}

function gone() {
  return say(element("div", "", "placeholder"), "gone");
}
