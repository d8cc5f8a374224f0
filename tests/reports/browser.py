"""A headless Chromium for the tests of pages: Debian's, driven by Playwright, without network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
READY_MS = 120_000  # plots of a page on a busy machine take seconds


class Opened:
    """A page in a tab, and whatever it complained about or asked for."""

    def __init__(self, context, path: Path) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.tab = context.new_page()
        self.tab.set_default_timeout(READY_MS)
        self.tab.on("console", lambda said: self.complaints.append(said.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector("html[data-ready]")

    @property
    def fetched(self) -> list[str]:
        """What was asked for besides the page itself and what stands in it."""
        return [url for url in self.requests[1:] if not url.startswith(("data:", "blob:"))]


@contextmanager
def chromium(profile: Path) -> Iterator[object]:
    """Start a browser with a fresh profile; skip the test, with the reason, where there is none."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here; `bash tools/install_chromium.sh` installs Debian's as root")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra test)")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(profile),
            executable_path=os.path.realpath(program) if program.endswith("google-chrome") else program,
            headless=True,
            args=list(FLAGS),
            viewport={"width": 1280, "height": 900},
        )
        yield context
        context.close()
