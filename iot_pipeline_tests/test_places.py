"""One bucket, loaded into a directory or S3, by one process or a cluster: the same content and safety."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from botocore.client import BaseClient
from deltalake import DeltaTable
from pytest import MonkeyPatch  # noqa: PT013 - a context of its own

from iot_pipeline import connect, get_measurements
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.cli import main
from iot_pipeline.errors import (
    ConfigurationError,
    DamagedTableError,
    IotPipelineError,
    WarehouseBusyError,
    WarehouseError,
    WarehouseUnreachableError,
)
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.report import write_report
from iot_pipeline.store import S3Store
from iot_pipeline.warehouse import open_folder, open_warehouse, query
from iot_pipeline.warehouse.delta import DataFile, commit
from iot_pipeline.warehouse.tables import Version, read_table
from iot_pipeline_tests.conftest import OTHER_SENSOR, SAMPLE, SENSOR, Bucket, csv_of, row
from iot_pipeline_tests.dask_cluster import Cluster
from iot_pipeline_tests.ingest.test_crashes import committed_content, write_version
from iot_pipeline_tests.test_query import load_meanwhile

pytestmark = pytest.mark.system

VIEWS = {
    "measurements": "*",
    "sensors": "*",
    "rejected_rows": "*",
    "events": "*",
    "incidents": "*",
    "anomalies": "*",
    "sensor_models": "*",
    "source_files": "* EXCLUDE (loaded_at, fragment, version)",
}


@pytest.fixture
def s3_bucket(bucket: Bucket, s3_folder: str) -> Bucket:
    return replace(bucket, warehouse=s3_folder)


@pytest.fixture(params=["a directory", "S3"])
def place(request: pytest.FixtureRequest, bucket: Bucket) -> Bucket:
    """Return a bucket with a warehouse in each kind of place."""
    if request.param == "S3":
        return replace(bucket, warehouse=request.getfixturevalue("s3_folder"))
    return bucket


def all_rows(warehouse: Any) -> dict[str, pa.Table]:
    with connect(warehouse) as connection:
        return {
            view: connection.sql(f"SELECT {columns} FROM {view} ORDER BY ALL").to_arrow_table()
            for view, columns in VIEWS.items()
        }


# ------------------------------------------------------------------------------ the law


@pytest.mark.parametrize("where", ["a directory", "S3"])
@pytest.mark.parametrize("who", ["a process", "a cluster"])
def test_all_tables_are_the_same_wherever_they_lie_and_whoever_makes_them(
    where: str, who: str, sample_warehouse: Path, request: pytest.FixtureRequest, monkeypatch: MonkeyPatch
) -> None:
    warehouse = request.getfixturevalue("s3_folder" if where == "S3" else "tmp_path")
    if who == "a cluster":
        monkeypatch.setenv("IOT_DASK_SCHEDULER", request.getfixturevalue("dask").address)
    load_mapping(source=str(SAMPLE), warehouse=warehouse)
    load_timeseries(source=str(SAMPLE), warehouse=warehouse)
    flag_anomalies(warehouse=warehouse)
    assert all_rows(warehouse) == all_rows(sample_warehouse)
    expected = get_measurements("sensor_00003", "2013-10-05", "2013-10-20", warehouse=sample_warehouse)
    rows = get_measurements("sensor_00003", "2013-10-05", "2013-10-20", warehouse=warehouse)
    assert rows.equals(expected)


def test_a_load_after_changes_equals_one_from_scratch(s3_bucket: Bucket, tmp_path: Path) -> None:
    scratch = replace(s3_bucket, warehouse=tmp_path / "scratch")
    for version in range(3):
        write_version(s3_bucket, version)
        report = s3_bucket.load()
        assert report.files_new + report.files_changed == 2
    assert s3_bucket.load().files_unchanged == 6
    scratch.load()
    assert committed_content(s3_bucket) == committed_content(scratch)
    s3_bucket.delete("data_0.csv")
    s3_bucket.load(full_reload=True)
    scratch.load(full_reload=True)
    assert committed_content(s3_bucket) == committed_content(scratch)


@pytest.mark.parametrize("grace_days", ["0", "7"])
def test_what_no_version_needs_is_deleted_from_s3_when_its_time_has_come(
    s3_bucket: Bucket, monkeypatch: MonkeyPatch, grace_days: str
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", grace_days)
    monkeypatch.setattr(S3Store, "min_deletion_age", timedelta(0))
    for value in range(3):
        s3_bucket.write("data_0.csv", row(value=value), "refused")
        s3_bucket.load()
    names = [file.name for file in open_folder(s3_bucket.warehouse).list_objects()]
    assert len([name for name in names if name.endswith(".parquet")]) == (4 if grace_days == "0" else 12)
    assert not [name for name in names if ".writable" in name]


def test_young_files_are_spared_on_s3_whatever_the_grace_period(
    s3_bucket: Bucket, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    unfinished = open_folder(s3_bucket.warehouse) / "timeseries" / "month=2013-01"
    with unfinished.publish("part-of-another-load.parquet") as part:
        part.write_bytes(b"")
    s3_bucket.write("data_0.csv", row())
    s3_bucket.load()
    assert all(unfinished.versions(["part-of-another-load.parquet"]))


# ------------------------------------------------------------------------- two writers

SCHEMA = pa.schema([("a", pa.int64())])


def test_a_commit_on_top_of_a_version_that_was_not_read_is_refused(place: Bucket) -> None:
    table, other = open_folder(place.warehouse) / "table", open_folder(place.warehouse) / "other"
    assert commit(table, onto=None, schema=SCHEMA, add=[], pins=[(other, Version(4, "id"))]).number == 1
    assert commit(table, onto=1, schema=SCHEMA, add=[], pins=[(other, Version(5, "id"))]).number == 2
    for outdated in (None, 0, 1):
        with pytest.raises(WarehouseBusyError, match="somebody else has written") as caught:
            commit(table, onto=outdated, schema=SCHEMA, add=[], pins=[(other, Version(6, "id"))])
        assert "\n" not in str(caught.value)
    latest = read_table(table, pins=[other])
    assert latest is not None
    assert latest.version.number == 2
    assert latest.pins == {"other": Version(5, "id")}


def test_a_commit_of_a_file_that_only_another_machine_has_is_refused(place: Bucket) -> None:
    table = open_folder(place.warehouse) / "table"
    commit(table, onto=None, schema=SCHEMA, add=[])
    with pytest.raises(WarehouseError, match=r"part-1\.parquet is not .* all workers share"):
        commit(table, onto=1, schema=SCHEMA, add=[DataFile("part-1.parquet", 9, {})])
    latest = read_table(table)
    assert latest is not None
    assert latest.version.number == 1


def test_the_second_of_two_racing_loads_is_refused_and_loses_nothing(s3_bucket: Bucket) -> None:
    s3_bucket.write("data_0.csv", row(value=1))
    s3_bucket.load()
    s3_bucket.write("data_1.csv", row(value=2), "refused")
    reports: list[Any] = []

    def overtake(_: object) -> None:
        if not reports:
            s3_bucket.write("data_2.csv", row(uuid=OTHER_SENSOR))
            reports.append(s3_bucket.load())

    with pytest.raises(WarehouseBusyError, match="try again, what was converted is kept"):
        s3_bucket.load(on_progress=overtake)
    assert reports[0].files_new == 2
    assert len(committed_content(s3_bucket) or ()) == 3
    assert s3_bucket.load().files_unchanged == 3


@pytest.mark.parametrize("overtaken_after", ["timeseries", "source_files"])
def test_a_load_that_starts_between_the_commits_of_another_harms_nothing(
    s3_bucket: Bucket, monkeypatch: MonkeyPatch, overtaken_after: str
) -> None:
    s3_bucket.write("data_0.csv", row(value=1))
    s3_bucket.load()
    s3_bucket.write("data_1.csv", row(value=2), "refused")
    create = DeltaTable.create_write_transaction
    overtaken: list[object] = []

    def overtake(table: DeltaTable, *arguments: Any, **options: Any) -> None:
        create(table, *arguments, **options)
        if not overtaken and table.table_uri.rstrip("/").endswith(overtaken_after):
            overtaken.append(True)
            s3_bucket.write("data_2.csv", row(uuid=OTHER_SENSOR))
            s3_bucket.load()

    monkeypatch.setattr(DeltaTable, "create_write_transaction", overtake)
    with suppress(WarehouseBusyError):
        s3_bucket.load()
    assert overtaken
    assert committed_content(s3_bucket)
    s3_bucket.load()
    content = committed_content(s3_bucket)
    assert content is not None
    assert sorted(value for _, _, value in content) == [1, 1, 2]
    latest = DeltaTable(f"{s3_bucket.warehouse}/timeseries", storage_options=options_of(s3_bucket))
    assert sum(latest.to_pyarrow_table()["sensor_value"].to_pylist()) == 4


def options_of(bucket: Bucket) -> dict[str, str] | None:
    return open_folder(bucket.warehouse).delta_options


def test_the_second_of_two_racing_detections_is_refused(s3_bucket: Bucket, monkeypatch: MonkeyPatch) -> None:
    load_mapping(source=str(SAMPLE), warehouse=s3_bucket.warehouse)
    load_timeseries(source=str(SAMPLE), warehouse=s3_bucket.warehouse)
    reports: list[Any] = []

    def overtake(_: object) -> None:
        if not reports:
            reports.append(flag_anomalies(warehouse=s3_bucket.warehouse))

    with pytest.raises(WarehouseBusyError):
        flag_anomalies(warehouse=s3_bucket.warehouse, on_progress=overtake)
    assert replace(reports[0], sensors_refitted=0) == flag_anomalies(warehouse=s3_bucket.warehouse)


# ----------------------------------------------------------------------------- a kill


class Killed(BaseException):
    """The process is dead: nothing may catch this."""


@contextmanager
def dying_on_s3(before_step: int) -> Iterator[list[str]]:
    """Let the block die before a request that changes S3; like a dead process it makes none after."""
    steps: list[str] = []

    def step(name: str) -> None:
        if len(steps) > before_step:
            raise Killed
        steps.append(name)
        if len(steps) > before_step:
            raise Killed

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            step(function.__name__)
            return function(*arguments, **options)

        return watched

    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def watched_call(client: Any, operation: str, parameters: Any) -> Any:
        if operation.startswith(("Put", "Copy", "Delete")):
            step(operation)
        return call(client, operation, parameters)

    with MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(BaseClient, "_make_api_call", watched_call)
        for name in ("create", "create_write_transaction", "vacuum"):
            patch.setattr(DeltaTable, name, watch(getattr(DeltaTable, name)))
        yield steps


def test_a_load_that_dies_before_any_request_leaves_the_old_state_and_the_next_one_mends_all(
    s3_bucket: Bucket, tmp_path: Path
) -> None:
    s3_bucket.write("changed.csv", row("2013-01-01 00:00", value=1), "refused")
    s3_bucket.load()
    before = committed_content(s3_bucket)
    s3_bucket.write("changed.csv", row("2013-01-01 00:00", value=2), row("2013-02-01 00:00"))
    s3_bucket.write("new.csv", row("2013-02-01 00:00", OTHER_SENSOR), "refused")
    scratch = replace(s3_bucket, warehouse=tmp_path / "scratch")
    scratch.load()
    after = committed_content(scratch)
    step = 0
    steps: list[str] = []
    while len(steps) >= step:
        bucket = replace(s3_bucket, warehouse=f"{s3_bucket.warehouse}-{step}")
        copy_files(s3_bucket.warehouse, bucket.warehouse)
        with dying_on_s3(step) as steps:
            bucket.load()
        assert committed_content(bucket) in (before, after), f"died before {steps[-1]}"
        bucket.load()
        assert committed_content(bucket) == after, f"died before {steps[-1]}"
        step += 1
    assert step > 10


def copy_files(url: str, to: str) -> None:
    source, target = open_folder(url), open_folder(to)
    names = [file.name for file in source.list_objects()]
    with source.fetch(names) as paths:
        for name, path in zip(names, paths, strict=True):
            with target.publish(name) as part:
                shutil.copy(path, part)


def test_a_driver_that_is_killed_leaves_a_readable_state_and_the_next_load_mends_all(
    s3_bucket: Bucket, dask: Cluster, tmp_path: Path
) -> None:
    write_version(s3_bucket, 0)
    s3_bucket.load()
    script = (
        "import sys\n"
        "from iot_pipeline.ingest import load, load_timeseries\n"
        "load.BATCH_FILES = 1\n"
        "print('started', flush=True)\n"
        "load_timeseries(source=sys.argv[1], warehouse=sys.argv[2])\n"
    )
    command = [sys.executable, "-c", script, str(s3_bucket.source), s3_bucket.warehouse]
    environment = {**os.environ, "IOT_DASK_SCHEDULER": dask.address}
    randomness = random.Random(5)  # noqa: S311 - moments, not secrets
    for version in range(1, 4):
        write_version(s3_bucket, version)
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as driver:
            assert driver.stdout is not None
            driver.stdout.readline()
            time.sleep(randomness.uniform(0.5, 1.5))
            driver.send_signal(signal.SIGKILL)
        assert committed_content(s3_bucket)
    s3_bucket.load()
    scratch = replace(s3_bucket, warehouse=tmp_path / "scratch")
    scratch.load()
    assert committed_content(s3_bucket) == committed_content(scratch)


# ------------------------------------------------------------------------------ readers


@pytest.fixture
def loaded(place: Bucket) -> Bucket:
    place.source.joinpath("mapping.csv").write_bytes(
        csv_of(f"first;{SENSOR}", header="sensor_name;sensor_uuid")
    )
    place.write("a.csv", row("2013-01-01 12:00"), row("2013-02-01 12:00", OTHER_SENSOR, 2.5))
    load_mapping(source=str(place.source), warehouse=place.warehouse)
    place.load()
    return place


def test_polars_reads_the_table_as_it_is(loaded: Bucket) -> None:
    options = {"aws_endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3", ""), "aws_allow_http": "true"}
    table = pl.read_delta(
        f"{loaded.warehouse}/timeseries", storage_options=options if options_of(loaded) else None
    )
    ((count, total),) = loaded.sql("SELECT count(*), sum(sensor_value) FROM measurements")
    assert (len(table), table["sensor_value"].sum()) == (count, total) == (2, 3.5)
    assert sorted(table["month"]) == ["2013-01", "2013-02"]


def test_the_next_question_sees_a_load_and_a_new_name(loaded: Bucket) -> None:
    assert len(get_measurements("first", "2013-01-01", "2013-01-02", warehouse=loaded.warehouse)) == 1
    loaded.write("b.csv", row("2013-01-01 13:00"))
    loaded.load()
    assert len(get_measurements("first", "2013-01-01", "2013-01-02", warehouse=loaded.warehouse)) == 2
    names = csv_of(f"renamed;{SENSOR}", header="sensor_name;sensor_uuid")
    loaded.source.joinpath("mapping.csv").write_bytes(names)
    load_mapping(source=str(loaded.source), warehouse=loaded.warehouse)
    assert len(get_measurements("renamed", "2013-01-01", "2013-01-02", warehouse=loaded.warehouse)) == 2


def test_a_question_survives_that_the_files_it_knew_were_deleted(
    loaded: Bucket, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    monkeypatch.setattr(S3Store, "min_deletion_age", timedelta(0))
    load_meanwhile(loaded, monkeypatch, query)
    assert len(get_measurements("first", "2013-01-01", "2013-01-02", warehouse=loaded.warehouse)) == 2


def test_a_question_that_is_asked_again_reads_nothing_from_s3(
    s3_bucket: Bucket, monkeypatch: MonkeyPatch
) -> None:
    load_mapping(source=str(SAMPLE), warehouse=s3_bucket.warehouse)
    load_timeseries(source=str(SAMPLE), warehouse=s3_bucket.warehouse)
    question = ("sensor_00003", "2013-10-05", "2013-10-06")
    first = get_measurements(*question, warehouse=s3_bucket.warehouse)
    operations: list[str] = []
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def listen(client: Any, operation: str, parameters: Any) -> Any:
        operations.append(operation)
        return call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", listen)
    assert get_measurements(*question, warehouse=s3_bucket.warehouse).equals(first)
    assert operations == ["HeadObject"] * 3


def test_the_report_and_the_shell_work_with_s3(
    s3_bucket: Bucket, monkeypatch: MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IOT_WAREHOUSE", s3_bucket.warehouse)
    monkeypatch.setenv("IOT_SOURCE", str(SAMPLE))
    load_mapping()
    load_timeseries()
    flag_anomalies()
    report = write_report()
    assert report.page == f"{s3_bucket.warehouse}/report/index.html"
    with (open_folder(s3_bucket.warehouse) / "report").fetch(["index.html", "worst-01.png"]) as (
        page,
        picture,
    ):
        assert page.read_text().startswith("<!doctype html>")
        assert picture.read_bytes() == next(iter(report.pictures.values()))
    assert main(["status"]) == 0
    assert s3_bucket.warehouse in capsys.readouterr().out


# ----------------------------------------------------------------------------- damage


@pytest.mark.parametrize("table", ["timeseries", "source_files"])
def test_a_full_reload_mends_a_log_that_was_damaged(loaded: Bucket, table: str) -> None:
    before = committed_content(loaded)
    log = open_folder(loaded.warehouse) / table / "_delta_log"
    with log.publish(f"{1:020}.json") as part:
        part.write_bytes(b"garbage")
    with pytest.raises(DamagedTableError, match=f"{table} .*: run: iot-pipeline load --full-reload"):
        loaded.load()
    loaded.load(full_reload=True)
    assert committed_content(loaded) == before


def test_judging_again_mends_a_log_that_was_damaged(loaded: Bucket) -> None:
    flag_anomalies(warehouse=loaded.warehouse)
    log = open_folder(loaded.warehouse) / "anomalies" / "_delta_log"
    with log.publish(f"{1:020}.json") as part:
        part.write_bytes(b"garbage")
    with connect(loaded.warehouse) as connection, pytest.raises(duckdb.Error, match="--only anomalies"):
        connection.execute("FROM anomalies")
    flag_anomalies(warehouse=loaded.warehouse)
    with connect(loaded.warehouse) as connection:
        assert connection.execute("SELECT sensor_name FROM sensor_models").fetchall() == [("first",)]


# ------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:/bucket",
        "s3:///prefix",
        "s3://bucket/a b",
        "s3://bucket/a*",
        "gs://bucket",
        "s3://bucket//a",
    ],
)
def test_a_url_that_can_not_be_is_an_error_that_names_the_setting(url: str) -> None:
    with pytest.raises(ConfigurationError, match="IOT_WAREHOUSE"):
        open_warehouse(url)


def test_a_bucket_that_is_not_there_is_one_line_before_any_work(s3_bucket: Bucket) -> None:
    bucket = replace(s3_bucket, warehouse="s3://there-is-none/prefix")
    with pytest.raises(ConfigurationError, match="no such bucket: check IOT_WAREHOUSE"):
        bucket.load()
    with pytest.raises(IotPipelineError) as caught:
        connect(bucket.warehouse)
    assert "\n" not in str(caught.value)


def test_a_server_that_would_let_two_loads_commit_at_once_is_refused(s3_bucket: Bucket) -> None:
    def forget_the_condition(request: Any, **_: Any) -> None:
        del request.headers["If-None-Match"]

    folder = open_folder(s3_bucket.warehouse)
    assert isinstance(folder, S3Store)
    events = folder.connection.client.meta.events
    events.register("before-sign.s3.PutObject", forget_the_condition)
    try:
        with pytest.raises(ConfigurationError, match="ignores If-None-Match"):
            s3_bucket.load()
    finally:
        events.unregister("before-sign.s3.PutObject", forget_the_condition)
    assert list(folder.list_objects()) == []


def test_a_server_that_does_not_answer_is_one_line(s3_bucket: Bucket, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    s3_bucket.write("data_0.csv", row())
    with pytest.raises(WarehouseUnreachableError, match="check AWS_ENDPOINT_URL_S3") as caught:
        s3_bucket.load()
    assert "\n" not in str(caught.value)
    with pytest.raises(
        WarehouseUnreachableError, match=r"can't read s3://.*\(check AWS_ENDPOINT_URL_S3\)"
    ) as caught:
        connect(s3_bucket.warehouse)
    assert "\n" not in str(caught.value)
