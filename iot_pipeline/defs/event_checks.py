"""What must hold of what the detector has found."""

import dagster as dg

from iot_pipeline.defs.checking import check, listed, query, result
from iot_pipeline.defs.resources import MeasurementsResource
from iot_pipeline.kinds import title
from iot_pipeline.warehouse.events import rank_sensors

MOST_ANOMALOUS = 0.05
RECENT_DAYS = 1


@check(asset="anomalies", additional_deps=["events", "sensor_models"])
def few_readings_are_anomalous(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """The share of anomalous readings is at most `limit`; false alarms don't count.

    If it fails, either something happened to many sensors at once, or the models don't fit: look at the named
    sensors with `iot-pipeline plot SENSOR` and at their `reasoning` in `sensor_models`. Say what is none with
    `iot-pipeline annotate`.
    """
    with measurements.connect() as connection:
        figures = rank_sensors(connection).project("sensor_name, n_points, n_anomalies").fetchall()
    gaps = query(
        measurements,
        """
        SELECT sensor_name, start, epoch_us("end" - start) / 3.6e9 AS hours
        FROM events
        WHERE kind = 'gap' AND annotation IS DISTINCT FROM 'false_alarm'
        ORDER BY hours DESC, sensor_name, start
        """,
    )
    share = sum(n_anomalies for *_, n_anomalies in figures) / max(sum(n for _, n, _ in figures), 1)
    shares = sorted((-n_anomalies / n_points, name) for name, n_points, n_anomalies in figures if n_anomalies)
    return result(
        passed=share <= MOST_ANOMALOUS,
        share_anomalous=round(share, 6),
        limit=f"{MOST_ANOMALOUS:.0%}",
        names_and_shares=listed(f"{name}: {-share:.2%}" for share, name in shares),
        longest_gaps=listed(
            f"{gap['sensor_name']}: {gap['hours']:,.1f} h from {gap['start']:%Y-%m-%d %H:%M}" for gap in gaps
        ),
    )


@check(asset="events", additional_deps=["anomalies"])
def events_belong_to_flagged_readings(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every event has as many flagged readings as it says, and every flagged reading belongs to an event.

    If it fails, files of the warehouse were changed: delete its folder `sensor_models` and materialize
    `anomalies`, which judges all sensors anew.
    """
    wrong = query(
        measurements,
        """
        SELECT event_id, coalesce(n_readings, 0) AS n_readings, coalesce(n_flagged, 0) AS n_flagged
        FROM events FULL JOIN (
            SELECT event_id, sensor_name, kind, count(*) AS n_flagged FROM anomalies GROUP BY ALL
        ) USING (event_id, sensor_name, kind)
        WHERE n_readings IS DISTINCT FROM n_flagged
        ORDER BY event_id
        """,
    )
    return result(
        passed=not wrong,
        is_error=True,
        events_that_do_not_add_up=len(wrong),
        ids_and_readings=listed(
            f"{row['event_id']}: {row['n_readings']} readings, {row['n_flagged']} of them flagged"
            for row in wrong
        ),
    )


@check(asset="events")
def few_sensors_at_once(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Nothing happened to several sensors at once within the last day of the data.

    If it fails: look at the named incidents with `iot-pipeline sql "FROM incidents ORDER BY start DESC"`. It
    may be a power cut, a gateway that dropped out or a release.
    """
    incidents = query(
        measurements,
        """
        SELECT n_sensors, kinds, strongest_sensor, start
        FROM incidents
        WHERE n_sensors > 1 AND "end" >= (SELECT max(timestamp) FROM measurements) - to_days($days)
        ORDER BY n_sensors DESC, start
        """,
        days=RECENT_DAYS,
    )
    return result(
        passed=not incidents,
        incidents=len(incidents),
        at_once=listed(
            f"{row['n_sensors']} sensors from {row['start']:%Y-%m-%d %H:%M} on"
            f" ({', '.join(map(title, row['kinds']))}), the strongest {row['strongest_sensor']}"
            for row in incidents
        ),
    )
