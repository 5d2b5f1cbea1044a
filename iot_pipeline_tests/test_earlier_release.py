"""A warehouse that an earlier release has made opens, and is carried on."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, CommitProperties, Transaction

from iot_pipeline import connect, get_measurements
from iot_pipeline.anomalies import flag_anomalies, tables
from iot_pipeline.errors import DamagedTableError
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.state import verdicts_tables
from iot_pipeline.warehouse.tables import read_table
from iot_pipeline.warehouse.views import readable_errors
from iot_pipeline_tests.conftest import SENSOR, row
from iot_pipeline_tests.ingest.faults import dying
from iot_pipeline_tests.ingest.test_crashes import committed_content
from iot_pipeline_tests.test_anomalies import Sensors, sensors  # noqa: F401 - a fixture

pytestmark = pytest.mark.system

NEW_COLUMNS = ["inputs", "remembered"]
INPUTS = 0x2A5B6C7D8E9F01
"""What release 1 stored as the "version" of a transaction: a hash."""


def as_release_1_made_it(warehouse: Path) -> None:
    """Write the logs of all tables anew: pins without the table's id, no properties, fewer columns.

    Events had a number and no table.
    """
    (path,) = (warehouse / "sensor_models").glob("part-*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(NEW_COLUMNS), path)
    (path,) = (warehouse / "anomalies").glob("part-*.parquet")
    flagged = pq.read_table(path)
    numbers = pa.array(range(flagged.num_rows))
    pq.write_table(flagged.set_column(flagged.schema.get_field_index("event_id"), "event_id", numbers), path)
    shutil.rmtree(warehouse / "events")
    for name, pins in {
        "timeseries": {},
        "source_files": {"timeseries": 1},
        "anomalies": {},
        "sensor_models": {"anomalies": 1, "inputs": INPUTS},
    }.items():
        folder = getattr(open_warehouse(warehouse), name)
        table, known = DeltaTable(folder.url), read_table(folder)
        assert known is not None
        fields = [
            Field("event_id", PrimitiveType("long")) if field.name == "event_id" else field
            for field in table.schema().fields
            if field.name not in NEW_COLUMNS
        ]
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


def test_its_events_are_one_line_that_says_what_to_run(old: Sensors) -> None:
    line = r"^can't read .*/events .*: run: iot-pipeline load --only anomalies$"
    with (
        connect(old.bucket.warehouse) as connection,
        pytest.raises(DamagedTableError, match=line),
        readable_errors(),
    ):
        connection.execute("SELECT count(*) FROM incidents").fetchall()


def test_the_next_judgement_judges_all_sensors_and_the_one_after_finds_nothing_to_do(
    old: Sensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(old.bucket.warehouse) as before:
        assert old.judge().sensors_refitted == 3
        assert before.execute("SELECT count(*) > 0 FROM anomalies").fetchall() == [(True,)]
    assert old.verdicts() == old.verdicts_from_nothing()
    monkeypatch.setattr("iot_pipeline.anomalies.judge.read_readings", None)
    assert flag_anomalies(warehouse=old.bucket.warehouse).sensors == 3


def test_a_kill_between_two_tables_leaves_what_it_had_judged_readable(old: Sensors) -> None:
    counts = "SELECT (SELECT count(*) FROM anomalies), (SELECT count(*) FROM sensor_models)"
    before = old.bucket.sql(counts)
    for step in range(0, 30, 3):
        with dying(step):
            old.judge()
        assert old.bucket.sql(counts) == before or old.bucket.sql("SELECT count(*) > 0 FROM events")
    assert old.judge().sensors == 3
    assert old.verdicts() == old.verdicts_from_nothing()


# ------------------------------------------------- one that had the incidents among the events


@pytest.fixture
def older(sensors: Sensors) -> Sensors:  # noqa: F811
    """Return a warehouse as the release before this one has made it, with an incident called ``theirs``."""
    warehouse = open_warehouse(sensors.bucket.warehouse)
    known = tables.read_verdicts(warehouse, verdicts_tables(warehouse))
    for name in ("events", "anomalies", "incidents", "sensor_models"):
        shutil.rmtree(sensors.bucket.warehouse / name)
    incidents = pa.array(["theirs"] * known.events.num_rows)
    versions = [
        (folder, tables._publish(folder, rows, None))
        for folder, rows in (
            (warehouse.events, known.events.append_column("incident_id", incidents)),
            (warehouse.anomalies, known.anomalies),
        )
    ]
    tables._publish(warehouse.sensor_models, known.models, None, pins=versions)
    return sensors


def test_its_incidents_are_read(older: Sensors) -> None:
    ((incident_id, n_events),) = older.bucket.sql("SELECT incident_id, n_events FROM incidents")
    assert incident_id == "theirs"
    assert older.bucket.sql("SELECT count(*) FROM events") == [(n_events,)]
    columns = [name for name, *_ in older.bucket.sql("DESCRIBE events")]
    assert columns[-2:] == ["incident_id", "annotation"]
    assert len(columns) == len(set(columns))


def test_the_next_judgement_links_its_events_anew_and_they_keep_their_ids(older: Sensors) -> None:
    before = older.verdicts()
    assert older.judge().sensors_refitted == 0
    assert older.verdicts() == before
    assert older.bucket.sql("SELECT count(*) FROM events WHERE incident_id = 'theirs'") == [(0,)]
    columns = [name for name, *_ in older.bucket.sql("DESCRIBE events")]
    assert len(columns) == len(set(columns))
    assert DeltaTable(older.bucket.warehouse / "events").to_pyarrow_table().num_rows == len(before[0])


def test_a_full_reload_mends_it_too(old: Sensors) -> None:
    before = committed_content(old.bucket)
    shutil.rmtree(old.bucket.warehouse / "timeseries")
    old.bucket.load(full_reload=True)
    assert committed_content(old.bucket) == before
