"""Commits Parquet files that have been written elsewhere as the next version of a Delta table.

A version can be *pinned* by the commit of another table: ``source_files`` names the version of ``timeseries``
that it describes, ``sensor_models`` those of the other tables of a judgement. A reader that follows the pins
always sees tables that belong together.

Tables are not written with ``write_deltalake``, because it commits a file before it is synced to disk.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from iot_pipeline.errors import WarehouseBusyError, WarehouseError
from iot_pipeline.settings import get_settings
from iot_pipeline.store import Store, table_error
from iot_pipeline.warehouse._layout import new_data_file
from iot_pipeline.warehouse.tables import LOG, N_ACTIONS, Table, Version, list_files, open_table, table_name

_RETENTION = {
    "delta.logRetentionDuration": timedelta(days=30),
    "delta.deletedFileRetentionDuration": timedelta(days=7),
}
"""Delta's own defaults."""
_ONCE = CommitProperties(max_commit_retries=0)
"""Fail on a conflict; by default Delta retries the commit as a later version."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of a table.

    Attributes:
        path: Relative to the table's folder.
        size: Length in bytes.
        partition: Values of the partition columns.
        stats: Statistics in Delta's format: numbers of rows and NULLs, minimum and maximum values.
    """

    path: str
    size: int
    partition: dict[str, str | None]
    stats: str = ""

    @classmethod
    def describe(cls, name: str, written: Path, partition: Mapping[str, str] | None = None) -> "DataFile":
        """Describe a file.

        Args:
            name: Its future path below the table's folder.
            written: Its present path.
            partition: Values of the partition columns.
        """
        with pq.ParquetFile(written) as file:
            stats = _statistics(file.metadata)
        return cls(name, written.stat().st_size, dict(partition or {}), stats)


def write_rows(folder: Store, rows: pa.Table) -> DataFile:
    """Write rows as a file of a table, durably; the next commit is to add it."""
    name = new_data_file()
    with folder.publish(name) as part:
        pq.write_table(rows, part, compression="zstd", store_schema=False)
        return DataFile.describe(name, part)


def read_rows(folder: Store, table: Table, schema: pa.Schema) -> pa.Table:
    """Read the rows of a version of a table; columns that its files lack are NULL."""
    with folder.fetch([file.path for file in table.files]) as paths:
        files = [pq.read_table(path, schema=schema, memory_map=False) for path in paths]
    return pa.concat_tables([schema.empty_table(), *files])


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
    for name, value in greatest.items():
        if isinstance(value, datetime):  # Delta truncates times to milliseconds: round up
            greatest[name] = value + timedelta(microseconds=999)
    stats = {"numRecords": metadata.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}
    return json.dumps(stats, default=_time_in_json)


def _time_in_json(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def commit(
    folder: Store,
    *,
    onto: int | None,
    schema: pa.Schema,
    add: Sequence[DataFile],
    replace: Collection[str] | None = None,
    partition_by: str | None = None,
    pins: Sequence[tuple[Store, Version]] = (),
) -> Version:
    """Make files the next version of a table, in one commit that is durable when this returns.

    A version is a file in the table's log that is named after its number and written only if no such file
    exists. So of two writers that have read the same version only one can commit, in a directory as on S3,
    and nobody commits on top of a version they have not read.

    Args:
        folder: The table's folder.
        onto: The number of the version that the writer has read, which must still be the latest; None if
            there is no table yet.
        schema: The table's columns, partition columns included; those that it lacks are added. A table whose
            columns have other types is replaced as a whole.
        add: Files that have been published.
        replace: The partitions whose current files are removed from the table; None means all files.
        partition_by: The partition column.
        pins: Other tables, each with the version that this version belongs with.

    Returns:
        The new version.

    Raises:
        WarehouseBusyError: Another writer has committed in the meantime. Nothing is changed.
        WarehouseError: A file is missing, or the commit failed. It may have been written all the same; the
            next load finds out.
    """
    versions = folder.versions([file.path for file in add])
    lost = [file.path for file, version in zip(add, versions, strict=True) if not version]
    if lost:
        raise WarehouseError(
            f"{folder.url}/{lost[0]} is not where its worker wrote it: IOT_WAREHOUSE must be a disk that all"
            " workers share, or s3://bucket"
        )
    with _conflicts_as_busy(folder, onto):
        table = open_table(folder, onto) if onto is not None else None
        description = " ".join(f"{table_name(other)} {version.table_id}" for other, version in pins)
        if table is None:
            table = DeltaTable.create(
                folder.url,
                schema=schema,
                partition_by=partition_by,
                description=description or None,
                configuration=_retention(),
                storage_options=folder.delta_options,
            )
        retyped = _has_other_types(table, schema)
        if not retyped:
            _carry_on(table, schema, description)
        now = int(datetime.now(UTC).timestamp() * 1000)
        removed = [
            RemoveAction(
                file.path,
                data_change=True,
                deletion_timestamp=now,
                size=file.size,
                partition_values=file.partition,
            )
            for file in list_files(folder, table)
            if not retyped and (replace is None or (partition_by and file.partition[partition_by] in replace))
        ]
        added = [
            AddAction(file.path, file.size, file.partition, now, data_change=True, stats=file.stats)
            for file in add
        ]
        version = Version(table.version() + 1, str(table.metadata().id))
        table.create_write_transaction(
            [*added, *removed],
            mode="overwrite" if retyped else "append",  # overwriting takes the new columns
            schema=Schema.from_arrow(schema) if retyped else table.schema(),
            partition_by=partition_by,
            commit_properties=CommitProperties(
                max_commit_retries=0,
                custom_metadata={N_ACTIONS: str(len(added) + len(removed) + len(pins) + retyped)},
                app_transactions=[Transaction(table_name(other), version.number) for other, version in pins],
            ),
        )
        folder.sync(LOG, since=f"{onto:020}" if onto else "")  # the commit may also have written a checkpoint
        return version


def _has_other_types(table: DeltaTable, schema: pa.Schema) -> bool:
    """Return whether a table of an earlier release has a column of another type."""
    types = {field.name: field.type for field in table.schema().fields}
    return any(types.get(field.name, field.type) != field.type for field in Schema.from_arrow(schema).fields)


def _carry_on(table: DeltaTable, schema: pa.Schema, description: str) -> None:
    """Add the columns and properties that a table of an earlier release or another grace period lacks."""
    present = {field.name for field in table.schema().fields}
    missing = [field for field in Schema.from_arrow(schema).fields if field.name not in present]
    if missing:
        table.alter.add_columns(missing, commit_properties=_ONCE)
    properties = _retention()
    if not properties.items() <= table.metadata().configuration.items():
        table.alter.set_table_properties(properties, commit_properties=_ONCE)
    if description and description != table.metadata().description:
        table.alter.set_table_description(description, commit_properties=_ONCE)


def _retention() -> dict[str, str]:
    """Return the properties that keep the log and its record of deleted files for the grace period."""
    grace_period = get_settings().grace_period
    return {
        name: f"interval {math.ceil(max(least, grace_period) / timedelta(hours=1))} hours"
        for name, least in _RETENTION.items()
    }


@contextmanager
def _conflicts_as_busy(folder: Store, onto: int | None) -> Iterator[None]:
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
