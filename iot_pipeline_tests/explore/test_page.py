"""What somebody sees and does on the page, in a browser."""

import http.client
import itertools
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

from iot_pipeline import connect, get_measurements
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.berlin import from_instant
from iot_pipeline.explore._style import DARK, LIGHT
from iot_pipeline.explore._view import View
from iot_pipeline.report import write_report
from iot_pipeline_tests.explore.explore_page import (
    CLIMBING,
    HOSTILE,
    HUGE,
    ROOMS,
    SILENT,
    USER_HEADER,
    ExplorePage,
    Tab,
    opened_tab,
    running_explore_page,
)
from iot_pipeline_tests.web_page import running_browser

pytestmark = pytest.mark.system

Open = Callable[..., AbstractContextManager[Tab]]
WEEK = "sensor=sensor_00001&start=2013-06-03&end=2013-06-10"
AUTUMN = "sensor=sensor_00000&start=2013-10-27T00:00&end=2013-10-28T00:00"
SPRING = "sensor=sensor_00000&start=2013-03-31T00:00&end=2013-04-01T00:00"
OVERFLOWS = """selector => {
    const box = document.querySelector(selector);
    return box.scrollWidth - box.clientWidth;
}"""
LOAD = """
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.ingest import load_timeseries
if __name__ == "__main__":
    load_timeseries(source={0!r}, warehouse={1!r}, full_reload=True)
    flag_anomalies(warehouse={1!r})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExplorePage]:
    with running_explore_page(tmp_path_factory.mktemp("explore")) as page:
        yield page


@pytest.fixture
def open_tab(browser: Browser, server: ExplorePage, tmp_path: Path) -> Open:
    """Return what opens a view of the page."""
    return lambda query="", **options: opened_tab(browser, f"{server.url}/?{query}", tmp_path, **options)


def sql(server: ExplorePage, statement: str) -> list[tuple[Any, ...]]:
    with connect(server.warehouse) as connection:
        return connection.execute(statement).fetchall()


def test_nothing_comes_from_another_host(browser: Browser, server: ExplorePage) -> None:
    hosts = set()
    page = browser.new_page()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    Tab(page).go(server.url)
    page.close()
    assert hosts - {""} == {f"127.0.0.1:{server.port}"}


def test_without_a_link_the_most_severe_sensor_is_shown(open_tab: Open, server: ExplorePage) -> None:
    ((worst,),) = sql(
        server,
        "SELECT sensor_name FROM events GROUP BY sensor_name ORDER BY sum(peak_score) DESC LIMIT 1",
    )
    with open_tab() as tab:
        expect(tab.page.locator(".side .sensor-name")).to_have_text(worst)


def test_every_single_flagged_reading_is_seen_at_full_zoom_out(open_tab: Open, server: ExplorePage) -> None:
    ((name, _),) = sql(
        server,
        "SELECT sensor_name, count(*) FROM anomalies WHERE kind = 'spike' GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
    )
    query = "SELECT epoch_ms(timestamp), sensor_value FROM anomalies WHERE kind = 'spike' AND sensor_name = ?"
    with connect(server.warehouse) as connection:
        spikes = connection.execute(query, [name]).fetchall()
    assert spikes
    with open_tab(f"sensor={name}") as tab:
        tab.wait_for(
            f"""{[list(spike) for spike in spikes]}.every(point => {{
                const [x, y] = chart.convertToPixel({{gridIndex: 0}}, point);
                const canvas = chart.getDom().querySelector('canvas');
                const scale = canvas.width / canvas.clientWidth;
                const colour = canvas.getContext('2d').getImageData(x * scale, y * scale, 1, 1).data;
                const text = [...colour].slice(0, 3).map(c => c.toString(16).padStart(2, '0')).join('');
                return '#' + text === '{LIGHT.kind("spike").lower()}';
            }})"""
        )


def test_a_copied_link_restores_the_view(open_tab: Open) -> None:
    names = ["sensor_00001", "sensor_00002"]
    with open_tab("sensor=sensor_00001&sensor=sensor_00002") as tab:
        before = tab.page.url
        tab.drag(0.3, 0.6)
        tab.page.wait_for_url(lambda url: url != before)
        link = urlsplit(tab.page.url).query
    view = View.from_query(link)
    assert view.sensors == tuple(names)
    assert view.start
    assert view.end
    with open_tab(link) as other:
        other.wait_for_range(
            *(f"{from_instant(instant):%Y-%m-%d %H:%M}" for instant in (view.start, view.end))
        )
        assert other.chart("chart.getOption().title.map(title => title.text)")[:2] == names
        zoom = other.chart("chart.getOption().dataZoom[0]")
        assert (zoom["startValue"], zoom["endValue"]) == (view.start / 1000, view.end / 1000)


def test_a_huge_reading_flattens_the_panel_until_it_is_scaled_to_the_bulk(open_tab: Open) -> None:
    axis = "chart.getModel().getComponent('yAxis', 0).axis.scale.getExtent()"
    beyond = "chart.getOption().series.filter(s => s.name === 'beyond the edge').flatMap(s => s.data)"
    scale = "scale to the bulk of the readings (s)"
    with open_tab("sensor=sensor_00000") as tab:
        low, high = tab.chart(axis)
        assert high - low >= 1e300
        tab.page.keyboard.press("s")
        tab.page.wait_for_url(re.compile(r"\?sensor=sensor_00000&scale=bulk$"))
        expect(tab.page.get_by_role("button", name=scale, pressed=True)).to_be_visible()
        low, high = tab.chart(axis)
        assert high - low < 1000
        marked = {
            f"{from_instant(round(time * 1000)):%Y-%m-%d %H:%M:%S}": (edge, value)
            for time, edge, value in tab.chart(beyond)
        }
        assert [marked[time] for time in HUGE] == [
            (edge, float(value)) for edge, value in zip((high, low), HUGE.values(), strict=True)
        ]
        link = urlsplit(tab.page.url).query
        tab.page.keyboard.press("Backspace")
        tab.page.wait_for_url(re.compile("sensor=sensor_00000$"))
        tab.wait_for(f"{axis}[1] >= 1e300")
    with open_tab(link) as tab:
        assert tab.chart(axis) == [low, high]
        tab.page.get_by_role("button", name=scale, pressed=True).click()
        tab.wait_for(f"{axis}[1] >= 1e300")
        expect(tab.page.get_by_role("button", name=scale, pressed=False)).to_be_visible()


def test_in_a_short_range_every_reading_is_drawn(open_tab: Open, server: ExplorePage) -> None:
    readings = get_measurements("sensor_00001", "2013-06-04", "2013-06-06", warehouse=server.warehouse)
    expected = set(zip(readings["timestamp"], readings["sensor_value"], strict=True))
    with open_tab("sensor=sensor_00001&start=2013-06-04&end=2013-06-06") as tab:
        points = tab.chart("chart.getOption().series.find(s => s.name === 'readings').data")
    drawn = {(pd.Timestamp(time, unit="ms", tz="Europe/Berlin"), value) for time, value in points if value}
    assert expected <= drawn


def test_the_wheel_looks_closer(open_tab: Open) -> None:
    with open_tab(WEEK) as tab:
        tab.page.locator(".chart .nicegui-echart").hover()
        tab.page.mouse.wheel(0, -300)
        expect(tab.page.get_by_label("from", exact=True)).not_to_have_value("2013-06-03 00:00")
        start, end = map(pd.Timestamp, tab.range)
        assert pd.Timestamp("2013-06-03") < start < end < pd.Timestamp("2013-06-10")


def test_a_double_click_and_the_back_button_go_back_and_never_leave_the_page(open_tab: Open) -> None:
    with open_tab(WEEK) as tab:
        chart = tab.page.locator(".chart .nicegui-echart")
        for go_back in (lambda: chart.dblclick(position={"x": 400, "y": 150}), tab.page.go_back):
            tab.drag(0.3, 0.6)
            expect(tab.page.get_by_label("from", exact=True)).not_to_have_value("2013-06-03 00:00")
            go_back()
            tab.wait_for_range("2013-06-03 00:00", "2013-06-10 00:00")
        chart.dblclick(position={"x": 400, "y": 150})
        expect(tab.page.get_by_label("from", exact=True)).to_have_value(re.compile("2013-03-20"))
        assert tab.page.url.startswith("http://127.0.0.1")


@pytest.mark.parametrize("time_zone", ["Europe/Berlin", "America/New_York"])
def test_the_day_with_25_hours_shows_the_repeated_hour_twice(open_tab: Open, time_zone: str) -> None:
    with open_tab(AUTUMN, time_zone=time_zone) as tab:
        tab.wait_for_range("2013-10-27 00:00", "2013-10-28 00:00")
        assert tab.ticks == ["27 Oct", *(f"{hour:02}:00" for hour in range(3, 24, 3)), "28 Oct"]
    night = AUTUMN.replace("end=2013-10-28T00:00", "end=2013-10-27T05:00")
    with open_tab(night, time_zone=time_zone) as tab:
        tab.wait_for_range("2013-10-27 00:00", "2013-10-27 05:00")
        assert tab.ticks == ["27 Oct", "01:00", "02:00 CEST", "02:00 CET", "03:00", "04:00", "05:00"]


@pytest.mark.parametrize("time_zone", ["Europe/Berlin", "America/New_York"])
def test_the_day_with_23_hours_shows_no_missing_hour(open_tab: Open, time_zone: str) -> None:
    with open_tab(SPRING.replace("04-01T00:00", "03-31T07:00"), time_zone=time_zone) as tab:
        tab.wait_for_range("2013-03-31 00:00", "2013-03-31 07:00")
        assert tab.ticks == ["31 Mar", "01:00", "03:00", "04:00", "05:00", "06:00", "07:00"]


@pytest.mark.parametrize("time_zone", ["Europe/Berlin", "America/New_York"])
def test_what_the_pointer_is_at_is_told_in_berlins_time(open_tab: Open, time_zone: str) -> None:
    with open_tab(AUTUMN, time_zone=time_zone) as tab:
        label = (
            "chart.getOption().xAxis[0].axisPointer.label.formatter({value: Date.parse('2013-10-27T01:30Z')})"
        )
        assert tab.chart(label) == "Sun, 27 Oct 2013, 02:30 CET"


def test_events_of_a_sensor_are_listed_and_open_with_a_click(open_tab: Open, server: ExplorePage) -> None:
    ((name, start),) = sql(
        server,
        "SELECT sensor_name, strftime(start, '%-d %b %Y %H:%M') FROM events"
        " WHERE sensor_name LIKE 'sensor%' ORDER BY peak_score DESC LIMIT 1",
    )
    with open_tab(f"sensor={name}") as tab:
        before = tab.range
        tab.page.locator(".events").get_by_text(start).click()
        expect(tab.page.get_by_label("from", exact=True)).not_to_have_value(before[0])
        expect(tab.page.get_by_text(re.compile(f"Say about the .* of {start}:"))).to_be_visible()
        day = pd.Timestamp(start)
        begin, end = map(pd.Timestamp, tab.range)
        assert begin < day < end
        assert end - begin < pd.Timedelta("30D")


def strongest_event(server: ExplorePage) -> tuple[str, str, str]:
    """Return sensor, id and start, as shown, of the strongest event without company or annotation."""
    ((name, event_id, start),) = sql(
        server,
        "SELECT sensor_name, event_id, strftime(start, '%-d %b %Y %H:%M') FROM events"
        " WHERE sensor_name LIKE 'sensor%' AND annotation IS NULL AND kind <> 'gap'"
        " AND incident_id NOT IN (SELECT incident_id FROM incidents WHERE n_sensors > 1)"
        " ORDER BY peak_score DESC LIMIT 1",
    )
    return name, event_id, start


def answer(tab: Tab, start: str, kind: str, note: str) -> None:
    """Choose an event in the list and say something about it."""
    tab.page.locator(".events").get_by_text(start).first.click()
    tab.page.get_by_label("note").fill(note)
    tab.page.get_by_role("button", name=kind, exact=True).click()
    expect(tab.page.get_by_text(f"noted: {kind}")).to_be_visible()


def test_a_false_alarm_that_is_said_on_the_page_is_in_the_table_and_on_the_page(
    open_tab: Open, server: ExplorePage
) -> None:
    name, event_id, start = strongest_event(server)
    with open_tab(f"sensor={name}") as tab:
        answer(tab, start, "false alarm", "a door stood open")
        expect(tab.page.locator(".events").get_by_text("false alarm").first).to_be_visible()
        expect(tab.page.get_by_label("note")).to_have_value("")
        assert tab.page.evaluate(OVERFLOWS, ".events .q-table__middle") == 0
    said = sql(server, f"SELECT annotation FROM events WHERE event_id = '{event_id}'")
    assert said == [("false_alarm",)]
    assert ("a door stood open",) in sql(server, "SELECT note FROM annotations")


def test_maintenance_that_is_said_on_the_page_changes_the_next_judgement(
    open_tab: Open, server: ExplorePage
) -> None:
    name, event_id, start = strongest_event(server)
    with open_tab(f"sensor={name}") as tab:
        answer(tab, start, "maintenance", "")
    assert flag_anomalies(warehouse=server.warehouse).sensors_refitted == 1
    assert sql(server, f"SELECT * FROM events WHERE event_id = '{event_id}'") == []


def test_a_window_ranks_all_sensors(open_tab: Open, server: ExplorePage) -> None:
    window = "timestamp BETWEEN TIMESTAMPTZ '2013-06-03' AND TIMESTAMPTZ '2013-07-03'"
    ((worst,),) = sql(server, f"SELECT arg_max(sensor_name, score) FROM anomalies WHERE {window}")
    with open_tab("sensor=sensor_00001&start=2013-06-03&end=2013-07-03") as tab:
        tab.page.get_by_role("button", name="this window").click()
        expect(tab.page.locator(".sensors .name").first).to_contain_text(worst)


def test_a_cell_of_the_heat_map_opens_its_sensor(open_tab: Open) -> None:
    with open_tab("sensor=sensor_00001") as tab:
        heat = tab.page.locator(".all .nicegui-echart")
        heat.scroll_into_view_if_needed()
        script = """element => {
            const chart = getElement(element.id.slice(1)).chart;
            const option = chart.getOption();
            const cell = option.series[0].data.find(cell => option.yAxis[0].data[cell[1]] !== 'sensor_00001');
            return [chart.convertToPixel({gridIndex: 0}, cell.slice(0, 2)), option.yAxis[0].data[cell[1]]];
        }"""
        tab.page.wait_for_function(
            "getElement(document.querySelector('.all .nicegui-echart').id.slice(1)).chart.getOption()"
            ".series[0]?.data.length > 0"
        )
        (x, y), name = heat.evaluate(script)
        heat.click(position={"x": x, "y": y})
        expect(tab.page.locator(".side .sensor-name")).to_have_text(name)


def test_sensors_are_found_by_name_and_compared(open_tab: Open) -> None:
    with open_tab("sensor=sensor_00001") as tab:
        tab.page.get_by_label("search sensors").fill("_00002")
        expect(tab.page.locator(".sensors .name")).to_have_count(1)
        tab.page.get_by_role("checkbox", name="compare sensor_00002").click()
        tab.page.wait_for_url(re.compile("sensor=sensor_00001&sensor=sensor_00002"))
        tab.wait_for("chart.getOption().grid.length === 3")


def test_sensors_are_found_by_what_else_the_mapping_says_of_them(open_tab: Open) -> None:
    with open_tab() as tab:
        tab.page.get_by_label("search sensors").fill("Cellar")
        expect(tab.page.locator(".sensors .name")).to_have_text(["sensor_00002cellar"])


def test_an_incident_opens_its_sensors_at_its_time(open_tab: Open) -> None:
    with open_tab("sensor=sensor_00000") as tab:
        tab.page.locator(".incidents").get_by_role("button", name="2 Jul 2013 12:07").click()
        tab.wait_for("chart.getOption().grid.length === 4")
        view = View.from_query(urlsplit(tab.page.url).query)
        assert set(view.sensors) == {*ROOMS, CLIMBING}
        tab.wait_for_range("2013-07-02 06:07", "2013-07-02 18:07")


def test_what_is_said_has_the_name_that_the_proxy_gives_its_author(
    open_tab: Open, server: ExplorePage
) -> None:
    with open_tab(WEEK) as tab:
        tab.page.set_extra_http_headers({USER_HEADER: "anna"})
        tab.page.reload()
        tab.wait_until_drawn()
        tab.page.get_by_label("note").fill("who said this?")
        tab.page.get_by_role("button", name="confirmed").click()
        expect(tab.page.get_by_text("noted: confirmed")).to_be_visible()
    assert sql(server, "SELECT author FROM annotations WHERE note = 'who said this?'") == [("anna",)]


def test_the_keyboard_alone_is_enough(open_tab: Open) -> None:
    with open_tab(WEEK) as tab:
        keyboard = tab.page.keyboard
        keyboard.press("/")
        expect(tab.page.get_by_label("search sensors")).to_be_focused()
        keyboard.type("_00002")
        expect(tab.page.locator(".sensors .name")).to_have_count(1)
        row = tab.page.locator(".sensors").get_by_role("button", name="sensor_00002")
        for _ in range(5):  # past what clears the search and what sorts
            if row.evaluate("row => row === document.activeElement"):
                break
            keyboard.press("Tab")
        expect(row).to_be_focused()
        keyboard.press("Enter")
        expect(tab.page.locator(".side .sensor-name")).to_have_text("sensor_00002")
        keyboard.press("+")
        tab.wait_for_range("2013-06-04 18:00", "2013-06-08 06:00")
        keyboard.press("Backspace")
        tab.wait_for_range("2013-06-03 00:00", "2013-06-10 00:00")
        keyboard.press("0")
        expect(tab.page.get_by_label("from", exact=True)).to_have_value(re.compile("2013-03-20"))


def test_the_focus_stays_on_a_sensor_that_is_moved_in_the_list(open_tab: Open) -> None:
    with open_tab("sensor=sensor_00001&start=2013-04-17&end=2013-04-21") as tab:
        names = tab.page.locator(".sensors .name span")
        for place in range(5):
            names.nth(place).locator("..").focus()
            order = names.all_inner_texts()
            other = "this window" if place % 2 == 0 else "severity"
            tab.page.get_by_role("button", name=other).evaluate("button => button.click()")
            expect(names).not_to_have_text(order)
            expect(tab.page.locator(":focus span")).to_have_text(order[place])


def test_the_focus_stays_on_a_sensor_that_is_compared(open_tab: Open) -> None:
    with open_tab(WEEK) as tab:
        row = tab.page.locator(".sensors").get_by_role("button", name="sensor_00002")
        row.press(" ")
        expect(tab.page.get_by_role("checkbox", name="compare sensor_00002")).to_be_checked()
        expect(row).to_be_focused()


def test_the_keyboard_goes_from_event_to_event(open_tab: Open) -> None:
    with open_tab("sensor=sensor_00002") as tab:
        events = tab.page.locator(".events tbody tr")
        events.nth(0).get_by_role("button").focus()
        for number in range(2):
            tab.page.keyboard.press("Enter")
            expect(events.nth(number)).to_have_class(re.compile("selected"))
            expect(events.nth(number).get_by_role("button")).to_be_focused()
            tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("n")
        expect(events.nth(2)).to_have_class(re.compile("selected"))


def test_a_click_is_not_lost_when_the_list_is_drawn_anew_under_it(open_tab: Open) -> None:
    with open_tab(WEEK) as tab:
        tab.page.locator(".sensors .name", has_text="sensor_00002").hover()
        tab.page.mouse.down()
        tab.page.evaluate("emitEvent('moved', '?sensor=sensor_00000')")
        expect(tab.page.get_by_role("checkbox", name="compare sensor_00000")).to_be_checked()
        tab.page.mouse.up()
        expect(tab.page.locator(".side .sensor-name")).to_have_text("sensor_00002")


def test_a_range_can_be_typed(open_tab: Open) -> None:
    with open_tab("sensor=sensor_00001") as tab:
        tab.page.get_by_label("to", exact=True).fill("2013-05-02")
        tab.page.get_by_label("from", exact=True).fill("2013-05-01T12:00")
        tab.page.keyboard.press("Enter")
        tab.wait_for_range("2013-05-01 12:00", "2013-05-02 00:00")
        tab.page.get_by_label("from", exact=True).fill("soon")
        tab.page.keyboard.press("Enter")
        expect(tab.page.get_by_text("can't read the time 'soon'")).to_be_visible()


@pytest.mark.parametrize(
    ("start", "end", "ticks"),
    [
        ("2015-01-01", "2016-01-01", ["2015", "Mar", "May", "Jul", "Sep", "Nov", "2016"]),
        ("2013-11-04", "2013-11-07", ["4 Nov", "12:00", "5 Nov", "12:00", "6 Nov", "12:00", "7 Nov"]),
        ("0001-01-01", "9999-12-31", ["1900", "1950", "2000", "2050", "2100", "2150", "2200"]),
    ],
)
def test_a_range_beyond_the_readings_is_shown_as_it_was_asked_for(
    open_tab: Open, start: str, end: str, ticks: list[str]
) -> None:
    with open_tab(f"sensor=sensor_00001&start={start}&end={end}") as tab:
        assert tab.ticks == ticks
        assert not tab.chart("chart.getOption().yAxis[0].axisLine.onZero")
        (zoom, *_) = tab.chart("chart.getOption().dataZoom")
        assert from_instant(int(zoom["startValue"]) * 1000).isoformat()[:10] == max(start, "1900-01-01")
        assert from_instant(int(zoom["endValue"]) * 1000).isoformat()[:10] == min(end, "2200-01-01")


def test_a_sensor_without_readings_is_an_empty_chart_that_says_so_over_the_time_of_all_sensors(
    browser: Browser, server: ExplorePage
) -> None:
    columns = ", ".join(f"strftime({end}(timestamp), '%Y-%m-%d %H:%M')" for end in ("min", "max"))
    ((first, last),) = sql(server, f"SELECT {columns} FROM measurements")
    with browser.new_page() as page:
        tab = Tab(page)
        page.goto(f"{server.url}/?sensor={SILENT}")
        tab.wait_for(f"chart?.getOption()?.title?.[0].text === '{SILENT} has no readings'")
        tab.wait_for_range(first, last)
        assert tab.ticks[0] == "Apr"
        assert not tab.chart("chart.getOption().series.length")


@pytest.mark.parametrize("name", [HOSTILE, CLIMBING])
def test_a_hostile_name_is_a_name_like_any_other(open_tab: Open, name: str) -> None:
    with open_tab("sensor=sensor_00001") as tab:
        tab.page.locator(".sensors .name", has_text=name).click()
        expect(tab.page.locator(".side .sensor-name")).to_have_text(name)
        tab.page.wait_for_url(lambda url: View.from_query(urlsplit(url).query).sensors == (name,))
        link = urlsplit(tab.page.url).query
    with open_tab(link) as tab:
        assert tab.chart("chart.getOption().title[0].text") == name


def test_a_hostile_name_is_text_in_whatever_shows_it(open_tab: Open) -> None:
    with open_tab(View((HOSTILE, "sensor_00001")).to_query()) as tab:
        series = f"chart.getOption().series.findIndex(series => series.name === {HOSTILE!r})"
        tab.chart(f"chart.dispatchAction({{type: 'showTip', seriesIndex: {series}, dataIndex: 9}})")
        expect(tab.page.locator(".chart .nicegui-echart div", has_text=HOSTILE).first).to_be_visible()
        expect(tab.page.locator(".sensors").get_by_title(HOSTILE)).to_be_visible()
        expect(tab.page.locator("body script", has_text="alert(1)")).to_have_count(0)


def test_a_link_to_what_there_is_not_says_so_and_shows_something(open_tab: Open) -> None:
    with open_tab("sensor=sensor_09999") as tab:
        expect(tab.page.get_by_text("there is no sensor 'sensor_09999'")).to_be_visible()
    with open_tab("sensor=sensor_00001&start=soon") as tab:
        expect(tab.page.get_by_text("can't read the time 'soon'")).to_be_visible()


def test_what_is_shown_can_be_saved_as_csv(open_tab: Open, server: ExplorePage) -> None:
    with open_tab(WEEK) as tab:
        with tab.page.expect_download() as download:
            tab.page.get_by_role("button", name="what is shown as CSV").click()
        saved = pd.read_csv(download.value.path())
    expected = get_measurements("sensor_00001", "2013-06-03", "2013-06-10", warehouse=server.warehouse)
    assert saved["sensor_value"].tolist() == expected["sensor_value"].tolist()
    assert saved["timestamp"].tolist() == expected["timestamp"].astype(str).tolist()
    flagged = sql(
        server,
        "SELECT count(*) FROM anomalies WHERE sensor_name = 'sensor_00001'"
        " AND timestamp BETWEEN TIMESTAMPTZ '2013-06-03' AND TIMESTAMPTZ '2013-06-10'",
    )
    assert saved["kind"].count() == flagged[0][0]


def test_what_is_shown_can_be_saved_as_a_picture(open_tab: Open) -> None:
    with open_tab(WEEK) as tab:
        with tab.page.expect_download() as download:
            tab.page.get_by_role("button", name="what is shown as PNG").click()
        assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_the_report_is_served_once_there_is_one(browser: Browser, server: ExplorePage) -> None:
    page = browser.new_page()
    answer = page.goto(f"{server.url}/report")
    assert answer
    assert answer.status == 404
    assert "no report in" in page.content()
    write_report(warehouse=server.warehouse)
    page.goto(f"{server.url}/report")
    expect(page.get_by_role("heading", name="Sensor anomalies")).to_be_visible()
    page.get_by_label("Search sensors").fill("sensor_00001")
    expect(page.locator("#sensors tbody tr:visible")).to_have_count(1)
    page.close()


def test_on_a_telephone_nothing_is_cut_off_and_the_sensors_are_a_button_away(open_tab: Open) -> None:
    with open_tab("sensor=sensor_00001", width=390, height=844) as tab:
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 390
        expect(tab.page.get_by_label("search sensors")).not_to_be_in_viewport()
        tab.page.get_by_role("button", name="sensors", exact=True).click()
        expect(tab.page.get_by_label("search sensors")).to_be_in_viewport()


def test_the_page_is_dark_where_the_machine_is_and_light_on_demand(open_tab: Open) -> None:
    ink = "chart.getOption().textStyle.color"
    with open_tab("sensor=sensor_00001", dark=True) as tab:
        assert tab.chart(ink) == DARK.ink
        tab.page.get_by_role("button", name="light or dark").click()
        tab.wait_for(f"{ink} === '{LIGHT.ink}'")
        assert not tab.page.evaluate("document.body.classList.contains('body--dark')")


def test_a_page_of_another_origin_cant_open_the_web_socket(server: ExplorePage) -> None:
    def status(origin: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": origin}
        connection.request("GET", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", headers=headers)
        answer = connection.getresponse().status
        connection.close()
        return answer

    assert status(server.url) == 101
    assert status("http://evil.example") == 403


def test_only_this_machine_can_open_the_page(server: ExplorePage) -> None:
    # A server that listens on all addresses also answers on the loopback's second one.
    with socket.socket() as client:
        client.settimeout(10)
        assert client.connect_ex(("127.0.0.2", server.port)) != 0


def test_a_taken_port_is_refused_in_one_line(server: ExplorePage) -> None:
    command = [str(Path(sys.executable).with_name("iot-pipeline")), "explore", "--port", str(server.port)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    where = f"127.0.0.1:{server.port} (Address already in use)"
    assert answer.stderr == f"iot-pipeline: can't listen on {where}: choose another one with --port\n"


def test_before_anything_is_loaded_the_page_says_what_to_run_and_then_shows_it(
    browser: Browser, tmp_path: Path
) -> None:
    with running_explore_page(tmp_path, loaded=False) as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.get_by_text("run: iot-pipeline load --only mapping,timeseries")).to_be_visible()
        server.load()
        Tab(page).wait_until_drawn()
        expect(page.get_by_text("run: dagster")).not_to_be_visible()
        page.close()


def test_five_tabs_go_on_during_a_load_and_show_what_is_new(open_tab: Open, server: ExplorePage) -> None:
    ((uuid,),) = sql(server, "SELECT sensor_uuid FROM sensors WHERE sensor_name = 'sensor_00002'")
    with ExitStack() as stack:
        tabs = [stack.enter_context(open_tab("sensor=sensor_00002")) for _ in range(5)]
        new = server.source / "Timeseries" / "new.csv"
        new.parent.mkdir(exist_ok=True)
        new.write_text(f"timestamp;sensor_uuid;sensor_value\n2013-11-30 12:34:00;{uuid};1.5\n")
        script = server.source.parent / "load.py"
        script.write_text(LOAD.format(str(server.source), str(server.warehouse)))
        loading = subprocess.Popen([sys.executable, str(script)])
        keys = itertools.chain(["+"], itertools.cycle(["ArrowLeft", "ArrowRight"]))
        while loading.poll() is None:
            key = next(keys)
            for tab in tabs:
                before = tab.range
                tab.page.keyboard.press(key)
                expect(tab.page.get_by_label("from", exact=True)).not_to_have_value(before[0])
        assert loading.returncode == 0
        for tab in tabs:
            tab.page.keyboard.press("0")
            expect(tab.page.get_by_label("to", exact=True)).to_have_value("2013-11-30 12:34")
