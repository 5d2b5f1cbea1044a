"""A warehouse that an earlier release has made opens, and is carried on."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, CommitProperties, Transaction

from iot_pipeline import connect, get_measurements
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.tables import read_table
from iot_pipeline_tests.conftest import SENSOR, row
from iot_pipeline_tests.ingest.test_crashes import committed_content
from iot_pipeline_tests.test_anomalies import Sensors, sensors  # noqa: F401 - a fixture

INPUTS = 0x2A5B6C7D8E9F01
"""What release 1 stored as the "version" of a transaction: a hash."""


def as_release_1_made_it(warehouse: Path) -> None:
    """Write the logs of all tables anew: pins without the table's id, no properties, no column ``inputs``."""
    models = warehouse / "sensor_models"
    (path,) = models.glob("part-*.parquet")
    pq.write_table(pq.read_table(path).drop_columns("inputs"), path)
    for name, pins in {
        "timeseries": {},
        "source_files": {"timeseries": 1},
        "anomalies": {},
        "sensor_models": {"anomalies": 1, "inputs": INPUTS},
    }.items():
        folder = getattr(open_warehouse(warehouse), name)
        table, known = DeltaTable(folder.url), read_table(folder)
        assert known is not None
        fields = [field for field in table.schema().fields if field.name != "inputs"]
        partition_by = table.metadata().partition_columns
        shutil.rmtree(warehouse / name / "_delta_log")
        made = DeltaTable.create(folder.url, schema=Schema(fields), partition_by=partition_by)
        made.create_write_transaction(
            [
                AddAction(
                    file.path,
                    (warehouse / name / file.path).stat().st_size,
                    file.partition,
                    0,
                    data_change=True,
                    stats=f'{{"numRecords":{file.n_rows}}}',
                )
                for file in known.files
            ],
            mode="append",
            schema=made.schema(),
            partition_by=partition_by,
            commit_properties=CommitProperties(
                max_commit_retries=0, app_transactions=[Transaction(*pin) for pin in pins.items()]
            ),
        )


@pytest.fixture
def old(sensors: Sensors) -> Sensors:  # noqa: F811
    as_release_1_made_it(sensors.bucket.warehouse)
    return sensors


def test_its_readings_and_anomalies_are_read(old: Sensors, tmp_path: Path) -> None:
    rows = get_measurements("a", "2013-01-01", "2014-01-01", warehouse=old.bucket.warehouse)
    assert len(rows) > 1_000
    with connect(old.bucket.warehouse) as connection:
        for view in ("measurements", "source_files", "anomalies", "sensor_models"):
            assert connection.execute(f"SELECT count(*) > 0 FROM {view}").fetchall() == [(True,)]
        columns = [name for name, *_ in connection.execute("DESCRIBE sensor_models").fetchall()]
    assert columns[-1] == "reasoning"


def test_the_next_load_reads_only_what_is_new(old: Sensors) -> None:
    before = committed_content(old.bucket) or []
    old.bucket.write("new.csv", row("2014-06-01 12:00", SENSOR))
    report = old.bucket.load()
    assert (report.files_new, report.files_unchanged) == (1, 3)
    assert len(committed_content(old.bucket) or ()) == len(before) + 1
    assert old.bucket.load().files_unchanged == 4


def test_the_next_judgement_keeps_every_verdict_and_the_one_after_finds_nothing_to_do(
    old: Sensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = old.verdicts()
    assert old.judge().sensors_refitted == 0
    assert old.verdicts() == before
    monkeypatch.setattr("iot_pipeline.anomalies.judge.read_readings", None)
    assert flag_anomalies(warehouse=old.bucket.warehouse).sensors == 3


def test_a_full_reload_mends_it_too(old: Sensors) -> None:
    before = committed_content(old.bucket)
    shutil.rmtree(old.bucket.warehouse / "timeseries")
    old.bucket.load(full_reload=True)
    assert committed_content(old.bucket) == before
