"""The ledger: the Delta table ``source_files``, which lists the loaded files.

A file that it doesn't list has not been loaded, whatever else is on the disk. The ledger is written last, and
its commit pins the version of ``timeseries`` that it describes, so the two always agree.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iot_pipeline.errors import DamagedTableError
from iot_pipeline.ingest.fragment import FragmentInfo
from iot_pipeline.store import one_line
from iot_pipeline.warehouse import Warehouse
from iot_pipeline.warehouse.delta import commit, write_rows
from iot_pipeline.warehouse.state import HOW_TO_RELOAD
from iot_pipeline.warehouse.tables import Table, Version

LEDGER = pa.schema(
    [
        ("key", pa.string()),
        ("version", pa.string()),
        ("size", pa.int64()),
        ("fragment", pa.string()),
        ("error", pa.string()),
        ("rows_read", pa.int64()),
        ("rows_loaded", pa.int64()),
        ("rows_rejected", pa.int64()),
        ("rows_duplicate", pa.int64()),
        ("rows_in_missing_hour", pa.int64()),
        ("months", pa.list_(pa.string())),
        ("month_rows", pa.list_(pa.struct([("read", pa.int64()), ("loaded", pa.int64())]))),
        ("loaded_at", pa.timestamp("us", tz="UTC")),
        ("broken_fragment", pa.string()),
    ]
)


@dataclass(slots=True)
class LoadedFile:
    """A loaded source file.

    Attributes:
        info: The fragment that its rows come from.
        loaded_at: When its last version was loaded or quarantined.
        loaded: By month, the number of its rows in the table that no earlier file contained.
        error: Why its last version was quarantined as a whole; empty if it was not.
        broken_fragment: The fragment of the quarantined last version, if the rows are those of an earlier,
            readable version; else empty.
    """

    info: FragmentInfo
    loaded_at: datetime
    loaded: dict[str, int] = field(default_factory=dict)
    error: str = ""
    broken_fragment: str = ""

    @classmethod
    def of(cls, info: FragmentInfo, loaded_at: datetime, before: "LoadedFile | None") -> "LoadedFile":
        """Return the entry for a file whose last version has been converted.

        Args:
            info: The fragment of the last version.
            loaded_at: The time of this load.
            before: The file's previous entry, if any.
        """
        if info.error and before and not before.info.error:
            return replace(before, loaded_at=loaded_at, error=info.error, broken_fragment=info.fragment)
        return cls(info, loaded_at, error=info.error)

    @property
    def last_fragment(self) -> str:
        """The fragment of the file's last version, readable or not."""
        return self.broken_fragment or self.info.fragment

    @property
    def rows_loaded(self) -> int:
        """Readings that this file added to the table."""
        return sum(self.loaded.values())

    @property
    def rows_duplicate(self) -> int:
        """Rows that the table already had, from this file or another."""
        return self.info.rows_read - self.info.rows_rejected - self.rows_loaded


def read_ledger(warehouse: Warehouse, table: Table | None) -> dict[str, LoadedFile]:
    """Read a version of the ledger; return the loaded files by key.

    Raises:
        DamagedTableError: Its files can't be read.
    """
    folder = warehouse.source_files
    try:
        with folder.fetch([file.path for file in table.files] if table else []) as paths:
            rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    except (pa.ArrowException, FileNotFoundError) as error:
        raise DamagedTableError(f"can't read {folder.url} ({one_line(error)}): {HOW_TO_RELOAD}") from error
    return {row["key"]: _from_row(row) for row in rows}


def write_ledger(
    warehouse: Warehouse, files: Mapping[str, LoadedFile], timeseries: Version, *, onto: Table | None
) -> None:
    """Commit the whole ledger.

    Args:
        warehouse: The warehouse, locked.
        files: The loaded files by key.
        timeseries: The version of ``timeseries`` that holds exactly their rows.
        onto: The ledger's latest version; None if there is no ledger yet.
    """
    folder = warehouse.source_files
    rows = [_to_row(entry) for _, entry in sorted(files.items())]
    file = write_rows(folder, pa.Table.from_pylist(rows, LEDGER))
    number = onto.version.number if onto else None
    commit(folder, onto=number, schema=LEDGER, add=[file], pins=[(warehouse.timeseries, timeseries)])


def listed_fragments(warehouse: Warehouse) -> set[str]:
    """Return the fragments listed by any version of the ledger whose files are still kept.

    Unreadable files are skipped: nobody can read their version anyway.
    """
    folder = warehouse.source_files
    names = [file.name for file in folder.list_objects()]
    names = [name for name in names if "/" not in name and name.endswith(".parquet")]
    fragments: set[str] = set()
    with folder.fetch(names) as paths:
        for path in paths:
            with suppress(pa.ArrowException, FileNotFoundError):
                fragments.update(pq.read_table(path, columns=["fragment"])["fragment"].to_pylist())
    return fragments


def _to_row(entry: LoadedFile) -> dict[str, Any]:
    info = entry.info
    return {
        "key": info.key,
        "version": info.version,
        "size": info.size,
        "fragment": info.fragment,
        "error": entry.error or None,
        "rows_read": info.rows_read,
        "rows_loaded": entry.rows_loaded,
        "rows_rejected": info.rows_rejected,
        "rows_duplicate": entry.rows_duplicate,
        "rows_in_missing_hour": info.rows_in_missing_hour,
        "months": list(info.months),
        "month_rows": [{"read": rows, "loaded": entry.loaded[month]} for month, rows in info.months.items()],
        "loaded_at": entry.loaded_at,
        "broken_fragment": entry.broken_fragment or None,
    }


def _from_row(row: dict[str, Any]) -> LoadedFile:
    months = dict(zip(row["months"], row["month_rows"], strict=True))
    error = row["error"] or ""
    broken_fragment = row.get("broken_fragment") or ""  # earlier releases lack this column
    info = FragmentInfo(
        key=row["key"],
        version=row["version"],
        size=row["size"],
        fragment=row["fragment"],
        error="" if broken_fragment else error,
        rows_read=row["rows_read"],
        rows_rejected=row["rows_rejected"],
        rows_in_missing_hour=row["rows_in_missing_hour"],
        months={month: rows["read"] for month, rows in months.items()},
    )
    loaded = {month: rows["loaded"] for month, rows in months.items()}
    return LoadedFile(info, row["loaded_at"].astimezone(UTC), loaded, error, broken_fragment)
