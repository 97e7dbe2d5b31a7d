"""The bundle in JavaScript: in Node, and as one page that a browser opens as a file, without any server."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import made_once
from PIL import Image
from test_export_page import CHROMIUM, NO_CHROMIUM, browser  # noqa: F401  a fixture

from datasets.image import load_images
from export.golden import STANDALONE
from export.predictors import load_predictor

PIXELS = """
import {{ readFileSync, writeFileSync }} from "node:fs";
import {{ prepared }} from "{prepare}";
const jobs = JSON.parse(readFileSync(0, "utf8"));
for (const {{ width, height, file, spec, jpeg, out }} of jobs) {{
  writeFileSync(out, prepared({{ width, height, data: readFileSync(file) }}, spec, jpeg));
}}
"""

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="no Node here")


@pytest.fixture(scope="session")
def modules(tmp_path_factory) -> Path:
    """What package.json names, from npm's registry."""
    if not shutil.which("npm"):
        pytest.skip("no npm here")

    def install(place: Path) -> bool:
        shutil.copy(STANDALONE / "js" / "package.json", place)
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=place, capture_output=True)
        return done.returncode == 0

    if not made_once(tmp_path_factory, "npm", install):
        pytest.skip("npm's registry cannot be reached, or has not these packages for this system")
    shared = tmp_path_factory.getbasetemp()
    return next(path for path in (shared / "npm", shared.parent / "npm") if path.is_dir()) / "node_modules"


@pytest.fixture
def alone(exported, modules, tmp_path) -> Path:
    """The bundle in an empty folder, with its packages installed."""
    folder = shutil.copytree(exported / "export", tmp_path / "alone")
    (folder / "js" / "node_modules").symlink_to(modules)
    return folder


@pytest.fixture
def photographs(toy_pictures, tmp_path) -> list[Path]:
    found = []
    for path in sorted((toy_pictures / "eval").rglob("*.png"))[::3]:
        found.append(tmp_path / f"{path.stem}.jpg")
        exif = Image.Exif()
        exif[274] = len(found)
        picture = Image.open(path).resize((60, 80))  # not reduced before it is resized
        picture.save(found[-1], quality=95, exif=exif)
    return found


@needs_node
@pytest.mark.parametrize("resize", [36, (40, 44), "letterbox"])
def test_prepared_pixels_are_ours(resize, tmp_path):
    """Decoded by Pillow for both. Wide ones for the bicubic filter: Pillow 13 begins in the direction that shrinks
    more, older ones across, and where a filter overshoots the order shows."""
    rng = np.random.default_rng(0)
    size = [31, 34] if resize == "letterbox" else [32, 32]
    spec = {"size": size, "resize": resize, "mean_unit": [0.5, 0.485, 0.1], "std_unit": [0.5] * 3}
    if resize == "letterbox":
        spec |= {"resize": size, "letterbox": True}
    jobs, files = [], []
    sizes = [(40, 60), (33, 47), (310, 201), (20, 24), (36, 36), (640, 999), (1500, 1100)]
    for number, (width, height) in enumerate([*sizes, *(sorted(size, reverse=True) for size in sizes)]):
        picture = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height), 3)
        files.append(tmp_path / f"{number}.png")
        picture.save(files[-1])
        raw = tmp_path / f"{number}.raw"
        raw.write_bytes(picture.tobytes() if number < len(sizes) else picture.convert("RGBA").tobytes())
        facts = {"width": width, "height": height, "file": str(raw), "jpeg": False, "out": str(raw.with_suffix(".out"))}
        jobs.append({**facts, "spec": {**spec, "interpolation": ["bilinear", "bicubic"][number // len(sizes)]}})
    script = tmp_path / "pixels.mjs"
    script.write_text(PIXELS.format(prepare=(STANDALONE / "js" / "prepare.mjs").as_uri()), encoding="utf-8")
    subprocess.run(["node", str(script)], input=json.dumps(jobs), encoding="utf-8", check=True)
    from datasets.image import ImageSpec

    for job, file in zip(jobs, files):
        (ours,), _ = load_images([file], ImageSpec.from_dict(job["spec"]))
        found = np.fromfile(job["out"], np.uint8).reshape(*size, 3)
        assert np.abs(found.astype(int) - ours).max() <= 1, job


@needs_node
def test_node_gives_the_answers_of_the_network(alone, exported, photographs, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    foreign = tmp_path / "blue.png"
    Image.new("RGB", (40, 40), (0, 0, 255)).save(foreign)
    for model in ("mobilenetv2_image.onnx", "mobilenetv2.onnx"):
        command = ["node", "classify.mjs", *map(str, (*photographs, foreign, bad)), "--model", model]
        done = subprocess.run(command, cwd=alone / "js", capture_output=True, encoding="utf-8")
        assert done.returncode == 1 and f"left out: {bad}" in done.stderr
        *found, last = done.stdout.splitlines()
        check(exported, photographs, [line.split("  ")[1:3] for line in found])
        assert last.endswith("  unlike the training pictures") and not any("unlike" in line for line in found)


def check(run: Path, pictures: list[Path], found: list[list[str]]) -> None:
    """Of each picture [class, confidence in percent]: ours, the confidence within a point, because decoders differ by
    fractions of a level."""
    predictor = load_predictor(run)
    images, _ = load_images(pictures, predictor.image)
    temperature = (predictor.confidence or {"temperature": 1})["temperature"]
    assert len(found) == len(pictures)
    for (name, confidence), row in zip(found, predictor(images)):
        tempered = row ** (1 / temperature)
        assert name == predictor.classes[row.argmax()]
        assert abs(float(confidence.split()[0]) - 100 * tempered.max() / tempered.sum()) <= 1


@needs_node
@pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM)
def test_the_page_classifies_from_a_file_and_asks_nobody(alone, exported, photographs, tmp_path, browser):  # noqa: F811
    place = tmp_path / "classify.html"
    done = subprocess.run(["node", "build.mjs", str(place)], cwd=alone / "js", capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(alone)  # the page is all that is left
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    foreign = tmp_path / "blue.png"
    Image.new("RGB", (40, 40), (0, 0, 255)).save(foreign)
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(place.as_uri())
    page.set_input_files("input", [str(path) for path in (*photographs, foreign, bad)])
    page.wait_for_function(
        "count => { const all = [...document.querySelectorAll('h2')];"
        " return all.length === count && all.every((h) => h.textContent !== '…'); }",
        arg=len(photographs) + 2,
    )
    answers = page.locator("h2").all_text_contents()
    print(answers)
    assert answers.pop() == "Not classified" and answers.pop()
    assert "This picture is unlike the training pictures." in page.locator("article").nth(-2).text_content()
    assert page.get_by_text("unlike").count() == 1
    check(exported, photographs, [answer.split(", ")[:2] for answer in answers])
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == [place.as_uri()]
    page.close()


@needs_node
def test_a_bundle_without_onnx_says_what_to_export(alone):
    manifest = json.loads((alone / "manifest.json").read_text(encoding="utf-8"))
    manifest["models"] = {}
    (alone / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = subprocess.run(["node", "classify.mjs", "x.jpg"], cwd=alone / "js", capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and "--file_format ONNX" in done.stderr
