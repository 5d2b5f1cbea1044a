"""The web page as `make run` and `make dev` bring it about, and a browser to look at it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 120
"""How long to wait for what a quiet machine does in a few seconds."""


@dataclass(frozen=True)
class WebPage:
    """Dagster's web page of a pipeline that has run once.

    Attributes:
        port: The port that it listens on.
        home: The directory of its Dagster instance.
        warehouse: The warehouse that its runs write to.
    """

    port: int
    home: Path
    warehouse: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running_web_page(directory: Path, source: Path) -> Iterator[WebPage]:
    """Materialize all assets from a source with ``make run``, then serve the web page with ``make dev``."""
    page = WebPage(free_port(), directory / "dagster_home", directory / "warehouse")
    page.home.mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", page.home)
    # The environment that runs the tests is the installed one: make has nothing to install.
    make = ["make", "--old-file=.venv/installed", f"BIN={Path(sys.executable).parent}"]
    make += [f"DAGSTER_HOME={page.home}", f"PORT={page.port}"]
    settings = {"IOT_SOURCE": str(source), "IOT_WAREHOUSE": str(page.warehouse)}
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"} | settings
    log = directory / "make.log"
    with log.open("wb") as output:
        run = subprocess.run(
            [*make, "run"], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
        if run.returncode:
            pytest.fail(f"make run failed:\n{log.read_text()}")
        server = subprocess.Popen(
            [*make, "dev"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for_port(server, page.port, log)
            yield page
        finally:
            _end_group(server)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when a server answers at its port; fail with its log when it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    pytest.fail(f"nothing is served on port {port}:\n{log.read_text()}")


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started: first politely, then surely."""
    os.killpg(leader.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        leader.wait(timeout=10)
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Run Chromium; without one the test is skipped, but fails in continuous integration."""
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        chromium = _find_chromium(playwright)
        if chromium is None:
            missing = "no browser: apt-get install chromium, or .venv/bin/playwright install chromium"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            timeout=PATIENCE_SECONDS * 1000,
        )
        with browser:
            yield browser


def _find_chromium(playwright: Playwright) -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", playwright.chromium.executable_path)
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def opened(browser: Browser, url: str, directory: Path) -> Iterator[Page]:
    """Open an address in a window of its own; an error in the block leaves a screenshot in the directory."""
    # Wide enough for the graph to show the details of its nodes.
    with browser.new_page(viewport={"width": 2600, "height": 1400}) as page:
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        try:
            page.goto(url, wait_until="domcontentloaded")
            yield page
        except Exception as error:
            screenshot = directory / "screenshot.png"
            page.screenshot(path=screenshot)
            error.add_note(f"screenshot: {screenshot}")
            raise
