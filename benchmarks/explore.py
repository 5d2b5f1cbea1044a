"""How fast the page for looking at sensors is, in a real browser, and how much memory its server takes.

    IOT_WAREHOUSE=/tmp/warehouse .venv/bin/python benchmarks/explore.py

It starts `iot-pipeline explore` on a loaded and judged warehouse, and Chromium without a window, on the same
machine. A zoom is timed from the event in the browser until the server's answer is on the screen. On a busy
machine the processors' time per zoom, of the server and of all the browser's processes, says more.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from iot_pipeline import connect

CHART = "getElement(document.querySelector('.chart .nicegui-echart').id.slice(1)).chart"
DRAWN = (
    "window.getElement && document.querySelector('.chart .nicegui-echart')"
    f" && {CHART}?.getOption()?.series?.length"
)
# Resolves with the milliseconds from an action until the next series are on the screen.
TIMED = """action => new Promise(resolve => {
    const chart = %s, started = performance.now(), original = chart.setOption;
    chart.setOption = function (option, ...rest) {
        const result = original.call(this, option, ...rest);
        if (option.series?.length) {
            chart.setOption = original;
            requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - started)));
        }
        return result;
    };
    new Function('chart', action)(chart);
})"""
TIMED = TIMED % CHART


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zooms", type=int, default=200)
    parser.add_argument("--sensors", type=int, default=30)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument(
        "--views", type=int, default=60, help="sensors that each of them opens, ten zooms in each"
    )
    options = parser.parse_args()
    with connect() as connection:
        names = [name for (name,) in connection.execute("SELECT sensor_name FROM sensors").fetchall()]
    rng = np.random.default_rng(0)
    with running_server() as (url, server), sync_playwright() as playwright:
        chromium = shutil.which("chromium") or playwright.chromium.executable_path
        with playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        ) as browser:
            report("page usable", [timed_page(browser, url) for _ in range(10)], 2000)
            page = opened(browser, url)
            chosen = rng.choice(names, options.sensors, replace=False).tolist()
            report("first view of a sensor", [timed_view(page, name) for name in chosen], 500)
            before = processor_times(server)
            report("zoom to drawn answer", [timed_zoom(page, rng) for _ in range(options.zooms)], 150)
            for who, now, then in zip(("server", "browser"), processor_times(server), before, strict=True):
                print(f"{f'processor time, {who}':<26}{(now - then) * 1000 / options.zooms:8.0f} ms per zoom")
            print(f"{'memory of the server':<26}{megabytes(server):8.0f} MB")
            pages = [page, *(opened(browser, url) for _ in range(options.people - 1))]
            zooms = []
            for _ in range(options.views):
                for page in pages:
                    timed_view(page, str(rng.choice(names)))
                    zooms += [timed_zoom(page, rng) for _ in range(10)]
            report(f"zoom, {options.people} tabs in turn", zooms, 150)
            print(f"{'memory after that':<26}{megabytes(server):8.0f} MB (at most 500)")


@contextmanager
def running_server() -> Iterator[tuple[str, psutil.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("iot-pipeline")), "explore", "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL)
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        time.sleep(5)  # what is slow the first time
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def opened(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(url, wait_until="commit")
    page.wait_for_function(DRAWN, polling=10)
    return page


def timed_page(browser: Browser, url: str) -> float:
    started = time.perf_counter()
    opened(browser, url).close()
    return (time.perf_counter() - started) * 1000


def timed_view(page: Page, name: str) -> float:
    """Open a sensor as a link in the page's history does."""
    action = f"history.pushState({{}}, '', '?sensor={name}'); emitEvent('moved', location.search)"
    return float(page.evaluate(TIMED, action))


def timed_zoom(page: Page, rng: np.random.Generator) -> float:
    span = 100 * 10 ** rng.uniform(-3.5, 0)
    start = rng.uniform(0, 100 - span)
    zoom = f"{{type: 'dataZoom', dataZoomId: 'inside', start: {start}, end: {start + span}}}"
    took = float(page.evaluate(TIMED, f"chart.dispatchAction({zoom})"))
    page.wait_for_timeout(60)
    return took


def processor_times(server: psutil.Process) -> tuple[float, float]:
    """Return the seconds that the server and the browser have taken so far."""
    others = [process for process in psutil.Process().children(recursive=True) if process.pid != server.pid]
    times = [sum(process.cpu_times()[:2]) for process in (server, *others)]
    return times[0], sum(times[1:])


def megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def report(what: str, milliseconds: list[float], most: int) -> None:
    median, p95 = np.percentile(milliseconds, [50, 95])
    print(f"{what:<26}{median:8.0f} ms median {p95:8.0f} ms p95 (at most {most})")


if __name__ == "__main__":
    main()
