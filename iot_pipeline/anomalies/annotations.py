"""What people say about sensors: that somebody worked on one, or whether an event is true.

Rows are only ever added to the table ``annotations``, also by a withdrawal; the view ``annotations`` shows
what stands. Several writers at once lose nothing.
"""

import csv
import getpass
import io
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from iot_pipeline.anomalies.tables import TIME
from iot_pipeline.errors import DamagedTableError, UnknownSensorError, WarehouseBusyError
from iot_pipeline.kinds import ANNOTATIONS as KINDS
from iot_pipeline.warehouse import Warehouse, open_warehouse, readable_write_errors
from iot_pipeline.warehouse.cleanup import is_unfinished, remove_files
from iot_pipeline.warehouse.delta import commit, write_rows
from iot_pipeline.warehouse.query import Moment, read_moment
from iot_pipeline.warehouse.state import annotations_tables
from iot_pipeline.warehouse.views import connect_to, readable_errors

ANNOTATIONS = pa.schema(
    [
        ("annotation_id", pa.string()),
        ("sensor", pa.string()),  # a name, or a pattern such as hall_*
        ("start", TIME),
        ("end", TIME),
        ("kind", pa.string()),
        ("note", pa.string()),
        ("author", pa.string()),
        ("created_at", TIME),
        ("withdraws", pa.string()),  # the annotation that this row takes back
    ]
)
_NEEDED = ("sensor", "start", "end", "kind")
_MOST_ERRORS = 5
_ATTEMPTS = 100
_PAUSE = 0.02  # seconds


def annotate(
    sensor: str,
    start: Moment,
    end: Moment,
    kind: str,
    *,
    note: str = "",
    author: str = "",
    warehouse: str | Path | None = None,
) -> str:
    """Say something about a sensor in a range of time, both ends included.

    Readings within ``maintenance`` take no part in the next fit and are not flagged. An event that overlaps a
    ``false_alarm`` stays, but is neither counted nor alerted.

    Args:
        sensor: A name, or a pattern of names such as ``hall_*``.
        start: As for ``get_measurements``.
        end: Likewise.
        kind: ``maintenance``, ``false_alarm`` or ``confirmed``.
        note: Anything.
        author: Who says it; by default the user of the operating system.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Returns:
        Its id, for ``withdraw``.

    Raises:
        UnknownSensorError: No sensor has this name or matches it.
        ValueError: The kind is unknown, a time can't be read, or the end is before the start.
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be written to.
    """
    opened = open_warehouse(warehouse)
    unknown = _unknown_sensors(opened, [sensor])
    said = {"sensor": sensor, "start": start, "end": end, "kind": kind, "note": note, "author": author}
    return _append(opened, [_row(said, unknown)])[0]


def annotate_from(path: str | Path, *, author: str = "", warehouse: str | Path | None = None) -> list[str]:
    """Take all annotations of a CSV file, or none if any of them can't be taken.

    Args:
        path: A file in UTF-8 with the columns ``sensor``, ``start``, ``end``, ``kind`` and perhaps ``note``
            and ``author``, separated by commas or semicolons; others are passed over.
        author: As for ``annotate``, where a row names none.
        warehouse: Likewise.

    Returns:
        Their ids, in the file's order.

    Raises:
        ValueError: The file can't be read or an annotation can't be taken; the text names its lines.
        OSError: There is no such file.
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be written to.
    """
    lines = _read_csv(Path(path))
    opened = open_warehouse(warehouse)
    unknown = _unknown_sensors(opened, {row["sensor"] for _, row in lines})
    rows, errors = [], []
    for number, row in lines:
        try:
            rows.append(_row(row | {"author": row.get("author") or author}, unknown))
        except (ValueError, UnknownSensorError) as error:
            errors.append(f"line {number}: {error}")
    if errors:
        more = f"; and {len(errors) - _MOST_ERRORS:,} more" if len(errors) > _MOST_ERRORS else ""
        raise ValueError(f"{path}: nothing was taken: {'; '.join(errors[:_MOST_ERRORS])}{more}")
    return _append(opened, rows) if rows else []


def withdraw(annotation_id: str, *, author: str = "", warehouse: str | Path | None = None) -> None:
    """Take an annotation back.

    Raises:
        ValueError: No annotation that stands has this id.
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be written to.
    """
    opened = open_warehouse(warehouse)
    connection, _ = connect_to(opened)
    with connection, readable_errors():
        query = "SELECT count(*) FROM annotations WHERE annotation_id = ?"
        ((stands,),) = connection.execute(query, [annotation_id]).fetchall()
    if not stands:
        raise ValueError(
            f"there is no annotation {annotation_id!r}, or it was withdrawn: `iot-pipeline annotate --list`"
            " lists those that stand"
        )
    _append(opened, [{"withdraws": annotation_id, "author": author or _user()}])


def list_annotations(*, warehouse: str | Path | None = None) -> pa.Table:
    """Return the annotations that stand, the latest first.

    Returns:
        Columns annotation_id, sensor, start, end, kind, note, author, created_at; times in Europe/Berlin.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        DamagedTableError: They can't be read.
    """
    connection, _ = connect_to(open_warehouse(warehouse))
    with connection, readable_errors():
        return connection.sql("FROM annotations ORDER BY created_at DESC, annotation_id").to_arrow_table()


def _unknown_sensors(warehouse: Warehouse, patterns: Collection[str]) -> dict[str, UnknownSensorError]:
    """Return the errors for those of some patterns that no sensor matches."""
    connection, state = connect_to(warehouse)
    with connection, readable_errors():
        rows = connection.execute(
            """
            SELECT sensor
            FROM (SELECT unnest($patterns) AS sensor) ANTI JOIN (SELECT sensor_name FROM sensors)
                ON sensor_name = sensor OR sensor_name GLOB sensor
            """,
            {"patterns": list(patterns)},
        ).fetchall()
    return {
        sensor: UnknownSensorError.among(sensor, state.sensors, state.warehouse.url) for (sensor,) in rows
    }


def _row(said: Mapping[str, Any], unknown: Mapping[str, UnknownSensorError]) -> dict[str, Any]:
    """Return an annotation as a row of the table, once it has been checked."""
    if said["kind"] not in KINDS:
        raise ValueError(f"unknown kind {said['kind']!r}: write one of {', '.join(KINDS)}")
    start, end = read_moment(said["start"]), read_moment(said["end"])
    if start > end:
        raise ValueError(f"end {said['end']} is before start {said['start']}: write the earlier time first")
    if said["sensor"] in unknown:
        raise unknown[said["sensor"]]
    return {
        "sensor": said["sensor"],
        "start": start,
        "end": end,
        "kind": said["kind"],
        "note": said.get("note", ""),
        "author": said["author"] or _user(),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return ""


def _read_csv(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a file, each with the number of its line; a value that is missing is empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header, _, _ = text.partition("\n")
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=";" if ";" in header else ",", restval=""
        )
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        missing = [name for name in _NEEDED if name not in reader.fieldnames]
        if missing:
            raise ValueError(
                f"{path} needs the header sensor,start,end,kind[,note,author]: it lacks {', '.join(missing)}"
            )
        return [
            (reader.line_num, {name: value.strip() for name, value in row.items() if name is not None})
            for row in reader
            if any(row.values())
        ]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error


def _append(warehouse: Warehouse, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Add rows in one commit, after whatever somebody else commits meanwhile; return their ids."""
    now = datetime.now(UTC)
    made = [{**row, "annotation_id": uuid4().hex[:12], "created_at": now} for row in rows]
    folder = warehouse.annotations
    warehouse.root.create()
    with readable_write_errors(folder.url):
        file = write_rows(folder, pa.Table.from_pylist(made, ANNOTATIONS))
        for attempt in range(_ATTEMPTS):
            latest = annotations_tables(warehouse)
            if latest.fault:
                raise DamagedTableError(latest.fault)
            number = latest.last.version.number if latest.last else None
            try:
                commit(folder, onto=number, schema=ANNOTATIONS, add=[file], replace=())
                remove_files(folder, is_unfinished)
                break
            except WarehouseBusyError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_PAUSE)
    return [str(row["annotation_id"]) for row in made]
