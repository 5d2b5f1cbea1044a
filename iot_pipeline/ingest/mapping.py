"""``mapping.csv`` (name ↔ uuid) into SQLite."""

import csv
import io
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from iot_pipeline.errors import MappingError
from iot_pipeline.ingest.parse import read_uuid
from iot_pipeline.store import Store, StoredObject, as_source
from iot_pipeline.warehouse import MAPPING, open_warehouse, readable_write_errors

FILE_NAME = "mapping.csv"
_SCHEMA = """
    CREATE TABLE sensors (
        sensor_name TEXT NOT NULL PRIMARY KEY,
        sensor_uuid TEXT NOT NULL UNIQUE
    ) STRICT
"""


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
    origin = as_source(source)
    folder = open_warehouse(warehouse).mapping
    obj = _find_mapping(origin)
    with origin.open_object(obj) as stream:
        sensors = read_mapping(stream.read(), obj.name)
    folder.create()
    with (
        readable_write_errors(f"{folder.url}/{MAPPING}"),
        folder.publish(MAPPING) as part,
        closing(sqlite3.connect(part)) as connection,
        connection,
    ):
        connection.execute(_SCHEMA)
        connection.executemany("INSERT INTO sensors VALUES (?, ?)", sensors)
    return MappingReport(obj.name, len(sensors))


def _find_mapping(source: Store) -> StoredObject:
    found = [obj for obj in source.list_objects() if obj.name.split("/")[-1].lower() == FILE_NAME]
    if len(found) != 1:
        keys = ", ".join(obj.name for obj in found) or "none"
        raise MappingError(f"{source.url} must hold one {FILE_NAME}, found {keys}: check IOT_SOURCE")
    return found[0]


def read_mapping(data: bytes, key: str) -> list[tuple[str, str]]:
    """Read the names and uuids of a mapping file.

    Args:
        data: The file's content.
        key: How to call it in errors.

    Returns:
        Pairs of sensor_name and lower-case sensor_uuid in the file's order.

    Raises:
        MappingError: A column or value is missing, or a name or uuid stands twice.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MappingError(f"{key} is not UTF-8: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";")
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        if not {"sensor_name", "sensor_uuid"} <= set(columns):
            raise MappingError(
                f"{key} needs the header sensor_name;sensor_uuid, it has {';'.join(columns)!r}"
            )
        reader.fieldnames = columns
        sensors = [_read_sensor(row, f"{key} line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise MappingError(f"{key} line {reader.line_num}: {error}") from error
    if not sensors:
        raise MappingError(f"{key} names no sensor")
    for what, counts in zip(
        ("sensor_name", "sensor_uuid"), map(Counter, zip(*sensors, strict=True)), strict=False
    ):
        twice = [value for value, count in counts.items() if count > 1]
        if twice:
            raise MappingError(f"{key} is not one-to-one: {what} {twice[0]} stands {counts[twice[0]]} times")
    return sensors


def _read_sensor(row: dict[str, str], where: str) -> tuple[str, str]:
    name = (row["sensor_name"] or "").strip()
    text = row["sensor_uuid"] or ""
    uuid = read_uuid(text)
    if not name or not uuid:
        raise MappingError(f"{where}: not a sensor name and uuid: {name!r}, {text!r}")
    return name, uuid
