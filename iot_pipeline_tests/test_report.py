import base64
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from iot_pipeline.report import render_report

CREATED = datetime(2016, 1, 1, 12, 0, tzinfo=UTC)


def flagged(
    sensor: str, time: str, *, score: float, kind: str = "spike", event: int = 0
) -> dict[str, object]:
    return {
        "sensor_name": sensor,
        "timestamp": pd.Timestamp(time, tz="UTC"),
        "sensor_value": 150.0,
        "expected_value": 100.0,
        "score": score,
        "kind": kind,
        "event_id": event,
    }


ANOMALIES = pd.DataFrame(
    [
        flagged("sensor_00001", "2013-10-27 00:30", score=9.0),
        flagged("sensor_00002", "2013-03-01 11:00", score=5.0, kind="burst"),
        flagged("sensor_00002", "2013-03-01 11:15", score=7.0, kind="burst"),
        flagged("sensor_00002", "2013-05-01 10:00", score=6.0, event=1),
    ]
)


def model(sensor: str, **others: object) -> dict[str, object]:
    n_anomalies = int((ANOMALIES["sensor_name"] == sensor).sum())
    return {
        "sensor_name": sensor,
        "model": "linear",
        "breakpoints": [],
        "noise_sd": 10.0,
        "n_points": 1000,
        "n_anomalies": n_anomalies,
        "n_events": n_anomalies,
        "reasoning": f"A straight line is enough for {sensor}.",
        **others,
    }


MODELS = pd.DataFrame([model(f"sensor_{number:05d}") for number in range(3)])


def picture_of(name: str) -> bytes:
    return f"picture of {name}".encode()


def render(
    anomalies: pd.DataFrame = ANOMALIES,
    models: pd.DataFrame = MODELS,
    *,
    most_pictures: int = 12,
    most_events: int = 500,
) -> str:
    return render_report(
        anomalies,
        models,
        picture=picture_of,
        created=CREATED,
        most_pictures=most_pictures,
        most_events=most_events,
    )


def rows(page: str, title: str) -> list[list[str]]:
    """Give the cells of the first table behind a heading."""
    table = page.split(f">{title}<", 1)[1].split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("</tr>")[:-1]]


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
        if tag not in {"img", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    return tags


def test_sensors_are_sorted_by_severity() -> None:
    table = rows(render(), "All sensors")

    assert [row[:2] for row in table] == [
        ["sensor_00002", "13"],
        ["sensor_00001", "9"],
        ["sensor_00000", "0"],
    ]


def test_readings_are_folded_into_events_with_the_highest_score_first() -> None:
    assert rows(render(), "Events") == [
        ["sensor_00001", "spike", "2013-10-27 02:30", "2013-10-27 02:30", "1", "50", "9"],
        ["sensor_00002", "burst", "2013-03-01 12:00", "2013-03-01 12:15", "2", "50", "7"],
        ["sensor_00002", "spike", "2013-05-01 12:00", "2013-05-01 12:00", "1", "50", "6"],
    ]


def test_the_summary_counts_anomalies_by_kind_and_says_when() -> None:
    assert rows(render(), "Sensor anomalies") == [
        ["burst", "1", "2", "1", "2013-03-01 12:00", "2013-03-01 12:15"],
        ["spike", "2", "2", "2", "2013-05-01 12:00", "2013-10-27 02:30"],
    ]


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


def test_the_most_severe_sensors_have_pictures_with_their_reasoning() -> None:
    page = render(most_pictures=1)

    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', page)]
    assert pictures == [b"picture of sensor_00002"]
    assert "<b>sensor_00002</b>: A straight line is enough for sensor_00002.</figcaption>" in page


def test_a_sensor_without_anomalies_has_no_picture() -> None:
    assert render().count("<figure>") == 2


def test_only_the_events_of_the_highest_score_are_listed() -> None:
    page = render(most_events=2)

    assert [row[-1] for row in rows(page, "Events")] == ["9", "7"]
    assert "2 of 3" in page


def test_breakpoints_are_listed_as_berlin_dates() -> None:
    times = np.array(["2013-04-30T23:00", "2014-01-15T12:00"], dtype="datetime64[us]")
    page = render(models=pd.DataFrame([model("sensor_00001", breakpoints=times)]))

    assert "2013-05-01, 2014-01-15" in rows(page, "All sensors")[0]


def test_markup_in_values_is_escaped() -> None:
    name = "<script>alert('x')</script>"
    anomalies = ANOMALIES.assign(sensor_name=name, kind="<b>&")
    models = pd.DataFrame([model(name, model="<i>", reasoning='"><script>', n_anomalies=4)])
    page = render(anomalies, models)

    assert "script" not in parse(page).seen
    assert "&lt;script&gt;alert(" in page


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = render()

    assert parse(page).links
    assert all(link.startswith("data:image/png;base64,") for link in parse(page).links)
    assert not re.search(r"https?:|url\(|@import", page)


def test_the_page_is_well_formed() -> None:
    assert parse(render()).open == []


def test_without_anomalies_the_page_says_so() -> None:
    page = render(ANOMALIES.head(0), MODELS.assign(n_anomalies=0, n_events=0))

    assert "Nothing was flagged." in page
    assert parse(page).open == []
    assert len(rows(page, "All sensors")) == 3


def test_without_sensors_there_is_still_a_page() -> None:
    assert "Nothing was flagged." in render(ANOMALIES.head(0), MODELS.head(0))


def test_the_time_of_creation_is_berlin() -> None:
    assert "Created 2016-01-01 13:00." in render()
