"""Files of the warehouse that were damaged or lost: one line says what to run, and running it mends them."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from iot_pipeline import connect, get_measurements
from iot_pipeline.alerts.delivery import announce
from iot_pipeline.alerts.digest import Run
from iot_pipeline.alerts.outbox import read_outbox
from iot_pipeline.anomalies import annotate, flag_anomalies, list_annotations
from iot_pipeline.errors import DamagedTableError, IotPipelineError, WarehouseError
from iot_pipeline.ingest import load_mapping
from iot_pipeline.report import draw_anomalies_per_week, write_report
from iot_pipeline.store import Store, open_store
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.state import annotations_tables, readings_tables, verdicts_tables
from iot_pipeline.warehouse.status import read_status
from iot_pipeline_tests.conftest import OTHER_SENSOR, SENSOR, Bucket, Reading, csv_of, row
from iot_pipeline_tests.ingest.faults import dying
from iot_pipeline_tests.ingest.test_crashes import committed_content
from iot_pipeline_tests.test_anomalies import verdicts

pytestmark = pytest.mark.system

Damage = Callable[[Path], None]


def commits(table: Path) -> list[Path]:
    return sorted((table / "_delta_log").glob("*.json"))


def cut_the_first_commit(table: Path) -> None:
    commits(table)[0].write_text(commits(table)[0].read_text()[:-40])


def cut_the_last_commit(table: Path) -> None:
    commits(table)[-1].write_text(commits(table)[-1].read_text()[:-40])


def empty_the_first_commit(table: Path) -> None:
    commits(table)[0].write_bytes(b"")


def empty_the_last_commit(table: Path) -> None:
    commits(table)[-1].write_bytes(b"")


def write_garbage_into_the_log(table: Path) -> None:
    commits(table)[-1].write_bytes(b"\x00\xffgarbage\n" * 9)


def lose_the_first_commit(table: Path) -> None:
    commits(table)[0].unlink()


def lose_a_commit_between(table: Path) -> None:
    commits(table)[1].unlink()


def lose_the_log(table: Path) -> None:
    shutil.rmtree(table / "_delta_log")


def lose_the_table(table: Path) -> None:
    shutil.rmtree(table)


def put_a_file_in_the_place_of_the_log(table: Path) -> None:
    lose_the_log(table)
    (table / "_delta_log").write_text("")


def empty_the_data_files(table: Path) -> None:
    for path in table.rglob("*.parquet"):
        path.write_bytes(b"")


def lose_the_data_files(table: Path) -> None:
    for path in table.rglob("*.parquet"):
        path.unlink()


TO_THE_LOG = [
    cut_the_first_commit,
    cut_the_last_commit,
    empty_the_last_commit,
    write_garbage_into_the_log,
    lose_the_first_commit,
    lose_a_commit_between,
    put_a_file_in_the_place_of_the_log,
]
TO_THE_DATA = [empty_the_data_files, lose_the_data_files]
LOSSES = [lose_the_log, lose_the_table]
"""Of ``source_files`` and ``sensor_models`` they can't be told from nothing having been written yet."""


def named(function: Damage) -> str:
    return function.__name__


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """Return a bucket that was loaded and judged twice. Not to be written to."""
    bucket = Bucket(*(tmp_path_factory.mktemp("template") / name for name in ("source", "warehouse")))
    for value in (1, 2):
        bucket.write(
            "a.csv", *(row(f"2013-01-{day:02} 12:00", value=value) for day in range(1, 25)), "refused"
        )
        bucket.write("b.csv", row("2013-02-01 12:00", OTHER_SENSOR, value))
        (bucket.source / "mapping.csv").write_bytes(
            csv_of(f"first;{SENSOR}", f"second;{OTHER_SENSOR}", header="sensor_name;sensor_uuid")
        )
        load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
        bucket.load()
        flag_anomalies(warehouse=bucket.warehouse)
        annotate("first", "2012-01-01", "2012-01-02", "maintenance", warehouse=bucket.warehouse)
        announce(Run(str(value), succeeded=True), warehouse=bucket.warehouse)
    return bucket


@pytest.fixture
def healthy(template: Bucket, tmp_path: Path) -> Iterator[Bucket]:
    yield replace(template, warehouse=shutil.copytree(template.warehouse, tmp_path / "warehouse"))
    (template.source / "Timeseries" / "c.csv").unlink(missing_ok=True)


def one_line_of(reading: Callable[[], object]) -> str:
    with pytest.raises((IotPipelineError, duckdb.Error)) as caught:
        reading()
    text = str(caught.value)
    assert "\n" not in text
    assert "\x1b" not in text
    return text


def ask(bucket: Bucket) -> int:
    return len(get_measurements("first", "2013-01-01", "2013-02-01", warehouse=bucket.warehouse))


def content_if_readable(bucket: Bucket) -> list[Reading] | None:
    try:
        return committed_content(bucket)
    except DamagedTableError:
        return None


# ------------------------------------------------------------- readings and their ledger


@pytest.mark.parametrize("damage", [*TO_THE_LOG, *TO_THE_DATA, *LOSSES], ids=named)
def test_damage_to_the_readings_is_one_line_that_names_them_and_what_to_run(
    healthy: Bucket, damage: Damage
) -> None:
    damage(healthy.warehouse / "timeseries")
    for reading in (lambda: ask(healthy), healthy.content, lambda: read_status(healthy.warehouse)):
        line = one_line_of(reading)
        assert "can't read" in line
        assert "timeseries" in line
        assert line.endswith("run: iot-pipeline load --full-reload")


@pytest.mark.parametrize("damage", [*TO_THE_LOG, *TO_THE_DATA], ids=named)
def test_damage_to_the_ledger_is_one_line_that_names_it_and_what_to_run(
    healthy: Bucket, damage: Damage
) -> None:
    damage(healthy.warehouse / "source_files")
    for reading in (
        healthy.content,
        lambda: read_status(healthy.warehouse),
        healthy.load,
    ):
        line = one_line_of(reading)
        assert "can't read" in line
        assert "source_files" in line
        assert line.endswith("run: iot-pipeline load --full-reload")


@pytest.mark.parametrize("damage", LOSSES, ids=named)
def test_a_ledger_that_is_gone_means_that_nothing_has_been_loaded_and_a_load_mends_it(
    healthy: Bucket, damage: Damage
) -> None:
    before = committed_content(healthy)
    damage(healthy.warehouse / "source_files")
    assert "nothing has been loaded" in one_line_of(lambda: ask(healthy))
    healthy.load()
    assert committed_content(healthy) == before


@pytest.mark.parametrize("damage", [*TO_THE_LOG, *TO_THE_DATA, *LOSSES], ids=named)
@pytest.mark.parametrize("table", ["timeseries", "source_files"])
def test_a_full_reload_mends_the_readings_and_their_ledger(
    healthy: Bucket, table: str, damage: Damage
) -> None:
    before = committed_content(healthy)
    damage(healthy.warehouse / table)
    healthy.load(full_reload=True)
    assert committed_content(healthy) == before
    assert ask(healthy) == 24
    healthy.write("c.csv", row("2013-01-31 12:00"))
    healthy.load()
    assert ask(healthy) == 25


@pytest.mark.parametrize("table", ["timeseries", "source_files"])
def test_a_full_reload_mends_both_tables_when_both_are_damaged(healthy: Bucket, table: str) -> None:
    before = committed_content(healthy)
    lose_the_table(healthy.warehouse / table)
    cut_the_last_commit(healthy.warehouse / ({"timeseries", "source_files"} - {table}).pop())
    healthy.load(full_reload=True)
    assert committed_content(healthy) == before


def test_a_version_that_was_lost_is_never_made_again_with_other_readings(healthy: Bucket) -> None:
    before = committed_content(healthy)
    commits(healthy.warehouse / "timeseries")[-1].unlink()
    assert "run: iot-pipeline load --full-reload" in one_line_of(healthy.load)
    for step in range(60):  # each time it dies a step later
        with dying(step):
            healthy.load(full_reload=True)
        assert content_if_readable(healthy) in (before, None)
    healthy.load(full_reload=True)
    assert committed_content(healthy) == before


@pytest.mark.parametrize("damage", [cut_the_last_commit, lose_the_table, empty_the_data_files], ids=named)
@pytest.mark.parametrize("table", ["timeseries", "source_files"])
def test_a_full_reload_that_dies_while_it_mends_is_mended_by_the_next_one(
    healthy: Bucket, table: str, damage: Damage, tmp_path: Path
) -> None:
    before = committed_content(healthy)
    damage(healthy.warehouse / table)
    for step in range(0, 60, 3):
        copy = replace(healthy, warehouse=shutil.copytree(healthy.warehouse, tmp_path / f"copy-{step}"))
        with dying(step):
            copy.load(full_reload=True)
        assert content_if_readable(copy) in (before, None), f"died before step {step}"
        copy.load(full_reload=True)
        assert committed_content(copy) == before, f"died before step {step}"


def test_a_ledger_is_not_read_with_another_table_than_it_was_written_for(healthy: Bucket) -> None:
    lose_the_table(healthy.warehouse / "timeseries")
    healthy.load(full_reload=True)
    kept = shutil.copytree(healthy.warehouse / "source_files", healthy.warehouse / "kept")
    lose_the_table(healthy.warehouse / "timeseries")
    healthy.load(full_reload=True)
    shutil.rmtree(healthy.warehouse / "source_files")
    kept.rename(healthy.warehouse / "source_files")
    with pytest.raises(DamagedTableError, match="its version 1 is gone"):
        connect(healthy.warehouse)


@pytest.mark.parametrize("damage", TO_THE_DATA, ids=named)
def test_damage_to_fragments_is_one_line_and_a_full_reload_mends_it(healthy: Bucket, damage: Damage) -> None:
    before = committed_content(healthy)
    damage(healthy.warehouse / "bronze")
    assert ask(healthy) == 24
    healthy.write("c.csv", row("2013-01-31 12:00"))
    assert "bronze" in one_line_of(healthy.load)
    healthy.delete("c.csv")
    healthy.load(full_reload=True)
    assert committed_content(healthy) == before


@pytest.mark.parametrize("damage", TO_THE_DATA, ids=named)
def test_damage_to_rejected_rows_hides_nothing_else(healthy: Bucket, damage: Damage) -> None:
    damage(healthy.warehouse / "bronze")
    assert len(healthy.content()) == 25
    assert "full-reload" in one_line_of(healthy.rejects)


# ----------------------------------------------------------- a commit that was cut between two lines


def objects(warehouse: str | Path, table: str) -> tuple[Store, list[str]]:
    """Return a table's folder and the names of its commits."""
    folder = open_store(warehouse) / table
    names = [file.name for file in folder.list_objects()]
    return folder, [name for name in names if re.fullmatch(r"_delta_log/\d+\.json", name)]


@pytest.mark.parametrize(
    ("place", "which"), [("a directory", 0), ("a directory", 1), ("a directory", -1), ("S3", -1)]
)
def test_a_commit_that_was_cut_to_whole_lines_or_to_nothing_is_noticed_in_every_table(
    template: Bucket, tmp_path: Path, request: pytest.FixtureRequest, place: str, which: int
) -> None:
    warehouse = tmp_path / "warehouse" if place == "a directory" else request.getfixturevalue("s3_folder")
    whole = open_store(warehouse)
    for file in open_store(template.warehouse).list_objects():
        with whole.publish(file.name) as part:
            shutil.copy(template.warehouse / file.name, part)
    opened = open_warehouse(warehouse)
    faults: dict[str, Callable[[], str]] = {
        "timeseries": lambda: readings_tables(opened).fault,
        "source_files": lambda: readings_tables(opened).fault,
        "events": lambda: verdicts_tables(opened).fault,
        "anomalies": lambda: verdicts_tables(opened).fault,
        "incidents": lambda: verdicts_tables(opened).fault,
        "sensor_models": lambda: verdicts_tables(opened).fault,
        "annotations": lambda: annotations_tables(opened).fault,
        "alerts": lambda: one_line_of(lambda: read_outbox(opened)),
    }
    for table, fault in faults.items():
        folder, names = objects(warehouse, table)
        assert len(names) > 1
        with folder.fetch([names[which]]) as (path,):
            lines = path.read_bytes().splitlines(keepends=True)
        for n_kept in range(len(lines)) if place == "a directory" else [len(lines) - 1]:
            with folder.publish(names[which]) as part:
                part.write_bytes(b"".join(lines[:n_kept]))
            assert fault().startswith(f"can't read {folder.url} (")
            assert fault().count("\n") == 0
            assert re.search(": (run: |restore |delete )", fault())
        with folder.publish(names[which]) as part:
            part.write_bytes(b"".join(lines))
        assert table == "alerts" or not fault()


def test_a_log_that_says_nothing_of_its_length_is_read(healthy: Bucket) -> None:
    for log in healthy.warehouse.rglob("_delta_log/*.json"):
        said = re.compile(r',"numActions":"\d+"')
        assert said.search(log.read_text()) or log.name.startswith("0" * 20)
        log.write_text(said.sub("", log.read_text()))
    assert ask(healthy) == 24
    with connect(healthy.warehouse) as connection:
        assert connection.sql("FROM sensor_models").fetchall()


def test_of_a_log_with_a_checkpoint_only_what_came_after_it_has_to_be_whole(healthy: Bucket) -> None:
    DeltaTable(healthy.warehouse / "timeseries").create_checkpoint()
    empty_the_first_commit(healthy.warehouse / "timeseries")
    healthy.write("c.csv", row("2013-01-31 12:00"))
    healthy.load()
    assert ask(healthy) == 25
    empty_the_last_commit(healthy.warehouse / "timeseries")
    assert one_line_of(healthy.load).endswith("run: iot-pipeline load --full-reload")


# -------------------------------------------------------------- what people said and were told


@pytest.mark.parametrize("damage", [*TO_THE_LOG, *TO_THE_DATA], ids=named)
def test_damage_to_annotations_or_alerts_is_one_line_that_says_what_to_do(
    healthy: Bucket, damage: Damage
) -> None:
    damage(healthy.warehouse / "annotations")
    damage(healthy.warehouse / "alerts")
    for reading, remedy in (
        (lambda: list_annotations(warehouse=healthy.warehouse), "restore the folder from a backup"),
        (lambda: flag_anomalies(warehouse=healthy.warehouse), "restore the folder from a backup"),
        (lambda: read_outbox(open_warehouse(healthy.warehouse)), "delete it"),
    ):
        line = one_line_of(reading)
        assert "can't read" in line
        assert "/alerts" in line or "annotation" in line
        assert remedy in line
    assert ask(healthy) == 24


# ------------------------------------------------------------------ anomalies and models


@pytest.mark.parametrize("damage", [*TO_THE_LOG, *TO_THE_DATA, *LOSSES], ids=named)
@pytest.mark.parametrize("table", ["events", "anomalies", "incidents", "sensor_models"])
def test_damage_to_what_was_judged_hides_no_reading(healthy: Bucket, table: str, damage: Damage) -> None:
    before = committed_content(healthy)
    damage(healthy.warehouse / table)
    assert ask(healthy) == 24
    assert committed_content(healthy) == before
    healthy.load()


@pytest.mark.parametrize("damage", [*TO_THE_LOG, *TO_THE_DATA], ids=named)
@pytest.mark.parametrize("table", ["events", "anomalies", "incidents", "sensor_models"])
def test_who_selects_from_a_damaged_table_gets_one_line_that_names_it_and_what_to_run(
    healthy: Bucket, table: str, damage: Damage
) -> None:
    damage(healthy.warehouse / table)
    name = {"incidents": "n_sensors = 1"}.get(table, "sensor_name = 'first'")
    for question in (f"FROM {table}", f"SELECT count(*) FROM {table} WHERE {name}"):
        line = one_line_of(lambda question=question: healthy.sql(question))  # type: ignore[misc]
        assert "can't read" in line
        assert table in line
        assert line.endswith("run: iot-pipeline load --only anomalies")


def test_a_status_of_damaged_anomalies_is_one_line(healthy: Bucket) -> None:
    cut_the_last_commit(healthy.warehouse / "anomalies")
    with pytest.raises(WarehouseError, match=r"^can't read .*/anomalies .*: run: iot-pipeline") as caught:
        read_status(healthy.warehouse)
    assert "\n" not in str(caught.value)


def test_a_report_of_damaged_anomalies_is_one_line(healthy: Bucket) -> None:
    cut_the_last_commit(healthy.warehouse / "anomalies")
    for draw in (write_report, draw_anomalies_per_week):
        with pytest.raises(WarehouseError, match=r"^can't read .*/anomalies .*: run: iot-pipeline") as caught:
            draw(warehouse=healthy.warehouse)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [*TO_THE_LOG, *TO_THE_DATA, *LOSSES], ids=named)
@pytest.mark.parametrize("table", ["events", "anomalies", "incidents", "sensor_models"])
def test_judging_again_mends_what_was_judged(healthy: Bucket, table: str, damage: Damage) -> None:
    before = verdicts(healthy.warehouse)
    damage(healthy.warehouse / table)
    report = flag_anomalies(warehouse=healthy.warehouse)
    assert report.sensors_refitted == report.sensors == 2
    assert verdicts(healthy.warehouse) == before
    assert len(healthy.sql("FROM sensor_models")) == 2
    assert flag_anomalies(warehouse=healthy.warehouse).sensors_refitted == 0
