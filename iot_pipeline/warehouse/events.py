"""Events, and the sensors that they belong to. Reads a connection's views."""

import duckdb


def find_events(
    connection: duckdb.DuckDBPyConnection,
    *,
    sensor_name: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> duckdb.DuckDBPyRelation:
    """Return the events of a sensor or a time, the newest first.

    Args:
        connection: As ``connect`` returns it.
        sensor_name: Only those of this sensor.
        since: Only those that end then or later, in microseconds since the epoch.
        until: Only those that start then or earlier, likewise.

    Returns:
        Columns sensor_name, kind, start, end (TIMESTAMPTZ), duration_h (hours), n_readings, peak_score (in
        standard deviations of a Gaussian as rare), mean_residual (NULL for a gap), annotation, event_id,
        incident_id. A gap starts at the last reading before it and ends at the first one after.
    """
    return connection.sql(
        """
        SELECT sensor_name, kind, start, "end",
            round((epoch_us("end") - epoch_us(start)) / 3.6e9, 2) AS duration_h,
            n_readings, peak_score, mean_residual, annotation, event_id, incident_id
        FROM events
        WHERE coalesce(sensor_name = $sensor_name, true)
            AND coalesce("end" >= make_timestamptz($since), true)
            AND coalesce(start <= make_timestamptz($until), true)
        ORDER BY start DESC, sensor_name, event_id
        """,
        params={"sensor_name": sensor_name, "since": since, "until": until},
    )


def rank_sensors(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return ``sensor_models`` with a column severity, the most severe first.

    A sensor is as severe as the peak scores of its events add up to. False alarms don't count, neither here
    nor in n_anomalies and n_events.
    """
    return connection.sql("""
        SELECT
            sensor_models.* REPLACE (
                coalesce(counted.n_anomalies, 0) AS n_anomalies, coalesce(counted.n_events, 0) AS n_events
            ),
            coalesce(severity, 0) AS severity
        FROM sensor_models LEFT JOIN (
            SELECT
                sensor_name,
                sum(peak_score) AS severity,
                sum(n_readings)::BIGINT AS n_anomalies,
                count(*) AS n_events
            FROM events
            WHERE annotation IS DISTINCT FROM 'false_alarm'
            GROUP BY sensor_name
        ) AS counted USING (sensor_name)
        ORDER BY severity DESC, sensor_name
    """)


def find_sensors(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return all sensors by name: what the mapping says of them, and their first, last and n_readings."""
    return connection.sql("""
        SELECT sensors.*, times.first, times.last, coalesce(times.n_readings, 0) AS n_readings
        FROM sensors LEFT JOIN (
            SELECT sensor_uuid, min(timestamp) AS first, max(timestamp) AS last, count(*) AS n_readings
            FROM measurements GROUP BY sensor_uuid
        ) AS times ON sensors.sensor_uuid = times.sensor_uuid
        ORDER BY sensors.sensor_name
    """)
