"""The ledger: the Delta table ``source_files``, which lists what has been loaded.

What it doesn't list is not loaded yet, whatever else lies on the disk. It is written last. Its commit pins
the version of ``timeseries`` it describes, so the two always agree.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from iot_pipeline.delta import DataFile, commit, list_files, open_table, pinned_version
from iot_pipeline.ingest.convert import FragmentInfo
from iot_pipeline.store import Store

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
    ]
)


@dataclass(slots=True)
class LoadedFile:
    """A loaded source file.

    Attributes:
        info: Its fragment.
        loaded_at: When it was loaded.
        loaded: By month, its rows in the table that are not duplicates of a file loaded before.
    """

    info: FragmentInfo
    loaded_at: datetime
    loaded: dict[str, int] = field(default_factory=dict)

    @property
    def rows_loaded(self) -> int:
        """Readings that the table has from this file."""
        return sum(self.loaded.values())

    @property
    def rows_duplicate(self) -> int:
        """Rows that were loaded before, from this file or another one."""
        return self.info.rows_read - self.info.rows_rejected - self.rows_loaded


@dataclass(slots=True)
class Ledger:
    """What has been loaded.

    Attributes:
        files: By key.
        timeseries_version: The version of ``timeseries`` that holds just their rows; None before any load.
        version: The ledger's own version that this was read from; None before any load.
    """

    files: dict[str, LoadedFile] = field(default_factory=dict)
    timeseries_version: int | None = None
    version: int | None = None


def read_ledger(folder: Store) -> Ledger:
    """Read the ledger's latest version; an empty one when there is none."""
    table = open_table(folder)
    if table is None:
        return Ledger()
    with folder.fetch([file.path for file in list_files(table)]) as paths:
        rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    files = {row["key"]: _from_row(row) for row in rows}
    return Ledger(files, pinned_version(table, "timeseries"), table.version())


def write_ledger(folder: Store, ledger: Ledger) -> None:
    """Commit the ledger as a whole, on top of the version that it was read from."""
    name = f"part-{uuid4().hex}.parquet"
    rows = [_to_row(entry) for _, entry in sorted(ledger.files.items())]
    with folder.publish(name) as part:
        pq.write_table(pa.Table.from_pylist(rows, LEDGER), part, compression="zstd")
        file = DataFile.describe(name, part)
    commit(
        folder,
        onto=ledger.version,
        schema=LEDGER,
        add=[file],
        pins={"timeseries": ledger.timeseries_version or 0},
    )


def _to_row(entry: LoadedFile) -> dict[str, Any]:
    info = entry.info
    return {
        "key": info.key,
        "version": info.version,
        "size": info.size,
        "fragment": info.fragment,
        "error": info.error or None,
        "rows_read": info.rows_read,
        "rows_loaded": entry.rows_loaded,
        "rows_rejected": info.rows_rejected,
        "rows_duplicate": entry.rows_duplicate,
        "rows_in_missing_hour": info.rows_in_missing_hour,
        "months": list(info.months),
        "month_rows": [{"read": rows, "loaded": entry.loaded[month]} for month, rows in info.months.items()],
        "loaded_at": entry.loaded_at,
    }


def _from_row(row: dict[str, Any]) -> LoadedFile:
    months = dict(zip(row["months"], row["month_rows"], strict=True))
    info = FragmentInfo(
        key=row["key"],
        version=row["version"],
        size=row["size"],
        fragment=row["fragment"],
        error=row["error"] or "",
        rows_read=row["rows_read"],
        rows_rejected=row["rows_rejected"],
        rows_in_missing_hour=row["rows_in_missing_hour"],
        months={month: rows["read"] for month, rows in months.items()},
    )
    loaded = {month: rows["loaded"] for month, rows in months.items()}
    return LoadedFile(info, row["loaded_at"].astimezone(UTC), loaded)
