"""Delta tables: Parquet files that are written elsewhere become a table's next version in one commit.

A version can be *pinned* by the commit of another table: ``source_files`` names the version of ``timeseries``
that it describes, ``sensor_models`` the version of ``anomalies`` it was made with. Who follows the pins sees
tables that belong together, whenever they look.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from iot_pipeline.errors import WarehouseBusyError, WarehouseError
from iot_pipeline.store import Store, table_error


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of a table.

    Attributes:
        path: Relative to the table's folder.
        size: Length in bytes.
        partition: Values of the partition columns.
        stats: Its statistics in Delta's format: number of rows, least and greatest values, NULLs.
    """

    path: str
    size: int
    partition: dict[str, str | None]
    stats: str = ""

    @classmethod
    def describe(cls, name: str, written: Path, partition: Mapping[str, str] | None = None) -> "DataFile":
        """Describe a file that is to have a name below a table's folder, and where it was written first."""
        with pq.ParquetFile(written) as file:
            stats = _statistics(file.metadata)
        return cls(name, written.stat().st_size, dict(partition or {}), stats)


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


def open_table(folder: Store, version: int | None = None) -> DeltaTable | None:
    """Open a version (by default the latest) of a table; None when there is no such table."""
    try:
        return DeltaTable(folder.url, version=version, storage_options=folder.delta_options)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise table_error(f"read {folder.url}", error, folder.setting) from error


def pinned_version(table: DeltaTable, other: str) -> int | None:
    """Return the version of another table that a table's version belongs with."""
    return table.transaction_version(other)


def open_pair(folder: Store, other: Store, pin: str) -> tuple[DeltaTable, DeltaTable] | tuple[None, None]:
    """Open the latest version of a table and the version of another one that it pins.

    Args:
        folder: The table that pins.
        other: The other one.
        pin: The pin's name.

    Returns:
        Both tables, or Nones when the first has not been committed to yet.
    """
    table = open_table(folder)
    version = pinned_version(table, pin) if table else None
    pinned = open_table(other, version) if version is not None else None
    return (table, pinned) if table and pinned else (None, None)


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


def count_rows(table: DeltaTable) -> int:
    """Return how many rows a table's version has, by its statistics."""
    return int(pc.sum(pa.table(table.get_add_actions())["num_records"]).as_py() or 0)


def files_by_partition(table: DeltaTable | None, column: str) -> dict[str, list[str]]:
    """Return the paths (relative to the table) of a version's files by the value of its partition column."""
    files: dict[str, list[str]] = {}
    for file in list_files(table) if table else ():
        files.setdefault(str(file.partition[column]), []).append(file.path)
    return files


def commit(
    folder: Store,
    *,
    onto: int | None,
    schema: pa.Schema,
    add: Sequence[DataFile],
    replace: Collection[str] | None = None,
    partition_by: str | None = None,
    pins: Mapping[str, int] | None = None,
) -> int:
    """Make files the next version of a table, in one commit that is durable when this returns.

    A version is a file of the table's log whose name is its number, and it is written on the condition that
    there is none of this name. So of two writers who have read the same version only one commits, in a
    directory as on S3, and nobody commits on top of what he has not read.

    Args:
        folder: The table's folder.
        onto: The version that the writer has read and that is to be the latest still; None for no table.
        schema: The table's columns, partition columns included; those that it lacks are added.
        add: Files that are published.
        replace: The partitions whose present files leave the table; None means all files.
        partition_by: The partition column.
        pins: Versions of other tables that this version belongs with.

    Returns:
        The new version.

    Raises:
        WarehouseBusyError: Somebody else has committed meanwhile. Nothing is changed.
        WarehouseError: A file is not there, or the commit can't be written. Whether it was is then unknown;
            the next load finds out.
    """
    versions = folder.versions([file.path for file in add])
    lost = [file.path for file, version in zip(add, versions, strict=True) if not version]
    if lost:
        raise WarehouseError(
            f"{folder.url}/{lost[0]} is not where its worker wrote it: IOT_WAREHOUSE must be a disk that all"
            " workers share, or s3://bucket"
        )
    with _refused_when_outdated(folder, onto):
        table = open_table(folder, onto) if onto is not None else None
        table = table or DeltaTable.create(
            folder.url, schema=schema, partition_by=partition_by, storage_options=folder.delta_options
        )
        present = {field.name for field in table.schema().fields}
        missing = [field for field in Schema.from_arrow(schema).fields if field.name not in present]
        if missing:  # the table was made by an earlier release
            table.alter.add_columns(missing, commit_properties=CommitProperties(max_commit_retries=0))
        version = table.version() + 1
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
                max_commit_retries=0,  # by default a conflict is resolved by committing as a later version
                app_transactions=[Transaction(name, number) for name, number in (pins or {}).items()],
            ),
        )
        folder.sync("_delta_log", since=f"{onto:020}" if onto else "")  # a checkpoint may have come with it
        return version


@contextmanager
def _refused_when_outdated(folder: Store, onto: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise table_error(f"write {folder.url}", error, folder.setting) from error
    except DeltaError as error:
        latest = open_table(folder)
        if (latest.version() if latest else None) == onto:
            raise table_error(f"write {folder.url}", error, folder.setting) from error
        raise WarehouseBusyError(
            f"somebody else has written {folder.url} meanwhile: try again, what was converted is kept"
        ) from error


def remove_old_files(folder: Store, grace_period: timedelta) -> None:
    """Delete the files of a table that no version within the grace period uses."""
    table = open_table(folder)
    if table:
        try:
            table.vacuum(
                retention_hours=int(max(grace_period, folder.min_deletion_age).total_seconds() // 3600),
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
            )
        except (DeltaError, OSError) as error:
            raise table_error(f"clear old files from {folder.url}", error, folder.setting) from error
