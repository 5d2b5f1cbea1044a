"""DuckDB over the tables: a connection, its views, and errors in one line.

What belongs here: everything that both ways to read need, and the views. What does not: single questions.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

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
from iot_pipeline.warehouse.tables import Table, Version

_COLUMNS = {
    table: dict(column.split() for column in columns.split(","))
    for table, columns in {
        "source_files": "key VARCHAR",
        "readings": "sensor_uuid VARCHAR, timestamp TIMESTAMPTZ, sensor_value DOUBLE",
        "rejected_rows": "source_key VARCHAR, line_number BIGINT, reason VARCHAR, raw VARCHAR, n BIGINT",
        "anomalies": """
            sensor_name VARCHAR, timestamp TIMESTAMPTZ, sensor_value DOUBLE, expected_value DOUBLE,
            score DOUBLE, kind VARCHAR, event_id VARCHAR
        """,
        "event_rows": """
            event_id VARCHAR, sensor_name VARCHAR, kind VARCHAR, start TIMESTAMPTZ, end TIMESTAMPTZ,
            n_readings BIGINT, peak_score DOUBLE, mean_residual DOUBLE
        """,
        "incident_rows": "event_id VARCHAR, incident_id VARCHAR",
        "annotation_rows": """
            annotation_id VARCHAR, sensor VARCHAR, start TIMESTAMPTZ, end TIMESTAMPTZ, kind VARCHAR,
            note VARCHAR, author VARCHAR, created_at TIMESTAMPTZ, withdraws VARCHAR
        """,
        "sensor_models": """
            sensor_name VARCHAR, model VARCHAR, breakpoints TIMESTAMPTZ[], noise_sd DOUBLE, n_points BIGINT,
            n_anomalies BIGINT, n_events BIGINT, reasoning VARCHAR
        """,
    }.items()
}
"""The columns of tables that need not be there, or can't be read."""
_SELECTED = {
    "source_files": "*",
    "readings": "*",
    # Those without a line number are rows summed up.
    "rejected_rows": "*, if(line_number IS NULL, try_cast(split_part(raw, ' ', 1) AS BIGINT), 1) AS n",
    "anomalies": "* REPLACE (event_id::VARCHAR AS event_id)",  # an earlier release numbered events
}
"""What is selected from a table's files, where it is not just these columns, as far as they are there."""
_NAMED = """
    SELECT sensor_name, sensor_uuid, timestamp, sensor_value
    FROM {readings} LEFT JOIN (
        SELECT sensor_uuid, any_value(sensor_name) AS sensor_name FROM sensors GROUP BY sensor_uuid
    ) USING (sensor_uuid)
"""
"""Grouped, DuckDB knows that a uuid has one name, and leaves the join out where no name is asked for."""
_VIEWS = {
    "measurements": _NAMED,
    # Most sensors have a reading in the last two months; the others are few, whose row groups are found.
    "last_readings": """
        WITH readings AS NOT MATERIALIZED (SELECT sensor_uuid, timestamp, sensor_value FROM measurements),
        newest AS MATERIALIZED (
            SELECT $last FROM readings WHERE timestamp >= make_timestamptz({newest}) GROUP BY sensor_uuid
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
    + _NAMED.format(readings="found"),
    "annotations": """
        WITH said AS {annotation_rows}
        SELECT annotation_id, sensor, start, "end", kind, note, author, created_at
        FROM said
        WHERE withdraws IS NULL
            AND annotation_id NOT IN (SELECT withdraws FROM said WHERE withdraws IS NOT NULL)
    """,
    "events": """
        WITH event_rows AS {event_rows},
        annotated AS (
            SELECT sensor_name, start, "end", kind
            FROM (SELECT DISTINCT sensor_name FROM event_rows)
            JOIN annotations ON sensor_name = sensor OR sensor_name GLOB sensor
        )
        SELECT event_rows.*, coalesce(incident_id, event_id) AS incident_id, annotation
        FROM event_rows LEFT JOIN {incident_rows} USING (event_id) LEFT JOIN (
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
"""Views that are more than the rows of a table. Each binds its files once: that is what ``connect`` takes."""


def connect_to(
    warehouse: Warehouse, connection: duckdb.DuckDBPyConnection | None = None
) -> tuple[duckdb.DuckDBPyConnection, State]:
    """Open a connection as ``connect`` does, and return with it the state that it shows."""
    connection = open_database(warehouse.root, connection)
    state = read_state(warehouse, with_verdicts=True)
    while faults := _make_views(connection, state):
        latest = read_state(warehouse, with_verdicts=True, fresh=True)
        if latest == state:
            break
        state = latest
        connection.execute("DROP TABLE sensors")  # all else is replaced
    for view in ("source_files", "measurements"):
        if view in faults:
            raise faults[view]
    return connection, state


_parsed: dict[tuple[Warehouse, str], tuple[str, duckdb.Statement]] = {}
"""By warehouse and name, the last statement that made a view, and parsed: half of what it takes."""


def _make_views(connection: duckdb.DuckDBPyConnection, state: State) -> dict[str, DamagedTableError]:
    """Make the views of a state and return, by name, why some of them can't be read."""
    warehouse = state.warehouse
    verdicts, annotations = state.verdicts or Linked(), state.annotations or Linked()
    faults: dict[str, DamagedTableError] = {}

    def create(view: str, rows: dict[str, str]) -> None:
        definition = _VIEWS.get(view, f"{{{view}}}").format(**rows)
        statement = f"CREATE OR REPLACE VIEW {view} AS {definition}"
        known, parsed = _parsed.get((warehouse, view), ("", None))
        if not parsed or known != statement:
            (parsed,) = connection.extract_statements(statement)
            _parsed[warehouse, view] = statement, parsed
        connection.execute(parsed)

    def make(view: str, remedy: str = HOW_TO_RELOAD, fault: str = "", **tables: list[str]) -> None:
        if not fault:
            try:
                with readable_errors(f"{warehouse.url} ({view})", remedy):
                    create(view, {name: _rows_sql(name, paths) for name, paths in tables.items()})
            except DamagedTableError as error:
                faults[view] = error
                fault = str(error)
        if fault:
            create(view, {name: _fault_sql(name, fault) for name in tables})

    mapping: dict[str, list[str | None]] = {"sensor_name": [], "sensor_uuid": []} | state.mapping
    columns = ", ".join(f'unnest(?::VARCHAR[]) AS "{name}"' for name in mapping)
    connection.execute(f"CREATE TABLE sensors AS SELECT {columns}", list(mapping.values()))
    make("source_files", source_files=_urls(state.source_files))
    make("measurements", readings=_urls(state.timeseries))
    newest = month_bounds(list(state.months)[-2:][0])[0] if state.months else 0
    create("last_readings", {"newest": str(newest)})
    judged = verdicts.pinned
    no_events = (
        f"can't read {warehouse.events.url} (an earlier release has judged the sensors): {HOW_TO_JUDGE}"
        if judged and "events" not in judged
        else ""
    )
    make("annotations", HOW_TO_RESTORE, annotations.fault, annotation_rows=_urls(annotations.last))
    make(
        "events",
        HOW_TO_JUDGE,
        verdicts.fault or no_events,
        event_rows=_urls(judged.get("events")),
        # An earlier release had both in one table.
        incident_rows=_urls(judged.get("incidents", judged.get("events"))),
    )
    create("incidents", {})
    make("anomalies", HOW_TO_JUDGE, verdicts.fault, anomalies=_urls(judged.get("anomalies")))
    models = _urls(verdicts.last if judged else None)
    make("sensor_models", HOW_TO_JUDGE, verdicts.fault, sensor_models=models)
    try:
        with readable_errors(warehouse.source_files.url):
            make("rejected_rows", rejected_rows=_files_of_rejects(connection, state))
    except DamagedTableError as error:
        faults["source_files"] = error
    return faults


_rejects: dict[Store, tuple[Version, list[str]]] = {}
"""Of the last ledger that was read in each folder, the files of rejected rows that it lists."""


def _files_of_rejects(connection: duckdb.DuckDBPyConnection, state: State) -> list[str]:
    folder, version = state.warehouse.source_files, state.source_files.version
    known, files = _rejects.get(folder, (None, []))
    if known != version:
        rejecting = connection.execute("SELECT fragment FROM source_files WHERE rows_rejected > 0")
        bronze = state.warehouse.bronze.url
        files = [f"{bronze}/{rejects_file(fragment)}" for (fragment,) in rejecting.fetchall()]
        _rejects[folder] = version, files
    return files


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


def open_database(
    root: Store, connection: duckdb.DuckDBPyConnection | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a database in memory, or take a given one, that shows Berlin's times and reads a store's files."""
    # A cursor inherits only global settings. A table's file never changes, so its footer can be kept.
    settings = {
        "TimeZone": f"'{TIME_ZONE}'",
        "python_enable_replacements": "false",
        "parquet_metadata_cache": "true",
    }
    if connection is None:
        connection = duckdb.connect(":memory:", config=root.duckdb_config)
    else:
        settings |= root.duckdb_config
    for name, value in settings.items():
        connection.execute(f"SET GLOBAL {name} = {value}")
    root.register(connection)
    return connection


def read_parquet_sql(paths: list[str]) -> str:
    """Return the SQL for the rows of files."""
    # As one text, a thousand paths are parsed and bound as fast as one.
    quoted = json.dumps(paths).replace("'", "''")
    return f"""read_parquet(from_json('{quoted}', '["VARCHAR"]'), hive_partitioning = false)"""


def _rows_sql(name: str, paths: list[str]) -> str:
    """Return the SQL, in brackets, for the rows of a table's files; it may have none."""
    if not paths:
        return f"(SELECT {_columns_sql(name, 'NULL')} WHERE false)"
    columns = _SELECTED.get(name) or f"COLUMNS('^({'|'.join(_COLUMNS[name])})$')"
    return f"(SELECT {columns} FROM {read_parquet_sql(paths)})"


def _fault_sql(name: str, fault: str) -> str:
    """Return the SQL, in brackets, that raises an error whichever column or row is asked for."""
    raises = "error('" + fault.replace("'", "''") + "')"
    return f"(SELECT {_columns_sql(name, raises)} FROM range(1) WHERE {raises}::BOOL)"


def _columns_sql(name: str, value: str) -> str:
    return ", ".join(f'{value}::{kind} AS "{column}"' for column, kind in _COLUMNS[name].items())


def _urls(table: Table | None) -> list[str]:
    return [file.url for file in table.files] if table else []
