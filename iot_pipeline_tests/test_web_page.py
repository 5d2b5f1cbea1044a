"""What a user sees of the code location in Dagster's web page, in a browser."""

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Browser, Page, expect

from iot_pipeline_tests.conftest import SAMPLE
from iot_pipeline_tests.web_page import WebPage, opened, running_browser, running_web_page

pytestmark = pytest.mark.system

HOSTILE = "<img src=x onerror=alert(1)>"

Open = Callable[[str], AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def web_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebPage]:
    """Serve the sample bucket's page, with a hostile name for the sensor that has the most anomalies.

    The browser comes first: without one there is nothing to serve for.
    """
    directory = tmp_path_factory.mktemp("web_page")
    source = directory / "bucket"
    shutil.copytree(SAMPLE, source)
    mapping = source / "mapping" / "mapping.csv"
    mapping.write_text(mapping.read_text().replace("sensor_00000;", f"{HOSTILE};"))
    (source / "timeseries" / f"{HOSTILE}.txt").touch()
    with running_web_page(directory, source) as page:
        yield page


@pytest.fixture
def open_page(browser: Browser, web_page: WebPage, tmp_path: Path) -> Open:
    """Return what opens a path of the web page."""
    return lambda path: opened(browser, f"{web_page.url}{path}", tmp_path)


def test_the_graph_shows_every_asset_as_materialized(open_page: Open) -> None:
    with open_page("/asset-groups") as page:
        nodes = page.locator("foreignObject")
        for asset in (
            "bucket",
            "mapping",
            "timeseries",
            "anomalies",
            "events",
            "sensor_models",
            "anomaly_report",
        ):
            node = nodes.filter(has=page.get_by_text(asset, exact=True))
            expect(node.get_by_text("Materialized", exact=True)).to_be_visible()
        expect(nodes).to_have_count(7)


def test_a_check_shows_that_it_passed_and_what_it_counted(open_page: Open) -> None:
    with open_page("/assets/timeseries?view=checks&checkDetail=every_row_is_accounted_for") as page:
        expect(page.get_by_text("This is a blocking asset check.")).to_be_visible()
        expect(page.get_by_text("Passed", exact=True)).to_be_visible()
        expect(page.get_by_role("row", name="rows_in_the_table 35626")).to_be_visible()


def test_the_pictures_of_the_worst_sensors_are_drawn(open_page: Open) -> None:
    with open_page("/assets/anomaly_report") as page:
        page.get_by_text("[Show Markdown]").click()
        pictures = page.get_by_role("dialog").locator("img")
        expect(pictures).to_have_count(3)
        for picture in pictures.all():
            expect(picture).to_be_visible()
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_an_asset_can_be_materialized_with_a_click(open_page: Open, web_page: WebPage) -> None:
    with open_page("/assets/timeseries") as page:
        with page.expect_response(re.compile("op=LaunchPipelineExecution")) as launch:
            page.get_by_role("button", name=re.compile(r"\bMaterialize$")).click()
        run_id = launch.value.json()["data"]["launchPipelineExecution"]["run"]["id"]
        page.goto(f"{web_page.url}/runs/{run_id}", wait_until="domcontentloaded")
        expect(page.get_by_text("Success", exact=True)).to_be_visible()
    with dg.DagsterInstance.from_config(str(web_page.home)) as instance:
        materialization = instance.get_latest_materialization_event(dg.AssetKey("timeseries"))
    assert materialization
    assert materialization.run_id == run_id


def test_the_daily_reload_is_switched_on(open_page: Open) -> None:
    with open_page("/locations/iot_pipeline/schedules/daily_reload") as page:
        expect(page.get_by_role("row", name="Running").get_by_role("checkbox")).to_be_checked()
        expect(page.get_by_role("row", name="Execution timezone Europe/Berlin")).to_be_visible()


@pytest.mark.parametrize("asset", ["timeseries", "anomaly_report"])
def test_a_hostile_name_is_shown_as_text(open_page: Open, asset: str) -> None:
    with open_page(f"/assets/{asset}") as page:
        expect(page.get_by_text(HOSTILE).first).to_be_visible()
        expect(page.locator("img[src=x]")).to_have_count(0)


def test_the_report_shows_a_hostile_name_as_text(browser: Browser, web_page: WebPage, tmp_path: Path) -> None:
    with opened(browser, (web_page.warehouse / "report" / "index.html").as_uri(), tmp_path) as page:
        expect(page.get_by_role("cell", name=HOSTILE, exact=True).first).to_be_visible()
        expect(page.locator("img[src=x]")).to_have_count(0)


def test_only_this_machine_can_open_the_page(web_page: WebPage) -> None:
    # A server that listens on all addresses also answers on the loopback's second one.
    with socket.socket() as client:
        client.settimeout(10)
        assert client.connect_ex(("127.0.0.2", web_page.port)) != 0
