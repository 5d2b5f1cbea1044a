"""What runs by itself."""

import hashlib
from datetime import timedelta

import dagster as dg

from iot_pipeline.berlin import TIME_ZONE
from iot_pipeline.defs.failures import PATIENCE
from iot_pipeline.defs.orphans import fail_orphaned_runs
from iot_pipeline.defs.resources import SourceResource
from iot_pipeline.errors import IotPipelineError

POLL = timedelta(minutes=5)

reload = dg.define_asset_job(
    "reload",
    dg.AssetSelection.all(),
    description=(
        "Load what is new in the bucket, judge all sensors, write the report. An object store that doesn't"
        " answer, and a warehouse that somebody else is writing to, are tried again three times within some"
        " ten minutes."
    ),
    op_retry_policy=PATIENCE,
)

daily_reload = dg.ScheduleDefinition(
    name="daily_reload",
    job=reload,
    cron_schedule="0 3 * * *",
    execution_timezone=TIME_ZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 03:00 in Europe/Berlin.",
)


@dg.sensor(
    job=reload,
    minimum_interval_seconds=int(POLL.total_seconds()),
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Runs reload within five minutes of a change in the bucket: a new, changed or deleted file."
        " Switch it on where the night is too late."
    ),
)
def new_source_files(
    context: dg.SensorEvaluationContext, source: SourceResource
) -> dg.SensorResult | dg.SkipReason:
    """Request a run when the listing differs from the last one."""
    try:
        listing = source.open().list_objects()
    except IotPipelineError as error:
        return dg.SkipReason(f"{error}. It is tried again in {POLL.seconds // 60} minutes.")
    if not listing:
        return dg.SkipReason("The source holds no files.")
    versions = repr([(obj.name, obj.version) for obj in listing]).encode(errors="backslashreplace")
    fingerprint = hashlib.blake2b(versions, digest_size=16).hexdigest()
    number, _, known = (context.cursor or "0:").partition(":")
    if fingerprint == known:
        return dg.SkipReason(f"Nothing has changed: {len(listing):,} files.")
    # The number tells a listing that comes back (a file changed and changed back) from one seen before.
    cursor = f"{int(number) + 1}:{fingerprint}"
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=cursor)], cursor=cursor)


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs whose process was killed as failed, so that nothing waits for them for ever.",
)
def orphaned_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Fail the runs that nobody executes any more."""
    failed = fail_orphaned_runs(context.instance)
    return dg.SkipReason(f"Marked as failed: {', '.join(failed)}" if failed else "Every run is alive.")
