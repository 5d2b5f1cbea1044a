"""DuckDB over the tables: a connection, its views, and errors in one line.

What belongs here: everything that both ways to read need, and the views. What does not: single questions.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from iot_pipeline.berlin import TIME_ZONE
from iot_pipeline.errors import DamagedTableError, WarehouseError
from iot_pipeline.store import Store, query_error
from iot_pipeline.warehouse._layout import Warehouse, rejects_file
from iot_pipeline.warehouse.state import HOW_TO_JUDGE, HOW_TO_RELOAD, Pair, State, read_state
from iot_pipeline.warehouse.tables import Table

SENSORS = pa.schema([("sensor_name", pa.string()), ("sensor_uuid", pa.string())])
_COLUMNS = {
    "source_files": ["key VARCHAR"],
    "readings": ["sensor_uuid VARCHAR", "timestamp TIMESTAMPTZ", "sensor_value DOUBLE"],
    "rejected_rows": [
        "source_key VARCHAR",
        "line_number BIGINT",
        "reason VARCHAR",
        "raw VARCHAR",
        "n BIGINT",
    ],
    "anomalies": [
        "sensor_name VARCHAR",
        "timestamp TIMESTAMPTZ",
        "sensor_value DOUBLE",
        "expected_value DOUBLE",
        "score DOUBLE",
        "kind VARCHAR",
        "event_id BIGINT",
    ],
    "sensor_models": [
        "sensor_name VARCHAR",
        "model VARCHAR",
        "breakpoints TIMESTAMPTZ[]",
        "noise_sd DOUBLE",
        "n_points BIGINT",
        "n_anomalies BIGINT",
        "n_events BIGINT",
        "reasoning VARCHAR",
    ],
}
"""The columns of views over files that need not be there, or can't be read."""
_OF_THE_DETECTOR = ("fingerprint", "inputs")
"""Columns that are its own business."""


def connect_to(
    warehouse: Warehouse, connection: duckdb.DuckDBPyConnection | None = None
) -> tuple[duckdb.DuckDBPyConnection, State]:
    """Open a connection as ``connect`` does, and return with it the state that it shows."""
    connection = connection or duckdb.connect(":memory:")
    configure(connection, warehouse.root)
    state = read_state(warehouse, with_verdicts=True)
    while faults := _make_views(connection, state):
        latest = read_state(warehouse, with_verdicts=True, fresh=True)
        if latest == state:
            break
        state = latest
    for view in ("source_files", "readings"):
        if view in faults:
            raise faults[view]
    return connection, state


def _make_views(connection: duckdb.DuckDBPyConnection, state: State) -> dict[str, DamagedTableError]:
    """Make the views of a state and return, by name, why some of them can't be read."""
    warehouse, verdicts = state.warehouse, state.verdicts or Pair()
    faults: dict[str, DamagedTableError] = {}

    def make(name: str, paths: list[str], remedy: str = HOW_TO_RELOAD) -> None:
        try:
            with readable_errors(f"{warehouse.url} ({name})", remedy):
                _create_view(connection, name, paths)
        except DamagedTableError as error:
            faults[name] = error
            _create_view_that_raises(connection, name, error)

    make("source_files", _urls(state.source_files))
    make("readings", _urls(state.timeseries))
    if verdicts.fault:
        for name in ("anomalies", "sensor_models"):
            _create_view_that_raises(connection, name, DamagedTableError(verdicts.fault))
    else:
        make("anomalies", _urls(verdicts.first), HOW_TO_JUDGE)
        make("sensor_models", _urls(verdicts.second if verdicts.first else None), HOW_TO_JUDGE)
    try:
        with readable_errors(warehouse.source_files.url):
            rejecting = connection.execute("SELECT fragment FROM source_files WHERE rows_rejected > 0")
            files = [rejects_file(fragment) for (fragment,) in rejecting.fetchall()]
    except DamagedTableError as error:
        return {"source_files": error} | faults
    make("rejected_rows", [f"{warehouse.bronze.url}/{name}" for name in files])
    sensors = {"sensor_name": list(state.sensors), "sensor_uuid": list(state.sensors.values())}
    connection.register("new_sensors", pa.table(sensors, SENSORS))
    connection.execute("CREATE OR REPLACE TABLE sensors AS FROM new_sensors")
    connection.unregister("new_sensors")
    # Grouped, DuckDB knows that a uuid has one name, and leaves the join out where no name is asked for.
    connection.execute("""
        CREATE OR REPLACE VIEW measurements AS
        SELECT sensor_name, sensor_uuid, timestamp, sensor_value
        FROM readings LEFT JOIN (
            SELECT sensor_uuid, any_value(sensor_name) AS sensor_name FROM sensors GROUP BY sensor_uuid
        ) USING (sensor_uuid)
    """)
    return faults


@contextmanager
def readable_errors(what: str = "the tables", remedy: str = HOW_TO_RELOAD) -> Iterator[None]:
    """Raise an error of DuckDB in reading tables as a ``DamagedTableError``, a line that says what to run."""
    try:
        yield
    except duckdb.Error as error:
        _, is_ours, rest = str(error).splitlines()[0].partition("Error: can't read ")
        if is_ours:  # of a view that raises
            raise DamagedTableError(f"can't read {rest}") from error
        fault = query_error(f"read {what}", error)
        if type(fault) is not WarehouseError:  # the object store is the cause
            raise fault from error
        raise DamagedTableError(f"{fault}: if it stays so, {remedy}") from error


def configure(connection: duckdb.DuckDBPyConnection, root: Store) -> None:
    """Let a connection show times in Berlin's zone and read the warehouse's files."""
    connection.execute(f"SET GLOBAL TimeZone = '{TIME_ZONE}'")  # a cursor inherits only global settings
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET parquet_metadata_cache = true")  # a file of a table never changes
    root.register(connection)


def read_parquet_sql(paths: list[str]) -> str:
    """Return the SQL for the rows of files."""
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}], hive_partitioning = false)"


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, paths: list[str]) -> None:
    if paths:
        columns = f"COLUMNS(lambda name: name NOT IN {_OF_THE_DETECTOR})"
        if name == "rejected_rows":  # those without a line number are rows summed up
            columns += ", if(line_number IS NULL, try_cast(split_part(raw, ' ', 1) AS BIGINT), 1) AS n"
        rows = f"SELECT {columns} FROM {read_parquet_sql(paths)}"
    else:
        typed = (column.split(" ", 1) for column in _COLUMNS[name])
        rows = f"SELECT {', '.join(f'NULL::{kind} AS {column}' for column, kind in typed)} WHERE false"
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS {rows}")


def _create_view_that_raises(
    connection: duckdb.DuckDBPyConnection, name: str, fault: DamagedTableError
) -> None:
    """Make a view that raises an error whichever of its columns or rows is asked for."""
    raises = "error('" + str(fault).replace("'", "''") + "')"
    columns = (column.split(" ", 1) for column in _COLUMNS[name])
    values = ", ".join(f"{raises}::{kind} AS {column}" for column, kind in columns)
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {values} FROM range(1) WHERE {raises}::BOOL")


def _urls(table: Table | None) -> list[str]:
    return [file.url for file in table.files] if table else []
