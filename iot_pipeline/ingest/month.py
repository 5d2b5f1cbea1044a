"""One month → sorted files of a range of sensors each: the distinct union of its rows in all fragments.

It is a pure function of the set of fragments, so a changed, repeated or interrupted load can simply do it
again. The rows of a source file come in time order and most files don't overlap. So a radix sort by sensor,
stable over fragments in the order of time, leaves the rows sorted; only where a check shows that it didn't is
more done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from iot_pipeline.berlin import month_bounds
from iot_pipeline.ingest.fragment import READINGS
from iot_pipeline.store import Store
from iot_pipeline.warehouse import new_data_file, readings_file
from iot_pipeline.warehouse.delta import DataFile

MEASUREMENTS = pa.schema(
    [
        pa.field("sensor_uuid", pa.string()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("sensor_value", pa.float64()),
    ]
)
FILE_ROWS = 500_000
"""About how many rows a file has: SQL opens every file, and ``get_measurements`` one a month."""
ROW_GROUP_ROWS = 40_000
"""About how many rows a row group has: SQL looks at all of them, ``get_measurements`` decodes one a file."""
WRITE_OPTIONS: dict[str, Any] = {
    "compression": "lz4",
    "use_dictionary": ["sensor_uuid"],
    "column_encoding": {"timestamp": "DELTA_BINARY_PACKED", "sensor_value": "BYTE_STREAM_SPLIT"},
    "store_schema": False,
}
PASS_ROWS = 4_000_000
"""How many rows are sorted in memory at once; a larger month is written sensor range by sensor range."""


@dataclass(frozen=True, slots=True)
class MonthTask:
    """What to compact.

    Attributes:
        month: Like ``2013-01``.
        fragments: Names of the fragments with rows in the month. The same reading in two of them is counted
            as the first one's and as a duplicate of the second.
        n_rows: Rows of the month in all of them.
    """

    month: str
    fragments: tuple[str, ...]
    n_rows: int


@dataclass(frozen=True, slots=True)
class CompactedMonth:
    """What came of it.

    Attributes:
        month: Like ``2013-01``.
        files: The new files of the table.
        loaded: By fragment, the rows that are not duplicates.
        n_conflicts: Rows with another value for the same sensor and time.
    """

    month: str
    files: list[DataFile]
    loaded: dict[str, int]
    n_conflicts: int


@dataclass(slots=True)
class _Rows:
    """Rows of several fragments."""

    sensors: npt.NDArray[np.integer]
    instants: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    owners: npt.NDArray[np.int32]

    def take(self, order: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> "_Rows":
        return _Rows(self.sensors[order], self.instants[order], self.values[order], self.owners[order])

    def same_time(self) -> npt.NDArray[np.bool_]:
        """Tell for each row but the first whether it has the sensor and time of the row before."""
        same_sensor: npt.NDArray[np.bool_] = np.equal(self.sensors[1:], self.sensors[:-1])
        return same_sensor & np.equal(self.instants[1:], self.instants[:-1])


def compact_month(task: MonthTask, bronze: Store, table: Store) -> CompactedMonth:
    """Write the sorted files of one month.

    Args:
        task: The month and its fragments.
        bronze: Where the fragments are.
        table: The table's folder.
    """
    bounds = month_bounds(task.month)
    loaded = np.zeros(len(task.fragments), dtype=np.int64)
    n_conflicts = 0
    files: list[DataFile] = []
    with bronze.fetch([readings_file(fragment) for fragment in task.fragments]) as paths:
        for sensors in _sensor_ranges(paths, n_passes=-(-task.n_rows // PASS_ROWS)):
            rows, n = _deduplicate(_sort(_read_rows(paths, sensors, bounds)))
            n_conflicts += n
            loaded += np.bincount(rows.owners, minlength=len(paths))
            for part in _parts(rows, FILE_ROWS):
                name = f"month={task.month}/{new_data_file()}"
                with table.publish(name) as path:
                    _write_file(path, part, sensors)
                    files.append(DataFile.describe(name, path, {"month": task.month}))
    return CompactedMonth(
        task.month, files, dict(zip(task.fragments, loaded.tolist(), strict=True)), n_conflicts
    )


def _parts(rows: _Rows, size: int) -> Iterator[_Rows]:
    """Cut sorted rows into equal parts of about a size, none of which ends within a sensor."""
    n_rows = len(rows.values)
    size = -(-n_rows // max(round(n_rows / size), 1))
    start = 0
    while start < n_rows:
        last = rows.sensors[min(start + size, n_rows) - 1]
        end = int(np.searchsorted(rows.sensors, last, side="right"))
        yield rows.take(slice(start, end))
        start = end


def _write_file(path: Path, rows: _Rows, sensors: list[str]) -> None:
    with pq.ParquetWriter(path, READINGS, **WRITE_OPTIONS) as writer:
        for group in _parts(rows, ROW_GROUP_ROWS):
            first, last = int(group.sensors[0]), int(group.sensors[-1])
            codes = pa.array((group.sensors - first).astype(np.int32))
            names = pa.DictionaryArray.from_arrays(codes, pa.array(sensors[first : last + 1], pa.string()))
            times = pa.array(group.instants).view(READINGS.field("timestamp").type)
            columns = [names, times, pa.array(group.values)]
            writer.write_table(pa.table(columns, schema=READINGS), row_group_size=len(group.values))


def _sensor_ranges(paths: Sequence[Path], n_passes: int) -> list[list[str]]:
    """Split the sorted names of all sensors in fragments into as many parts of equal size."""
    names: set[str] = set()
    for path in paths:
        with pq.ParquetFile(path, memory_map=True) as file:
            for chunk in file.read(["sensor_uuid"], use_threads=False).column(0).chunks:
                names.update(chunk.dictionary.to_pylist())
    ordered = sorted(names)
    size = max(1, -(-len(ordered) // max(n_passes, 1)))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _read_rows(paths: Sequence[Path], sensors: list[str], bounds: tuple[int, int]) -> _Rows:
    """Read the rows of some sensors within bounds; fragments are put in the order of their first reading."""
    rank = {name: position for position, name in enumerate(sensors)}
    code_type = np.uint16 if len(sensors) < 2**16 - 1 else np.uint32
    outside = len(sensors)
    parts: list[_Rows] = []
    for owner, path in enumerate(paths):
        with pq.ParquetFile(path, memory_map=True) as file:
            table = file.read(use_threads=False).unify_dictionaries().combine_chunks()
        names, times, values = (column.chunk(0) for column in table.columns)
        codes = np.array([rank.get(name, outside) for name in names.dictionary.to_pylist()], code_type)
        part = _Rows(
            codes[names.indices.to_numpy()],
            times.view(pa.int64()).to_numpy(),
            values.to_numpy(),
            np.broadcast_to(np.int32(owner), len(values)),
        )
        inside = (part.sensors < outside) & (part.instants >= bounds[0]) & (part.instants < bounds[1])
        parts.append(part if inside.all() else part.take(inside))
    parts.sort(key=lambda part: int(part.instants.min(initial=bounds[1])))  # a part may have no rows
    return _Rows(
        np.concatenate([part.sensors for part in parts]),
        np.concatenate([part.instants for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.owners for part in parts]),
    )


def _sort(rows: _Rows) -> _Rows:
    """Sort by sensor, time, value and owner."""
    rows = rows.take(np.argsort(rows.sensors, kind="stable"))
    if np.any((rows.sensors[1:] == rows.sensors[:-1]) & (rows.instants[1:] < rows.instants[:-1])):
        rows = rows.take(np.lexsort((rows.instants, rows.sensors)))
    same = rows.same_time()
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        ties = rows.take(tied)
        order = np.arange(len(rows.values))
        order[tied] = tied[np.lexsort((ties.owners, ties.values, ties.instants, ties.sensors))]
        rows = rows.take(order)
    return rows


def _deduplicate(rows: _Rows) -> tuple[_Rows, int]:
    """Keep the first of equal rows; return also how many other values stand beside one at the same time."""
    same = rows.same_time()
    if not same.any():
        return rows, 0
    equal = same & (rows.values[1:] == rows.values[:-1])
    return rows.take(np.append(True, ~equal)), int((same & ~equal).sum())
