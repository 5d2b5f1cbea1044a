"""What queries need to know of a warehouse: which version, which files, which sensors.

It is kept in the process, and read again only when a newer version has been committed.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from iot_pipeline.delta import count_rows, files_by_partition, open_pair, value_ranges
from iot_pipeline.errors import WarehouseError, WarehouseNotReadyError
from iot_pipeline.warehouse import MAPPING, Warehouse

HOW_TO_LOAD = "run: dagster asset materialize --select mapping,timeseries"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What queries need to know of one version of a warehouse.

    Attributes:
        version: Of the ledger.
        stamp: Differs when anything else does.
        files: The Parquet files by month.
        ranges: The least and the greatest uuid in a file, by its path.
        n_readings: How many readings the files hold.
        sensors: The uuids by sensor name.
    """

    version: int
    stamp: tuple[str, ...]
    files: dict[str, list[str]]
    ranges: dict[str, tuple[str, str]]
    n_readings: int
    sensors: dict[str, str]

    def paths(self, sensor_uuids: Sequence[str], start: str = "", end: str = "9999-12") -> list[str]:
        """Return the files of the months from start to end that may hold readings of some sensors."""
        least, greatest = min(sensor_uuids), max(sensor_uuids)
        everything = ("", "~")
        return [
            path
            for month, paths in self.files.items()
            if start <= month <= end
            for path in paths
            if (bounds := self.ranges.get(path, everything))[0] <= greatest and least <= bounds[1]
        ]


_snapshots: dict[Warehouse, Snapshot] = {}


def take_snapshot(house: Warehouse) -> Snapshot:
    """Return the warehouse's latest version, from memory if it is still the latest."""
    known = _snapshots.get(house)
    if known and not (stamp := _stamp(house, known.version))[0] and stamp == known.stamp:
        return known
    ledger, timeseries = open_pair(house.source_files, house.timeseries, "timeseries")
    stamp = _stamp(house, ledger.version()) if ledger else ()
    sensors = read_sensors(house)
    if ledger is None or timeseries is None or not sensors:
        empty = house.mapping if ledger else house.root
        raise WarehouseNotReadyError(f"nothing has been loaded into {empty.url} yet: {HOW_TO_LOAD}")
    folder = house.timeseries.url
    files = {
        month: [f"{folder}/{path}" for path in paths]
        for month, paths in sorted(files_by_partition(timeseries, "month").items())
    }
    ranges = {f"{folder}/{path}": bounds for path, bounds in value_ranges(timeseries, "sensor_uuid").items()}
    snapshot = _snapshots[house] = Snapshot(
        ledger.version(), stamp, files, ranges, count_rows(timeseries), sensors
    )
    return snapshot


def forget_snapshot(house: Warehouse) -> None:
    """Let the next call look at the warehouse anew."""
    _snapshots.pop(house, None)


def _stamp(house: Warehouse, version: int) -> tuple[str, ...]:
    """Return what changes with the ledger or the mapping, at the price of three looks at the files.

    The first part is empty as long as there is no later version of the ledger.
    """
    log = "source_files/_delta_log"
    commits = [f"{log}/{version + 1:020}.json", f"{log}/{version:020}.json"]
    if house.mapping == house.root:
        return tuple(house.root.versions([*commits, MAPPING]))
    return (*house.root.versions(commits), *house.mapping.versions([MAPPING]))


def read_sensors(house: Warehouse) -> dict[str, str]:
    """Return the uuids by sensor name; none before the mapping has been loaded."""
    if not any(house.mapping.versions([MAPPING])):
        return {}
    with open_mapping(house) as connection:
        return dict(connection.execute("SELECT sensor_name, sensor_uuid FROM sensors ORDER BY sensor_name"))


@contextmanager
def open_mapping(house: Warehouse) -> Iterator[sqlite3.Connection]:
    """Open ``mapping.sqlite`` for reading.

    Raises:
        WarehouseError: It can't be read.
    """
    try:
        with (
            house.mapping.fetch([MAPPING]) as (path,),
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection,
        ):
            yield connection
    except sqlite3.Error as error:
        raise WarehouseError(f"can't read {house.mapping.url}/{MAPPING} ({error}): {HOW_TO_LOAD}") from error
