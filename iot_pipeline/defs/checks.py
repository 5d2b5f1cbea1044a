"""What must hold of the tables; a blocking check stops what is downstream.

Each is a query or two, a second at most over 52 million readings. What they name (sensors, keys) comes from
data: it is shown as text, which the page escapes, never as Markdown or in a description.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import dagster as dg

from iot_pipeline.berlin import BERLIN
from iot_pipeline.defs.assets import mapping, timeseries
from iot_pipeline.defs.failures import readable_failures
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

NAMED = 10
"""How many sensors or files a check names."""
MOST_ANOMALOUS = 0.05


Judge = Callable[[MeasurementsResource], dg.AssetCheckResult]


def _check(
    *, asset: Any, blocking: bool = False, additional_deps: Iterable[Any] = ()
) -> Callable[[Judge], dg.AssetChecksDefinition]:
    """Make an asset check of a function that judges a warehouse.

    A run in which a check fails as an error ends as failed, so that the shell, the schedule and the alerts
    say so: Dagster would call it a success. Only a blocking check keeps downstream assets from being made.
    """

    def decorate(judge: Judge) -> dg.AssetChecksDefinition:
        # A generator, as other ops may be: it raises after its result.
        @dg.asset_check(  # type: ignore[arg-type]
            asset=asset,
            name=judge.__name__,
            description=inspect.getdoc(judge),
            blocking=blocking,
            additional_deps=additional_deps,
        )
        def evaluate(measurements: MeasurementsResource) -> Iterator[dg.AssetCheckResult]:
            result = judge(measurements)
            where = {"warehouse": dg.MetadataValue.text(measurements.where)}
            yield result._replace(metadata={**(result.metadata or {}), **where})
            if not result.passed and result.severity == dg.AssetCheckSeverity.ERROR:
                found = (f"{name} {value.value}" for name, value in (result.metadata or {}).items())
                raise dg.Failure(
                    f"{judge.__name__} failed in {measurements.where}: {', '.join(found)}",
                    allow_retries=False,
                )

        return evaluate

    return decorate


def _query(measurements: MeasurementsResource, sql: str, **parameters: object) -> list[dict[str, Any]]:
    with readable_failures(), measurements.connect() as connection:
        rows: list[dict[str, Any]] = (
            connection.sql(sql, params=parameters or None).to_arrow_table().to_pylist()
        )
        return rows


def _result(
    *, passed: bool, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN, **metadata: Any
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)


@_check(asset=mapping)
def mapping_is_one_to_one(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """There are sensors, and no name and no uuid stands twice.

    If it fails, somebody has changed `mapping.sqlite` by hand: materialize `mapping` again. (A `mapping.csv`
    that is not one-to-one is not loaded at all; the asset's failure says what is wrong with it.)
    """
    warehouse = open_warehouse(measurements.warehouse)
    if not any(warehouse.mapping.versions([MAPPING])):
        raise dg.Failure("no mapping has been loaded yet: run: dagster asset materialize --select mapping")
    with readable_failures(), open_mapping(warehouse) as connection:
        ((sensors,),) = connection.execute("SELECT count(*) FROM sensors").fetchall()
        twice = {
            column: connection.execute(
                f"SELECT {column}, count(*) FROM sensors GROUP BY 1 HAVING count(*) > 1 LIMIT {NAMED}"
            ).fetchall()
            for column in ("sensor_name", "sensor_uuid")
        }
    return _result(
        passed=sensors > 0 and not any(twice.values()),
        severity=dg.AssetCheckSeverity.ERROR,
        sensors=sensors,
        names_that_stand_twice=_listed(f"{name}: {n}" for name, n in twice["sensor_name"]),
        uuids_that_stand_twice=_listed(f"{uuid}: {n}" for uuid, n in twice["sensor_uuid"]),
    )


@_check(asset=timeseries, blocking=True)
def every_row_is_accounted_for(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Rows read = loaded + rejected + duplicate in each file, and the table holds just the loaded ones.

    If it fails, files of the warehouse were changed or lost: materialize `timeseries` with the configuration
    `full_reload: true`.
    """
    with readable_failures(), measurements.connect() as connection:
        account = account_for_rows(connection)
    return _result(passed=account.adds_up, severity=dg.AssetCheckSeverity.ERROR, **asdict(account))


@_check(asset=timeseries)
def no_file_is_quarantined(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every CSV file could be read: it has the columns that are needed, in UTF-8, separated by semicolons.

    If it fails: correct the named files in the bucket; the next load reads them again. The others are loaded,
    and a file that could be read before keeps the rows that it had. It is an error in the load that brings
    such a file, and a warning from the next one on.
    """
    files = [file for file in _damaged_files(measurements) if file.error]
    return _result(
        passed=not files,
        severity=_severity(is_error=any(file.is_new for file in files)),
        files_quarantined=len(files),
        files_and_reasons=_listed(files),
    )


@_check(asset=timeseries)
def few_rows_are_rejected(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """The share of rejected rows is at most `limit`: in each file, in the last load, and in all of them.

    If it fails: look at the rows with `iot-pipeline sql "FROM rejected_rows"`, which has their file, line,
    reason and text, and correct what writes the named files. Rows that could be read are loaded. It is an
    error where a file of the last load has lost more than a tenth of its rows.
    """
    files = [file for file in _damaged_files(measurements) if not file.error]
    (shares,) = _query(
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
    reasons = _query(
        measurements,
        "SELECT reason, sum(n)::BIGINT AS rows FROM rejected_rows GROUP BY ALL ORDER BY rows DESC, reason",
    )
    return _result(
        passed=not files and max(shares["of_all"], shares["of_the_last_load"]) <= MOST_REJECTED,
        severity=_severity(is_error=any(file.is_new and file.is_rotten for file in files)),
        share_rejected=round(shares["of_all"], 6),
        share_rejected_in_the_last_load=round(shares["of_the_last_load"], 6),
        limit=f"{MOST_REJECTED:.0%}",
        rows_rejected=shares["rows_rejected"],
        reasons_and_rows=_listed(f"{row['reason']}: {row['rows']}" for row in reasons),
        files_beyond_the_limit=len(files),
        files_and_rows=_listed(files),
    )


@_check(asset=timeseries, additional_deps=[mapping])
def every_sensor_is_mapped(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every sensor with readings is in the mapping; only then it has a name, can be queried and is judged.

    If it fails: add the named uuids to `mapping.csv` in the bucket and materialize `mapping`. Their readings
    are loaded and wait.
    """
    unknown = _query(
        measurements,
        """
        SELECT sensor_uuid, count(*) AS readings FROM readings ANTI JOIN sensors USING (sensor_uuid)
        GROUP BY ALL ORDER BY readings DESC, sensor_uuid
        """,
    )
    return _result(
        passed=not unknown,
        unknown_sensors=len(unknown),
        readings_of_unknown_sensors=sum(row["readings"] for row in unknown),
        uuids_and_readings=_listed(f"{row['sensor_uuid']}: {row['readings']}" for row in unknown),
    )


@_check(asset=timeseries, additional_deps=[mapping])
def every_sensor_has_readings(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every sensor of the mapping has sent something.

    If it fails: see whether the named sensors are installed, and their uuids in `mapping.csv` right.
    """
    mute = _query(
        measurements,
        """
        SELECT sensor_name FROM sensors
        ANTI JOIN (SELECT DISTINCT sensor_uuid FROM readings) USING (sensor_uuid)
        ORDER BY sensor_name
        """,
    )
    return _result(
        passed=not mute,
        sensors_without_readings=len(mute),
        names=_listed(row["sensor_name"] for row in mute),
    )


@_check(asset=timeseries, additional_deps=[mapping])
def no_sensor_fell_silent(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """Every sensor's last reading is at most `limit` older than the last one of all sensors.

    It goes by the data's own clock, so old data don't fail it. If it fails: the named sensors have stopped
    sending; see whether they have power and a network.
    """
    silent = _query(
        measurements,
        """
        SELECT sensor_name, epoch_us(last) AS last
        FROM (SELECT sensor_uuid, max(timestamp) AS last FROM readings GROUP BY ALL)
        JOIN sensors USING (sensor_uuid)
        QUALIFY last < max(last) OVER () - to_days($days)
        ORDER BY last, sensor_name
        """,
        days=SILENCE.days,
    )
    return _result(
        passed=not silent,
        silent_sensors=len(silent),
        limit=f"{SILENCE.days} days",
        names_and_last_readings=_listed(f"{row['sensor_name']}: {_moment(row['last'])}" for row in silent),
    )


@_check(asset=timeseries)
def newest_reading_is_recent(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """The feed has not stopped: the last reading is at most `limit` old.

    Only a live feed can stop. A bucket whose files all came later than that after the month of their readings
    is an archive, like the sample bucket: it passes, and `feed` says so. If it fails: see whether the backend
    still writes files to the bucket. Nothing is wrong with what is loaded.
    """
    with readable_failures(), measurements.connect() as connection:
        feed = read_feed(connection)
    shown = {"last_reading": feed.last, "last_file_loaded": feed.loaded}
    return _result(
        passed=not feed.has_stopped,
        severity=dg.AssetCheckSeverity.ERROR,
        feed="live" if feed.is_live else "archive",
        limit=f"{SILENCE.days} days",
        hours_since_the_last_reading=round(feed.age / timedelta(hours=1), 1) if feed.age else None,
        **{name: dg.MetadataValue.timestamp(moment) for name, moment in shown.items() if moment},
    )


@_check(asset="anomalies", additional_deps=["sensor_models"])
def few_readings_are_anomalous(measurements: MeasurementsResource) -> dg.AssetCheckResult:
    """The share of anomalous readings is at most `limit`.

    If it fails, either something happened to many sensors at once, or the models don't fit: look at the named
    sensors with `iot-pipeline plot SENSOR` and at their `reasoning` in `sensor_models`.
    """
    sensors = _query(
        measurements,
        """
        SELECT sensor_name, n_points, n_anomalies, n_anomalies / n_points AS share
        FROM sensor_models ORDER BY share DESC, sensor_name
        """,
    )
    share = sum(row["n_anomalies"] for row in sensors) / max(sum(row["n_points"] for row in sensors), 1)
    return _result(
        passed=share <= MOST_ANOMALOUS,
        share_anomalous=round(share, 6),
        limit=f"{MOST_ANOMALOUS:.0%}",
        names_and_shares=_listed(
            f"{row['sensor_name']}: {row['share']:.2%}" for row in sensors if row["n_anomalies"]
        ),
    )


def _damaged_files(measurements: MeasurementsResource) -> list[DamagedFile]:
    with readable_failures(), measurements.connect() as connection:
        return find_damaged_files(connection)


def _severity(*, is_error: bool) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN


def _listed(found: Iterable[object]) -> str:
    return "; ".join(map(str, islice(found, NAMED))) or "none"


def _moment(instant: int | None) -> datetime | None:
    return datetime.fromtimestamp(instant / 1e6, BERLIN) if instant is not None else None
