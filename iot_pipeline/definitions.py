"""The code location that Dagster loads."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource
from dagster_duckdb import DuckDBResource

from iot_pipeline.defs import alerts, assets, automation, checks, event_checks, retention
from iot_pipeline.defs.resources import MeasurementsResource, SourceResource


def build_defs(*, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Build the definitions.

    Args:
        resource_overrides: Resources by key (``source``, ``measurements``) to use instead of the defaults.
    """
    resources = {
        "source": SourceResource(s3=S3Resource()),
        "measurements": MeasurementsResource(duckdb=DuckDBResource(database=":memory:")),
    }
    return dg.Definitions(
        assets=[assets.bucket, assets.mapping, assets.timeseries, assets.detection, assets.anomaly_report],
        asset_checks=dg.load_asset_checks_from_modules([checks, event_checks]),
        jobs=[automation.reload, retention.tidy_up],
        schedules=[automation.daily_reload, retention.weekly_tidy_up],
        sensors=[automation.new_source_files, automation.orphaned_runs, alerts.alerts],
        resources={**resources, **(resource_overrides or {})},
        # The work inside an asset is spread over the cores; a process per asset would only add start-up time.
        executor=dg.in_process_executor,
    )


defs = build_defs()
