"""What is current: the versions of all tables that belong together, their files, and the sensors.

Nothing else opens tables to find that out. A writer reads the tables that it writes under its lock. The state
of readers is kept in the process, and read again only when something newer has been committed.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from iot_pipeline.errors import DamagedTableError, WarehouseError, WarehouseNotReadyError
from iot_pipeline.store import Store
from iot_pipeline.warehouse._layout import MAPPING, Warehouse
from iot_pipeline.warehouse.tables import LOG, Table, TableFile, Version, clear_log, read_table

HOW_TO_LOAD = "run: dagster asset materialize --select mapping,timeseries"
HOW_TO_RELOAD = "run: iot-pipeline load --full-reload"
HOW_TO_JUDGE = "run: dagster asset materialize --select anomalies"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tables that belong together: the second one is committed last and pins a version of the first.

    Attributes:
        first: The pinned version of the first table; None before the second one has been committed to.
        second: The latest version of the second one; None for no table.
        head: The latest version of the first, which a killed writer may have left ahead; for writers only.
        fault: Why the tables can't be read, and the command that makes them anew; empty if they can.
        damaged: The folders of the tables that then have to be made anew.
    """

    first: Table | None = None
    second: Table | None = None
    head: Table | None = None
    fault: str = ""
    damaged: tuple[Store, ...] = ()


def readings_tables(warehouse: Warehouse, *, writing: bool = False) -> Pair:
    """Read the versions of ``timeseries`` and of ``source_files``, the ledger."""
    return _read_pair(warehouse.timeseries, warehouse.source_files, HOW_TO_RELOAD, writing=writing)


def verdicts_tables(warehouse: Warehouse, *, writing: bool = False) -> Pair:
    """Read the versions of ``anomalies`` and of ``sensor_models``."""
    return _read_pair(warehouse.anomalies, warehouse.sensor_models, HOW_TO_JUDGE, writing=writing)


def _read_pair(first: Store, second: Store, remedy: str, *, writing: bool) -> Pair:
    head = latest = None
    damaged: tuple[Store, ...] = (second, first)
    try:
        # What a writer is to commit onto comes first: whoever commits in between is found out then.
        head = read_table(first) if writing else None
        damaged = (second,)
        latest = read_table(second, pins=first)
        damaged = (second, first)
        if latest is None or latest.pinned is None:
            return Pair(second=latest, head=head)
        pinned = _read_pinned(first, latest.pinned, head)
    except DamagedTableError as error:
        return Pair(second=latest, head=head, fault=f"{error}: {remedy}", damaged=damaged)
    return Pair(pinned, latest, head)


def _read_pinned(folder: Store, version: Version, head: Table | None) -> Table:
    table = head if head and head.version.number == version.number else read_table(folder, version.number)
    if table is None or version.table_id not in {"", table.version.table_id}:
        raise DamagedTableError(f"can't read {folder.url} (its version {version.number} is gone)")
    return table


def clear_damage(tables: Pair) -> Pair:
    """Delete the logs of tables that can't be read, so that the next commits make them anew.

    A table that is made anew counts its versions from 0 again. So what pins it goes first: an old pin must
    never lead to a new version.
    """
    for folder in tables.damaged:
        clear_log(folder)
    if not tables.damaged:
        return tables
    return Pair(head=tables.head if len(tables.damaged) == 1 else None)


@dataclass(frozen=True, slots=True)
class State:
    """One consistent state of a warehouse.

    Attributes:
        warehouse: Where it lies.
        stamp: Differs when the readings or the sensors do.
        source_files: The ledger.
        timeseries: The version of the readings that it describes.
        months: The files of the readings by month, ascending.
        sensors: The uuids by sensor name, ascending; none before the mapping has been loaded.
        verdicts: ``anomalies`` and ``sensor_models``; None where nobody has asked for them.
    """

    warehouse: Warehouse
    stamp: tuple[str, ...]
    source_files: Table
    timeseries: Table
    months: dict[str, list[TableFile]]
    sensors: dict[str, str]
    verdicts: Pair | None = None

    @property
    def n_readings(self) -> int:
        """How many readings there are."""
        return sum(file.n_rows for file in self.timeseries.files)

    def paths(self, sensor_uuids: Sequence[str], start: str = "", end: str = "9999-12") -> list[str]:
        """Return the files of the months from start to end that may hold readings of some sensors."""
        wanted = sorted(sensor_uuids)

        def may_hold(file: TableFile) -> bool:
            position = bisect_left(wanted, file.least.get("sensor_uuid", ""))
            return position < len(wanted) and wanted[position] <= file.greatest.get("sensor_uuid", "~")

        return [
            file.url
            for month, files in self.months.items()
            if start <= month <= end
            for file in files
            if may_hold(file)
        ]

    def uuid_of(self, sensor_name: str) -> str | None:
        """Return a sensor's uuid; None where the mapping has no such sensor.

        Raises:
            WarehouseNotReadyError: No mapping has been loaded yet.
        """
        if not self.sensors:
            raise _nothing_in(self.warehouse.mapping)
        return self.sensors.get(sensor_name)


_states: dict[Warehouse, State] = {}
_verdicts: dict[Warehouse, tuple[tuple[str, ...], Pair]] = {}


def read_state(warehouse: Warehouse, *, with_verdicts: bool = False, fresh: bool = False) -> State:
    """Return the latest state, from memory if it is still the latest.

    Args:
        warehouse: Which one.
        with_verdicts: Read ``anomalies`` and ``sensor_models`` too. Damage to them is no error here.
        fresh: Trust nothing in memory.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The readings or the mapping can't be read.
    """
    if fresh:
        _states.pop(warehouse, None)
        _verdicts.pop(warehouse, None)
    state = _states.get(warehouse)
    if not (
        state and _is_latest(state.stamp) and state.stamp == _stamp_of_readings(warehouse, state.source_files)
    ):
        state = _states[warehouse] = _read_readings(warehouse)
    return replace(state, verdicts=_read_verdicts(warehouse)) if with_verdicts else state


def _read_readings(warehouse: Warehouse) -> State:
    tables = readings_tables(warehouse)
    if tables.fault:
        raise DamagedTableError(tables.fault)
    if tables.first is None or tables.second is None:
        raise _nothing_in(warehouse.root)
    stamp = _stamp_of_readings(warehouse, tables.second)
    months: dict[str, list[TableFile]] = {}
    for file in sorted(tables.first.files, key=lambda file: str(file.partition["month"])):
        months.setdefault(str(file.partition["month"]), []).append(file)
    return State(warehouse, stamp, tables.second, tables.first, months, read_sensors(warehouse))


def _nothing_in(folder: Store) -> WarehouseNotReadyError:
    return WarehouseNotReadyError(f"nothing has been loaded into {folder.url} yet: {HOW_TO_LOAD}")


def _read_verdicts(warehouse: Warehouse) -> Pair:
    stamp, known = _verdicts.get(warehouse, ((), None))
    if known and _is_latest(stamp) and stamp == _stamp_of_verdicts(warehouse, known):
        return known
    tables = verdicts_tables(warehouse)
    _verdicts[warehouse] = (() if tables.fault else _stamp_of_verdicts(warehouse, tables)), tables
    return tables


def _stamp_of_readings(warehouse: Warehouse, source_files: Table) -> tuple[str, ...]:
    """Return what changes with the ledger or the mapping, at the price of three looks at the files."""
    commits = [f"source_files/{name}" for name in _commits(source_files)]
    if warehouse.mapping == warehouse.root:
        return tuple(warehouse.root.versions([*commits, MAPPING]))
    return (*warehouse.root.versions(commits), *warehouse.mapping.versions([MAPPING]))


def _stamp_of_verdicts(warehouse: Warehouse, tables: Pair) -> tuple[str, ...]:
    return tuple(warehouse.sensor_models.versions(_commits(tables.second)))


def _commits(table: Table | None) -> list[str]:
    """Return the files of a table's log with the commit after a version, and that of the version itself."""
    number = table.version.number if table else -1
    return [f"{LOG}/{commit:020}.json" for commit in (number + 1, number) if commit >= 0]


def _is_latest(stamp: tuple[str, ...]) -> bool:
    """Tell whether there was no later commit when a stamp was taken."""
    return bool(stamp) and not stamp[0]


def read_sensors(warehouse: Warehouse) -> dict[str, str]:
    """Return the uuids by sensor name; none before the mapping has been loaded."""
    if not any(warehouse.mapping.versions([MAPPING])):
        return {}
    with open_mapping(warehouse) as connection:
        return dict(connection.execute("SELECT sensor_name, sensor_uuid FROM sensors ORDER BY sensor_name"))


@contextmanager
def open_mapping(warehouse: Warehouse) -> Iterator[sqlite3.Connection]:
    """Open ``mapping.sqlite`` for reading.

    Raises:
        WarehouseError: It can't be read.
    """
    try:
        with (
            warehouse.mapping.fetch([MAPPING]) as (path,),
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection,
        ):
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise WarehouseError(
            f"can't read {warehouse.mapping.url}/{MAPPING} ({error}): {HOW_TO_LOAD}"
        ) from error
