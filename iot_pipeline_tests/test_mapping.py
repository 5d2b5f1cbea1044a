"""``mapping.csv`` into SQLite: one-to-one, whole or not at all."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from iot_pipeline.errors import MappingError, WarehouseError
from iot_pipeline.ingest import load_mapping
from iot_pipeline_tests.conftest import OTHER_SENSOR, SAMPLE, SENSOR

HEADER = "sensor_name;sensor_uuid"


def load(tmp_path: Path, *lines: str, raw: bytes | None = None) -> list[tuple[str, str]]:
    source = tmp_path / "source" / "mapping"
    source.mkdir(parents=True, exist_ok=True)
    (source / "mapping.csv").write_bytes(raw or "\n".join(lines).encode())
    load_mapping(source=str(tmp_path / "source"), warehouse=tmp_path / "warehouse")
    return sensors(tmp_path / "warehouse")


def sensors(warehouse: Path) -> list[tuple[str, str]]:
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
        f"sensor_uuid;note;sensor_name\n{SENSOR};x;a".encode(),
        f'"sensor_name";"sensor_uuid"\n"a";"{SENSOR}"\n'.encode(),
        f" sensor_name ; sensor_uuid\n a ; {SENSOR} ".encode(),
    ],
    ids=["byte order mark and CRLF", "upper case and blank line", "other columns", "quotes", "blanks"],
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
