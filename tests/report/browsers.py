"""Chromium through selenium, with what the report's tests need of it."""

import base64
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # Parallel coordinates are drawn with WebGL; without a GPU it is computed.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


WATCH = """new MutationObserver(() => {
    if (document.documentElement.dataset.ready) window.drawnAt ??= performance.now();
}).observe(document, {attributes: true, subtree: true, attributeFilter: ["data-ready"]});"""
"""Notes when the page's first figure is drawn."""


class Browser:
    """One window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Open a page and wait until its first figure is drawn."""
        phone = width < 700
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.set_dark(dark)
        self.driver.get_log("browser")
        self.driver.get(path.as_uri())
        self.wait(lambda: self("return document.documentElement.dataset.ready === 'yes'"))

    def opening(self, path: Path) -> dict[str, float]:
        """Open a page and tell, in seconds, when text was painted, when it was loaded, when the first figure was
        drawn, and how long the page's main thread was at work for it (its processor time, not the clock's).
        """
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        self.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        self.open(path)
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        entries = "return performance.getEntriesByType(arguments[0])[0]"
        return {
            "painted": self(f"{entries}.startTime", "paint") / 1000,
            "loaded": self(f"{entries}.loadEventEnd", "navigation") / 1000,
            "drawn": self("return window.drawnAt") / 1000,
            "worked": next(item["value"] for item in metrics if item["name"] == "TaskDuration"),
        }

    def set_dark(self, dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def __call__(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, "the page did not get there in time"
            time.sleep(0.02)
        return value

    def errors(self) -> list[str]:
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def mouse(self, kind: str, x: float, y: float) -> None:
        """A mouse event as the user's hand makes it, at a point of the window."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **button})

    def screenshot(self, path: Path) -> None:
        """The whole page."""
        width, height = self("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        picture = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextlib.contextmanager
def chromium_with(profile: Path) -> Iterator[Browser]:
    """A browser of its own, headless, with an empty profile."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'nas[test]'")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=chromedriver))
    try:
        yield Browser(driver)
    finally:
        with contextlib.suppress(Exception):
            driver.quit()
