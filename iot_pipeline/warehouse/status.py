"""What a warehouse holds, in a few figures."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from iot_pipeline.warehouse._layout import open_warehouse
from iot_pipeline.warehouse.views import connect_to, readable_errors


@dataclass(frozen=True, slots=True)
class Status:
    """What a warehouse holds.

    Attributes:
        warehouse: Its directory or S3 URL.
        sensors: Sensors in the mapping.
        files: Loaded source files.
        files_rejected: Those that were quarantined as a whole.
        readings: Readings in the table.
        size: Bytes of the table's files.
        first: The first reading's time in Europe/Berlin.
        last: The last reading's time in Europe/Berlin.
        loaded_at: When the last file was loaded, in Europe/Berlin.
        rejected_rows: Quarantined rows by reason, the most frequent first.
        anomalies: Anomalous readings by kind, the most frequent first; without those of false alarms.
    """

    warehouse: str
    sensors: int
    files: int
    files_rejected: int
    readings: int
    size: int
    first: datetime | None
    last: datetime | None
    loaded_at: datetime | None
    rejected_rows: dict[str, int]
    anomalies: dict[str, int]


def read_status(warehouse: str | Path | None = None) -> Status:
    """Read what a warehouse holds.

    Args:
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: A table can't be read.
    """
    connection, state = connect_to(open_warehouse(warehouse))
    with connection, readable_errors(state.warehouse.url):
        figures = connection.sql("""
            SELECT
                (SELECT count(*) FROM sensors) AS sensors,
                (SELECT count(*) FROM source_files) AS files,
                (SELECT count(error) FROM source_files) AS files_rejected,
                count(*) AS readings,
                min(timestamp) AS first,
                max(timestamp) AS last,
                (SELECT max(loaded_at) FROM source_files) AS loaded_at
            FROM measurements
        """)
        return Status(
            **figures.to_arrow_table().to_pylist()[0],
            warehouse=state.warehouse.url,
            size=sum(file.size for file in state.timeseries.files),
            rejected_rows=_count(connection, "rejected_rows", "reason", "n"),
            anomalies=_count(
                connection,
                "events WHERE annotation IS DISTINCT FROM 'false_alarm'",
                "kind",
                "n_readings",
            ),
        )


def _count(connection: duckdb.DuckDBPyConnection, view: str, column: str, rows: str) -> dict[str, int]:
    counts = connection.execute(
        f"SELECT {column}, sum({rows})::BIGINT FROM {view} GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(counts.fetchall())


def describe(status: Status) -> str:
    """Return a status as lines for a person."""
    span = f" from {status.first:%Y-%m-%d %H:%M} to {status.last:%Y-%m-%d %H:%M}" if status.first else ""
    loaded = f", the last one at {status.loaded_at:%Y-%m-%d %H:%M}" if status.loaded_at else ""
    quarantined = f" ({status.files_rejected:,} quarantined)" if status.files_rejected else ""
    lines = {
        "warehouse": status.warehouse,
        "files": f"{status.files:,} loaded{quarantined}{loaded}",
        "readings": f"{status.readings:,}{span}, {status.size / 1e6:,.1f} MB",
        "sensors": f"{status.sensors:,}",
        "rejected rows": _counts(status.rejected_rows),
        "anomalies": _counts(status.anomalies),
    }
    return "\n".join(f"{name + ':':<15}{text}" for name, text in lines.items())


def _counts(counts: dict[str, int]) -> str:
    parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
    return f"{sum(counts.values()):,}" + (f" ({parts})" if parts else "")
