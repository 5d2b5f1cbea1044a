"""The assets: each calls one function of the domain and shows what it reports."""

import base64
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.berlin import TIME_ZONE
from iot_pipeline.defs.failures import readable_failures
from iot_pipeline.defs.resources import MeasurementsResource, SourceResource
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.progress import log_progress
from iot_pipeline.report import draw_anomalies_per_week, draw_readings_per_month, write_report
from iot_pipeline.settings import get_settings
from iot_pipeline.warehouse.quality import find_damaged_files
from iot_pipeline.warehouse.status import read_status

SHOWN_PICTURES = 3
OWNERS = ["team:data-engineering"]
GROUP = "iot_pipeline"
_PAGES = {"open_the_report": "report", "open_the_explore_page": ""}
WAREHOUSE = "warehouse"
"""The pool of all that writes: of its runs the queue starts one at a time."""
NIGHTLY = dg.FreshnessPolicy.cron(
    deadline_cron="0 5 * * *", lower_bound_delta=timedelta(hours=2), timezone=TIME_ZONE
)
"""Stale at 05:00 unless made since 03:00, when the schedule runs."""
JUDGED: dict[str, Any] = {
    "deps": ["mapping", "timeseries"],
    "kinds": {"deltalake", "python"},
    "group_name": GROUP,
    "owners": OWNERS,
    "code_version": "1",
    "freshness_policy": NIGHTLY,
}
"""What the tables of the detector have in common."""

bucket = dg.AssetSpec(
    "bucket",
    group_name=GROUP,
    kinds={"s3", "csv"},
    owners=OWNERS,
    description=(
        "The object store that the sensors' backend fills: `mapping/mapping.csv` and the CSV files below"
        " `Timeseries/`. A directory or `s3://bucket[/prefix]`, set by `IOT_SOURCE`."
    ),
)


class LoadConfig(dg.Config):
    """How to load."""

    full_reload: bool = False
    allow_empty: bool = False


def _columns(**columns: tuple[str, str]) -> dict[str, dg.TableSchema]:
    schema = dg.TableSchema(
        [dg.TableColumn(name, kind, description=text) for name, (kind, text) in columns.items()]
    )
    return {"dagster/column_schema": schema}


@dg.asset(
    deps=[bucket],
    group_name=GROUP,
    owners=OWNERS,
    code_version="1",
    freshness_policy=NIGHTLY,
    kinds={"sqlite"},
    pool=WAREHOUSE,
    metadata=_columns(
        sensor_name=("TEXT", "What engineers call the sensor, like `sensor_00000`. Primary key."),
        sensor_uuid=("TEXT", "What the backend calls it, lower case. Unique."),
    ),
)
def mapping(
    context: dg.AssetExecutionContext, source: SourceResource, measurements: MeasurementsResource
) -> dg.MaterializeResult[Any]:
    """The sensors: one row per sensor with its name, its uuid and what else `mapping.csv` says of it."""
    with readable_failures(context):
        places = _name_places(context, measurements, source)
        report = load_mapping(source=source.open(), warehouse=measurements.warehouse)
    found: dict[str, Any] = {"dagster/row_count": report.sensors, "source_key": report.source_key}
    return dg.MaterializeResult(metadata={**places, **found})


@dg.asset(
    deps=[bucket],
    group_name=GROUP,
    owners=OWNERS,
    code_version="1",
    freshness_policy=NIGHTLY,
    kinds={"deltalake", "parquet"},
    pool=WAREHOUSE,
    metadata=_columns(
        sensor_uuid=("string", "The sensor, lower case."),
        timestamp=("timestamp[us, UTC]", "When the reading was taken."),
        sensor_value=("double", "The reading, without a unit. Finite."),
        month=("string", "Partition: the month in Europe/Berlin, like `2013-01`."),
    ),
)
def timeseries(
    context: dg.AssetExecutionContext,
    config: LoadConfig,
    source: SourceResource,
    measurements: MeasurementsResource,
) -> dg.MaterializeResult[Any]:
    """The readings: one row per sensor, time and value, a Delta table partitioned by month.

    Loaded incrementally: only new and changed files are read, only their months are written anew. Run it with
    `full_reload: true` to start from nothing.
    """
    with readable_failures(context):
        places = _name_places(context, measurements, source)
        report = load_timeseries(
            source=source.open(),
            warehouse=measurements.warehouse,
            full_reload=config.full_reload,
            allow_empty=config.allow_empty,
            on_progress=log_progress(context.log.info),
        )
        status = read_status(measurements.warehouse)
        picture = draw_readings_per_month(warehouse=measurements.warehouse)
    n_files = report.files_new + report.files_changed + report.files_unchanged
    context.log_event(
        dg.AssetMaterialization("bucket", metadata={"source": source.where, "csv_files": n_files})
    )
    held: dict[str, Any] = {
        **places,
        "dagster/row_count": status.readings,
        "first_reading": _timestamp(status.first),
        "last_reading": _timestamp(status.last),
        "size_in_mb": round(status.size / 1e6, 1),
        "files_loaded": status.files,
        "files_quarantined": status.files_rejected,
        "rejected_rows_by_reason": status.rejected_rows,
        "readings_per_month": _pictures(picture),
    }
    this_load = {
        f"this_load_{name}": list(value) if isinstance(value, tuple) else value
        for name, value in asdict(report).items()
    }
    return dg.MaterializeResult(metadata={**held, **this_load})


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "anomalies",
            **JUDGED,
            description="The anomalous readings: one row per flagged reading, with its kind and its event.",
            metadata=_columns(
                sensor_name=("string", "The sensor."),
                timestamp=("timestamp[us, UTC]", "When the reading was taken."),
                sensor_value=("double", "The reading."),
                expected_value=("double", "What the sensor's model expects then."),
                score=("double", "A Gaussian reading so many standard deviations off is as rare."),
                kind=("string", "spike, burst, level_shift, drift, stuck, variance or gap."),
                event_id=("string", "The event that it belongs to."),
            ),
        ),
        dg.AssetSpec(
            "events",
            **JUDGED,
            description=(
                "What the anomalous readings add up to: one row per event. An event that grows or changes its"
                " kind keeps its id."
            ),
            metadata=_columns(
                event_id=("string", "Primary key; stays when the sensor is judged anew."),
                sensor_name=("string", "The sensor."),
                kind=("string", "spike, burst, level_shift, drift, stuck, variance or gap."),
                start=(
                    "timestamp[us, UTC]",
                    "The first flagged reading; of a gap the last reading before it.",
                ),
                end=("timestamp[us, UTC]", "The last flagged reading; of a gap the first one after it."),
                n_readings=("long", "Flagged readings."),
                peak_score=(
                    "double",
                    "The greatest score: a Gaussian reading so many standard deviations off is as rare.",
                ),
                mean_residual=("double", "The mean deviation from the model; none for a gap."),
            ),
        ),
        dg.AssetSpec(
            "sensor_models",
            **JUDGED,
            description="The models: one row per sensor with readings, and the reasons for what was flagged.",
            metadata=_columns(
                sensor_name=("string", "The sensor."),
                model=("string", "The kind of model that fits its readings best."),
                breakpoints=("array<timestamp>", "Where a piecewise model bends or jumps."),
                noise_sd=("double", "Standard deviation of the noise, in the unit of the readings."),
                n_points=("long", "Readings."),
                n_anomalies=("long", "Flagged readings."),
                n_events=("long", "Events they belong to."),
                reasoning=("string", "Why this model, and why there are anomalies or none."),
            ),
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "every_sensor_is_judged",
            asset="sensor_models",
            description=(
                "The detector failed for no sensor. If it did, it has judged the others all the same:"
                " reproduce the fault with `iot-pipeline plot SENSOR`. The next run tries the sensor again."
            ),
        )
    ],
    can_subset=True,
    pool=WAREHOUSE,
)
def detection(
    context: dg.AssetExecutionContext, measurements: MeasurementsResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Fit a model to each sensor and flag what it can't explain."""
    with readable_failures(context):
        places = _name_places(context, measurements)
        report = flag_anomalies(warehouse=measurements.warehouse, on_progress=log_progress(context.log.info))
        picture = draw_anomalies_per_week(warehouse=measurements.warehouse)
        with measurements.connect() as connection:
            rotten = [file for file in find_damaged_files(connection) if file.is_new and file.is_rotten]
    if rotten:
        context.log.warning("judged without what these files lost: %s", "; ".join(map(str, rotten)))
    found: dict[str, dict[str, Any]] = {
        "anomalies": {
            **places,
            "dagster/row_count": sum(report.anomalies.values()),
            "anomalies_by_kind": report.anomalies,
            "judged_without": [str(file) for file in rotten],
            "anomalies_per_week": _pictures(picture),
        },
        "events": {
            **places,
            "dagster/row_count": sum(report.events.values()),
            "events_by_kind": report.events,
            "incidents": report.incidents,
        },
        "sensor_models": {
            **places,
            "dagster/row_count": report.sensors,
            "sensors_refitted": report.sensors_refitted,
            "readings_judged": report.readings,
            "sensors_without_readings": list(report.sensors_without_readings),
        },
    }
    for name, metadata in found.items():
        # The tables are always made together, also when only one of them was asked for.
        if dg.AssetKey(name) in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=name, metadata=metadata)
        else:
            context.log_event(dg.AssetMaterialization(name, metadata=metadata))
    if context.selected_asset_check_keys:
        yield dg.AssetCheckResult(
            asset_key="sensor_models",
            check_name="every_sensor_is_judged",
            passed=not report.failed,
            metadata={
                "sensors_judged": report.sensors,
                "sensors_failed": len(report.failed),
                "names_and_errors": "; ".join(f"{name}: {error}" for name, error in report.failed.items())
                or "none",
            },
        )
    if report.failed:
        names = ", ".join(sorted(report.failed))
        raise dg.Failure(f"these sensors could not be judged: {names}", allow_retries=False)


@dg.asset(
    deps=["anomalies", "events", "sensor_models"],
    group_name=GROUP,
    owners=OWNERS,
    code_version="1",
    freshness_policy=NIGHTLY,
    kinds={"html", "matplotlib"},
    pool=WAREHOUSE,
)
def anomaly_report(
    context: dg.AssetExecutionContext, measurements: MeasurementsResource
) -> dg.MaterializeResult[Any]:
    """The report: one HTML page about all sensors and their anomalies, which can be sent by mail.

    Its links open while the explore page is running: `make explore`, or `IOT_EXPLORE_URL`.
    """
    with readable_failures(context):
        places = _name_places(context, measurements)
        report = write_report(warehouse=measurements.warehouse)
    shown = list(report.pictures.values())[:SHOWN_PICTURES]
    return dg.MaterializeResult(
        metadata={
            **places,
            "page": dg.MetadataValue.path(report.page),
            **_links(),
            "worst_sensors": list(report.pictures),
            "pictures_of_the_worst": _pictures(*shown),
        }
    )


def _name_places(
    context: dg.AssetExecutionContext,
    measurements: MeasurementsResource,
    source: SourceResource | None = None,
) -> dict[str, str]:
    """Return what a run reads and writes, and tag the run with it: one on other places shows as such."""
    places = {"warehouse": measurements.where} | ({"source": source.where} if source else {})
    context.instance.add_run_tags(
        context.run.run_id, {f"iot_pipeline/{name}": place for name, place in places.items()}
    )
    return places


def _links() -> dict[str, dg.MetadataValue[Any]]:
    """Return what the explore page has, as links. They are made of a setting, never of data."""
    url = get_settings().explore_url
    return {name: dg.MetadataValue.url(f"{url}/{path}") for name, path in _PAGES.items()} if url else {}


def _timestamp(moment: datetime | None) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.timestamp(moment) if moment else dg.MetadataValue.text("none")


def _pictures(*pictures: bytes | None) -> dg.MetadataValue[Any]:
    """Show PNG pictures. Nothing that comes from data may be part of the Markdown."""
    images = [base64.b64encode(picture).decode() for picture in pictures if picture]
    return dg.MetadataValue.md(
        "\n\n".join(f"![](data:image/png;base64,{image})" for image in images) or "Nothing to show."
    )
