import base64
import html
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from iot_pipeline.kinds import KINDS
from iot_pipeline.report.charts import plot_counts
from iot_pipeline.report.draw import MOST_PICTURES
from iot_pipeline.report.page import LastReport, render_report
from iot_pipeline.report.plot import render as render_figure
from iot_pipeline.report.sparkline import WIDTH, Sparkline
from iot_pipeline_tests.web_page import running_browser

CREATED = datetime(2016, 1, 1, 12, 0, tzinfo=UTC)


def event(
    sensor: str, start: str, *, score: float, kind: str = "spike", hours: float = 0.0, readings: int = 1
) -> dict[str, object]:
    begin = pd.Timestamp(start, tz="UTC")
    return {
        "sensor_name": sensor,
        "kind": kind,
        "start": begin,
        "end": begin + pd.Timedelta(hours=hours),
        "duration_h": hours,
        "n_readings": readings,
        "peak_score": score,
        "mean_residual": np.nan if kind == "gap" else 50.0,
        "annotation": None,
        "event_id": f"{sensor} {start}",
    }


EVENTS = pd.DataFrame(
    [
        event("sensor_00002", "2013-05-01 10:00", score=6.0),
        event("sensor_00001", "2013-10-27 00:30", score=9.0),
        event("sensor_00002", "2013-03-01 11:00", score=7.0, kind="burst", hours=0.25, readings=2),
    ]
)


def model(sensor: str, *, severity: float = 0.0, n_anomalies: int = 0, **others: object) -> dict[str, object]:
    return {
        "sensor_name": sensor,
        "severity": severity,
        "model": "linear",
        "breakpoints": [],
        "noise_sd": 10.0,
        "n_points": 1000,
        "n_anomalies": n_anomalies,
        "n_events": n_anomalies,
        "reasoning": f"A straight line is enough for {sensor}.",
        **others,
    }


SENSORS = pd.DataFrame(
    [
        model("sensor_00002", severity=13.0, n_anomalies=3),
        model("sensor_00001", severity=9.0, n_anomalies=1),
        model("sensor_00000"),
    ]
)
INCIDENTS = pd.DataFrame(
    [
        {
            "start": pd.Timestamp("2013-03-01 11:00", tz="UTC"),
            "end": pd.Timestamp("2013-03-01 14:30", tz="UTC"),
            "n_sensors": 24,
            "kinds": ["gap", "level_shift"],
            "strongest_sensor": "sensor_00002",
            "peak_score": 9.0,
        }
    ]
)
PICTURES = {"sensor_00002": b"picture of 2", "sensor_00001": b"picture of 1"}


def render(sensors: pd.DataFrame = SENSORS, events: pd.DataFrame = EVENTS, **options: Any) -> str:
    defaults: dict[str, Any] = {
        "source": "s3://bucket/prefix",
        "warehouse": "/srv/warehouse",
        "created": CREATED,
        "incidents": INCIDENTS.head(0),
        "last": None,
        "pictures": PICTURES,
        "sparklines": {},
        "failures": {},
    }
    return render_report(sensors, events, **{**defaults, **options})


def rows(page: str, title: str) -> list[list[str]]:
    """Give the cells of the first table behind a heading."""
    table = page.split(f"<h2>{title}</h2>", 1)[1].split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    return [re.findall(r"(?s)<td[^>]*>(.*?)</td>", row) for row in table.split("</tr>")[:-1]]


class Tags(HTMLParser):
    """Collects the tags and attributes of a page, and whether all were closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag not in {"img", "input", "meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    return tags


def test_the_page_names_its_source_its_warehouse_and_when_it_was_made() -> None:
    page = render()

    assert "From <code>s3://bucket/prefix</code>, loaded into <code>/srv/warehouse</code>." in page
    assert "Created 2016-01-01 13:00. All times are Europe/Berlin." in page


def test_sensors_are_listed_in_the_order_given_with_their_severity() -> None:
    assert [row[:6] for row in rows(render(), "All sensors")] == [
        ["sensor_00002", "13", "", "3", "3", "1,000"],
        ["sensor_00001", "9", "", "1", "1", "1,000"],
        ["sensor_00000", "0", "", "0", "0", "1,000"],
    ]


def test_sensors_without_a_model_are_named() -> None:
    assert "Without readings that could be judged: a, b&lt;." in render(unjudged=["a", "b<"])
    assert "Without readings" not in render()


def test_events_are_listed_by_date_with_the_newest_first_and_how_long_they_lasted() -> None:
    assert rows(render(), "Events") == [
        ["2013-10-27 02:30", "2013-10-27 02:30", "-", "sensor_00001", "spike", "1", "50", "9"],
        ["2013-05-01 12:00", "2013-05-01 12:00", "-", "sensor_00002", "spike", "1", "50", "6"],
        ["2013-03-01 12:00", "2013-03-01 12:15", "15 min", "sensor_00002", "burst", "2", "50", "7"],
    ]


def test_the_first_report_says_that_all_is_new() -> None:
    assert "This is the first report: all of it is new." in render()


def test_what_the_last_report_did_not_have_is_new_and_stands_on_top() -> None:
    last = LastReport(CREATED - timedelta(days=1), frozenset(EVENTS["event_id"][:2]))
    page = render(last=last)
    assert "1 since the report of 2015-12-31 13:00, the newest first." in page
    assert [row[3:5] for row in rows(page, "New")] == [["sensor_00002", "burst"]]
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[:4] == ["New", "Events", "Most severe sensors", "All sensors"]


def test_where_nothing_is_new_the_report_says_since_when() -> None:
    last = LastReport(CREATED - timedelta(days=1), frozenset(EVENTS["event_id"]))
    assert "Nothing since the report of 2015-12-31 13:00." in render(last=last)
    false_alarms = EVENTS.assign(annotation="false_alarm")
    assert "Nothing since" in render(events=false_alarms, last=LastReport(CREATED, frozenset()))


def test_incidents_say_when_how_many_sensors_and_what_happened_to_them() -> None:
    assert rows(render(incidents=INCIDENTS), "Incidents") == [
        ["2013-03-01 12:00", "2013-03-01 15:30", "3 h 30 min", "24", "gap, level shift", "sensor_00002", "9"]
    ]
    assert "<h2>Incidents</h2>" not in render()


def test_a_sensor_with_events_has_a_small_picture() -> None:
    page = render(sparklines={"sensor_00001": Sparkline("M0 1L1 2", "M1 0v20")})
    pictures = [row[2] for row in rows(page, "All sensors")]
    assert pictures[0] == pictures[2] == ""
    assert '<path class="mark" d="M1 0v20"/><path d="M0 1L1 2"/>' in pictures[1]


def test_the_page_of_500_sensors_can_be_sent_by_mail() -> None:
    words = "of 2,910 readings 6 lie beyond 3 sd of the noise, where chance alone gives 8; " * 6
    names = [f"sensor_{number:05}" for number in range(500)]
    starts = pd.date_range("2013-01-01", periods=2000, freq="6h").astype(str)
    page = render(
        pd.DataFrame([model(name, reasoning=words, severity=99.0, n_anomalies=99) for name in names]),
        pd.DataFrame([event(names[n % 500], start, score=1234.5) for n, start in enumerate(starts)]),
        last=LastReport(CREATED, frozenset()),
        pictures={name: bytes(75_000) for name in names[:MOST_PICTURES]},
        sparklines={name: Sparkline("L100 10" * WIDTH, "M100 0v20" * 4) for name in names},
    )
    assert len(page.encode()) <= 3_000_000


@pytest.mark.parametrize(
    ("hours", "written"),
    [(0.02, "1 min"), (1.0, "1 h"), (9.67, "9 h 40 min"), (49.5, "2 d 1 h"), (24, "1 d")],
)
def test_a_gap_has_a_length_and_no_deviation(hours: float, written: str) -> None:
    gap = event("sensor_00001", "2013-10-27 00:30", score=9.0, kind="gap", hours=hours)
    ((_, _, duration, _, kind, _, deviation, _),) = rows(render(events=pd.DataFrame([gap])), "Events")

    assert (kind, duration, deviation) == ("gap", written, "-")


def test_the_summary_counts_events_by_kind_and_says_when() -> None:
    assert rows(render(), "What was found") == [
        ["burst", "1", "2", "1", "2013-03-01 12:00", "2013-03-01 12:15"],
        ["spike", "2", "2", "2", "2013-05-01 12:00", "2013-10-27 02:30"],
    ]


def test_every_kind_is_explained() -> None:
    page = html.unescape(render())

    for kind, text in KINDS.items():
        assert f"<dt>{kind.replace('_', ' ')}</dt><dd>{text}</dd>" in page


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (1234567.8, "1,234,568"),
        (-297123.4, "-297,123"),
        (12.345678, "12.35"),
        (0.00012345, "0.0001234"),
        (1e290, "1.000e+290"),
        (-1.7976931348623157e308, "-1.798e+308"),
        (np.inf, "∞"),
        (-np.inf, "-∞"),
    ],
)
def test_numbers_of_any_size_are_short(value: float, written: str) -> None:
    events = EVENTS.head(1).assign(mean_residual=value)

    assert rows(render(events=events), "Events")[0][6] == written


@pytest.mark.parametrize(
    ("label", "figure"),
    [
        ("sensors", "3"),
        ("without anomalies", "1"),
        ("readings", "3,000"),
        ("flagged readings", "4"),
        ("share flagged", "0.13%"),
        ("events", "3"),
    ],
)
def test_the_summary_gives_the_figures(label: str, figure: str) -> None:
    assert f"<dt>{label}</dt><dd>{figure}</dd>" in render()


def test_the_sensors_shown_have_pictures_with_their_reasoning_in_the_order_of_severity() -> None:
    page = render()

    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', page)]
    assert pictures == [b"picture of 2", b"picture of 1"]
    assert "<b>sensor_00002</b>: A straight line is enough for sensor_00002.</figcaption>" in page


def test_a_sensor_that_could_not_be_drawn_is_named_in_its_place() -> None:
    page = render(pictures={"sensor_00001": b"1"}, failures={"sensor_00002": "OverflowError: too <large>"})

    assert "<b>sensor_00002</b> could not be drawn (OverflowError: too &lt;large&gt;)" in page
    assert page.index("sensor_00002</b>") < page.index("sensor_00001</b>")
    assert page.count("<img") == 1


def test_only_the_newest_events_are_listed() -> None:
    page = render(most_events=2)

    assert [row[0] for row in rows(page, "Events")] == ["2013-10-27 02:30", "2013-05-01 12:00"]
    assert "2 of 3" in page


def test_breakpoints_are_listed_as_berlin_dates() -> None:
    times = np.array(["2013-04-30T23:00", "2014-01-15T12:00"], dtype="datetime64[us]")
    page = render(pd.DataFrame([model("sensor_00001", breakpoints=times)]))

    assert "2013-05-01, 2014-01-15" in rows(page, "All sensors")[0]


def test_markup_in_values_is_escaped() -> None:
    name = "<script>alert('x')</script>"
    events = EVENTS.assign(sensor_name=name, kind="<b>&")
    sensors = pd.DataFrame([model(name, model="<i>", reasoning='"><script>', n_anomalies=4)])
    page = render(sensors, events, source="<script>", warehouse="<script>", pictures={name: b"1"})

    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(" in page


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = render(source="data/sample")

    assert parse(page).links
    assert all(link.startswith("data:image/png;base64,") for link in parse(page).links)
    assert not re.search(r"https?:|url\(|@import", page)


def test_the_page_is_well_formed() -> None:
    assert parse(render()).open == []


def test_without_anomalies_the_page_says_so() -> None:
    page = render(SENSORS.assign(n_anomalies=0, n_events=0), EVENTS.head(0), pictures={})

    assert "Nothing was flagged." in page
    assert parse(page).open == []
    assert len(rows(page, "All sensors")) == 3


def test_without_sensors_there_is_still_a_page() -> None:
    assert "Nothing was flagged." in render(SENSORS.head(0), EVENTS.head(0), pictures={})


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page with all that is wide: long names, places and texts, and a real picture."""
    words = "of 2,910 readings 6 lie beyond 3 sd of the noise, where chance alone gives 8; " * 5
    name = "sensor_in_the_hall_on_the_left_" * 3
    times = np.arange("2013-01-01", "2013-03-01", dtype="datetime64[us]", step=np.timedelta64(10, "D"))
    sensors = pd.DataFrame(
        [model(name, reasoning=words, breakpoints=times, n_anomalies=3), *SENSORS.to_dict("records")]
    )
    picture = render_figure(plot_counts({"readings": {"2013-01": 3}}, what="readings", per="month"))
    page = render(
        sensors,
        EVENTS.assign(sensor_name=name),
        source="s3://a-bucket/" + "with-a-long-prefix/" * 8,
        pictures={name: picture},
    )
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.mark.system
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 1100, 961, 390])
def test_the_page_is_as_wide_as_its_window_and_its_text_stands_out(
    page_file: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    with (
        running_browser() as browser,
        browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme) as page,
    ):
        page.goto(page_file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        brightness = page.evaluate("""
            ['color', 'backgroundColor'].map(name =>
                Number(getComputedStyle(document.body)[name].match(/\\d+/)[0]))
        """)
        ink, back = brightness
        assert (ink < 80 and back > 200) if scheme == "light" else (ink > 200 and back < 80)


@pytest.mark.system
def test_tables_are_searched_and_sorted_without_a_server(page_file: Path) -> None:
    with running_browser() as browser, browser.new_page() as page:
        page.goto(page_file.as_uri())
        names = page.locator("#sensors tbody tr:not([hidden]) td:first-child")
        assert names.count() == 4
        page.get_by_label("Search sensors").fill("00001")
        assert names.all_inner_texts() == ["sensor_00001"]
        page.get_by_label("Search sensors").fill("")
        severities = page.locator("#sensors tbody td:nth-child(2)")
        page.get_by_role("button", name="severity").click()
        assert severities.all_inner_texts() == ["13", "9", "0", "0"]
        page.get_by_role("button", name="severity").press("Enter")
        assert severities.all_inner_texts() == ["0", "0", "9", "13"]
        lengths = page.locator("#events tbody td:nth-child(3)")
        page.locator("#events").get_by_role("button", name="length").click()
        assert lengths.first.inner_text() == "15 min"


def test_a_false_alarm_is_listed_as_one_and_not_counted() -> None:
    said = EVENTS.assign(annotation=pd.Series(["false_alarm", "confirmed", None], dtype=object))
    page = render(events=said)
    assert [row[-1] for row in rows(page, "Events")] == ["confirmed", "false alarm", ""]
    assert "annotation" in page
    assert sum(int(row[1]) for row in rows(page, "What was found")) == 2
    assert "annotation" not in render()
