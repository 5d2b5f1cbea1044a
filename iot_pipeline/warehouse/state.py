"""What is current: the versions of all tables that belong together, their files, and the sensors.

Nothing else opens tables to find that out. A writer reads the tables that it writes under its lock. The state
of readers is kept in the process, and read again only when something newer has been committed.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from iot_pipeline.berlin import month_bounds
from iot_pipeline.errors import DamagedTableError, UnknownSensorError, WarehouseError, WarehouseNotReadyError
from iot_pipeline.store import Store
from iot_pipeline.warehouse._layout import MAPPING, Warehouse
from iot_pipeline.warehouse.tables import LOG, Table, TableFile, Version, clear_log, read_table, table_name

HOW_TO_LOAD = "run: iot-pipeline load --only mapping,timeseries"
HOW_TO_RELOAD = "run: iot-pipeline load --full-reload"
HOW_TO_JUDGE = "run: iot-pipeline load --only anomalies"
HOW_TO_RESTORE = "restore the folder from a backup, or delete it and say everything again"


@dataclass(frozen=True, slots=True)
class Linked:
    """Tables that belong together: the last one is committed last and pins a version of each of the others.

    Attributes:
        pinned: The pinned versions of the others, by name; empty before the last one has been committed to.
        last: The latest version of the last one; None for no table.
        heads: The latest versions of the others, by name, which a killed writer may have left ahead; for
            writers only.
        fault: Why the tables can't be read, and the command that makes them anew; empty if they can.
        damaged: The folders of the tables that then have to be made anew.
    """

    pinned: dict[str, Table] = field(default_factory=dict)
    last: Table | None = None
    heads: dict[str, Table] = field(default_factory=dict)
    fault: str = ""
    damaged: tuple[Store, ...] = ()

    def head_number(self, name: str) -> int | None:
        """Return the version that the next commit to one of the others follows; None for no table."""
        return self.heads[name].version.number if name in self.heads else None


def readings_tables(warehouse: Warehouse, *, writing: bool = False) -> Linked:
    """Read the versions of ``timeseries`` and of ``source_files``, the ledger."""
    return _read_linked([warehouse.timeseries], warehouse.source_files, HOW_TO_RELOAD, writing=writing)


def verdicts_tables(warehouse: Warehouse, *, writing: bool = False) -> Linked:
    """Read the versions of ``events``, ``anomalies``, ``incidents`` and ``sensor_models``."""
    others = [warehouse.events, warehouse.anomalies, warehouse.incidents]
    return _read_linked(others, warehouse.sensor_models, HOW_TO_JUDGE, writing=writing)


def annotations_tables(warehouse: Warehouse) -> Linked:
    """Read the version of ``annotations``, which belongs with no other table."""
    return _read_linked([], warehouse.annotations, HOW_TO_RESTORE)


def _read_linked(others: Sequence[Store], last: Store, remedy: str, *, writing: bool = False) -> Linked:
    heads: dict[str, Table] = {}
    latest = None
    damaged: tuple[Store, ...] = (last, *others)
    try:
        # What a writer is to commit onto comes first: whoever commits in between is found out then.
        if writing:
            found = {table_name(folder): read_table(folder) for folder in others}
            heads = {name: table for name, table in found.items() if table}
        damaged = (last,)
        latest = read_table(last, pins=others)
        damaged = (last, *others)
        pins = latest.pins if latest else {}
        pinned = {
            name: _read_pinned(folder, pins[name], heads.get(name))
            for folder in others
            if (name := table_name(folder)) in pins
        }
    except DamagedTableError as error:
        return Linked(last=latest, heads=heads, fault=f"{error}: {remedy}", damaged=damaged)
    return Linked(pinned, latest, heads)


def _read_pinned(folder: Store, version: Version, head: Table | None) -> Table:
    table = head if head and head.version.number == version.number else read_table(folder, version.number)
    if table is None or version.table_id not in {"", table.version.table_id}:
        raise DamagedTableError(f"can't read {folder.url} (its version {version.number} is gone)")
    return table


def clear_damage(tables: Linked) -> Linked:
    """Delete the logs of tables that can't be read, so that the next commits make them anew.

    A table that is made anew counts its versions from 0 again. So what pins it goes first: an old pin must
    never lead to a new version.
    """
    for folder in tables.damaged:
        clear_log(folder)
    if not tables.damaged:
        return tables
    return Linked(heads=tables.heads if len(tables.damaged) == 1 else {})


@dataclass(frozen=True)
class State:
    """One consistent state of a warehouse.

    Attributes:
        warehouse: Where it lies.
        stamp: Differs when the readings or the sensors do.
        source_files: The ledger.
        timeseries: The version of the readings that it describes.
        months: The files of the readings by month, ascending.
        mapping: The columns of the mapping, by sensor name; none before it has been loaded.
        verdicts: ``sensor_models`` and what it pins; None where nobody has asked for them.
        annotations: ``annotations``, likewise.
    """

    warehouse: Warehouse
    stamp: tuple[str, ...]
    source_files: Table
    timeseries: Table
    months: dict[str, list[TableFile]]
    mapping: dict[str, list[str | None]]
    verdicts: Linked | None = None
    annotations: Linked | None = None

    @cached_property
    def sensors(self) -> dict[str, str]:
        """The uuids by sensor name, ascending."""
        names, uuids = (self.mapping.get(column, []) for column in ("sensor_name", "sensor_uuid"))
        return {str(name): str(uuid) for name, uuid in zip(names, uuids, strict=True)}

    @property
    def n_readings(self) -> int:
        """How many readings there are."""
        return sum(file.n_rows for file in self.timeseries.files)

    @property
    def span(self) -> int:
        """The time from the first to the last reading, in microseconds; 0 where there is none.

        That of their months where a table of an earlier release has no statistics.
        """
        if not self.months:
            return 0
        least = [file.least.get("timestamp") for file in self.timeseries.files]
        greatest = [file.greatest.get("timestamp") for file in self.timeseries.files]
        if None in (*least, *greatest):
            return month_bounds(max(self.months))[1] - month_bounds(min(self.months))[0]
        span: timedelta = max(filter(None, greatest)) - min(filter(None, least))
        return span // timedelta(microseconds=1)

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

    def uuid_of(self, sensor_name: str) -> str:
        """Return a sensor's uuid.

        Raises:
            WarehouseNotReadyError: No mapping has been loaded yet.
            UnknownSensorError: The mapping has no such sensor.
        """
        if not self.sensors:
            raise _nothing_in(self.warehouse.mapping)
        if sensor_name not in self.sensors:
            raise UnknownSensorError.among(sensor_name, self.sensors, self.warehouse.url)
        return self.sensors[sensor_name]


_states: dict[Warehouse, State] = {}
_linked: dict[Store, tuple[tuple[str, ...], Linked]] = {}
"""By the folder of the last table, with what tells whether it is still the latest."""


def read_state(warehouse: Warehouse, *, with_verdicts: bool = False, fresh: bool = False) -> State:
    """Return the latest state, from memory if it is still the latest.

    Args:
        warehouse: Which one.
        with_verdicts: Read ``sensor_models``, what it pins, and ``annotations`` too. Damage to them is no
            error.
        fresh: Trust nothing in memory.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The readings or the mapping can't be read.
    """
    if fresh:
        _states.pop(warehouse, None)
        for folder in (warehouse.sensor_models, warehouse.annotations):
            _linked.pop(folder, None)
    state = _states.get(warehouse)
    if not (
        state and _is_latest(state.stamp) and state.stamp == _stamp_of_readings(warehouse, state.source_files)
    ):
        state = _states[warehouse] = _read_readings(warehouse)
    if not with_verdicts:
        return state
    return replace(
        state,
        verdicts=_read_latest(warehouse.sensor_models, lambda: verdicts_tables(warehouse)),
        annotations=_read_latest(warehouse.annotations, lambda: annotations_tables(warehouse)),
    )


def _read_readings(warehouse: Warehouse) -> State:
    tables = readings_tables(warehouse)
    if tables.fault:
        raise DamagedTableError(tables.fault)
    if tables.last is None or not tables.pinned:
        raise _nothing_in(warehouse.root)
    timeseries = tables.pinned["timeseries"]
    stamp = _stamp_of_readings(warehouse, tables.last)
    months: dict[str, list[TableFile]] = {}
    for file in sorted(timeseries.files, key=lambda file: str(file.partition["month"])):
        months.setdefault(str(file.partition["month"]), []).append(file)
    return State(warehouse, stamp, tables.last, timeseries, months, _read_mapping(warehouse))


def _nothing_in(folder: Store) -> WarehouseNotReadyError:
    return WarehouseNotReadyError(f"nothing has been loaded into {folder.url} yet: {HOW_TO_LOAD}")


def _read_latest(last: Store, read: Callable[[], Linked]) -> Linked:
    stamp, known = _linked.get(last, ((), None))
    if known and _is_latest(stamp) and stamp == tuple(last.versions(_commits(known.last))):
        return known
    tables = read()
    _linked[last] = () if tables.fault else tuple(last.versions(_commits(tables.last))), tables
    return tables


def _stamp_of_readings(warehouse: Warehouse, source_files: Table) -> tuple[str, ...]:
    """Return what changes with the ledger or the mapping, at the price of three looks at the files."""
    commits = [f"source_files/{name}" for name in _commits(source_files)]
    if warehouse.mapping == warehouse.root:
        return tuple(warehouse.root.versions([*commits, MAPPING]))
    return (*warehouse.root.versions(commits), *warehouse.mapping.versions([MAPPING]))


def _commits(table: Table | None) -> list[str]:
    """Return the files of a table's log with the commit after a version, and that of the version itself."""
    number = table.version.number if table else -1
    return [f"{LOG}/{commit:020}.json" for commit in (number + 1, number) if commit >= 0]


def _is_latest(stamp: tuple[str, ...]) -> bool:
    """Tell whether there was no later commit when a stamp was taken."""
    return bool(stamp) and not stamp[0]


def _read_mapping(warehouse: Warehouse) -> dict[str, list[str | None]]:
    """Return the columns of the mapping, by sensor name; none before it has been loaded."""
    if not any(warehouse.mapping.versions([MAPPING])):
        return {}
    with open_mapping(warehouse) as connection:
        rows = connection.execute("SELECT * FROM sensors ORDER BY sensor_name")
        names = [name for name, *_ in rows.description]
        columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(values) for name, values in zip(names, columns, strict=True)}


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
