"""A headless Chromium that opens pages from disk, and the hands and eyes of who reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Reader", "chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--lang=en",
)  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A driver with an empty profile; the test is skipped where there is no Chromium, chromedriver or selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the page")
    binary = next(filter(None, map(shutil.which, _NAMES)), None)
    service = shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.skip("there is no Chromium with a chromedriver to open the page in")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*_QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    try:
        yield driver
    finally:
        driver.quit()


class Reader:
    """Who reads one page: looks, types, points and presses keys."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(
        self, path: Path, *, width: int = 1200, height: int = 1600, dark: bool = False, calm: bool = False
    ) -> Reader:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wishes = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wishes})
        self.driver.get(path.as_uri())
        self.settle()
        return self

    def settle(self) -> None:
        """Until two frames have been drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def wait(self, condition: Any, seconds: float = 20) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def find(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def text(self, name: str) -> str:
        return self.driver.execute_script("return document.getElementById(arguments[0]).textContent", name)

    def number(self, name: str) -> int:
        return int(self.text(name).split()[0].replace(",", ""))

    def type(self, lengths: str) -> None:
        from selenium.webdriver.common.keys import Keys

        box = self.find("lengths")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(lengths)
        self.settle()

    def paste(self, lengths: str) -> None:
        """Put lengths into the box at once, where typing would pass through others."""
        self.driver.execute_script(
            "const box = document.getElementById('lengths'); box.value = arguments[0];"
            "box.dispatchEvent(new Event('input', { bubbles: true }))",
            lengths,
        )
        self.settle()

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()
        self.settle()

    def point(self, name: str, across: float, down: float, *, click: bool = False) -> None:
        """Move the pointer to a place of an element, by fractions of its width and height."""
        from selenium.webdriver import ActionChains

        field = self.find(name)
        size = field.rect
        actions = ActionChains(self.driver, duration=0).move_to_element_with_offset(
            field, round((across - 0.5) * size["width"], 3), round((down - 0.5) * size["height"], 3)
        )
        (actions.click() if click else actions).perform()
        self.settle()

    def colour(self, name: str, across: float, down: float) -> str:
        """What the canvas shows at a place of an element, `#rrggbb`."""
        parts = self.driver.execute_script(
            """
            const field = document.getElementById(arguments[0]).getBoundingClientRect();
            const canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect();
            const x = field.left - box.left + arguments[1] * field.width;
            const y = field.top - box.top + arguments[2] * field.height;
            const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            copy.fillStyle = getComputedStyle(document.querySelector(".card")).backgroundColor;
            copy.fillRect(0, 0, 1, 1);
            copy.drawImage(canvas, -Math.floor(x), -Math.floor(y));
            return [...copy.getImageData(0, 0, 1, 1).data];
            """,
            name, across, down,
        )  # fmt: skip
        return "#{:02x}{:02x}{:02x}".format(*parts[:3])

    def style(self, name: str, of: str) -> str:
        return self.driver.execute_script(
            "return getComputedStyle(document.getElementById(arguments[0]) ?? document.body)[arguments[1]]",
            name,
            of,
        )

    def requests(self) -> set[str]:
        """Addresses that the page has asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }

    def complaints(self) -> list[str]:
        """What stands in the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]
