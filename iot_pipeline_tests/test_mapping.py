"""``mapping.csv`` into SQLite: one-to-one, whole or not at all."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from iot_pipeline import get_anomalies, list_sensors
from iot_pipeline.anomalies import annotate, flag_anomalies
from iot_pipeline.errors import MappingError, WarehouseError
from iot_pipeline.ingest import load_mapping
from iot_pipeline_tests.conftest import OTHER_SENSOR, SAMPLE, SENSOR, Bucket, row

HEADER = "sensor_name;sensor_uuid"


def load(tmp_path: Path, *lines: str, raw: bytes | None = None) -> list[tuple[str | None, ...]]:
    source = tmp_path / "source" / "mapping"
    source.mkdir(parents=True, exist_ok=True)
    (source / "mapping.csv").write_bytes(raw or "\n".join(lines).encode())
    load_mapping(source=str(tmp_path / "source"), warehouse=tmp_path / "warehouse")
    return sensors(tmp_path / "warehouse")


def sensors(warehouse: Path) -> list[tuple[str | None, ...]]:
    with closing(sqlite3.connect(warehouse / "mapping.sqlite")) as connection:
        return connection.execute("SELECT * FROM sensors ORDER BY sensor_name").fetchall()


def test_each_name_gets_its_uuid(tmp_path: Path) -> None:
    assert load(tmp_path, HEADER, f"a;{SENSOR}", f"b;{OTHER_SENSOR}") == [("a", SENSOR), ("b", OTHER_SENSOR)]


def test_the_sample_bucket_names_twelve_sensors(tmp_path: Path) -> None:
    report = load_mapping(source=str(SAMPLE), warehouse=tmp_path)
    assert (report.source_key, report.sensors) == ("mapping/mapping.csv", 12)


@pytest.mark.parametrize(
    "raw",
    [
        f"\ufeff{HEADER}\r\na;{SENSOR}\r\n".encode(),
        f"{HEADER}\na;{SENSOR.upper()}\n\n".encode(),
        f'"sensor_name";"sensor_uuid"\n"a";"{SENSOR}"\n'.encode(),
        f" sensor_name ; sensor_uuid\n a ; {SENSOR} ".encode(),
    ],
    ids=["byte order mark and CRLF", "upper case and blank line", "quotes", "blanks"],
)
def test_other_spellings_of_the_file_mean_the_same(tmp_path: Path, raw: bytes) -> None:
    assert load(tmp_path, raw=raw) == [("a", SENSOR)]


def test_a_sensor_that_left_the_file_leaves_the_table(tmp_path: Path) -> None:
    load(tmp_path, HEADER, f"a;{SENSOR}", f"b;{OTHER_SENSOR}")
    assert load(tmp_path, HEADER, f"b;{OTHER_SENSOR}") == [("b", OTHER_SENSOR)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEADER, f"a;{SENSOR}", f"a;{OTHER_SENSOR}"], "sensor_name a stands 2 times"),
        ([HEADER, f"a;{SENSOR}", f"b;{SENSOR.upper()}"], f"sensor_uuid {SENSOR} stands 2 times"),
        ([HEADER, "a;no-uuid"], "line 2: not a sensor name and uuid"),
        ([HEADER, f";{SENSOR}"], "line 2: not a sensor name and uuid"),
        ([HEADER, "a"], "line 2: not a sensor name and uuid"),
        (["name,uuid", f"a,{SENSOR}"], "needs the header sensor_name;sensor_uuid"),
        ([HEADER], "names no sensor"),
    ],
)
def test_a_mapping_that_is_not_one_to_one_is_refused_and_the_old_one_stays(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    load(tmp_path, HEADER, f"old;{SENSOR}")
    with pytest.raises(MappingError, match=said):
        load(tmp_path, *lines)
    assert sensors(tmp_path / "warehouse") == [("old", SENSOR)]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="not UTF-8"):
        load(tmp_path, raw=b"\xff\xfe\x00")


def test_a_source_without_or_with_two_mappings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(MappingError, match="found none"):
        load_mapping(source=str(tmp_path / "source"), warehouse=tmp_path)
    for folder in "ab":
        (tmp_path / "source" / folder).mkdir()
        (tmp_path / "source" / folder / "mapping.csv").touch()
    with pytest.raises(MappingError, match=r"found a/mapping\.csv, b/mapping\.csv"):
        load_mapping(source=str(tmp_path / "source"), warehouse=tmp_path)


def test_null_can_be_neither_name_nor_uuid(tmp_path: Path) -> None:
    load(tmp_path, HEADER, f"a;{SENSOR}")
    with closing(sqlite3.connect(tmp_path / "warehouse" / "mapping.sqlite")) as connection:
        for row in ((None, OTHER_SENSOR), ("b", None)):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute("INSERT INTO sensors VALUES (?, ?)", row)


@pytest.mark.parametrize("field", ["x" * 200_000, '"' + "x" * 200_000], ids=["plain", "quoted"])
def test_a_field_longer_than_a_csv_reader_takes_is_one_line_and_keeps_what_was_loaded(
    tmp_path: Path, field: str
) -> None:
    load(tmp_path, f"sensor_name;sensor_uuid\nold;{SENSOR}\n")
    with pytest.raises(MappingError, match=r"mapping\.csv line [12]: field larger than") as caught:
        load(tmp_path, f"sensor_name;sensor_uuid\n{field};{SENSOR}\n")
    assert "\n" not in str(caught.value)
    assert sensors(tmp_path / "warehouse") == [("old", SENSOR)]


FAULTS = [sqlite3.OperationalError("database or disk is full"), OSError(28, "No space left on device")]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_full_disk_is_one_line_and_keeps_what_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    class FullDisk(sqlite3.Connection):
        def executemany(self, *_: object) -> sqlite3.Cursor:
            raise fault

    load(tmp_path, f"sensor_name;sensor_uuid\nold;{SENSOR}\n")
    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda path: connect(path, factory=FullDisk))
        with pytest.raises(WarehouseError, match=r"^can't write .*mapping\.sqlite: .* (full|left)") as caught:
            load(tmp_path, f"sensor_name;sensor_uuid\nnew;{SENSOR}\n")
    assert "\n" not in str(caught.value)
    assert sensors(tmp_path / "warehouse") == [("old", SENSOR)]
    assert [path.name for path in (tmp_path / "warehouse").iterdir()] == ["mapping.sqlite"]


def columns_of(warehouse: Path) -> list[str]:
    with closing(sqlite3.connect(warehouse / "mapping.sqlite")) as connection:
        return [name for _, name, *_ in connection.execute("PRAGMA table_info(sensors)")]


def test_other_columns_are_kept_as_text_after_the_two_that_are_needed(tmp_path: Path) -> None:
    rows = load(
        tmp_path,
        ";unit;sensor_uuid;Room no.;sensor_name;kind",
        f"0; \u00b0C ;{SENSOR};4711;a;heat",
        f"1;;{OTHER_SENSOR};;b",
    )
    assert columns_of(tmp_path / "warehouse") == ["sensor_name", "sensor_uuid", "unit", "Room_no", "kind"]
    assert rows == [("a", SENSOR, "\u00b0C", "4711", "heat"), ("b", OTHER_SENSOR, None, None, None)]


@pytest.mark.parametrize(
    "header", ["sensor_name;sensor_uuid;Sensor-Name", f"{HEADER};room;ROOM", f"{HEADER};a b;a/b"]
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(MappingError, match=r"mapping\.csv has two columns '.*' and '.*': rename or remove"):
        load(tmp_path, header, f"a;{SENSOR};x;y")


def test_hostile_column_names_are_names_like_any_other(tmp_path: Path) -> None:
    load(tmp_path, f"{HEADER};x) TEXT, DROP --;select;first", f"a;{SENSOR};1;2;3")
    names = columns_of(tmp_path / "warehouse")
    assert names[2:] == ["x_TEXT_DROP", "select", "first_"]


def test_sensors_are_listed_with_the_mappings_own_columns_whatever_they_are_called(bucket: Bucket) -> None:
    header = f"{HEADER};kind;timestamp;start;sensor;last;annotation;readings;event_id"
    (bucket.source / "mapping.csv").write_text(f"{header}\na;{SENSOR};heat;1;2;3;4;5;6;7\nb;{OTHER_SENSOR}\n")
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    bucket.write("a.csv", *(row(f"2013-01-{day:02} 12:00") for day in range(1, 31)))
    bucket.load()
    flag_anomalies(warehouse=bucket.warehouse)
    annotate("a", "2013-01-02", "2013-01-03", "maintenance", warehouse=bucket.warehouse)
    assert flag_anomalies(warehouse=bucket.warehouse).sensors_refitted == 1
    first, second = list_sensors(warehouse=bucket.warehouse).to_dict("records")
    assert (first["kind"], first["last_"], first["n_readings"]) == ("heat", "4", 30)
    assert f"{first['first']:%Y-%m-%d %H:%M%z}" == "2013-01-01 12:00+0100"
    assert (second["sensor_name"], second["n_readings"]) == ("b", 0)
    for view in ("measurements", "events", "incidents", "annotations"):
        bucket.sql(f"FROM {view}")
    assert get_anomalies(warehouse=bucket.warehouse).empty


def test_a_mapping_of_an_earlier_release_is_read(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.load()
    with closing(sqlite3.connect(bucket.warehouse / "mapping.sqlite")) as connection, connection:
        connection.execute(
            "CREATE TABLE sensors"
            " (sensor_name TEXT NOT NULL PRIMARY KEY, sensor_uuid TEXT NOT NULL UNIQUE) STRICT"
        )
        connection.execute("INSERT INTO sensors VALUES ('a', ?)", [SENSOR])
    assert bucket.sql("FROM sensors") == [("a", SENSOR)]
