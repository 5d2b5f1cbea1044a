"""Reads a version of a Delta table from its log: its files, and the versions of other tables it pins."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from iot_pipeline.errors import DamagedTableError, WarehouseError
from iot_pipeline.store import Store, StoredObject, one_line, table_error

LOG = "_delta_log"
N_ACTIONS = "numActions"
"""The entry of a commit's description, which is its first line, that says how many lines follow."""


class Version(NamedTuple):
    """A version of a table.

    Attributes:
        number: The number of the commit, from 0.
        table_id: Delta's id of the table, which changes if the table is recreated. Empty if unknown.
    """

    number: int
    table_id: str


@dataclass(frozen=True, slots=True)
class TableFile:
    """A Parquet file of a table's version, as the table's log describes it.

    Attributes:
        url: Its path or S3 URL.
        path: The path relative to the table's folder.
        size: Length in bytes.
        partition: Values of the partition columns.
        n_rows: Number of rows.
        least: The minimum of each column that has statistics.
        greatest: The maximum of each such column.
    """

    url: str
    path: str
    size: int
    partition: dict[str, str | None]
    n_rows: int
    least: dict[str, Any]
    greatest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """One version of a table, as described by its log.

    Attributes:
        version: Its number and the table's id.
        files: Its files.
        pins: The versions of other tables that it pins, by name.
    """

    version: Version
    files: tuple[TableFile, ...]
    pins: dict[str, Version]


_whole_commits: dict[Store, set[StoredObject]] = {}
"""Commits that were found to be whole, which they stay."""


def read_table(folder: Store, version: int | None = None, *, pins: Sequence[Store] = ()) -> Table | None:
    """Read the log of a table up to a version, by default the latest; None if there is no such table.

    Args:
        folder: The table's folder.
        version: The version's number.
        pins: The folders of the tables that this one may pin versions of.

    Raises:
        DamagedTableError: The log can't be read.
        WarehouseUnreachableError: The object store does not answer.
    """
    with _readable_errors(folder):
        table = open_table(folder, version)
        if table is None:
            return None
        _check_commits(folder, table.version())
        words = (table.metadata().description or "").split()
        ids = dict(zip(words[::2], words[1::2], strict=False))
        pinned = {
            name: Version(number, ids.get(name, ""))
            for name in map(table_name, pins)
            if (number := table.transaction_version(name)) is not None
        }
        this = Version(table.version(), str(table.metadata().id))
        return Table(this, tuple(list_files(folder, table)), pinned)


def _check_commits(folder: Store, version: int) -> None:
    """Raise an error if a commit since the last checkpoint was cut.

    What is cut at the end of a line, or at the very beginning, is a smaller commit to Delta.
    """
    commits: dict[int, StoredObject] = {}
    checkpoint = -1
    for file in folder.list_objects(f"{LOG}/"):
        number, _, suffix = file.name.removeprefix(f"{LOG}/").partition(".")
        if not number.isdecimal() or int(number) > version:
            continue
        if suffix == "json":
            commits[int(number)] = file
        elif suffix.startswith("checkpoint"):
            checkpoint = int(number)
    whole = _whole_commits.setdefault(folder, set())
    unknown = [file for number, file in commits.items() if number > checkpoint and file not in whole]
    if not unknown:
        return
    with folder.fetch([file.name for file in unknown]) as paths:
        for file, path in zip(unknown, paths, strict=True):
            lines = path.read_bytes().splitlines()
            info = json.loads(lines[0]).get("commitInfo", {}) if lines else {}
            # Earlier releases did not write the number, and a vacuum's commits are one line each.
            least = 0 if info.get("operation", "").startswith("VACUUM") else 1
            if len(lines) <= int(info.get(N_ACTIONS, least)):
                raise DamagedTableError(f"can't read {folder.url} (its log file {file.name} was cut)")
            whole.add(file)


def table_name(folder: Store) -> str:
    """Return a table's name, which is the last part of its folder."""
    return folder.url.rsplit("/", 1)[-1]


def list_files(folder: Store, table: DeltaTable) -> Iterator[TableFile]:
    """Yield the files of an open version."""
    url = folder.url
    for action in pa.table(table.get_add_actions()).to_pylist():
        yield TableFile(
            f"{url}/{action['path']}",
            action["path"],
            action["size_bytes"],
            dict(action.get("partition") or {}),
            action.get("num_records") or 0,
            action.get("min") or {},
            action.get("max") or {},
        )


def open_table(folder: Store, version: int | None = None) -> DeltaTable | None:
    """Open a version (by default the latest) of a table; None if there is no such table."""
    try:
        return DeltaTable(folder.url, version=version, storage_options=folder.delta_options)
    except TableNotFoundError:
        return None


@contextmanager
def _readable_errors(folder: Store) -> Iterator[None]:
    try:
        yield
    except (DeltaError, pa.ArrowException, OSError, ValueError) as error:
        fault = table_error(f"read {folder.url}", error, folder.setting)
        if type(fault) is not WarehouseError:  # the object store is the cause
            raise fault from error
        raise DamagedTableError(f"can't read {folder.url} ({one_line(error)})") from error


def clear_log(folder: Store) -> None:
    """Delete the log of an unreadable table, so that the next commit recreates the table.

    The oldest files are deleted first, so that what a killed process leaves never looks like an old version.
    """
    for file in folder.list_objects(LOG):
        folder.delete(file.name)
