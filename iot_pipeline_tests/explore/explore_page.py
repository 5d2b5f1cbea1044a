"""The page as `iot-pipeline explore` serves it, over a bucket that has both changes of the clock."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.samples import write_sample_bucket
from iot_pipeline_tests.web_page import PATIENCE_SECONDS, free_port, wait_for_port

HOSTILE = "<script>alert(1)</script>"
CLIMBING = "../.."
HUGE = {"2013-06-01 12:34:00": "1.7976931348623157e308", "2013-06-02 12:34:00": "-1e38"}
"""Error values of a device, by time."""
SILENT = "sensor_00005"
"""A sensor that has never sent a reading."""
ROOMS = {"sensor_00001": "boiler room", "sensor_00002": "cellar"}
TOGETHER = "2013-07-02 12:07:00"
"""When three sensors have a spike."""
USER_HEADER = "X-Forwarded-User"
"""In which a proxy names the user."""
FIRST = datetime(2013, 3, 20)
DAYS = 230


@dataclass(frozen=True)
class ExplorePage:
    """A server of the page, and the warehouse that it shows."""

    port: int
    source: Path
    warehouse: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def load(self, *, full_reload: bool = False) -> None:
        load_timeseries(source=str(self.source), warehouse=self.warehouse, full_reload=full_reload)
        flag_anomalies(warehouse=self.warehouse)


@contextmanager
def running_explore_page(directory: Path, *, loaded: bool = True) -> Iterator[ExplorePage]:
    """Load a bucket of six sensors, hostile names and huge readings among them, and serve the page."""
    page = ExplorePage(free_port(), directory / "bucket", directory / "warehouse")
    write_sample_bucket(page.source, sensors=5, days=DAYS if loaded else 2, seed=3, start=FIRST)
    mapping = page.source / "mapping" / "mapping.csv"
    text = (
        mapping.read_text().replace("sensor_00003;", f"{HOSTILE};").replace("sensor_00004;", f"{CLIMBING};")
    )
    header, *lines = text.splitlines()
    uuids = dict(line.split(";") for line in lines)
    rooms = [f"{name};{uuid};{ROOMS.get(name, '')}\n" for name, uuid in uuids.items()]
    rooms.append(f"{SILENT};00000000-0000-0000-0000-000000000005;\n")
    mapping.write_text("".join([f"{header};room\n", *rooms]))
    readings = [f"{time};{uuids['sensor_00000']};{value}\n" for time, value in HUGE.items()]
    readings += [f"{TOGETHER};{uuids[name]};5000\n" for name in (*ROOMS, CLIMBING)]
    odd = page.source / "timeseries" / "odd.csv"
    odd.write_text("".join(["timestamp;sensor_uuid;sensor_value\n", *readings]))
    load_mapping(source=str(page.source), warehouse=page.warehouse)
    if loaded:
        page.load()
    log = directory / "explore.log"
    command = [str(Path(sys.executable).with_name("iot-pipeline")), "explore", "--port", str(page.port)]
    environment = {
        **os.environ,
        "IOT_WAREHOUSE": str(page.warehouse),
        "IOT_EXPLORE_USER_HEADER": USER_HEADER,
    }
    environment.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI would take it for a test of its own
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_for_port(server, page.port, log)
            yield page
        finally:
            server.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=20)
            server.kill()
            server.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


@dataclass(frozen=True)
class Tab:
    """A tab that shows the page."""

    page: Page

    def go(self, url: str) -> None:
        self.page.goto(url, wait_until="domcontentloaded")
        self.wait_until_drawn()

    def wait_until_drawn(self) -> None:
        """Wait until a sensor's readings are drawn, and the rest of the page has followed."""
        self.wait_for("chart?.getOption()?.series?.length > 0")
        expect(self.page.get_by_label("from", exact=True)).not_to_have_value("")

    def wait_for(self, expression: str) -> None:
        """Wait until JavaScript about the ECharts instance ``chart`` is true."""
        self.page.wait_for_function(f"() => {{ const chart = {_CHART}; return {expression}; }}")

    def chart(self, expression: str) -> Any:
        """Evaluate JavaScript about the ECharts instance ``chart``."""
        return self.page.evaluate(f"() => {{ const chart = {_CHART}; return {expression}; }}")

    @property
    def range(self) -> tuple[str, str]:
        """What the fields of the range say."""
        return self.page.get_by_label("from", exact=True).input_value(), self.page.get_by_label(
            "to", exact=True
        ).input_value()

    def wait_for_range(self, start: str, end: str) -> None:
        expect(self.page.get_by_label("from", exact=True)).to_have_value(start)
        expect(self.page.get_by_label("to", exact=True)).to_have_value(end)

    @property
    def ticks(self) -> list[str]:
        """What the ticks of the time axis say."""
        axis = "chart.getModel().getComponent('xAxis', chart.getOption().xAxis.length - 1).axis"
        labels: list[str] = self.chart(f"{axis}.getViewLabels().map(label => label.formattedLabel)")
        return labels

    def drag(self, left: float, right: float) -> None:
        """Drag over parts of the chart's width."""
        box = self.page.locator(".chart .nicegui-echart").bounding_box()
        assert box
        mouse, y = self.page.mouse, box["y"] + 200
        mouse.move(box["x"] + left * box["width"], y)
        mouse.down()
        mouse.move(box["x"] + (left + right) / 2 * box["width"], y + 5)
        mouse.move(box["x"] + right * box["width"], y + 10)
        mouse.up()


_CHART = """(() => {
    const element = document.querySelector('.chart .nicegui-echart');
    try { return element && window.getElement(element.id.slice(1)).chart; }
    catch { return undefined; }  // the element is there a moment before NiceGUI knows it
})()"""


@contextmanager
def opened_tab(
    browser: Browser,
    url: str,
    directory: Path,
    *,
    width: int = 1400,
    height: int = 1000,
    time_zone: str = "Europe/Berlin",
    dark: bool = False,
) -> Iterator[Tab]:
    """Open an address in a browser of its own; an error in the block leaves a screenshot in the directory."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        timezone_id=time_zone,
        color_scheme="dark" if dark else "light",
    )
    with context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        tab = Tab(page)
        try:
            tab.go(url)
            yield tab
        except Exception as error:
            screenshot = directory / "screenshot.png"
            page.screenshot(path=screenshot)
            error.add_note(f"screenshot: {screenshot}")
            raise
