"""The report of a warehouse: its page, its pictures, and what becomes of a sensor that can't be drawn."""

from pathlib import Path

import numpy as np
import pytest

from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.errors import WarehouseUnreachableError
from iot_pipeline.ingest import load_mapping
from iot_pipeline.report import draw, draw_sensor, write_report
from iot_pipeline_tests.conftest import OTHER_SENSOR, SENSOR, Bucket, row

pytestmark = pytest.mark.system

NAMES = {"a": SENSOR, "b": OTHER_SENSOR}
LARGEST = "1.7976931348623157e308"


def judged(bucket: Bucket, errors: dict[str, str]) -> Bucket:
    """Load 200 readings of two sensors, of which one is an error value, and judge them."""
    mapping = "".join(f"{name};{uuid}\n" for name, uuid in NAMES.items())
    (bucket.source / "mapping.csv").write_text(f"sensor_name;sensor_uuid\n{mapping}")
    noise = np.random.default_rng(1).normal(100, 10, 200)
    times = np.datetime64("2013-03-01T00:00:00") + np.arange(200) * np.timedelta64(15, "m")
    for name, uuid in NAMES.items():
        values = [f"{value}" for value in noise]
        values[150] = errors.get(name, values[150])
        rows = [
            row(f"{time}+00:00", uuid, value) for time, value in zip(times.astype(str), values, strict=True)
        ]
        bucket.write(f"{name}.csv", *rows)
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    bucket.load()
    flag_anomalies(warehouse=bucket.warehouse)
    return bucket


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("value", ["1e290", "-1e300", LARGEST, f"-{LARGEST}"])
def test_an_error_value_of_a_device_is_flagged_drawn_and_reported(bucket: Bucket, value: str) -> None:
    judged(bucket, {"a": value})
    assert bucket.sql("SELECT sensor_name, kind, sensor_value FROM anomalies") == [
        ("a", "spike", float(value))
    ]
    report = write_report(warehouse=bucket.warehouse)
    assert list(report.pictures) == ["a"]
    assert report.failed == {}
    page = Path(report.page).read_text()
    assert f"{float(value):.3e}" in page


def test_a_sensor_that_cannot_be_drawn_costs_its_own_picture_and_is_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(bucket, {"a": "1e6", "b": "1e5"})

    def draw_or_fail(name: str, **options: object) -> bytes:
        if name == "a":
            raise OverflowError("too large")
        return draw_sensor(name, warehouse=bucket.warehouse)

    monkeypatch.setattr(draw, "draw_sensor", draw_or_fail)
    report = write_report(warehouse=bucket.warehouse)
    assert report.failed == {"a": "OverflowError: too large"}
    assert list(report.pictures) == ["b"]
    assert "<b>a</b> could not be drawn (OverflowError: too large)" in Path(report.page).read_text()


def test_a_warehouse_that_does_not_answer_is_not_taken_for_a_sensor_that_cannot_be_drawn(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(bucket, {"a": "1e6"})

    def draw_or_fail(name: str, **options: object) -> bytes:
        raise WarehouseUnreachableError("no answer")

    monkeypatch.setattr(draw, "draw_sensor", draw_or_fail)
    with pytest.raises(WarehouseUnreachableError):
        write_report(warehouse=bucket.warehouse)


def test_pictures_of_sensors_that_are_no_longer_among_the_worst_are_removed(bucket: Bucket) -> None:
    judged(bucket, {"a": "1e6", "b": "1e5"})
    write_report(warehouse=bucket.warehouse)
    folder = Path(bucket.warehouse) / "report"
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html",
        "last.json",
        "worst-01.png",
        "worst-02.png",
    ]
    (folder / "notes.txt").write_text("not ours")
    judged(bucket, {"a": "1e6"})
    write_report(warehouse=bucket.warehouse)
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html",
        "last.json",
        "notes.txt",
        "worst-01.png",
    ]


def test_the_page_names_the_source_of_the_settings_and_the_warehouse(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(bucket, {"a": "1e6"})
    monkeypatch.setenv("IOT_SOURCE", str(bucket.source))
    page = Path(write_report(warehouse=bucket.warehouse).page).read_text()
    assert f"<code>{bucket.source}</code>" in page
    assert f"<code>{bucket.warehouse}</code>" in page


def test_a_range_of_the_wrong_way_round_and_one_without_readings_say_so(sample_warehouse: Path) -> None:
    with pytest.raises(ValueError, match="start 2013-10-07 is after end 2013-10-06"):
        draw_sensor("sensor_00003", "2013-10-07", "2013-10-06", warehouse=sample_warehouse)
    with pytest.raises(ValueError, match="it has some from 2013-10-03 16:07 to 2013-11-03 15:02"):
        draw_sensor("sensor_00003", "2014-01-01", warehouse=sample_warehouse)
