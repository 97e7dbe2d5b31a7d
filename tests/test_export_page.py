"""The page in a real browser: choose, paste, drop, several files, a broken one, languages, keyboard, hostile names."""

import base64
import contextlib
import io
import os
import shutil
import socket
import subprocess
import time

import pytest
from conftest import draw_toy, served_at
from odd_pictures import BAD
from PIL import Image

from export.serving.model import open_served

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
NO_CHROMIUM = "no Chromium on the path. Install it: apt-get install chromium, or any Chrome"
expect = playwright.expect


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_CHROMIUM)
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # which Chromium's sandbox refuses
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if as_root else [])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def url(exported):
    with served_at(open_served(exported)) as address:
        yield address


@pytest.fixture
def page(browser, url):
    """The page, ready, in English; whatever it reports as an error fails the test."""
    context = browser.new_context(locale="en-GB", viewport={"width": 375, "height": 800})
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    opened = context.new_page()
    faults = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(url)
    expect(opened.locator("body")).to_have_attribute("data-ready", "yes")
    yield opened
    context.close()
    assert not faults


@pytest.fixture
def red(tmp_path):
    return draw_toy(tmp_path / "red 红.png", (150, 60, 60), 900)


@pytest.fixture
def green(tmp_path):
    return draw_toy(tmp_path / "green.png", (60, 150, 60), 901)


def answers(page):
    return page.locator("#list > li")


NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = """
daemon off; pid {place}/pid; error_log {place}/error.log;
events {{}}
http {{
  access_log off; client_max_body_size 32m;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /model/ {{ proxy_pass {url}/; proxy_set_header Host $host; proxy_request_buffering off; }}
  }}
}}
"""


@pytest.fixture
def proxied(exported, tmp_path):
    """The address of an nginx with a path prefix before the server, as docs/shipping.md describes it."""
    if NGINX is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no nginx. Install it: apt-get install nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    public = f"http://localhost:{port}/model/"
    with served_at(open_served(exported), public_urls=[public]) as url:
        config = tmp_path / "nginx.conf"
        config.write_text(CONFIG.format(place=tmp_path, port=port, url=url), encoding="utf-8")
        nginx = subprocess.Popen([NGINX, "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)
        try:
            yield public
        finally:
            nginx.terminate()
            nginx.wait()


def test_the_page_behind_a_proxy_with_a_prefix(browser, proxied, red):
    context = browser.new_context(locale="en-GB")
    context.set_default_timeout(60_000)
    opened = context.new_page()
    for _ in range(100):  # until nginx listens
        with contextlib.suppress(playwright.Error):
            opened.goto(proxied)
            break
        time.sleep(0.1)
    expect(opened.locator("body")).to_have_attribute("data-ready", "yes")
    with opened.expect_file_chooser() as chooser:
        opened.get_by_role("button", name="Choose pictures").click()
    chooser.value.set_files(red)
    expect(opened.locator("#list > li .verdict")).to_contain_text("red")
    context.close()


def test_a_chosen_picture_gets_bars_and_a_map(page, red):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose pictures").click()
    chooser.value.set_files(red)
    expect(answers(page).locator(".verdict")).to_contain_text("red")
    bars = answers(page).get_by_role("button")
    expect(bars).to_have_count(2)
    expect(bars.first).to_have_attribute("aria-pressed", "true")
    canvas = answers(page).locator("canvas")
    maps = [canvas.evaluate("c => c.toDataURL()")]
    assert painted(maps[0])
    bars.last.click()
    expect(bars.last).to_have_attribute("aria-pressed", "true")
    maps.append(canvas.evaluate("c => c.toDataURL()"))
    assert maps[0] != maps[1]
    page.get_by_label("show where the evidence is").uncheck()
    expect(canvas).to_be_hidden()


def painted(data_url: str) -> bool:
    picture = Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2])))
    return picture.getchannel("A").getextrema()[1] > 0


def test_a_foreign_picture_is_said_to_be_unlike_the_training_pictures(page, red, tmp_path):
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "blue.png")
    page.set_input_files("#files", [tmp_path / "blue.png", red])
    expect(page.locator(".verdict")).to_have_count(2)
    sentence = answers(page).filter(has_text="blue.png").locator(".unlike")
    expect(sentence).to_have_text("This picture is unlike the training pictures.")
    expect(page.locator(".unlike")).to_have_count(1)
    expect(page.locator("#facts")).to_contain_text("farther from them than 99 % of themselves")
    page.get_by_role("button", name="中文").click()
    expect(sentence).to_have_text("这张图片与训练图片不同。")


def test_the_camera_is_asked_for(page):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photograph").click()
    assert chooser.value.element.get_attribute("capture") == "environment"


def give(page, event: str, files) -> None:
    """Paste or drop files, as a browser does it."""
    contents = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in files]
    page.evaluate(
        """([event, contents]) => {
            const data = new DataTransfer();
            for (const [name, content] of contents) {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                data.items.add(new File([bytes], name, {type: "image/png"}));
            }
            const options = {bubbles: true, cancelable: true};
            document.getElementById("drop").dispatchEvent(event === "paste"
                ? new ClipboardEvent("paste", {...options, clipboardData: data})
                : new DragEvent("drop", {...options, dataTransfer: data}));
        }""",
        [event, contents],
    )


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_pasted_and_dropped_pictures_are_answered(page, red, green, event):
    give(page, event, [red, green])
    expect(page.locator(".verdict")).to_have_count(2)
    likeliest = page.locator(".bar:first-child").evaluate_all("bars => bars.map((bar) => bar.dataset.name)")
    assert sorted(likeliest) == ["green", "red"]


def test_a_broken_file_is_named_and_the_others_are_answered(page, red, green, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(red.read_bytes()[:1500])
    text = tmp_path / "text.png"
    text.write_text("no picture", encoding="utf-8")
    page.set_input_files("#files", [red, broken, text, green])
    expect(page.locator(".verdict")).to_have_count(2)
    failed = page.locator("#list > li.failed")
    expect(failed).to_have_count(2)
    expect(failed.filter(has_text="broken.png")).to_contain_text("damaged")
    expect(failed.filter(has_text="text.png")).to_contain_text("Not a picture")


def test_the_language_switches_everything_and_is_kept(page, red, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(red.read_bytes()[:1500])
    page.set_input_files("#files", [broken])
    expect(page.locator(".error")).to_contain_text("damaged")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    expect(page.get_by_role("button", name="选择图片")).to_be_visible()
    expect(page.locator(".error")).to_contain_text("损坏")
    expect(page.locator("#headline")).to_contain_text("16 张评估图片")
    page.reload()
    expect(page.get_by_role("button", name="选择图片")).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()


def test_a_chinese_browser_gets_chinese(browser, url):
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_role("button", name="选择图片")).to_be_visible()
    context.close()


def test_everything_is_reached_by_keyboard(page, red):
    page.set_input_files("#files", [red])
    expect(page.locator(".verdict")).to_have_count(1)
    page.locator("#language").focus()
    reached = []
    for _ in range(9):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.name"))
        page.keyboard.press("Tab")
    assert reached[:7] == ["language", "choose", "photograph", "show-map", "clear", "red", "green"]
    page.locator("#clear").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#answers")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "choose"


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_screen(page, red, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.set_input_files("#files", [red])
    expect(page.locator(".verdict")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_names_are_text_whatever_they_are(browser, exported, tmp_path, red):
    """Classes, the model and files named like program text; and below a threshold of 1 nothing is sure."""
    evil = "<img src=x onerror=document.title='evil'>"
    served = open_served(exported)
    served.classes = (evil, "__proto__")
    served.manifest.update(name=evil, classes=list(served.classes))
    served.confidence = {"temperature": 1.0, "threshold": 1.0}
    served.run = None
    picture = shutil.copy(red, tmp_path / "<b>bold<b>.png")
    with served_at(served) as address:
        page = browser.new_page(locale="en-GB")
        page.goto(address)
        page.set_input_files("#files", [picture])
        expect(page.locator(".unsure")).to_have_text("not sure")
        expect(page.locator(".bar").filter(has_text=evil)).to_have_count(1)
        expect(page.locator(".bar").filter(has_text="__proto__")).to_have_count(1)
        expect(page.locator("#name")).to_have_text(evil)
        expect(page.locator("#list .file")).to_have_text("<b>bold<b>.png")
        expect(page.locator("#mistakes-note")).to_contain_text("A bundle does not hold")
        assert page.locator("img[src='x'], b").count() == 0 and page.title() == "Which is it?"
        page.close()


def test_a_network_without_a_map_says_so(browser, exported, red):
    served = open_served(exported)
    served.no_maps = served.network.no_maps = "not_linear"
    with served_at(served) as address:
        page = browser.new_page(locale="en-GB")
        page.goto(address)
        page.set_input_files("#files", [red])
        expect(page.locator(".verdict")).to_have_count(1)
        expect(page.locator("#map-note")).to_contain_text("No map")
        expect(page.locator("#show-map")).to_be_hidden()
        assert page.locator("canvas").count() == 0
        page.close()


def test_seventy_files_at_once_are_all_answered_in_their_order(page, red, green):
    content = {"r": red.read_bytes(), "g": green.read_bytes()}
    names = [f"{kind}{number:02d}.png" for number in range(35) for kind in "rg"]
    page.set_input_files(
        "#files", [{"name": name, "mimeType": "image/png", "buffer": content[name[0]]} for name in names]
    )
    expect(page.locator(".verdict")).to_have_count(70)
    assert page.locator("#list > li .file").all_text_contents() == names
    answered = page.locator("#list > li .bar:first-child").evaluate_all(
        "bars => bars.map((bar) => bar.dataset.name[0])"
    )
    assert answered == [name[0] for name in names]
    far = page.locator("canvas").last
    assert far.evaluate("c => c.width") == 0  # hundreds of maps would take gigabytes
    far.scroll_into_view_if_needed()
    expect(far).not_to_have_js_property("width", 0)


def drop(page, **what) -> None:
    """By the browser itself, as from a file manager or another page."""
    box = page.locator("#drop").bounding_box()
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [], "dragOperationsMask": 1, **what}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 9, "y": box["y"] + 9, "data": data})


def test_a_dropped_folder_gives_all_its_files(page, red, green, tmp_path):
    folder, empty = tmp_path / "holiday", tmp_path / "nothing"
    (folder / "below").mkdir(parents=True)
    empty.mkdir()
    shutil.copy(red, folder / "a.png")
    shutil.copy(green, folder / "below" / "b.png")
    drop(page, files=[str(folder), str(empty)])
    expect(page.locator(".verdict")).to_have_count(2)
    expect(page.locator("#list > li.failed")).to_contain_text("A folder without files")
    assert page.locator("#list > li .file").all_text_contents() == ["a.png", "b.png", "nothing"]


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_what_is_no_file_gets_a_sentence(page, url, event):
    if event == "drop":
        address = "https://example.org/cat.jpg"
        drop(page, items=[{"mimeType": kind, "data": address} for kind in ("text/uri-list", "text/plain")])
    else:
        page.evaluate(
            """() => {
                const data = new DataTransfer();
                data.setData("text/plain", "a cat");
                document.dispatchEvent(new ClipboardEvent("paste", {bubbles: true, clipboardData: data}));
            }"""
        )
    expect(page.locator("#list > li.failed")).to_contain_text("a link or text, not a picture")
    assert page.url.rstrip("/") == url


def test_a_picture_that_the_browser_cannot_show_has_no_map_over_the_sentence(page, red, tmp_path):
    Image.open(red).save(tmp_path / "red.tif")
    page.set_input_files("#files", tmp_path / "red.tif")
    expect(page.locator(".picture")).to_have_text("your browser cannot show this kind of picture")
    expect(page.locator(".picture canvas")).to_have_count(0)
    expect(page.locator(".verdict")).to_contain_text("red")


def test_an_iphones_photograph_is_called_so(page, tmp_path):
    if "heic without its reader" not in BAD:
        pytest.skip("pillow-heif is installed: such photographs are read")
    (tmp_path / "IMG_1.HEIC").write_bytes(BAD["heic without its reader"][0])
    page.set_input_files("#files", tmp_path / "IMG_1.HEIC")
    expect(page.locator("#list > li.failed")).to_contain_text("Save it as JPEG")


def test_numbers_and_times_are_words(browser, exported, tmp_path):
    served = open_served(exported)
    served.manifest["measured"]["pictures"] = 1
    served.manifest["created"] = "2026-03-04T12:00:00+00:00"
    with served_at(served) as address:
        page = browser.new_page(locale="en-GB", timezone_id="UTC")
        page.goto(address)
        expect(page.locator("#headline")).to_contain_text("of 1 evaluation picture right")
        expect(page.locator("#facts")).to_contain_text("4 March 2026")
        page.get_by_role("button", name="中文").click()
        expect(page.locator("#facts")).to_contain_text("2026年3月4日")
        page.close()
