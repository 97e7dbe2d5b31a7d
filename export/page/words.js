// All words of the page in both languages, and the function that puts them into it.
// Only textContent is ever set: names of classes and files can be anything.

const WORDS = {
  en: {
    title: "Which is it?",
    language: "中文",
    dropTitle: "Drop pictures here",
    dropHint: "or paste them, or choose them. They are sent to this server only, and not kept.",
    choose: "Choose pictures",
    photograph: "Take a photograph",
    answers: "Answers",
    clear: "Clear",
    showMap: "show where the evidence is",
    mapNote: "Orange speaks for a class, blue against it. Choose a bar to see the map of its class; the frame is what the model sees.",
    map_not_linear: "No map: this network does not end in pooling and a linear head, so that no exact one exists.",
    map_mindir: "No map: a MindIR shows its answers only. Export ONNX as well to see where the evidence is.",
    card: "The model",
    manifest: "manifest",
    api: "description of the JSON API",
    mistakes: "What it got wrong",
    notSure: "not sure",
    notSureWhy: "{confidence} is below the threshold of {threshold}; most likely {name}",
    unlike: "This picture is unlike the training pictures.",
    waiting: "waiting …",
    noPreview: "your browser cannot show this kind of picture",
    more: "and {count} classes below these",
    more_one: "and 1 class below these",
    accuracy: "Accuracy",
    accuracyValue: "{accuracy} of {pictures} evaluation pictures (95 % interval {low} to {high})",
    accuracyValue_one: "{accuracy} of 1 evaluation picture (95 % interval {low} to {high})",
    headline: "{accuracy} of {pictures} evaluation pictures right",
    headline_one: "{accuracy} of 1 evaluation picture right",
    threshold: "Not sure",
    thresholdValue: "below {threshold}",
    thresholdNone: "no threshold was fitted",
    novelty: "Unlike the training pictures",
    noveltyValue: "is said of what is farther from them than 99 % of themselves are",
    noveltyNone: "this model cannot tell",
    classes: "Classes",
    served: "Served from",
    servedValue: "{file}, by {runtime}",
    weights: "Weights",
    licence: "Licence of the weights",
    exported: "Exported",
    exportedValue: "{time}",
    confusion: "Evaluation pictures by true class (rows) and answer (columns)",
    trueClass: "true",
    noConfusion: "Which classes it confuses is not in a bundle: serve the run folder to see it.",
    bigConfusion: "Which classes it confuses: {count} classes are too many for a table here; see report.html in the run folder.",
    noMistakes: "It got every evaluation picture right.",
    bundleMistakes: "A bundle does not hold its evaluation pictures: serve the run folder to see what it got wrong.",
    mistakesNote: "{count} evaluation pictures, the most certain mistakes first.",
    mistakesNote_one: "1 evaluation picture.",
    mistakesSome: "The {shown} most certain mistakes of {count}.",
    mistake: "{answer} {confidence}, in truth {truth}",
    gone: "not where it was any more",
    error_upload_too_large: "The file is too large: up to {megabytes} MB.",
    error_too_many_pixels: "The picture has too many pixels.",
    error_not_a_picture: "Not a picture in a known format.",
    error_heic: "An HEIC photograph, as iPhones take them: this server cannot read it. Save it as JPEG, or set the camera to “Most Compatible”.",
    error_too_much_work: "The picture takes too much work to read. Save it anew.",
    error_no_memory: "The server has too little memory for this picture now. Try again.",
    error_folder: "A folder without files.",
    error_link: "This is a link or text, not a picture. Save the picture first, and drop its file.",
    error_damaged: "The picture is damaged or not complete.",
    error_empty: "The file is empty.",
    error_busy: "The server is busy. Try again in a moment.",
    error_too_many: "Too many requests at once. Try again in a moment.",
    error_too_slow: "The picture did not arrive in time.",
    error_unreachable: "The server cannot be reached. Is it still running?",
    error_other: "It did not work: {message}",
  },
  zh: {
    title: "这是什么？",
    language: "English",
    dropTitle: "把图片拖到这里",
    dropHint: "也可以粘贴或选择图片。图片只发送到这台服务器，不会保存。",
    choose: "选择图片",
    photograph: "拍照",
    answers: "结果",
    clear: "清空",
    showMap: "显示依据在哪里",
    mapNote: "橙色支持该类别，蓝色反对。点选一行可查看该类别的热图；方框内是模型看到的部分。",
    map_not_linear: "没有热图：这个网络的末端不是池化加线性分类头，不存在精确的热图。",
    map_mindir: "没有热图：MindIR 只给出结果。同时导出 ONNX 就能看到依据在哪里。",
    card: "模型",
    manifest: "清单",
    api: "JSON 接口说明",
    mistakes: "它答错的图片",
    notSure: "不确定",
    notSureWhy: "{confidence} 低于阈值 {threshold}；最可能是 {name}",
    unlike: "这张图片与训练图片不同。",
    waiting: "等待中……",
    noPreview: "浏览器无法显示这种图片",
    more: "其余 {count} 个类别更低",
    accuracy: "准确率",
    accuracyValue: "{pictures} 张评估图片中 {accuracy} 正确（95 % 区间 {low} 至 {high}）",
    headline: "{pictures} 张评估图片中 {accuracy} 正确",
    threshold: "不确定",
    thresholdValue: "低于 {threshold} 时",
    thresholdNone: "没有拟合阈值",
    novelty: "与训练图片不同",
    noveltyValue: "图片比 99 % 的训练图片离它们更远时这样说",
    noveltyNone: "这个模型无法判断",
    classes: "类别",
    served: "模型文件",
    servedValue: "{file}，由 {runtime} 运行",
    weights: "权重",
    licence: "权重许可证",
    exported: "导出时间",
    exportedValue: "{time}",
    confusion: "评估图片：行为真实类别，列为模型的回答",
    trueClass: "真实",
    noConfusion: "部署包里没有混淆情况：请用运行文件夹启动服务来查看。",
    bigConfusion: "混淆情况：{count} 个类别太多，无法在此列表；请看运行文件夹中的 report.html。",
    noMistakes: "所有评估图片都答对了。",
    bundleMistakes: "部署包里没有评估图片：请用运行文件夹启动服务来查看它答错的图片。",
    mistakesNote: "{count} 张评估图片，最有把握的错误在前。",
    mistakesSome: "{count} 个错误中最有把握的 {shown} 个。",
    mistake: "答 {answer}（{confidence}），实为 {truth}",
    gone: "图片已不在原处",
    error_upload_too_large: "文件太大：最多 {megabytes} MB。",
    error_too_many_pixels: "图片的像素太多。",
    error_not_a_picture: "不是已知格式的图片。",
    error_heic: "这是 iPhone 拍摄的 HEIC 照片，这台服务器无法读取。请另存为 JPEG，或在相机设置中选择“兼容性最佳”。",
    error_too_much_work: "读取这张图片的计算量太大，请重新保存。",
    error_no_memory: "服务器当前内存不足，无法读取这张图片，请稍后再试。",
    error_folder: "文件夹里没有文件。",
    error_link: "这是链接或文字，不是图片。请先保存图片，再拖入文件。",
    error_damaged: "图片已损坏或不完整。",
    error_empty: "文件是空的。",
    error_busy: "服务器繁忙，请稍后再试。",
    error_too_many: "同时的请求太多，请稍后再试。",
    error_too_slow: "图片没有及时送达。",
    error_unreachable: "无法连接服务器。它还在运行吗？",
    error_other: "没有成功：{message}",
  },
};

let language = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
try {
  const kept = localStorage.getItem("language");
  language = kept in WORDS ? kept : language;
} catch { /* storage can be forbidden */ }

const said = new WeakMap();

/** Put words into an element, with {values}; it follows the language from then on. Where there is one of what is
    counted (`pictures` or `count`), the words of <key>_one are taken. */
export function say(element, key, values = {}) {
  element.dataset.say = key;
  said.set(element, values);
  const known = WORDS[language];
  const one = (values.pictures ?? values.count) === 1 && Object.hasOwn(known, `${key}_one`);
  const words = known[one ? `${key}_one` : Object.hasOwn(known, key) ? key : "error_other"];
  element.replaceChildren(...words.split(/(\{\w+\})/).map((part) => {
    if (!part.startsWith("{")) return part;
    const value = document.createElement("bdi"); // a name in another script must not turn the sentence around
    value.textContent = inWords(values[part.slice(1, -1)]);
    return value;
  }));
  return element;
}

function inWords(value) {
  if (!(value instanceof Date)) return value;
  const locale = navigator.language.startsWith(language) ? navigator.language : language; // en-GB has another order
  return value.toLocaleString(locale, { dateStyle: "long", timeStyle: "short" });
}

export function knows(key) {
  return Object.hasOwn(WORDS.en, key);
}

export function percent(share) {
  const text = (100 * share).toFixed(1);
  if (text === "100.0" && share < 1) return "> 99.9 %";
  if (text === "0.0" && share > 0) return "< 0.1 %";
  return `${text} %`;
}

function apply() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-say]")) {
    say(element, element.dataset.say, said.get(element));
  }
  const button = document.getElementById("language");
  button.textContent = WORDS[language].language;
  button.lang = language === "en" ? "zh" : "en";
  document.title = WORDS[language].title;
}

document.getElementById("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  try { localStorage.setItem("language", language); } catch { /* as above */ }
  apply();
});
apply();
