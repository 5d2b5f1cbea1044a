"""DuckDB over the tables: a connection, its views, and errors in one line.

What belongs here: everything that both ways to read need, and the views. What does not: single questions.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from iot_pipeline.berlin import TIME_ZONE, month_bounds
from iot_pipeline.errors import DamagedTableError, WarehouseError
from iot_pipeline.kinds import ANNOTATIONS
from iot_pipeline.store import Store, query_error
from iot_pipeline.warehouse._layout import Warehouse, rejects_file
from iot_pipeline.warehouse.state import (
    HOW_TO_JUDGE,
    HOW_TO_RELOAD,
    HOW_TO_RESTORE,
    Linked,
    State,
    read_state,
)
from iot_pipeline.warehouse.tables import Table

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
        "event_id VARCHAR",
    ],
    "event_rows": [
        "event_id VARCHAR",
        "sensor_name VARCHAR",
        "kind VARCHAR",
        "start TIMESTAMPTZ",
        '"end" TIMESTAMPTZ',
        "n_readings BIGINT",
        "peak_score DOUBLE",
        "mean_residual DOUBLE",
    ],
    "incident_rows": ["event_id VARCHAR", "incident_id VARCHAR"],
    "annotation_rows": [
        "annotation_id VARCHAR",
        "sensor VARCHAR",
        "start TIMESTAMPTZ",
        '"end" TIMESTAMPTZ',
        "kind VARCHAR",
        "note VARCHAR",
        "author VARCHAR",
        "created_at TIMESTAMPTZ",
        "withdraws VARCHAR",
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
_WITH_NAMES = """
    SELECT sensor_name, sensor_uuid, timestamp, sensor_value
    FROM {rows} LEFT JOIN (
        SELECT sensor_uuid, any_value(sensor_name) AS sensor_name FROM sensors GROUP BY sensor_uuid
    ) USING (sensor_uuid)
"""
"""Grouped, DuckDB knows that a uuid has one name, and leaves the join out where no name is asked for."""
_DERIVED = {
    "measurements": _WITH_NAMES.format(rows="readings"),
    # Most sensors have a reading in the last two months; the others are few, whose row groups are found.
    "last_readings": """
        WITH newest AS MATERIALIZED (
            SELECT $last FROM readings WHERE timestamp >= make_timestamptz($newest) GROUP BY sensor_uuid
        ),
        silent AS MATERIALIZED (
            SELECT DISTINCT sensor_uuid FROM readings EXCEPT SELECT sensor_uuid FROM newest
        ),
        found AS (
            FROM newest UNION ALL SELECT $last FROM readings SEMI JOIN silent USING (sensor_uuid)
            GROUP BY sensor_uuid
        )
    """.replace(
        "$last",
        "sensor_uuid, max(timestamp) AS timestamp, arg_max(sensor_value, timestamp) AS sensor_value",
    )
    + _WITH_NAMES.format(rows="found"),
    "annotations": """
        SELECT annotation_id, sensor, start, "end", kind, note, author, created_at
        FROM annotation_rows
        WHERE withdraws IS NULL
            AND annotation_id NOT IN (SELECT withdraws FROM annotation_rows WHERE withdraws IS NOT NULL)
    """,
    "events": """
        WITH annotated AS (
            SELECT sensor_name, start, "end", kind
            FROM (SELECT DISTINCT sensor_name FROM event_rows)
            JOIN annotations ON sensor_name = sensor OR sensor_name GLOB sensor
        )
        SELECT event_rows.*, coalesce(incident_id, event_id) AS incident_id, annotation
        FROM event_rows LEFT JOIN incident_rows USING (event_id) LEFT JOIN (
            SELECT
                event_id,
                first(annotated.kind ORDER BY list_position($kinds, annotated.kind)) AS annotation
            FROM event_rows JOIN annotated
                ON event_rows.sensor_name = annotated.sensor_name
                AND event_rows.start <= annotated."end" AND annotated.start <= event_rows."end"
            GROUP BY event_id
        ) USING (event_id)
    """.replace("$kinds", str(list(ANNOTATIONS))),
    "incidents": """
        SELECT
            incident_id,
            min(start) AS start,
            max("end") AS "end",
            count(DISTINCT sensor_name) AS n_sensors,
            count(*) AS n_events,
            list_sort(list(DISTINCT kind)) AS kinds,
            first(sensor_name ORDER BY peak_score DESC, sensor_name) AS strongest_sensor,
            max(peak_score) AS peak_score
        FROM events
        WHERE annotation IS DISTINCT FROM 'false_alarm'
        GROUP BY incident_id
    """,
}
"""Views over the views of files, and over each other."""
_OF_THE_DETECTOR = ("fingerprint", "inputs", "remembered")
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
    warehouse = state.warehouse
    verdicts, annotations = state.verdicts or Linked(), state.annotations or Linked()
    faults: dict[str, DamagedTableError] = {}

    def make(name: str, paths: list[str], remedy: str = HOW_TO_RELOAD, fault: str = "") -> None:
        if fault:
            _create_view_that_raises(connection, name, DamagedTableError(fault))
            return
        try:
            with readable_errors(f"{warehouse.url} ({name})", remedy):
                _create_view(connection, name, paths)
        except DamagedTableError as error:
            faults[name] = error
            _create_view_that_raises(connection, name, error)

    make("source_files", _urls(state.source_files))
    make("readings", _urls(state.timeseries))
    judged = verdicts.pinned
    no_events = (
        f"can't read {warehouse.events.url} (an earlier release has judged the sensors): {HOW_TO_JUDGE}"
        if judged and "events" not in judged
        else ""
    )
    make("event_rows", _urls(judged.get("events")), HOW_TO_JUDGE, verdicts.fault or no_events)
    incidents = judged.get("incidents", judged.get("events"))  # an earlier release had both in one table
    make("incident_rows", _urls(incidents), HOW_TO_JUDGE, verdicts.fault)
    make("anomalies", _urls(judged.get("anomalies")), HOW_TO_JUDGE, verdicts.fault)
    make("sensor_models", _urls(verdicts.last if judged else None), HOW_TO_JUDGE, verdicts.fault)
    make("annotation_rows", _urls(annotations.last), HOW_TO_RESTORE, annotations.fault)
    try:
        with readable_errors(warehouse.source_files.url):
            rejecting = connection.execute("SELECT fragment FROM source_files WHERE rows_rejected > 0")
            files = [rejects_file(fragment) for (fragment,) in rejecting.fetchall()]
    except DamagedTableError as error:
        return {"source_files": error} | faults
    make("rejected_rows", [f"{warehouse.bronze.url}/{name}" for name in files])
    columns: dict[str, list[str | None]] = {"sensor_name": [], "sensor_uuid": []} | state.mapping
    sensors = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    connection.register("new_sensors", pa.table(sensors))
    connection.execute("CREATE OR REPLACE TABLE sensors AS FROM new_sensors")
    connection.unregister("new_sensors")
    newest = month_bounds(list(state.months)[-2:][0])[0] if state.months else 0
    for name, rows in _DERIVED.items():
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {rows.replace('$newest', f'{newest}')}")
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
    # A cursor inherits only global settings. A table's file never changes, so its footer can be kept.
    connection.execute(f"""
        SET GLOBAL TimeZone = '{TIME_ZONE}';
        SET GLOBAL python_enable_replacements = false;
        SET GLOBAL parquet_metadata_cache = true
    """)
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
        if name == "event_rows":
            columns = "COLUMNS(lambda name: name <> 'incident_id')"
        if name == "anomalies":  # an earlier release numbered events
            columns = "* REPLACE (event_id::VARCHAR AS event_id)"
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
