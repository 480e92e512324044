"""The report in a real browser: headless Chromium, driven over its own pipe, so that nothing but the browser is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from trainflat import reports
from trainflat.reports import example
from trainflat.reports.front import example_front
from trainflat.reports.paper import example_paper

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BINARY = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --hide-scrollbars "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --disable-extensions --remote-debugging-pipe"
)
HOSTILE = '<script>document.title="hit"</script><img src=x onerror=alert(1)> & "quoted" $x_1$'

pytestmark = pytest.mark.skipif(BINARY is None, reason=f"no browser is installed (looked for {', '.join(NAMES)})")


class Browser:
    """One tab, spoken to in the DevTools protocol: JSON messages that end with a zero byte."""

    def __init__(self, profile: Path):
        command = [
            "sh",
            "-c",
            'exec "$@" 3<&0 4>&1 </dev/null >/dev/null',
            "sh",
            BINARY,
            *FLAGS.split(),
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self.buffer, self.sent, self.events, self.session = b"", 0, [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        self.sent += 1
        session = {"sessionId": self.session} if self.session else {}
        message = json.dumps({"id": self.sent, "method": method, "params": params, **session}).encode() + b"\0"
        self.process.stdin.write(message)
        while (answer := self._next()).get("id") != self.sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.process.stdout.fileno(), 1 << 20)
            assert piece, "the browser is gone"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path, *, width=1280, height=900, scheme="light"):
        """Load a file from disk; what happened meanwhile is in ``events``."""
        self.events.clear()
        phone = width < 500
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self("Emulation.setDeviceMetricsOverride", **size)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression):
        """The value of a JavaScript expression in the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path, *, whole=False):
        """A PNG of the window, or of the whole page."""
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))
        return path

    def happened(self, *methods):
        """The parameters of all events of these kinds."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def close(self):
        """Ask it to go; its profile is its own and goes with the test's folder."""
        self.session = None
        self("Browser.close")
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with a fresh profile."""
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report about made-up rows, on disk."""
    return reports.write(example.rows(), example.header(), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def fronts(tmp_path_factory):
    """The report about made-up smaller models, one of them chosen."""
    folder = tmp_path_factory.mktemp("front")
    return reports.write(example_front.rows(), example_front.header(), folder / "report.html")


def luminance(colour):
    """Of "rgb(1, 2, 3)", as WCAG 2.1 defines it."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(browser, selector):
    """Between an element's text and the page."""
    of = "getComputedStyle(document.querySelector('{}')).{}"
    ink = browser.ask(of.format(selector, "color"))
    ground = browser.ask(of.format("body", "backgroundColor"))
    light, dark = sorted([luminance(ink), luminance(ground)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def keep(path):
    """Copy a screenshot where TRAINFLAT_SCREENSHOTS says, for those who want to look."""
    if folder := os.environ.get("TRAINFLAT_SCREENSHOTS"):
        shutil.copy(path, folder)


def test_the_page_opens_from_disk_without_an_error_or_a_request(browser, page):
    browser.open(page)
    assert browser.ask("document.title") == "made-up · trainflat"
    assert [sent["request"]["url"] for sent in browser.happened("Network.requestWillBeSent")] == [page.as_uri()]
    assert browser.happened("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(browser, page, width):
    browser.open(page, width=width, height=844)
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth") <= width


def test_wide_tables_scroll_in_their_own_box_on_a_phone(browser, page):
    browser.open(page, width=360, height=780)
    boxes = browser.ask("[...document.querySelectorAll('.scroll')].map(box => [box.scrollWidth, box.clientWidth])")
    assert len(boxes) == 14
    assert any(inside > outside for inside, outside in boxes)
    assert all(outside <= 360 for _, outside in boxes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_of_text_is_readable_in_light_and_dark(browser, page, scheme):
    browser.open(page, scheme=scheme)
    assert (luminance(browser.ask("getComputedStyle(document.body).backgroundColor")) < 0.1) == (scheme == "dark")
    for selector in ["body", ".about", ".better em", ".cannot-tell em", "td small", ".note", "nav a", "dt"]:
        assert contrast(browser, selector) >= 4.5, selector


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_take_the_colour_of_the_page(browser, page, scheme):
    browser.open(page, scheme=scheme)
    assert browser.ask("document.querySelectorAll('.panels svg').length") == 4
    of_text = browser.ask("getComputedStyle(document.querySelector('.panels text')).fill")
    assert of_text == browser.ask("getComputedStyle(document.body).color")
    sizes = browser.ask("[...document.querySelectorAll('.panels svg')].map(s => s.getBoundingClientRect().height)")
    assert min(sizes) > 150


def test_letters_in_figures_stay_legible_on_a_phone(browser, page):
    browser.open(page, width=360, height=780)
    assert (
        browser.ask(
            "Math.min(...[...document.querySelectorAll('.panels text')].map(t => t.getBoundingClientRect().height))"
        )
        >= 9
    )


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")]
)
def test_a_screenshot_is_not_empty(browser, page, tmp_path, name, width, scheme):
    browser.open(page, width=width, height=1000, scheme=scheme)
    picture = browser.screenshot(tmp_path / f"{name}.png")
    keep(picture)
    assert picture.stat().st_size > 40_000
    if "TRAINFLAT_SCREENSHOTS" in os.environ:
        keep(browser.screenshot(tmp_path / f"{name}-whole.png", whole=True))


def test_a_hostile_label_is_only_text(browser, tmp_path):
    rows = [
        {**row, "note": HOSTILE, "arm": {**row["arm"], "optimizer": HOSTILE + row["arm"]["optimizer"]}}
        for row in example.rows()
    ]
    page = reports.write(rows, {"name": HOSTILE, "claim": HOSTILE, "command": HOSTILE}, tmp_path / "report.html")
    browser.open(page)
    time.sleep(0.2)
    assert browser.ask("document.title") == f"{HOSTILE} · trainflat"
    assert browser.ask("document.querySelectorAll('script, img').length") == 0
    assert browser.ask("document.querySelector('.panels').textContent").count("<script>") >= 2
    assert len(browser.happened("Network.requestWillBeSent")) == 1


def test_the_standalone_curve_follows_the_reader_too(browser, tmp_path):
    drawing = tmp_path / "curve.svg"
    drawing.write_text(reports.svg(example.rows(), "digits", "pruned"), encoding="utf-8")
    fills = []
    for scheme in ("light", "dark"):
        browser.open(drawing, scheme=scheme)
        fills.append(luminance(browser.ask("getComputedStyle(document.querySelector('text')).fill")))
    assert fills[0] < 0.1 < 0.6 < fills[1]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_the_page_of_a_study_fits_its_screen_and_asks_for_nothing(browser, tmp_path, width, scheme):
    runs = [
        reports.study.Run(example_paper.paper_rows(recipe, tasks=["rte", "cola"]), example_paper.paper_header(recipe))
        for recipe in ("fig13-transfer", "table8-int8")
    ]
    path = tmp_path / "report.html"
    path.write_text(reports.study.report(runs, "paper"), encoding="utf-8")
    browser.open(path, width=width, height=800, scheme=scheme)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert len(browser.happened("Network.requestWillBeSent")) == 1
    assert browser.happened("Runtime.exceptionThrown", "Log.entryAdded") == []
    heights = browser.ask("[...document.querySelectorAll('.maps text')].map(t => t.getBoundingClientRect().height)")
    assert len(heights) > 4 * 64
    assert min(heights) >= 8
    assert browser.ask("getComputedStyle(document.querySelector('.maps text')).fill") == browser.ask(
        "getComputedStyle(document.body).color"
    )
    keep(browser.screenshot(tmp_path / f"study-{scheme}.png"))


SEEN = "[...document.querySelectorAll('.tip')].filter(tip => getComputedStyle(tip).visibility == 'visible')"


def middle(browser, number):
    """Where a point of the first panel lies in the window."""
    box = f"document.querySelectorAll('.plot')[0].querySelectorAll('input')[{number}].getBoundingClientRect()"
    x, y, wide, high = (browser.ask(f"{box}.{of}") for of in ("left", "top", "width", "height"))
    return {"x": x + wide / 2, "y": y + high / 2}


def press(browser, key, code):
    for kind in ("keyDown", "keyUp"):
        browser("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def test_a_point_tells_itself_under_the_mouse_and_stays_open_after_a_click(browser, fronts):
    browser.open(fronts)
    browser.ask("document.querySelector('.plot').scrollIntoView({block: 'center'})")
    assert browser.ask(f"{SEEN}.length") == 0
    browser("Input.dispatchMouseEvent", type="mouseMoved", **middle(browser, 0))
    assert browser.ask(f"{SEEN}.length") == 1
    told = browser.ask(f"{SEEN}[0].innerText")
    assert all(
        part in told for part in ("cofi 95 %, int8 per channel from", "ms", "MB", "trainflat compress reviews.csv")
    )
    browser("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.ask(f"{SEEN}.length") == 0
    for kind in ("mousePressed", "mouseReleased"):
        browser("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **middle(browser, 0))
    browser("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.ask(f"{SEEN}[0].innerText") == told
    browser("Input.dispatchMouseEvent", type="mouseMoved", **middle(browser, 20))
    assert browser.ask(f"{SEEN}.length") == 1
    assert browser.ask(f"{SEEN}[0].innerText") != told


def test_the_command_of_a_point_is_selected_by_one_click_and_has_nothing_added(browser, fronts):
    browser.open(fronts)
    browser.ask("document.querySelector('.plot').scrollIntoView({block: 'center'})")
    browser.ask("document.querySelectorAll('.plot')[0].querySelectorAll('input')[0].focus()")
    box = f"{SEEN}[0].querySelector('code').getBoundingClientRect()"
    at = {"x": browser.ask(f"{box}.left") + 20, "y": browser.ask(f"{box}.bottom") - 8}
    for kind in ("mousePressed", "mouseReleased"):
        browser("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)
    assert browser.ask(f"{SEEN}.length") == 1
    said = {offer.name: offer.made["command"] for offer in example_front.offers()}
    assert browser.ask("getSelection().toString()") == said[browser.ask(f"{SEEN}[0].querySelector('b').textContent")]


def test_tab_enters_a_panel_at_the_chosen_model_and_arrows_walk_along_the_cost(browser, fronts):
    browser.open(fronts)
    browser.ask("[...document.querySelectorAll('nav a')].at(-1).focus()")
    press(browser, "Tab", 9)
    assert browser.ask(f"{SEEN}[0].innerText").startswith("cofi 60 %, int8 per channel from SAM")
    latencies = []
    for _ in range(4):
        latencies.append(browser.ask("Number(document.activeElement.ariaLabel.match(/latency: ([0-9.]+)/)[1])"))
        press(browser, "ArrowRight", 39)
    assert latencies == sorted(set(latencies))
    press(browser, "Tab", 9)  # the words themselves are no stop of their own
    assert browser.ask("document.activeElement.name") == "p0-front-bytes"


@pytest.mark.parametrize(
    ("width", "scheme"), [(360, "light"), (390, "dark"), (700, "dark"), (1280, "light"), (1280, "dark")]
)
def test_every_opened_point_fits_the_screen_and_is_readable(browser, fronts, width, scheme):
    browser.open(fronts, width=width, height=844, scheme=scheme)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert len(browser.happened("Network.requestWillBeSent")) == 1
    assert browser.happened("Runtime.exceptionThrown", "Log.entryAdded") == []
    reach = browser.ask(
        "[...document.querySelectorAll('.tip')].map(t => t.getBoundingClientRect()).map(b => [b.left, b.right, b.height])"
    )
    assert len(reach) == 44
    assert all(left >= 0 and right <= width and 100 < high < 300 for left, right, high in reach)
    for selector in (".tip b", ".tip small", ".tip dt", ".tip code", ".key li", ".texts small", ".chosen"):
        assert contrast(browser, selector) >= 4.5, selector
    assert (
        browser.ask(
            "Math.min(...[...document.querySelectorAll('.plot text')].map(t => t.getBoundingClientRect().height))"
        )
        >= 9
    )
    browser.ask(
        "document.querySelector('.chosen').scrollIntoView(); document.querySelectorAll('.mark input:checked')[0].focus()"
    )
    keep(browser.screenshot(fronts.with_name(f"front-{width}-{scheme}.png")))
    browser.ask("document.querySelector('.mistakes').scrollIntoView()")
    keep(browser.screenshot(fronts.with_name(f"mistakes-{width}-{scheme}.png")))


def test_a_finger_opens_a_point(browser, fronts):
    browser.open(fronts, width=390, height=844)
    browser("Emulation.setTouchEmulationEnabled", enabled=True)
    browser.ask("document.querySelector('.plot').scrollIntoView({block: 'center'})")
    at = middle(browser, 3)
    browser("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
    browser("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    until = time.monotonic() + 5
    while not browser.ask(f"{SEEN}.length") and time.monotonic() < until:
        time.sleep(0.05)
    assert browser.ask(f"{SEEN}.length") == 1
    browser("Emulation.setTouchEmulationEnabled", enabled=False)
