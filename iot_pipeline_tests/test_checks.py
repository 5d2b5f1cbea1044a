"""The asset checks: what each lets pass, what each finds, and how it names it."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest

from iot_pipeline.anomalies import annotate, flag_anomalies
from iot_pipeline.definitions import defs
from iot_pipeline.defs import checking, checks, event_checks
from iot_pipeline.detection import detect_anomalies
from iot_pipeline.ingest import load_mapping
from iot_pipeline.ingest.ledger import read_ledger, write_ledger
from iot_pipeline.warehouse import MAPPING, open_warehouse, quality
from iot_pipeline.warehouse.state import readings_tables
from iot_pipeline.warehouse.status import read_status
from iot_pipeline_tests.conftest import BERLIN, OTHER_SENSOR, SENSOR, Bucket, row
from iot_pipeline_tests.runs import (
    check_of,
    definitions_on,
    failure_of,
    materialize,
    measurements_in,
    metadata_of,
)

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=400)


def evaluate(check: dg.AssetChecksDefinition, warehouse: Path) -> dg.AssetCheckResult:
    """Evaluate a check on what has been loaded."""
    results: Any = check(measurements_in(warehouse))
    result = next(results)  # it may raise after that
    assert isinstance(result, dg.AssetCheckResult)
    return result


def verdict(result: dg.AssetCheckResult) -> bool | dg.AssetCheckSeverity:
    """Return True for a check that passes, else how severe its failure is."""
    return result.passed or result.severity


def shown(result: dg.AssetCheckResult) -> dict[str, Any]:
    metadata = {name: getattr(value, "value", value) for name, value in (result.metadata or {}).items()}
    return {name: value for name, value in metadata.items() if name != "warehouse"}


def map_sensors(bucket: Bucket, **sensors: str) -> None:
    lines = ["sensor_name;sensor_uuid", *(f"{name};{uuid}" for name, uuid in sensors.items())]
    (bucket.source / "mapping.csv").write_text("\n".join(lines))
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)


def test_these_checks_are_made_and_each_says_what_to_do_if_it_fails() -> None:
    graph = defs.resolve_asset_graph()
    found = {key: graph.get(key) for key in graph.asset_check_keys}
    assert {(key.asset_key.to_user_string(), key.name) for key in found} == {
        ("mapping", "mapping_is_one_to_one"),
        ("timeseries", "every_row_is_accounted_for"),
        ("timeseries", "no_file_is_quarantined"),
        ("timeseries", "few_rows_are_rejected"),
        ("timeseries", "every_sensor_is_mapped"),
        ("timeseries", "every_sensor_has_readings"),
        ("timeseries", "no_sensor_fell_silent"),
        ("timeseries", "newest_reading_is_recent"),
        ("anomalies", "few_readings_are_anomalous"),
        ("events", "events_belong_to_flagged_readings"),
        ("events", "few_sensors_at_once"),
        ("sensor_models", "every_sensor_is_judged"),
    }
    for node in found.values():
        assert "If it " in (node.description or "")
    assert {key.name for key, node in found.items() if node.blocking} == {"every_row_is_accounted_for"}


ALL_CHECKS = [
    value
    for module in (checks, event_checks)
    for value in vars(module).values()
    if isinstance(value, dg.AssetChecksDefinition)
]


@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.check_key.name)
def test_a_check_passes_on_the_sample_bucket(check: dg.AssetChecksDefinition, sample_warehouse: Path) -> None:
    assert verdict(evaluate(check, sample_warehouse)) is True


@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.check_key.name)
def test_a_check_of_an_empty_warehouse_says_what_to_run(
    check: dg.AssetChecksDefinition, tmp_path: Path
) -> None:
    with pytest.raises(dg.Failure, match=r"run: iot-pipeline load --only \w+") as caught:
        evaluate(check, tmp_path)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------- mapping


def test_a_mapping_can_be_checked_before_any_reading_is_loaded(bucket: Bucket) -> None:
    map_sensors(bucket, first=SENSOR, second=OTHER_SENSOR)
    result = evaluate(checks.mapping_is_one_to_one, bucket.warehouse)
    assert verdict(result) is True
    assert shown(result)["sensors"] == 2


@pytest.mark.parametrize(
    ("rows", "names", "uuids"),
    [
        ([("a", "1"), ("a", "2")], "a: 2", "none"),
        ([("a", "1"), ("b", "1")], "none", "1: 2"),
        ([], "none", "none"),
    ],
)
def test_a_mapping_that_was_tampered_with_is_an_error(
    bucket: Bucket, rows: list[tuple[str, str]], names: str, uuids: str
) -> None:
    bucket.warehouse.mkdir()
    with closing(sqlite3.connect(bucket.warehouse / MAPPING)) as connection, connection:
        connection.execute("CREATE TABLE sensors (sensor_name TEXT, sensor_uuid TEXT)")
        connection.executemany("INSERT INTO sensors VALUES (?, ?)", rows)
    result = evaluate(checks.mapping_is_one_to_one, bucket.warehouse)
    assert verdict(result) is ERROR
    assert (shown(result)["names_that_stand_twice"], shown(result)["uuids_that_stand_twice"]) == (
        names,
        uuids,
    )


def test_a_sensor_with_readings_that_the_mapping_lacks_is_a_warning_that_names_it(bucket: Bucket) -> None:
    bucket.write("a.csv", row(), row(uuid=OTHER_SENSOR))
    bucket.load()
    map_sensors(bucket, first=SENSOR)
    result = evaluate(checks.every_sensor_is_mapped, bucket.warehouse)
    assert verdict(result) is WARN
    assert shown(result)["uuids_and_readings"] == f"{OTHER_SENSOR}: 1"
    map_sensors(bucket, first=SENSOR, second=OTHER_SENSOR)
    assert verdict(evaluate(checks.every_sensor_is_mapped, bucket.warehouse)) is True


def test_a_mapped_sensor_without_readings_is_a_warning_that_names_it(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.load()
    map_sensors(bucket, first=SENSOR, second=OTHER_SENSOR)
    result = evaluate(checks.every_sensor_has_readings, bucket.warehouse)
    assert verdict(result) is WARN
    assert shown(result) == {"sensors_without_readings": 1, "names": "second"}
    map_sensors(bucket, first=SENSOR)
    assert verdict(evaluate(checks.every_sensor_has_readings, bucket.warehouse)) is True


# ------------------------------------------------------------------------ rows and files


def claim_one_row_more(bucket: Bucket) -> None:
    """Claim in the ledger that one row more was loaded than is in the table."""
    warehouse = open_warehouse(bucket.warehouse)
    tables = readings_tables(warehouse)
    files = read_ledger(warehouse, tables.last)
    (entry,) = files.values()
    entry.info = replace(entry.info, rows_read=entry.info.rows_read + 1)
    entry.loaded = {"2013-01": entry.loaded["2013-01"] + 1}
    assert tables.pinned
    write_ledger(warehouse, files, tables.pinned["timeseries"].version, onto=tables.last)


@pytest.mark.system
@pytest.mark.parametrize("tampered", [False, True])
def test_a_row_that_is_not_accounted_for_is_an_error_that_fails_the_run(
    bucket: Bucket, *, tampered: bool
) -> None:
    bucket.write("a.csv", *(row(value=value) for value in range(20)), "no row")
    bucket.load()
    if tampered:
        claim_one_row_more(bucket)
    result = materialize(definitions_on(bucket.source, bucket.warehouse), "timeseries")
    evaluation = check_of(result, "every_row_is_accounted_for")
    assert (evaluation.passed, evaluation.severity) == (not tampered, ERROR)
    assert result.success is not tampered


def test_a_flood_of_refused_rows_is_accounted_for_and_counted_by_reason(bucket: Bucket) -> None:
    bucket.write("a.csv", row(), *["no row"] * 1_500)
    bucket.load()
    result = evaluate(checks.every_row_is_accounted_for, bucket.warehouse)
    assert verdict(result) is True
    assert shown(result)["rows_in_quarantine"] == 1_500
    rejected = shown(evaluate(checks.few_rows_are_rejected, bucket.warehouse))
    assert rejected["reasons_and_rows"] == "wrong number of fields: 1500"
    assert read_status(bucket.warehouse).rejected_rows == {"wrong number of fields": 1_500}


def test_a_file_that_broke_is_an_error_that_names_it_until_it_is_mended(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.load()
    bucket.write("a.csv", b"<html></html>")
    for _ in range(2):
        bucket.load()
        result = evaluate(checks.no_file_is_quarantined, bucket.warehouse)
        assert verdict(result) is ERROR
        assert shown(result)["files_and_reasons"].startswith("Timeseries/a.csv: ")
        assert verdict(evaluate(checks.every_row_is_accounted_for, bucket.warehouse)) is True
    bucket.write("a.csv", row())
    bucket.load()
    assert verdict(evaluate(checks.no_file_is_quarantined, bucket.warehouse)) is True


def test_a_file_that_is_quarantined_is_an_error_that_names_it_and_the_reason(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.load()
    assert verdict(evaluate(checks.no_file_is_quarantined, bucket.warehouse)) is True
    bucket.write("b.csv", b"<html></html>")
    bucket.load()
    result = evaluate(checks.no_file_is_quarantined, bucket.warehouse)
    assert verdict(result) is ERROR
    assert shown(result)["files_quarantined"] == 1
    assert shown(result)["files_and_reasons"].startswith("Timeseries/b.csv: ")


def test_a_file_that_stays_quarantined_is_a_warning_from_the_next_load_on(bucket: Bucket) -> None:
    bucket.write("a.csv", b"<html></html>")
    bucket.load()
    bucket.write("b.csv", row())
    bucket.load()
    result = evaluate(checks.no_file_is_quarantined, bucket.warehouse)
    assert verdict(result) is WARN
    assert shown(result)["files_and_reasons"].startswith("Timeseries/a.csv: ")


def test_a_night_that_brings_nothing_makes_no_error_of_a_damaged_file_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("a.csv", b"<html></html>")
    bucket.write("b.csv", row(), "refused")
    bucket.load()
    monkeypatch.setattr(quality, "NEWS", timedelta())  # half a day has passed
    bucket.load()
    assert verdict(evaluate(checks.no_file_is_quarantined, bucket.warehouse)) is WARN
    assert verdict(evaluate(checks.few_rows_are_rejected, bucket.warehouse)) is WARN


def test_more_rejected_rows_than_the_limit_are_a_warning_that_names_reasons_and_files(
    bucket: Bucket,
) -> None:
    bucket.write("a.csv", *(row(value=value) for value in range(99)), "no row")
    bucket.load()
    assert verdict(evaluate(checks.few_rows_are_rejected, bucket.warehouse)) is True
    bucket.write("b.csv", *(row(value=value) for value in range(48)), row(value="nan"), row(value="nan"))
    bucket.load()
    result = evaluate(checks.few_rows_are_rejected, bucket.warehouse)
    assert verdict(result) is WARN
    assert shown(result) == {
        "share_rejected": 0.02,
        "share_rejected_in_the_last_load": 0.04,
        "limit": "1%",
        "rows_rejected": 3,
        "reasons_and_rows": "bad sensor_value: 2; wrong number of fields: 1",
        "files_beyond_the_limit": 1,
        "files_and_rows": "Timeseries/b.csv: 2 of 50 rows rejected",
    }


def load_a_rotten_file_after_many_good_ones(bucket: Bucket) -> None:
    for day in range(1, 10):
        bucket.write(f"{day}.csv", *(row(f"2013-01-0{day} 12:00", value=value) for value in range(200)))
    bucket.load()
    bucket.write("rotten.csv", row("2013-01-10 12:00"), *(["no row"] * 9))
    bucket.load()


def test_a_rotten_file_among_many_good_ones_is_an_error_that_names_it(bucket: Bucket) -> None:
    load_a_rotten_file_after_many_good_ones(bucket)
    result = evaluate(checks.few_rows_are_rejected, bucket.warehouse)
    assert verdict(result) is ERROR
    assert shown(result)["share_rejected"] < quality.MOST_REJECTED
    assert shown(result)["files_and_rows"] == "Timeseries/rotten.csv: 9 of 10 rows rejected"


def test_many_small_losses_in_one_load_are_a_warning(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iot_pipeline.warehouse.quality.MOST_REJECTED", 1.0)
    bucket.write("a.csv", *(row(value=value) for value in range(990)))
    bucket.load()
    for name in ("b.csv", "c.csv"):
        bucket.write(name, *(row(value=1000 + value) for value in range(90)), "no row", "no row")
    bucket.load()
    result = evaluate(checks.few_rows_are_rejected, bucket.warehouse)
    assert verdict(result) is WARN
    assert shown(result)["share_rejected"] < quality.MOST_REJECTED
    assert shown(result)["share_rejected_in_the_last_load"] == 0.021739


@pytest.mark.system
def test_what_is_judged_without_the_rows_of_a_rotten_file_says_so(bucket: Bucket) -> None:
    map_sensors(bucket, first=SENSOR)
    load_a_rotten_file_after_many_good_ones(bucket)
    result = materialize(definitions_on(bucket.source, bucket.warehouse), "anomalies", "sensor_models")
    assert metadata_of(result, "anomalies")["judged_without"] == [
        "Timeseries/rotten.csv: 9 of 10 rows rejected"
    ]


@pytest.mark.system
def test_a_run_in_which_a_check_fails_as_an_error_fails_and_names_file_and_warehouse(bucket: Bucket) -> None:
    map_sensors(bucket, first=SENSOR)
    bucket.write("a.csv", row())
    bucket.write("b.csv", b"<html></html>")
    result = materialize(definitions_on(bucket.source, bucket.warehouse))
    assert not result.success
    assert failure_of(result).startswith(f"no_file_is_quarantined failed in {bucket.warehouse}: ")
    assert "Timeseries/b.csv" in failure_of(result)
    assert "\n" not in failure_of(result)


@pytest.mark.system
def test_what_is_downstream_of_a_check_that_is_not_blocking_is_made_all_the_same(bucket: Bucket) -> None:
    map_sensors(bucket, first=SENSOR)
    bucket.write("a.csv", row())
    bucket.write("b.csv", b"<html></html>")
    result = materialize(definitions_on(bucket.source, bucket.warehouse))
    assert metadata_of(result, "anomaly_report")["page"]


# ------------------------------------------------------------------------- who still sends


def test_a_sensor_that_fell_silent_is_a_warning_that_names_it_and_its_last_reading(bucket: Bucket) -> None:
    map_sensors(bucket, first=SENSOR, second=OTHER_SENSOR)
    bucket.write("a.csv", row("2013-01-01 12:00"), row("2013-01-03 12:00", uuid=OTHER_SENSOR))
    bucket.load()
    assert verdict(evaluate(checks.no_sensor_fell_silent, bucket.warehouse)) is True
    bucket.write("b.csv", row("2013-01-03 12:01", uuid=OTHER_SENSOR))
    bucket.load()
    result = evaluate(checks.no_sensor_fell_silent, bucket.warehouse)
    assert verdict(result) is WARN
    assert shown(result)["names_and_last_readings"] == "first: 2013-01-01 12:00:00+01:00"


def load_at(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, reading: datetime, loaded: datetime) -> None:
    """Load a file with a reading as if that had been done at another time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls.fromtimestamp(loaded.timestamp(), tz)

    bucket.write(f"{loaded:%Y-%m-%d}.csv", row(str(reading)))
    with monkeypatch.context() as patch:
        patch.setattr("iot_pipeline.ingest.load.datetime", Clock)
        bucket.load()


@pytest.mark.parametrize(
    ("ages", "expected", "feed"),
    [
        ((timedelta(hours=20), timedelta(hours=8)), True, "live"),
        ((timedelta(days=3), timedelta(days=2)), ERROR, "live"),
        ((timedelta(days=400), timedelta(days=399)), ERROR, "live"),
        ((timedelta(days=400), timedelta(hours=8)), True, "archive"),
    ],
    ids=["the feed is alive", "it has stopped", "it stopped long ago", "an old bucket was loaded just now"],
)
def test_a_live_feed_that_stopped_is_an_error_and_an_archive_is_none(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    ages: tuple[timedelta, timedelta],
    expected: object,
    feed: str,
) -> None:
    reading, load = ages
    load_at(bucket, monkeypatch, NOW - reading, NOW - load)
    result = evaluate(checks.newest_reading_is_recent, bucket.warehouse)
    assert verdict(result) is expected
    assert shown(result)["feed"] == feed


def test_a_feed_that_stopped_says_since_when_as_berlins_clock_shows_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = NOW - timedelta(days=3)
    load_at(bucket, monkeypatch, stopped, NOW - timedelta(days=2))
    results: Any = checks.newest_reading_is_recent(measurements_in(bucket.warehouse))
    next(results)
    with pytest.raises(dg.Failure, match=f"last_reading {stopped.astimezone(BERLIN):%Y-%m-%d %H:%M},"):
        next(results)


def test_an_old_file_does_not_hide_that_a_live_feed_stopped(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_at(bucket, monkeypatch, NOW - timedelta(days=6), NOW - timedelta(days=5))
    load_at(bucket, monkeypatch, LONG_AGO, NOW)
    assert verdict(evaluate(checks.newest_reading_is_recent, bucket.warehouse)) is ERROR


# ------------------------------------------------------------------------------ anomalies


def test_more_anomalous_readings_than_the_limit_are_a_warning_that_names_sensors(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_checks, "MOST_ANOMALOUS", 0.001)
    result = evaluate(event_checks.few_readings_are_anomalous, sample_warehouse)
    assert verdict(result) is WARN
    first, *others = shown(result)["names_and_shares"].split("; ")
    assert first.startswith("sensor_000")
    assert 0 < len(others) < checking.NAMED


def test_the_longest_gaps_are_named_with_their_length(sample_warehouse: Path) -> None:
    found = shown(evaluate(event_checks.few_readings_are_anomalous, sample_warehouse))["longest_gaps"]
    assert found == ("sensor_00007: 11.1 h from 2013-10-16 20:41; sensor_00000: 9.7 h from 2013-10-27 19:42")


def test_what_is_said_to_be_a_false_alarm_counts_no_more(sample_warehouse: Path, tmp_path: Path) -> None:
    warehouse = shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    annotate("*", "2013-01-01", "2014-01-01", "false_alarm", warehouse=warehouse)
    found = shown(evaluate(event_checks.few_readings_are_anomalous, warehouse))
    assert (found["share_anomalous"], found["names_and_shares"], found["longest_gaps"]) == (0, "none", "none")


def test_events_that_lost_their_readings_are_an_error_that_names_them(
    sample_warehouse: Path, tmp_path: Path
) -> None:
    warehouse = shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    (path,) = (warehouse / "anomalies").glob("part-*.parquet")
    flagged = pq.read_table(path)
    pq.write_table(flagged.slice(1), path)
    result = evaluate(event_checks.events_belong_to_flagged_readings, warehouse)
    assert verdict(result) is ERROR
    event_id = flagged["event_id"][0].as_py()
    assert shown(result)["ids_and_readings"] == f"{event_id}: 1 readings, 0 of them flagged"


@pytest.mark.parametrize(("days", "expected"), [(0, WARN), (3, True)], ids=["today", "three days ago"])
def test_what_happened_to_many_sensors_within_the_last_day_is_a_warning_that_names_it(
    bucket: Bucket, days: int, expected: object
) -> None:
    uuids = [f"{number:08}{SENSOR[8:]}" for number in range(8)]
    map_sensors(bucket, **{f"s{number}": uuid for number, uuid in enumerate(uuids)})
    random = np.random.default_rng(1)
    end = datetime(2013, 2, 1) - timedelta(days=days)
    lines = [
        row(f"{time:%Y-%m-%d %H:%M}", uuid, random.normal())
        for minute in range(0, 31 * 24 * 60, 15)
        if not end - timedelta(hours=12) < (time := datetime(2013, 1, 1) + timedelta(minutes=minute)) < end
        for uuid in uuids
    ]
    bucket.write("a.csv", *lines, *(row("2013-02-01 01:00", uuid) for uuid in uuids))
    bucket.load()
    flag_anomalies(warehouse=bucket.warehouse)
    result = evaluate(event_checks.few_sensors_at_once, bucket.warehouse)
    assert verdict(result) is expected
    if not result.passed:
        assert shown(result)["at_once"].startswith(
            "8 sensors from 2013-01-31 12:00 on (gap), the strongest s"
        )


@pytest.mark.system
def test_a_sensor_that_could_not_be_judged_is_an_error_that_names_it_and_the_others_are_judged(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_negative_values(times: Any, values: Any, _: Any) -> Any:
        if (values < 0).any():
            raise ZeroDivisionError("no noise")
        return detect_anomalies(times, values)

    map_sensors(bucket, first=SENSOR, second=OTHER_SENSOR)
    bucket.write("a.csv", row(value=1), row(uuid=OTHER_SENSOR, value=-1))
    bucket.load()
    definitions = definitions_on(bucket.source, bucket.warehouse)
    with monkeypatch.context() as patch:
        patch.setattr("iot_pipeline.detection.detect_anomalies", refuse_negative_values)
        result = materialize(definitions, "anomalies", "sensor_models")
    assert failure_of(result) == "these sensors could not be judged: second"
    evaluation = check_of(result, "every_sensor_is_judged")
    assert not evaluation.passed
    assert evaluation.metadata["names_and_errors"].value == "second: ZeroDivisionError: no noise"
    assert bucket.sql("SELECT sensor_name FROM sensor_models") == [("first",)]
    assert check_of(materialize(definitions, "anomalies", "sensor_models"), "every_sensor_is_judged").passed
