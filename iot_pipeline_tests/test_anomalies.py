"""The detector over all sensors of a warehouse, and its tables."""

import csv
from pathlib import Path

import numpy as np
import pytest

from iot_pipeline import anomalies, connect
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.drawing import draw_sensor, write_report
from iot_pipeline.errors import WarehouseNotReadyError
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline_tests.conftest import SAMPLE, Bucket


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """Return a warehouse with the sample bucket loaded, not judged yet."""
    load_mapping(source=str(SAMPLE), warehouse=tmp_path)
    load_timeseries(source=str(SAMPLE), warehouse=tmp_path)
    return tmp_path


def test_most_labelled_readings_of_the_sample_are_flagged_and_few_others(sample_warehouse: Path) -> None:
    with (SAMPLE / "labels.csv").open() as file:
        labels = {(line["sensor_name"], line["timestamp"]) for line in csv.DictReader(file, delimiter=";")}
    with connect(sample_warehouse) as connection:
        flagged = set(
            connection.execute(
                "SELECT sensor_name, replace(timestamp::VARCHAR, ' ', 'T') || ':00' FROM anomalies"
            ).fetchall()
        )
    labels = {(name, time.replace(" ", "T")) for name, time in labels}
    found = labels & flagged
    assert len(found) >= 0.9 * len(labels)
    assert len(found) >= 0.9 * len(flagged)


def test_every_sensor_with_readings_gets_a_model_and_a_reasoning(sample_warehouse: Path) -> None:
    with connect(sample_warehouse) as connection:
        rows = connection.execute(
            "SELECT sensor_name, model, noise_sd, reasoning FROM sensor_models"
        ).fetchall()
    assert len(rows) == 12
    assert all(model and noise_sd > 0 and len(reasoning) > 40 for _, model, noise_sd, reasoning in rows)


def test_the_two_tables_agree(sample_warehouse: Path) -> None:
    with connect(sample_warehouse) as connection:
        differing = connection.execute("""
            SELECT sensor_name FROM sensor_models LEFT JOIN anomalies USING (sensor_name)
            GROUP BY sensor_name, n_anomalies, n_events
            HAVING count(kind) <> n_anomalies OR count(DISTINCT event_id) > n_events
        """).fetchall()
    assert differing == []


def test_a_reader_never_sees_flags_of_one_run_with_models_of_another(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag_anomalies(warehouse=warehouse)
    with connect(warehouse) as connection:
        before = connection.execute("SELECT count(*) FROM anomalies").fetchall()
    publish = anomalies._publish

    def die_between_the_tables(path: Path, *args: object, **options: object) -> int:
        if path.name == "sensor_models":
            raise KeyboardInterrupt
        return publish(path, anomalies.ANOMALIES.empty_table())

    monkeypatch.setattr(anomalies, "_publish", die_between_the_tables)
    with pytest.raises(KeyboardInterrupt):
        flag_anomalies(warehouse=warehouse)
    with connect(warehouse) as connection:
        assert connection.execute("SELECT count(*) FROM anomalies").fetchall() == before


def test_a_sensor_that_can_not_be_judged_is_named_and_stops_no_other(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail_once(timestamps: np.ndarray, values: np.ndarray) -> Detection:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError("no luck")
        return detect_anomalies(timestamps, values)

    monkeypatch.setattr("iot_pipeline.detection.detect_anomalies", fail_once)
    report = flag_anomalies(warehouse=warehouse)
    assert list(report.failed.values()) == ["ZeroDivisionError: no luck"]
    assert report.sensors == 11


def test_sensors_without_readings_are_named(bucket: Bucket) -> None:
    (bucket.source / "mapping.csv").write_bytes((SAMPLE / "mapping" / "mapping.csv").read_bytes())
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    bucket.load()
    report = flag_anomalies(warehouse=bucket.warehouse)
    assert report.sensors == 0
    assert len(report.sensors_without_readings) == 12


def test_nothing_loaded_yet_says_what_to_run(tmp_path: Path) -> None:
    for function in (flag_anomalies, write_report):
        with pytest.raises(WarehouseNotReadyError, match="run: dagster asset materialize"):
            function(warehouse=tmp_path)


def test_a_report_before_any_model_says_what_to_run(warehouse: Path) -> None:
    with pytest.raises(WarehouseNotReadyError, match="--select anomalies"):
        write_report(warehouse=warehouse)


def test_the_report_is_a_page_and_the_pictures_of_sensors_with_anomalies(warehouse: Path) -> None:
    flag_anomalies(warehouse=warehouse)
    report = write_report(warehouse=warehouse)
    with connect(warehouse) as connection:
        names = connection.execute("SELECT DISTINCT sensor_name FROM anomalies").fetchall()
    assert set(report.pictures) == {name for (name,) in names}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in report.pictures.values())
    assert report.page.read_text().startswith("<!doctype html>")


def test_a_picture_can_show_a_part_of_the_time(sample_warehouse: Path) -> None:
    whole = draw_sensor("sensor_00003", warehouse=sample_warehouse)
    part = draw_sensor("sensor_00003", "2013-10-05", "2013-10-07", warehouse=sample_warehouse)
    assert whole.startswith(b"\x89PNG")
    assert part != whole
