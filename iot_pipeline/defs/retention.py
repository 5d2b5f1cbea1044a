"""Deletes old runs; Dagster has no setting for that."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import dagster as dg

from iot_pipeline.berlin import TIME_ZONE

KEPT = timedelta(days=90)
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
BATCH = 100


def delete_old_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the finished runs created before a moment, with their events and logs; return how many."""
    filters = dg.RunsFilter(statuses=FINISHED, created_before=before)
    path_of_events = getattr(instance.event_log_storage, "path_for_shard", None)  # only with SQLite
    deleted = 0
    while runs := instance.get_runs(filters, limit=BATCH):
        for run in runs:
            instance.compute_log_manager.delete_logs(prefix=[run.run_id])
            instance.delete_run(run.run_id)
            if path_of_events:  # the file does not shrink by itself
                with closing(sqlite3.connect(path_of_events(run.run_id))) as file:
                    file.execute("VACUUM")
        deleted += len(runs)
    return deleted


@dg.op(description="Delete finished runs that are older than 90 days, with their events and logs.")
def delete_runs(context: dg.OpExecutionContext) -> None:
    """Delete the runs older than the retention period."""
    deleted = delete_old_runs(context.instance, datetime.now(UTC) - KEPT)
    context.log.info("deleted %d runs", deleted)


@dg.job(description="Delete finished runs after 90 days. The measurements are not touched.")
def tidy_up() -> None:
    """Delete old runs."""
    delete_runs()


weekly_tidy_up = dg.ScheduleDefinition(
    name="weekly_tidy_up",
    job=tidy_up,
    cron_schedule="0 5 * * 0",
    execution_timezone=TIME_ZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Sundays at 05:00 in Europe/Berlin.",
)
