"""What runs by itself."""

import dagster as dg

from iot_pipeline.clock import TIME_ZONE

reload = dg.define_asset_job(
    "reload",
    dg.AssetSelection.all(),
    description="Load what is new in the bucket, judge all sensors, write the report.",
)

daily_reload = dg.ScheduleDefinition(
    name="daily_reload",
    job=reload,
    cron_schedule="0 3 * * *",
    execution_timezone=TIME_ZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 03:00 in Europe/Berlin.",
)
