"""``mapping.csv`` (name ↔ uuid) into SQLite."""

import csv
import io
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from iot_pipeline.errors import MappingError
from iot_pipeline.ingest.parse import read_uuid
from iot_pipeline.store import Store, StoredObject, open_source
from iot_pipeline.warehouse import MAPPING, open_warehouse, readable_write_errors
from iot_pipeline.warehouse.cleanup import remove_files

FILE_NAME = "mapping.csv"
_COLUMNS = {"sensor_name": "TEXT NOT NULL PRIMARY KEY", "sensor_uuid": "TEXT NOT NULL UNIQUE"}
_TAKEN = frozenset({"first", "last", "n_readings", "model", "n_anomalies"})
"""Columns that lists of sensors have besides; one of the file's with such a name gets an underscore."""


@dataclass(frozen=True, slots=True)
class MappingReport:
    """What was loaded.

    Attributes:
        source_key: The object it came from.
        sensors: How many sensors it names.
    """

    source_key: str
    sensors: int


def load_mapping(*, source: str | Store | None = None, warehouse: str | Path | None = None) -> MappingReport:
    """Load the source's ``mapping.csv``, replacing what was loaded before as a whole.

    Args:
        source: A directory, ``s3://bucket[/prefix]`` or an open source; by default the setting's.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Raises:
        MappingError: There is not exactly one ``mapping.csv``, or it is not a one-to-one mapping.
        ConfigurationError: A setting can't be used.
        SourceError: The source can't be read.
        WarehouseError: The disk is full, or another fault in writing. What was loaded before stays.
    """
    origin = open_source(source)
    folder = open_warehouse(warehouse).mapping
    obj = _find_mapping(origin)
    with origin.open_object(obj) as stream:
        columns, sensors = read_mapping(stream.read(), obj.name)
    schema = ", ".join(f'"{name}" {_COLUMNS.get(name, "TEXT")}' for name in columns)
    folder.create()
    with (
        readable_write_errors(f"{folder.url}/{MAPPING}"),
        folder.publish(MAPPING) as part,
        closing(sqlite3.connect(part)) as connection,
        connection,
    ):
        connection.execute(f"CREATE TABLE sensors ({schema}) STRICT")
        connection.executemany(f"INSERT INTO sensors VALUES ({', '.join('?' * len(columns))})", sensors)
    remove_files(folder, lambda _: True, prefix=f".{MAPPING}.")  # what killed processes left
    return MappingReport(obj.name, len(sensors))


def _find_mapping(source: Store) -> StoredObject:
    found = [obj for obj in source.list_objects() if obj.name.split("/")[-1].lower() == FILE_NAME]
    if len(found) != 1:
        keys = ", ".join(obj.name for obj in found) or "none"
        raise MappingError(f"{source.url} must hold one {FILE_NAME}, found {keys}: check IOT_SOURCE")
    return found[0]


def read_mapping(data: bytes, key: str) -> tuple[list[str], list[tuple[str | None, ...]]]:
    """Read a mapping file.

    Args:
        data: The file's content.
        key: How to call it in errors.

    Returns:
        The columns: sensor_name, sensor_uuid and what else the file has, named so that SQL takes the names as
        they are. The rows in the file's order, uuids in lower case; what is empty in another column is None.

    Raises:
        MappingError: A column or value is missing, a name or uuid occurs twice, or two columns have the same
            name.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MappingError(f"{key} is not UTF-8: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";")
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _read_header(header, key)
        sensors = [
            _read_sensor([*row, *[""] * len(header)], columns, f"{key} line {reader.line_num}")
            for row in reader
            if row
        ]
    except csv.Error as error:
        raise MappingError(f"{key} line {reader.line_num}: {error}") from error
    if not sensors:
        raise MappingError(f"{key} names no sensor")
    for what, values in zip(_COLUMNS, zip(*sensors, strict=True), strict=False):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            count = values.count(twice[0])
            raise MappingError(f"{key} is not one-to-one: {what} {twice[0]} stands {count} times")
    return list(columns), sensors


def _read_header(header: list[str], key: str) -> dict[str, int]:
    """Return where each column is, the name and the uuid first; a column without a name is left out."""
    if not _COLUMNS.keys() <= set(header):
        raise MappingError(f"{key} needs the header sensor_name;sensor_uuid, it has {';'.join(header)!r}")
    columns = {name: header.index(name) for name in _COLUMNS}
    seen = {name: name for name in _COLUMNS}
    for position, written in enumerate(header):
        name = re.sub(r"\W+", "_", written).strip("_")
        if not name or position in columns.values():
            continue
        name += "_" if name.casefold() in _TAKEN else ""
        if name.casefold() in seen:
            other = seen[name.casefold()]
            raise MappingError(
                f"{key} has two columns {other!r} and {written!r}: rename or remove one of them"
            )
        seen[name.casefold()] = written
        columns[name] = position
    return columns


def _read_sensor(row: list[str], columns: dict[str, int], where: str) -> tuple[str | None, ...]:
    name, text, *others = (row[position].strip() for position in columns.values())
    uuid = read_uuid(text)
    if not name or not uuid:
        raise MappingError(f"{where}: not a sensor name and uuid: {name!r}, {text!r}")
    return name, uuid, *(value or None for value in others)
