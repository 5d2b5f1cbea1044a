"""The detector over all sensors of a warehouse, and its tables."""

import csv
import errno
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from iot_pipeline import connect, detection
from iot_pipeline.anomalies import FlagReport, flag_anomalies, judge, tables
from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.errors import WarehouseError, WarehouseNotReadyError
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.report import draw_sensor, write_report
from iot_pipeline.samples.series import ANOMALIES
from iot_pipeline.store import DirectoryStore, Store
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.state import verdicts_tables
from iot_pipeline.warehouse.tables import read_table
from iot_pipeline_tests.conftest import SAMPLE, Bucket, row
from iot_pipeline_tests.detection.series import sensor


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """Return a warehouse with the sample bucket loaded, not judged yet."""
    load_mapping(source=str(SAMPLE), warehouse=tmp_path)
    load_timeseries(source=str(SAMPLE), warehouse=tmp_path)
    return tmp_path


def raise_detector_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "DETECTOR_VERSION", detection.DETECTOR_VERSION + 1)


Rows = list[dict[str, object]]


def verdicts(warehouse: Path) -> tuple[Rows, Rows, Rows]:
    """Return the rows of the tables, the sensors' fingerprints included."""
    opened = open_warehouse(warehouse)
    found = tables.read_verdicts(opened, verdicts_tables(opened))
    models = found.models.drop_columns("inputs")
    return found.events.to_pylist(), found.anomalies.to_pylist(), models.to_pylist()


def without_ids(rows: tuple[Rows, ...]) -> list[Rows]:
    """Return rows without what events are called, which depends on what was judged before."""
    names = {"event_id", "remembered"}
    return [
        [{name: value for name, value in row.items() if name not in names} for row in table] for table in rows
    ]


class Sensors:
    """A bucket with seeded sensors, some of them in the mapping."""

    def __init__(self, bucket: Bucket, points: int = 1_500) -> None:
        self.bucket = bucket
        self._uuids = {name: str(UUID(int=number)) for number, name in enumerate("abcd", 1)}
        self._files = 0
        for seed, name in enumerate("abc"):
            series = sensor("linear", "gaussian", *ANOMALIES, seed=seed, points=points)
            self.add(name, series.timestamps, series.values)
        self.map("abc")

    def add(self, name: str, timestamps: Iterable[np.datetime64], values: Iterable[float]) -> None:
        """Load another file of a sensor's readings."""
        lines = [
            row(f"{time}+00:00".replace("T", " "), self._uuids[name], value)
            for time, value in zip(timestamps, values, strict=True)
        ]
        self._files += 1
        self.bucket.write(f"{self._files}.csv", *lines)
        self.bucket.load()

    def map(self, names: str) -> None:
        """Load a mapping of these sensors only."""
        lines = ["sensor_name;sensor_uuid", *(f"{name};{self._uuids[name]}" for name in names)]
        (self.bucket.source / "mapping.csv").write_text("\n".join(lines) + "\n")
        load_mapping(source=str(self.bucket.source), warehouse=self.bucket.warehouse)

    def judge(self) -> FlagReport:
        return flag_anomalies(warehouse=self.bucket.warehouse)

    def verdicts(self) -> tuple[Rows, Rows, Rows]:
        return verdicts(self.bucket.warehouse)

    def verdicts_from_nothing(self) -> tuple[Rows, Rows, Rows]:
        """Judge a copy of the warehouse in which nothing has been judged."""
        judged = shutil.ignore_patterns("events", "anomalies", "incidents", "sensor_models")
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(self.bucket.warehouse, Path(folder) / "warehouse", ignore=judged)
            assert flag_anomalies(warehouse=copy).sensors_refitted > 0
            return verdicts(copy)


@pytest.fixture
def sensors(bucket: Bucket) -> Sensors:
    """Return three sensors that have been loaded and judged once."""
    made = Sensors(bucket)
    assert made.judge().sensors_refitted == 3
    return made


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


def test_the_tables_agree(sample_warehouse: Path) -> None:
    with connect(sample_warehouse) as connection:
        differing = connection.execute("""
            SELECT sensor_name FROM sensor_models LEFT JOIN events USING (sensor_name)
            GROUP BY sensor_name, n_anomalies, n_events
            HAVING coalesce(sum(n_readings), 0) <> n_anomalies OR count(event_id) <> n_events
        """).fetchall()
        apart = connection.execute("""
            SELECT event_id FROM events FULL JOIN anomalies USING (event_id)
            GROUP BY event_id, n_readings, events.kind, events.sensor_name, "end", peak_score
            HAVING count(anomalies.kind) IS DISTINCT FROM n_readings
                OR any_value(anomalies.kind) IS DISTINCT FROM events.kind
                OR any_value(anomalies.sensor_name) IS DISTINCT FROM events.sensor_name
                OR max(timestamp) IS DISTINCT FROM "end"
                OR max(score) IS DISTINCT FROM peak_score
        """).fetchall()
    assert differing == apart == []


def test_a_gap_starts_at_the_last_reading_before_it_and_has_no_deviation(sample_warehouse: Path) -> None:
    with connect(sample_warehouse) as connection:
        found = connection.execute("""
            SELECT max(timestamp) = any_value(start), any_value(mean_residual)
            FROM events JOIN measurements USING (sensor_name)
            WHERE kind = 'gap' AND timestamp < "end"
            GROUP BY event_id
        """).fetchall()
    assert found == [(True, None), (True, None)]


@pytest.mark.system
def test_a_reader_never_sees_flags_of_one_run_with_models_of_another(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag_anomalies(warehouse=warehouse)
    counts = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM anomalies)"
    with connect(warehouse) as connection:
        before = connection.execute(counts).fetchall()
    publish = tables._publish

    def die_between_the_tables(folder: Store, rows: pa.Table, onto: Any, **options: Any) -> Any:
        if folder.url.endswith("sensor_models"):
            raise KeyboardInterrupt
        return publish(folder, rows.slice(0, 0), onto, **options)

    monkeypatch.setattr(tables, "_publish", die_between_the_tables)
    raise_detector_version(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        flag_anomalies(warehouse=warehouse)
    with connect(warehouse) as connection:
        assert connection.execute(counts).fetchall() == before


def test_a_sensor_that_can_not_be_judged_is_named_and_stops_no_other(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail_once(timestamps: np.ndarray, values: np.ndarray, _: object) -> Detection:
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
        with pytest.raises(WarehouseNotReadyError, match="run: iot-pipeline load"):
            function(warehouse=tmp_path)


def test_a_report_before_any_model_says_what_to_run(warehouse: Path) -> None:
    with pytest.raises(WarehouseNotReadyError, match="--only anomalies"):
        write_report(warehouse=warehouse)


@pytest.mark.system
def test_the_report_is_a_page_and_the_pictures_of_sensors_with_anomalies(warehouse: Path) -> None:
    flag_anomalies(warehouse=warehouse)
    report = write_report(warehouse=warehouse)
    with connect(warehouse) as connection:
        names = connection.execute("SELECT DISTINCT sensor_name FROM anomalies").fetchall()
    assert set(report.pictures) == {name for (name,) in names}
    assert all(picture.startswith(b"\x89PNG") for picture in report.pictures.values())
    assert Path(report.page).read_text().startswith("<!doctype html>")


@pytest.mark.system
def test_a_disk_that_is_full_when_the_report_is_written_is_one_line_and_keeps_the_old_page(
    sample_warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    page = Path(write_report(warehouse=warehouse).page)
    before = page.read_text()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(WarehouseError, match=r"^can't write .*report/.*: No space left on device$"):
            write_report(warehouse=warehouse)
    assert page.read_text() == before


def test_a_picture_can_show_a_part_of_the_time(sample_warehouse: Path) -> None:
    whole = draw_sensor("sensor_00003", warehouse=sample_warehouse)
    part = draw_sensor("sensor_00003", "2013-10-05", "2013-10-07", warehouse=sample_warehouse)
    assert whole.startswith(b"\x89PNG")
    assert part != whole


def test_when_nothing_is_new_nothing_is_read_or_written_and_the_report_is_the_same(
    sensors: Sensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sensors.verdicts()
    before_versions = versions(sensors.bucket.warehouse)
    raise_detector_version(monkeypatch)
    first = sensors.judge()
    monkeypatch.setattr(judge, "read_readings", None)
    second = sensors.judge()
    assert second == replace(first, sensors_refitted=0)
    assert sensors.verdicts()[:2] == before[:2]
    assert versions(sensors.bucket.warehouse) == [version + 1 for version in before_versions]


def versions(warehouse: Path) -> list[int]:
    opened = open_warehouse(warehouse)
    tables = [read_table(table) for table in (opened.events, opened.anomalies, opened.sensor_models)]
    return [table.version.number for table in tables if table]


def test_only_the_sensor_with_a_new_reading_is_fitted_again(sensors: Sensors) -> None:
    before = sensors.verdicts()
    sensors.add("b", [np.datetime64("2013-03-01T00:00:00")], [1e6])
    report = sensors.judge()
    after = sensors.verdicts()
    assert report.sensors_refitted == 1
    assert report.sensors == 3
    for old, new in zip(before, after, strict=True):
        for name in "ac":
            assert [r for r in new if r["sensor_name"] == name] == [
                r for r in old if r["sensor_name"] == name
            ]
    assert 1e6 in [r["sensor_value"] for r in after[1] if r["sensor_name"] == "b"]


def test_new_files_with_known_readings_change_no_verdict(sensors: Sensors) -> None:
    before = sensors.verdicts()
    sensors.bucket.load(full_reload=True)
    assert sensors.judge().sensors_refitted == 0
    assert sensors.verdicts() == before


def test_a_run_after_changes_gives_what_a_run_from_nothing_gives(sensors: Sensors) -> None:
    sensors.add("b", [np.datetime64("2013-03-01T00:00:00")], [1e6])
    sensors.map("bc")
    sensors.judge()
    sensors.map("abc")
    sensors.judge()
    assert without_ids(sensors.verdicts()) == without_ids(sensors.verdicts_from_nothing())


def test_another_detector_judges_all_sensors_anew(sensors: Sensors, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_detector_version(monkeypatch)
    assert sensors.judge().sensors_refitted == 3


def test_a_sensor_that_leaves_the_mapping_leaves_all_tables(sensors: Sensors) -> None:
    sensors.map("ac")
    report = sensors.judge()
    assert (report.sensors, report.sensors_refitted) == (2, 0)
    for rows in sensors.verdicts():
        assert {r["sensor_name"] for r in rows} == {"a", "c"}


def test_a_sensor_that_could_not_be_judged_is_tried_again(
    warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("iot_pipeline.detection.detect_anomalies", None)
        assert len(flag_anomalies(warehouse=warehouse).failed) == 12
    report = flag_anomalies(warehouse=warehouse)
    assert (report.sensors_refitted, report.failed) == (12, {})


def test_a_table_that_lacks_columns_of_the_detector_gets_them_and_all_sensors_are_fitted(
    sensors: Sensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sensors.verdicts()
    warehouse = open_warehouse(sensors.bucket.warehouse)
    shutil.rmtree(warehouse.sensor_models.url)
    new = {"fingerprint", "inputs", "remembered"}
    fields = [field for field in tables.SENSOR_MODELS if field.name not in new]
    with monkeypatch.context() as patch:
        patch.setattr(tables, "SENSOR_MODELS", pa.schema(fields))
        old = tables.Verdicts(
            pa.Table.from_pylist(expected[0], tables.EVENTS),
            pa.Table.from_pylist(expected[1], tables.ANOMALIES),
            pa.Table.from_pylist(expected[2], pa.schema(fields)),
        )
        tables.publish_verdicts(warehouse, old, onto=verdicts_tables(warehouse, writing=True))
    assert sensors.judge().sensors_refitted == 3
    assert sensors.verdicts() == expected
    columns = DeltaTable(warehouse.sensor_models.url).schema().fields
    assert new <= {field.name for field in columns}


def test_a_judgement_that_a_newer_load_and_judgement_overtake_publishes_nothing_older(
    sensors: Sensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_lock = DirectoryStore.lock
    overtaken: list[FlagReport] = []

    def overtake(folder: DirectoryStore, name: str) -> Any:
        if name == "anomalies" and not overtaken:
            overtaken.append(FlagReport(0, 0, (), 0, {}, {}, 0, {}))
            sensors.add("b", [np.datetime64("2013-03-01T00:00:00")], [1e6])
            overtaken[0] = sensors.judge()
        return take_lock(folder, name)

    sensors.add("a", [np.datetime64("2013-03-01T00:00:00")], [0.5])
    monkeypatch.setattr(DirectoryStore, "lock", overtake)
    report = sensors.judge()
    assert report == replace(overtaken[0], sensors_refitted=0)
    assert 1e6 in [flagged["sensor_value"] for flagged in sensors.verdicts()[1]]


def test_people_see_the_columns_of_the_models_without_the_fingerprint(sensors: Sensors) -> None:
    with connect(sensors.bucket.warehouse) as connection:
        columns = [name for name, *_ in connection.execute("DESCRIBE sensor_models").fetchall()]
    assert columns == [
        "sensor_name",
        "model",
        "breakpoints",
        "noise_sd",
        "n_points",
        "n_anomalies",
        "n_events",
        "reasoning",
    ]


@pytest.mark.system
def test_a_level_shift_that_goes_on_over_five_nightly_loads_stays_one_event(sensors: Sensors) -> None:
    history, day = 300 * 24, 24
    times = np.datetime64("2014-01-01T00:00:00") + np.arange(history + 5 * day) * np.timedelta64(1, "h")
    values = np.random.default_rng(5).normal(50, 10, len(times))
    values[history + 6 :] += 60
    sensors.map("abcd")
    seen: list[tuple[Any, ...]] = []
    for night in range(5):
        new = slice(history + night * day if night else 0, history + (night + 1) * day)
        sensors.add("d", times[new], values[new])
        sensors.judge()
        seen += sensors.bucket.sql("""
            SELECT event_id, kind, n_readings FROM events WHERE sensor_name = 'd' AND n_readings > 2
        """)
    assert [n_readings for _, _, n_readings in seen] == [18, 42, 66, 90, 114]
    assert {kind for _, kind, _ in seen} == {"burst", "level_shift"}
    assert len({event_id for event_id, *_ in seen}) == 1
