"""The Dockerfile's steps, without Docker: what it installs and copies is enough to serve a bundle."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from conftest import CHECKOUT

DOCKERFILE = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
REQUIREMENTS = re.search(r"^COPY (requirements\S*)", DOCKERFILE, re.M)[1]
FOLDERS = [name for name in re.findall(r"^COPY (\w+) /app/\w+$", DOCKERFILE, re.M)]
ENTRYPOINT = json.loads(re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.M)[1])
HEALTH = json.loads(re.search(r"^HEALTHCHECK.* CMD (.*)$", DOCKERFILE, re.M)[1])
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "python-multipart": "python_multipart"}


def packages(name: str) -> set[str]:
    lines = (CHECKOUT / name).read_text(encoding="utf-8").splitlines()
    return {re.match(r"[\w-]+", line)[0].lower() for line in lines if line and not line.startswith(("#", "-r"))}


def serve_and_ask(python: list[str], place: Path, bundle: Path, picture: Path) -> str:
    """By the image's own command on a free port: what it answers to a picture, after its own health check said yes.

    `python`: what runs a module of a name."""
    at = ENTRYPOINT.index("/bundle")
    assert ENTRYPOINT[:2] == ["python", "-m"]
    command = [*python, *ENTRYPOINT[2:at], str(bundle), "--port", "0"]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as server:
        try:
            said = []
            while not (said and "http://" in said[-1]):
                said.append(server.stdout.readline().decode())
                assert said[-1], "".join(said)
            port = re.search(r":(\d+)/", said[-1])[1]
            health = [sys.executable, *(part.replace(":8000", f":{port}") for part in HEALTH[1:])]
            for _ in range(100):
                if not subprocess.run(health, capture_output=True).returncode:
                    break
                time.sleep(0.1)
            else:
                raise AssertionError("its health check never said yes")
            with picture.open("rb") as file:
                found = httpx.post(f"http://127.0.0.1:{port}/predict", files={"picture": file}, timeout=30)
            return found.json()["pictures"][0]["predicted"]
        finally:
            server.terminate()


@pytest.fixture
def place(tmp_path) -> Path:
    """What the image holds below /app."""
    for name in FOLDERS:
        shutil.copytree(CHECKOUT / name, tmp_path / "app" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "app"


def test_a_bundle_is_served_by_what_the_image_installs(place, exported, toy_pictures):
    """Every package that only the whole workflow needs is hidden, MindSpore first."""
    hidden = sorted(packages("requirements-dev.txt") | packages("requirements.txt") - packages(REQUIREMENTS))
    hidden = [IMPORTED_AS.get(name, name) for name in hidden]
    assert "mindspore" in hidden and "openvino" not in hidden
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({hidden!r})); sys.argv = sys.argv[1:]; "
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    picture = next((toy_pictures / "eval" / "red").iterdir())
    assert serve_and_ask([sys.executable, "-c", code], place, exported / "export", picture) == "red"


def test_the_image_is_small_and_nobody_is_root():
    assert "USER 10001:10001" in DOCKERFILE and DOCKERFILE.count("\nFROM ") == 2
    ignored = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*" and {f"!{name}" for name in (*FOLDERS, REQUIREMENTS)} <= set(ignored)
    for name in packages(REQUIREMENTS):
        wanted = re.search(rf"(?im)^{name}\b.*$", (CHECKOUT / "requirements.txt").read_text(encoding="utf-8"))[0]
        assert wanted in (CHECKOUT / REQUIREMENTS).read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_its_steps_in_a_fresh_environment(place, exported, toy_pictures, tmp_path):
    """Installs from the package index; with Python's own image of about 130 MB it stays below 700 MB."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-q", "--no-cache-dir", "-r", str(CHECKOUT / REQUIREMENTS)]
    subprocess.run(command, check=True)
    picture = next((toy_pictures / "eval" / "red").iterdir())
    assert serve_and_ask([str(python), "-m"], place, exported / "export", picture) == "red"
    size = sum(path.stat().st_size for root in (venv, place) for path in root.rglob("*") if path.is_file())
    print(f"{size / 1e6:.0f} MB")
    assert size < 500e6
