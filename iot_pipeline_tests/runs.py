"""Running the assets of the code location on a bucket, and what a run says."""

from pathlib import Path
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource
from dagster_duckdb import DuckDBResource

from iot_pipeline.definitions import build_defs
from iot_pipeline.defs.resources import MeasurementsResource, SourceResource

TABLES = {"mapping", "timeseries", "anomalies", "events", "sensor_models", "anomaly_report"}


def measurements_in(warehouse: Path) -> MeasurementsResource:
    return MeasurementsResource(warehouse=str(warehouse), duckdb=DuckDBResource(database=":memory:"))


def source_at(location: Path | str) -> SourceResource:
    return SourceResource(location=str(location), s3=S3Resource())


def definitions_on(source: Path | str, warehouse: Path) -> dg.Definitions:
    return build_defs(
        resource_overrides={
            "source": source_at(source),
            "measurements": measurements_in(warehouse),
        }
    )


def materialize(
    definitions: dg.Definitions, *assets: str, config: Any = None, instance: dg.DagsterInstance | None = None
) -> dg.ExecuteInProcessResult:
    """Run assets and their checks as a person does who selects them; all of them unless any is named."""
    job = definitions.resolve_implicit_global_asset_job_def()
    options: dict[str, Any] = {
        "asset_selection": [dg.AssetKey(asset) for asset in assets or sorted(TABLES)],
        "run_config": config,
        "raise_on_error": False,
    }
    if instance:
        return job.execute_in_process(instance=instance, **options)
    with dg.instance_for_test() as passing_instance:
        return job.execute_in_process(instance=passing_instance, **options)


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.event_type_value == "ASSET_MATERIALIZATION" and event.asset_key == dg.AssetKey(asset)
    ]
    return {name: value.value for name, value in event.metadata.items()}


def check_of(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (evaluation,) = [found for found in result.get_asset_check_evaluations() if found.check_name == name]
    return evaluation


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    assert data.user_failure_data
    return data.user_failure_data.description or ""
