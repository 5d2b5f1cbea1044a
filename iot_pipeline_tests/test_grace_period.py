"""What is kept for the grace period, what is deleted after it, and that a failure to delete fails nobody."""

import errno
import os
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from iot_pipeline import connect
from iot_pipeline.alerts import Run, announce
from iot_pipeline.anomalies import annotate, flag_anomalies
from iot_pipeline.ingest import load_mapping
from iot_pipeline.report import write_report
from iot_pipeline.store import DirectoryStore
from iot_pipeline.warehouse import open_folder
from iot_pipeline.warehouse.cleanup import remove_files
from iot_pipeline_tests.conftest import SENSOR, Bucket, csv_of, row

pytestmark = pytest.mark.system

TABLES = ("timeseries", "source_files", "events", "anomalies", "incidents", "sensor_models")


def load_and_judge(bucket: Bucket, value: float) -> None:
    """Change every reading and refuse another row, so that all tables and fragments change."""
    names = csv_of(f"first;{SENSOR}", header="sensor_name;sensor_uuid")
    (bucket.source / "mapping.csv").write_bytes(names)
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    bucket.write("a.csv", *(row(f"2013-01-{day:02} 12:00", value=value) for day in range(1, 25)), "refused")
    bucket.load()
    flag_anomalies(warehouse=bucket.warehouse)


def age(bucket: Bucket, by: timedelta) -> None:
    """Let everything that lies in the warehouse, and what its logs say of it, be older."""
    milliseconds = round(by.total_seconds() * 1000)
    for path in bucket.warehouse.rglob("*"):
        if path.is_file():
            stat = path.stat()
            if path.suffix == ".json":
                path.write_text(_older(path.read_text(), milliseconds))
            os.utime(path, (stat.st_atime - by.total_seconds(), stat.st_mtime - by.total_seconds()))


def _older(commit: str, milliseconds: int) -> str:
    return re.sub(
        r'("(?:timestamp|deletionTimestamp|modificationTime|createdTime)":)(\d{13})',
        lambda found: f"{found[1]}{int(found[2]) - milliseconds}",
        commit,
    )


def parquet_files(bucket: Bucket) -> set[Path]:
    return {path for path in bucket.warehouse.rglob("*.parquet") if "_delta_log" not in path.parts}


@pytest.mark.parametrize(
    ("days", "kept", "deleted"),
    [
        ("0.04", timedelta(minutes=50), timedelta(minutes=70)),
        ("7", timedelta(days=6.9), timedelta(days=7.1)),
        ("90", timedelta(days=89), timedelta(days=91)),
    ],
)
def test_files_of_older_versions_are_kept_for_just_the_grace_period(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, days: str, kept: timedelta, deleted: timedelta
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", days)
    load_and_judge(bucket, 1)
    old = parquet_files(bucket)
    age(bucket, timedelta(days=400))
    load_and_judge(bucket, 2)
    for passed, left in ((kept, old), (deleted - kept, set())):
        age(bucket, passed)
        bucket.load()
        flag_anomalies(warehouse=bucket.warehouse)
        assert parquet_files(bucket) & old == left


@pytest.mark.parametrize("table", TABLES)
def test_the_log_is_kept_for_a_grace_period_that_is_longer_than_deltas_own(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "90")
    load_and_judge(bucket, 1)
    version = DeltaTable(bucket.warehouse / table).version()
    load_and_judge(bucket, 2)
    age(bucket, timedelta(days=80))
    opened = DeltaTable(bucket.warehouse / table)
    opened.create_checkpoint()
    opened.cleanup_metadata()
    assert DeltaTable(bucket.warehouse / table, version=version).file_uris()
    load_and_judge(bucket, 3)
    assert DeltaTable(bucket.warehouse / table, version=version).file_uris()


@pytest.mark.parametrize("table", TABLES)
def test_a_table_follows_a_change_of_the_grace_period_at_its_next_commit(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    load_and_judge(bucket, 1)
    monkeypatch.setenv("IOT_GRACE_DAYS", "40.5")
    load_and_judge(bucket, 2)
    assert DeltaTable(bucket.warehouse / table).metadata().configuration == {
        "delta.logRetentionDuration": "interval 972 hours",
        "delta.deletedFileRetentionDuration": "interval 972 hours",
    }


def test_a_fragment_is_kept_as_long_as_a_version_of_the_ledger_that_lists_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_and_judge(bucket, 1)
    age(bucket, timedelta(days=30))
    with connect(bucket.warehouse) as connection:
        load_and_judge(bucket, 2)
        load_and_judge(bucket, 3)
        bucket.load(full_reload=True)
        assert connection.execute("SELECT count(*) FROM rejected_rows").fetchall() == [(1,)]
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    bucket.load()
    assert len(list((bucket.warehouse / "bronze").iterdir())) == 2


def test_what_a_killed_writer_left_is_deleted_after_the_grace_period(bucket: Bucket) -> None:
    def write_everything(value: int) -> None:
        load_and_judge(bucket, value)
        annotate("first", "2013-01-01", "2013-01-02", "confirmed", warehouse=bucket.warehouse)
        announce(Run(str(value), succeeded=True), warehouse=bucket.warehouse)

    write_everything(1)
    left = [
        bucket.warehouse / name
        for name in (
            *(f"{table}/.part-1.parquet.0123abcd.part" for table in (*TABLES, "annotations", "alerts")),
            "bronze/.fragment.parquet.0123abcd.part",
            ".mapping.sqlite.0123abcd.part",
            ".mapping.sqlite.0123abcd.part-journal",
        )
    ]
    for path in left:
        path.write_bytes(b"half")
    write_everything(2)
    assert [path for path in left if not path.exists()] == []
    age(bucket, timedelta(days=8))
    write_everything(3)
    assert [path for path in left if path.exists()] == []


def test_files_that_somebody_else_keeps_in_the_warehouse_are_never_deleted(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    theirs = [
        bucket.warehouse / folder / name
        for folder in (*TABLES, "bronze", "annotations", "alerts", "report")
        for name in ("data1/data_0.csv", "2013/theirs.parquet", "theirs.part")
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"theirs")
    for value in (1, 2):
        load_and_judge(bucket, value)
        annotate("first", "2013-01-01", "2013-01-02", "confirmed", warehouse=bucket.warehouse)
        announce(Run(str(value), succeeded=True), warehouse=bucket.warehouse)
        write_report(warehouse=bucket.warehouse)
    assert [path for path in theirs if not path.exists()] == []
    assert set(bucket.values()) == {2}
    assert (
        f"{bucket.warehouse}/timeseries holds files of somebody else, like 2013/theirs.parquet, so nothing is"
        " cleared away there: move them, or set IOT_WAREHOUSE to a place of its own"
    ) in [record.getMessage() for record in caplog.records]


def test_a_bucket_that_is_its_own_warehouse_keeps_its_files(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    path = bucket.source / "timeseries" / "data1" / "data_0.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(csv_of(row(value=1)))
    same = Bucket(bucket.source, bucket.source)
    for _ in range(2):
        same.load()
        assert path.exists()
    assert same.values() == [1]
    assert same.load().files_missing == 0


def test_files_of_an_earlier_report_can_be_removed_by_their_names(tmp_path: Path) -> None:
    eight_days_ago = time.time() - timedelta(days=8).total_seconds()
    for name in ("worst-01.png", "worst-12.png", "new"):
        (tmp_path / name).write_bytes(b"")
        if name != "new":
            os.utime(tmp_path / name, (eight_days_ago, eight_days_ago))
    remove_files(open_folder(tmp_path), lambda name: name != "worst-01.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "worst-01.png"]


FAULTS = [
    DeltaError("Kernel error\n \x1b[31m↳\x1b[0m no luck\n   0: <unknown>"),
    OSError(errno.EIO, "no luck"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_failure_to_delete_old_files_fails_no_load_or_judgement_and_is_tried_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise fault

    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    load_and_judge(bucket, 1)
    (bucket.warehouse / "bronze" / ".left.parquet.0123abcd.part").write_bytes(b"half")
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "vacuum", fail)
        patch.setattr(DirectoryStore, "delete", fail)
        age(bucket, timedelta(seconds=1))
        load_and_judge(bucket, 2)
    assert set(bucket.values()) == {2}
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert {"timeseries", "source_files", "bronze", "events", "anomalies", "incidents", "sensor_models"} == {
        warning.split(" (")[0].rsplit("/", 1)[1] for warning in warnings
    }
    for warning in warnings:
        assert "no luck" in warning
        assert warning.endswith("the next run tries again")
        assert "\n" not in warning
    before = len(parquet_files(bucket))
    bucket.load()
    flag_anomalies(warehouse=bucket.warehouse)
    assert len(parquet_files(bucket)) < before
    assert len(parquet_files(bucket)) == len([*TABLES, "fragment", "rejects"])
