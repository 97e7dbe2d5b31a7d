"""The bundle's C++ program, built and run where its libraries are: the same pixels and the same answers as here."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, made_once, needs_real_data
from PIL import Image
from test_export_lite import lite_python, lite_run  # noqa: F401  fixtures

from datasets.image import ImageSpec, load_images
from export.predictors import load_predictor

pytestmark = pytest.mark.slow  # to build it takes half a minute

STANDALONE = Path(__file__).parents[1] / "export" / "standalone" / "cpp"


@pytest.fixture(scope="session")
def program(lite_python, tmp_path_factory):  # noqa: F811
    """(the program, the environment that it needs), with the headers and libraries of MindSpore Lite's wheel."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("no cmake or no C++ compiler here")
    code = (
        "import mindspore_lite, sysconfig; print(mindspore_lite.__path__[0]); print(sysconfig.get_config_var('LIBDIR'))"
    )
    asked = subprocess.run([lite_python, "-c", code], capture_output=True, text=True, check=True)
    wheel, python_libraries = asked.stdout.split()

    def build(place: Path) -> str:
        for command in (["-S", STANDALONE, "-B", place, f"-DLITE={wheel}"], ["--build", place]):
            done = subprocess.run(["cmake", *map(str, command)], capture_output=True, text=True)
            if done.returncode:
                return done.stdout + done.stderr
        return str(place / "classify")

    built = made_once(tmp_path_factory, "cpp", build)
    missing = [
        name for name in ("JPEG", "nlohmann_json") if f"Could NOT find {name}" in built or f"Find{name}" in built
    ]
    if missing:
        pytest.skip(
            f"the headers of {' and '.join(missing)} are not here: apt-get install libjpeg-dev nlohmann-json3-dev"
        )
    assert Path(built).is_file(), built
    return built, {**os.environ, "LD_LIBRARY_PATH": f"{wheel}/lib:{python_libraries}"}


def classify(program, bundle, *arguments) -> subprocess.CompletedProcess:
    path, environment = program
    return subprocess.run(
        [path, str(bundle), *map(str, arguments)], capture_output=True, encoding="utf-8", env=environment
    )


def photograph(path: Path, size: tuple[int, int], seed: int, **options) -> Path:
    """Smooth colours with an edge, as a JPEG."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=90, **options)
    return path


def test_its_pixels_are_ours_in_all_sizes_and_orientations(program, lite_run, tmp_path):  # noqa: F811
    """Even sides: versions of libjpeg-turbo differ by a level at the edge of odd ones with halved colours."""
    pictures = []
    for number in range(16):
        exif = Image.Exif()
        exif[274] = number % 8 + 1
        size = [(40, 60), (90, 64), (310, 200), (640, 1000), (36, 200), (1500, 1100), (20, 24), (300, 300)][number % 8]
        options = {"progressive": number % 3 == 0, "subsampling": number % 3}
        pictures.append(photograph(tmp_path / f"{number}.jpg", size, number, exif=exif, **options))
    done = classify(program, lite_run / "export", *pictures, "--pixels", tmp_path / "pixels")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((lite_run / "export" / "manifest.json").read_text(encoding="utf-8"))
    ours, _ = load_images(pictures, ImageSpec.from_dict(manifest["image"]))
    found = np.fromfile(tmp_path / "pixels", np.uint8).reshape(ours.shape)
    assert np.abs(found.astype(int) - ours).max() <= 1


def test_its_letterbox_is_ours(program, lite_run, tmp_path):  # noqa: F811
    alone = shutil.copytree(lite_run / "export", tmp_path / "alone")
    manifest = json.loads((alone / "manifest.json").read_text(encoding="utf-8"))
    size = manifest["image"]["size"]
    manifest["image"] |= {"resize": size, "letterbox": True, "mean_unit": [0.5, 0.485, 0.1]}
    (alone / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sizes = [(40, 60), (90, 64), (310, 200), (640, 1000), (36, 200), (1500, 1100), (20, 24), (300, 300), (30, 2000)]
    pictures = [photograph(tmp_path / f"{number}.jpg", size, number) for number, size in enumerate(sizes)]
    done = classify(program, alone, *pictures, "--pixels", tmp_path / "pixels")
    assert done.returncode == 0, done.stderr
    ours, _ = load_images(pictures, ImageSpec.from_dict(manifest["image"]))
    found = np.fromfile(tmp_path / "pixels", np.uint8).reshape(ours.shape)
    assert np.abs(found.astype(int) - ours).max() <= 1


def test_its_answers_are_those_of_the_network(program, lite_run, toy_pictures, tmp_path):  # noqa: F811
    """By a bundle in an empty folder."""
    alone = shutil.copytree(lite_run / "export", tmp_path / "alone")
    pictures = []
    for path in sorted((toy_pictures / "eval").rglob("*.png")):
        pictures.append(tmp_path / f"{path.stem}.jpg")
        Image.open(path).save(pictures[-1], quality=95)
    done = classify(program, alone, *pictures)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    predictor = load_predictor(lite_run)
    images, _ = load_images(pictures, predictor.image)
    for line, row in zip(done.stdout.splitlines(), predictor(images)):
        assert line.split("  ")[1] == predictor.classes[row.argmax()]
    assert "unlike" not in done.stdout
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "blue.jpg")
    assert classify(program, alone, tmp_path / "blue.jpg").stdout.endswith("  unlike the training pictures\n")
    by_pixels = classify(program, alone, *pictures, "--model", "mobilenetv2_image.ms")
    assert by_pixels.stdout == done.stdout


def test_what_it_cannot_read_it_names(program, lite_run, tmp_path):  # noqa: F811
    good = photograph(tmp_path / "good.jpg", (64, 64), 0)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:-200])
    (tmp_path / "text.jpg").write_text("no picture")
    cmyk = tmp_path / "cmyk.jpg"
    Image.new("CMYK", (64, 64)).save(cmyk)
    done = classify(program, lite_run / "export", cut, tmp_path / "text.jpg", cmyk, good)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1 and "good.jpg" in done.stdout
    assert [line.split(": ")[:2] for line in done.stderr.splitlines() if line.startswith("left out")] == [
        ["left out", str(path)] for path in (cut, tmp_path / "text.jpg", cmyk)
    ]
    assert classify(program, lite_run / "export").returncode == 2
    done = classify(program, tmp_path, good)
    assert done.returncode == 1 and "cannot be opened" in done.stderr
    done = classify(program, lite_run / "export", good, "--model", "other.ms")
    assert done.returncode == 1 and "mobilenetv2.ms" in done.stderr


@needs_real_data
def test_of_100_photographs_no_pixel_is_more_than_a_level_off(program, lite_run, tmp_path):  # noqa: F811
    found = sorted((SHARED / "data" / "cats_vs_dogs").rglob("*.jpg")) + sorted(
        (SHARED / "data" / "clothing10").rglob("*.jpg")
    )
    pictures = [found[row] for row in np.random.default_rng(0).permutation(len(found))[:100]]
    done = classify(program, lite_run / "export", *pictures, "--pixels", tmp_path / "pixels")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((lite_run / "export" / "manifest.json").read_text(encoding="utf-8"))
    ours, _ = load_images(pictures, ImageSpec.from_dict(manifest["image"]))
    pixels = np.fromfile(tmp_path / "pixels", np.uint8).reshape(ours.shape)
    assert np.abs(pixels.astype(int) - ours).max() <= 1
