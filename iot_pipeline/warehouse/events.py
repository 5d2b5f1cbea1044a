"""The events that flagged readings belong to, and the sensors ranked by them. Reads a connection's views."""

from typing import Any

import duckdb

# Divided and multiplied by 2**20, which loses nothing, so that error values such as 1.8e308 don't overflow.
_FOUND = """
    SELECT sensor_name, kind, min(timestamp) AS start, max(timestamp) AS "end", count(*) AS n_readings,
        max(score) AS peak_score,
        CASE kind WHEN 'gap' THEN NULL ELSE
            avg(sensor_value / 1048576 - expected_value / 1048576) * 1048576
        END AS mean_residual
    FROM anomalies
    GROUP BY sensor_name, event_id, kind
"""


def find_events(
    connection: duckdb.DuckDBPyConnection,
    *,
    sensor_name: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> duckdb.DuckDBPyRelation:
    """Fold flagged readings into events, the newest first.

    Args:
        connection: As ``connect`` returns it.
        sensor_name: Only those of this sensor.
        since: Only those that end then or later, in microseconds since the epoch.
        until: Only those that start then or earlier, likewise.

    Returns:
        Columns sensor_name, kind, start, end (TIMESTAMPTZ), duration_h (hours), n_readings, peak_score (in
        standard deviations of the noise) and mean_residual (NULL for a gap). A gap starts at the last reading
        before it and ends at the first one after.
    """
    conditions = {
        "sensor_name = $sensor_name": sensor_name,
        '"end" >= make_timestamptz($since)': since,
        "start <= make_timestamptz($until)": until,
    }
    parameters: dict[str, Any] = {"sensor_name": sensor_name, "since": since, "until": until}
    given = [condition for condition, value in conditions.items() if value is not None]
    return connection.sql(
        f"""
        WITH found AS ({_FOUND}),
        before AS (
            SELECT sensor_name, found."end", max(timestamp) AS start
            FROM found JOIN sensors USING (sensor_name) JOIN readings USING (sensor_uuid)
            WHERE kind = 'gap' AND timestamp < found."end"
            GROUP BY ALL
        ),
        events AS (
            SELECT found.* REPLACE (coalesce(before.start, found.start) AS start)
            FROM found LEFT JOIN before
                ON kind = 'gap' AND found.sensor_name = before.sensor_name AND found."end" = before."end"
        )
        SELECT sensor_name, kind, start, "end",
            round((epoch_us("end") - epoch_us(start)) / 3.6e9, 2) AS duration_h,
            n_readings, peak_score, mean_residual
        FROM events
        {f"WHERE {' AND '.join(given)}" if given else ""}
        ORDER BY start DESC, sensor_name
        """,
        params={name: value for name, value in parameters.items() if value is not None},
    )


def rank_sensors(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return ``sensor_models`` with a column severity, the most severe first.

    A sensor is as severe as the peak scores of its events add up to.
    """
    return connection.sql(f"""
        SELECT sensor_models.*, coalesce(severity, 0) AS severity
        FROM sensor_models LEFT JOIN (
            SELECT sensor_name, sum(peak_score) AS severity FROM ({_FOUND}) GROUP BY sensor_name
        ) USING (sensor_name)
        ORDER BY severity DESC, sensor_name
    """)
