"""Delta tables: Parquet files that are written elsewhere become a table's next version in one commit.

A version can be *pinned* by the commit of another table: ``source_files`` names the version of ``timeseries``
that it describes, ``sensor_models`` the version of ``anomalies`` it was made with. Who follows the pins sees
tables that belong together, whenever they look.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from iot_pipeline.files import sync


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of a table.

    Attributes:
        path: Relative to the table's directory.
        size: Length in bytes.
        partition: Values of the partition columns.
        stats: Its statistics in Delta's format: number of rows, least and greatest values, NULLs.
    """

    path: str
    size: int
    partition: dict[str, str | None]
    stats: str = ""

    @classmethod
    def describe(cls, path: Path, table: Path, partition: Mapping[str, str] | None = None) -> "DataFile":
        """Describe a file that was written below a table's directory."""
        with pq.ParquetFile(path) as file:
            stats = _statistics(file.metadata)
        return cls(path.relative_to(table).as_posix(), path.stat().st_size, dict(partition or {}), stats)


def _statistics(metadata: pq.FileMetaData) -> str:
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for position in range(metadata.num_columns):
            column = metadata.row_group(group).column(position)
            if column.statistics is None or "." in column.path_in_schema:
                continue
            name, found = column.path_in_schema, column.statistics
            nulls[name] = nulls.get(name, 0) + (found.null_count or 0)
            if found.has_min_max:
                least[name] = min(least.get(name, found.min), found.min)
                greatest[name] = max(greatest.get(name, found.max), found.max)
    millisecond = timedelta(
        microseconds=999
    )  # Delta cuts times to milliseconds: a greatest one is rounded up
    return json.dumps(
        {
            "numRecords": metadata.num_rows,
            "minValues": {name: _plain(value) for name, value in least.items()},
            "maxValues": {
                name: _plain(value + millisecond if isinstance(value, datetime) else value)
                for name, value in greatest.items()
            },
            "nullCount": nulls,
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.decode() if isinstance(value, bytes) else value


def open_table(path: Path, version: int | None = None) -> DeltaTable | None:
    """Open a version (by default the latest) of a table; None when there is no such table."""
    return DeltaTable(path, version=version) if DeltaTable.is_deltatable(str(path)) else None


def pinned_version(table: DeltaTable, other: str) -> int | None:
    """Return the version of another table that a table's version belongs with."""
    return table.transaction_version(other)


def open_pair(path: Path, pinned: Path) -> tuple[DeltaTable, DeltaTable] | tuple[None, None]:
    """Open the latest version of a table and the version of another one that it pins.

    Args:
        path: The table that pins.
        pinned: The other one; its directory's name is the pin's.

    Returns:
        Both tables, or Nones when the first has not been committed to yet.
    """
    table = open_table(path)
    version = pinned_version(table, pinned.name) if table else None
    other = open_table(pinned, version) if version is not None else None
    return (table, other) if table and other else (None, None)


def list_files(table: DeltaTable) -> list[DataFile]:
    """List the files of a table's version."""
    actions = pa.table(table.get_add_actions()).to_pylist()
    return [DataFile(a["path"], a["size_bytes"], dict(a.get("partition") or {})) for a in actions]


def value_ranges(table: DeltaTable, column: str) -> dict[str, tuple[str, str]]:
    """Return the least and the greatest value of a text column in each file that has statistics, by path."""
    actions = pa.table(table.get_add_actions()).to_pylist()
    return {
        a["path"]: (a["min"][column], a["max"][column]) for a in actions if (a.get("min") or {}).get(column)
    }


def files_by_partition(table: DeltaTable | None, column: str) -> dict[str, list[str]]:
    """Return the paths (relative to the table) of a version's files by the value of its partition column."""
    files: dict[str, list[str]] = {}
    for file in list_files(table) if table else ():
        files.setdefault(str(file.partition[column]), []).append(file.path)
    return files


def commit(
    path: Path,
    *,
    schema: pa.Schema,
    add: Sequence[DataFile],
    replace: Collection[str] | None = None,
    partition_by: str | None = None,
    pins: Mapping[str, int] | None = None,
) -> int:
    """Make files the next version of a table, in one commit that is durable when this returns.

    Args:
        path: The table's directory.
        schema: The table's columns, partition columns included.
        add: Files that are written and synced.
        replace: The partitions whose present files leave the table; None means all files.
        partition_by: The partition column.
        pins: Versions of other tables that this version belongs with.

    Returns:
        The new version.
    """
    table = open_table(path)
    is_new = table is None or table.version() == 0
    table = table or _create_table(path, schema, partition_by)
    now = int(datetime.now(UTC).timestamp() * 1000)
    removed = [
        RemoveAction(
            file.path,
            data_change=True,
            deletion_timestamp=now,
            size=file.size,
            partition_values=file.partition,
        )
        for file in list_files(table)
        if replace is None or (partition_by and file.partition[partition_by] in replace)
    ]
    added = [
        AddAction(file.path, file.size, file.partition, now, data_change=True, stats=file.stats)
        for file in add
    ]
    table.create_write_transaction(
        [*added, *removed],
        mode="append",
        schema=table.schema(),
        partition_by=partition_by,
        commit_properties=CommitProperties(
            app_transactions=[Transaction(name, version) for name, version in (pins or {}).items()]
        ),
    )
    version = DeltaTable(path).version()
    log = path / "_delta_log"
    oldest = 0 if is_new else version
    for entry in log.iterdir():
        if entry.name >= f"{oldest:020}":  # a checkpoint may come with the commit
            sync(entry)
    for directory in (log, path, path.parent):
        sync(directory)
    return version


def _create_table(path: Path, schema: pa.Schema, partition_by: str | None) -> DeltaTable:
    path.mkdir(parents=True, exist_ok=True)
    return DeltaTable.create(path, schema=schema, partition_by=partition_by)


def remove_old_files(path: Path, grace_period: timedelta) -> None:
    """Delete the files of a table that no version within the grace period uses."""
    DeltaTable(path).vacuum(
        retention_hours=int(grace_period.total_seconds() // 3600),
        dry_run=False,
        enforce_retention_duration=False,
        full=True,
    )
