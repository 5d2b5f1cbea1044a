"""What must hold of the tables; a blocking check stops what is downstream.

Each is a query or two, a second at most over 52 million readings. What they name (sensors, keys) comes from
data: it is shown as text, which the page escapes, never as Markdown or in a description.
"""

from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from iot_pipeline.defs.assets import mapping, timeseries
from iot_pipeline.defs.checking import NAMED, check, listed, query, result
from iot_pipeline.defs.resources import MeasurementsResource
from iot_pipeline.warehouse import MAPPING, open_warehouse
from iot_pipeline.warehouse.quality import (
    MOST_REJECTED,
    SILENCE,
    DamagedFile,
    account_for_rows,
    find_damaged_files,
    read_feed,
)
from iot_pipeline.warehouse.state import open_mapping


@check(asset=mapping)
def mapping_is_one_to_one(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """There are sensors, and no name or uuid occurs twice.

    If it fails, somebody has changed `mapping.sqlite` by hand: materialize `mapping` again. (A `mapping.csv`
    that is not one-to-one is not loaded at all; the asset's failure says what is wrong with it.)
    """
    warehouse = open_warehouse(measurements.warehouse)
    if not any(warehouse.mapping.versions([MAPPING])):
        raise dg.Failure("no mapping has been loaded yet: run: iot-pipeline load --only mapping")
    with open_mapping(warehouse) as connection:
        ((sensors,),) = connection.execute("SELECT count(*) FROM sensors").fetchall()
        twice = {
            column: connection.execute(
                f"SELECT {column}, count(*) FROM sensors GROUP BY 1 HAVING count(*) > 1 LIMIT {NAMED}"
            ).fetchall()
            for column in ("sensor_name", "sensor_uuid")
        }
    return result(
        passed=sensors > 0 and not any(twice.values()),
        is_error=True,
        sensors=sensors,
        names_that_stand_twice=listed(f"{name}: {n}" for name, n in twice["sensor_name"]),
        uuids_that_stand_twice=listed(f"{uuid}: {n}" for uuid, n in twice["sensor_uuid"]),
    )


@check(asset=timeseries, blocking=True)
def every_row_is_accounted_for(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Rows read = loaded + rejected + duplicate in each file, and the table holds just the loaded ones.

    If it fails, files of the warehouse were changed or lost: materialize `timeseries` with the configuration
    `full_reload: true`.
    """
    with measurements.connect() as connection:
        account = account_for_rows(connection)
    return result(passed=account.adds_up, is_error=True, **asdict(account))


@check(asset=timeseries)
def no_file_is_quarantined(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every CSV file could be read: it has the columns that are needed, in UTF-8, separated by semicolons.

    If it fails: correct the named files in the bucket; the next load reads them again. The others are loaded,
    and a file that could be read before keeps the rows that it had. It is an error in the load that brings
    such a file, and a warning from the next one or half a day on.
    """
    files = [file for file in _damaged_files(measurements) if file.error]
    return result(
        passed=not files,
        is_error=any(file.is_new for file in files),
        files_quarantined=len(files),
        files_and_reasons=listed(files),
    )


@check(asset=timeseries)
def few_rows_are_rejected(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """The share of rejected rows is at most `limit`: in each file, in the last load, and in all of them.

    If it fails: look at the rows with `iot-pipeline sql "FROM rejected_rows"`, which has their file, line,
    reason and text, and correct what writes the named files. Rows that could be read are loaded. It is an
    error where a file of the last load has lost more than a tenth of its rows, for half a day.
    """
    files = [file for file in _damaged_files(measurements) if not file.error]
    (shares,) = query(
        measurements,
        """
        SELECT
            coalesce(sum(rows_rejected) / nullif(sum(rows_read), 0), 0) AS of_all,
            coalesce(sum(rows_rejected) FILTER (is_new) / nullif(sum(rows_read) FILTER (is_new), 0), 0)
                AS of_the_last_load,
            coalesce(sum(rows_rejected), 0)::BIGINT AS rows_rejected
        FROM (FROM source_files SELECT *, loaded_at = max(loaded_at) OVER () AS is_new)
        """,
    )
    reasons = query(
        measurements,
        "SELECT reason, sum(n)::BIGINT AS rows FROM rejected_rows GROUP BY ALL ORDER BY rows DESC, reason",
    )
    return result(
        passed=not files and max(shares["of_all"], shares["of_the_last_load"]) <= MOST_REJECTED,
        is_error=any(file.is_new and file.is_rotten for file in files),
        share_rejected=round(shares["of_all"], 6),
        share_rejected_in_the_last_load=round(shares["of_the_last_load"], 6),
        limit=f"{MOST_REJECTED:.0%}",
        rows_rejected=shares["rows_rejected"],
        reasons_and_rows=listed(f"{row['reason']}: {row['rows']}" for row in reasons),
        files_beyond_the_limit=len(files),
        files_and_rows=listed(files),
    )


@check(asset=timeseries, additional_deps=[mapping])
def every_sensor_is_mapped(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every sensor with readings is in the mapping; only then it has a name, can be queried and is judged.

    If it fails: add the named uuids to `mapping.csv` in the bucket and materialize `mapping`. Their readings
    are loaded and wait.
    """
    unknown = query(
        measurements,
        """
        SELECT sensor_uuid, count(*) AS readings FROM measurements ANTI JOIN sensors USING (sensor_uuid)
        GROUP BY ALL ORDER BY readings DESC, sensor_uuid
        """,
    )
    return result(
        passed=not unknown,
        unknown_sensors=len(unknown),
        readings_of_unknown_sensors=sum(row["readings"] for row in unknown),
        uuids_and_readings=listed(f"{row['sensor_uuid']}: {row['readings']}" for row in unknown),
    )


@check(asset=timeseries, additional_deps=[mapping])
def every_sensor_has_readings(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every sensor of the mapping has sent something.

    If it fails: see whether the named sensors are installed, and their uuids in `mapping.csv` right.
    """
    mute = query(
        measurements,
        """
        SELECT sensor_name FROM sensors
        ANTI JOIN (SELECT DISTINCT sensor_uuid FROM measurements) USING (sensor_uuid)
        ORDER BY sensor_name
        """,
    )
    return result(
        passed=not mute,
        sensors_without_readings=len(mute),
        names=listed(row["sensor_name"] for row in mute),
    )


@check(asset=timeseries, additional_deps=[mapping])
def no_sensor_fell_silent(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every sensor's last reading is at most `limit` older than the last one of all sensors.

    It goes by the data's own clock, so old data don't fail it. If it fails: the named sensors have stopped
    sending; see whether they have power and a network.
    """
    silent = query(
        measurements,
        """
        SELECT sensor_name, last
        FROM (SELECT sensor_uuid, max(timestamp) AS last FROM measurements GROUP BY ALL)
        JOIN (SELECT sensor_name, sensor_uuid FROM sensors) USING (sensor_uuid)
        QUALIFY last < max(last) OVER () - to_days($days)
        ORDER BY last, sensor_name
        """,
        days=SILENCE.days,
    )
    return result(
        passed=not silent,
        silent_sensors=len(silent),
        limit=f"{SILENCE.days} days",
        names_and_last_readings=listed(f"{row['sensor_name']}: {row['last']}" for row in silent),
    )


@check(asset=timeseries)
def newest_reading_is_recent(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """The feed has not stopped: the last reading is at most `limit` old.

    Only a live feed can stop. A bucket whose files all came later than that after the month of their readings
    is an archive, like the sample bucket: it passes, and `feed` says so. If it fails: see whether the backend
    still writes files to the bucket. Nothing is wrong with what is loaded.
    """
    with measurements.connect() as connection:
        feed = read_feed(connection)
    shown = {"last_reading": feed.last, "last_file_loaded": feed.loaded}
    return result(
        passed=not feed.has_stopped,
        is_error=True,
        feed="live" if feed.is_live else "archive",
        limit=f"{SILENCE.days} days",
        hours_since_the_last_reading=round(feed.age / timedelta(hours=1), 1) if feed.age else None,
        **{name: dg.MetadataValue.timestamp(moment) for name, moment in shown.items() if moment},
    )


def _damaged_files(measurements: MeasurementsResource) -> list[DamagedFile]:
    with measurements.connect() as connection:
        return find_damaged_files(connection)
