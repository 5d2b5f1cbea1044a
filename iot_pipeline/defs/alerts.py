"""Telling people of the nightly runs, by a sensor that looks for those that have ended.

Not by a run-status sensor: its cursor moves on after an exception too. Nor by a run-failure sensor: a warning
does not fail its run.
"""

from datetime import UTC, datetime
from functools import partial

import dagster as dg

from iot_pipeline.alerts import FailedCheck, Run, announce
from iot_pipeline.defs.automation import reload
from iot_pipeline.defs.checking import in_words
from iot_pipeline.defs.resources import MeasurementsResource
from iot_pipeline.errors import IotPipelineError
from iot_pipeline.report import draw_sensor
from iot_pipeline.settings import get_settings

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
WILL_RETRY = "dagster/will_retry"
COUNTS = {
    "every_sensor_has_readings": "sensors_without_readings",
    "every_sensor_is_judged": "sensors_failed",
    "every_sensor_is_mapped": "unknown_sensors",
    "few_rows_are_rejected": "files_beyond_the_limit",
    "no_file_is_quarantined": "files_quarantined",
    "no_sensor_fell_silent": "silent_sensors",
}
"""What a check shows that counts the sensors or files it is about: one more is news."""


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells people (`IOT_ALERT_URLS`) of each run of reload once: new events, failed checks, what went"
        " wrong. What could not be sent is tried again every minute."
    ),
)
def alerts(context: dg.SensorEvaluationContext, measurements: MeasurementsResource) -> dg.SkipReason:
    """Announce the runs that have ended since the cursor, up to which everybody has been told of all."""
    settings = get_settings()
    if not (settings.alert_urls or settings.heartbeat_url):
        context.update_cursor(datetime.now(UTC).isoformat())
        return dg.SkipReason("Nobody is to be told: IOT_ALERT_URLS is not set.")
    said: list[str] = []
    silent: dict[str, str] = {}
    try:
        for record in _ended_runs(context.instance, context.cursor):
            if _is_to_be_told(record.dagster_run, measurements):
                outcome = announce(
                    read_outcome(context.instance, record.dagster_run),
                    draw=partial(draw_sensor, warehouse=measurements.warehouse),
                    warehouse=measurements.warehouse,
                    not_to=silent.keys(),
                )
                silent |= outcome.waiting
                said += [f"{outcome.title or 'A good night'}: told {name}" for name in outcome.sent]
            if not silent:
                context.update_cursor(record.update_timestamp.isoformat())
    except IotPipelineError as error:
        if not error.may_pass:
            raise
        said.append(f"{error}. It is tried again in a minute")
    if silent:
        said.append(f"{', '.join(silent.values())} did not answer. It is tried again in a minute")
    return dg.SkipReason(f"{'. '.join(said) or 'Everybody has been told of everything'}.")


def _ended_runs(instance: dg.DagsterInstance, cursor: str | None) -> list[dg.RunRecord]:
    """Return the runs that have ended or were marked since the cursor, the earliest first.

    Without a cursor it is the latest run only: nobody needs to be told of all that ever failed.
    """
    since = datetime.fromisoformat(cursor) if cursor else None
    runs = instance.get_run_records(
        dg.RunsFilter(job_name=reload.name, statuses=ENDED, updated_after=since),
        limit=None if since else 1,
        order_by="update_timestamp",
    )
    return list(reversed(runs))


def _is_to_be_told(run: dg.DagsterRun, measurements: MeasurementsResource) -> bool:
    """Tell whether a run is about this warehouse, and Dagster does not start it once more."""
    is_here = run.tags.get("iot_pipeline/warehouse", measurements.where) == measurements.where
    return is_here and run.tags.get(WILL_RETRY) != "true"


def read_outcome(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Run:
    """Read from a run's log how it ended: the first real error, and the checks that did not pass."""
    succeeded = run.status == dg.DagsterRunStatus.SUCCESS
    checks: dict[str, dg.AssetCheckEvaluation] = {}
    for each in _with_those_it_goes_on_from(instance, run):
        for entry in instance.all_logs(each.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            evaluation = entry.get_dagster_event().asset_check_evaluation_data
            checks[evaluation.check_name] = evaluation
    return Run(
        run.run_id,
        succeeded,
        error="" if succeeded else _first_error(instance, run, set(checks)),
        checks=tuple(_failed_check(evaluation) for evaluation in checks.values() if not evaluation.passed),
    )


def _with_those_it_goes_on_from(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.DagsterRun]:
    """Return a run and, before it, the killed ones whose steps Dagster did not run again."""
    before = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    is_retried = before is not None and before.tags.get(WILL_RETRY) == "true"
    return [*(_with_those_it_goes_on_from(instance, before) if before and is_retried else []), run]


def _failed_check(evaluation: dg.AssetCheckEvaluation) -> FailedCheck:
    name = evaluation.check_name
    shown = {key: value for key, value in evaluation.metadata.items() if key != "warehouse"}
    counted = COUNTS.get(name, "")
    count = shown[counted].value if counted in shown else 0
    in_order = sorted(shown, key=lambda key: key != counted)
    return FailedCheck(
        name,
        is_error=evaluation.severity == dg.AssetCheckSeverity.ERROR,
        found=", ".join(f"{key.replace('_', ' ')} {in_words(shown[key])}" for key in in_order),
        count=count if isinstance(count, int) else 0,
    )


def _first_error(instance: dg.DagsterInstance, run: dg.DagsterRun, checks: set[str]) -> str:
    """Return the first error of a step that is not a check that says no; else what ended the run."""
    entries = instance.all_logs(
        run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    )
    events = [entry.get_dagster_event() for entry in entries]
    steps = [event for event in events if event.is_step_failure]
    for event in steps:
        data = event.step_failure_data
        if data.user_failure_data:
            text = data.user_failure_data.description or ""
        else:
            error = data.error
            while error and error.cause:
                error = error.cause
            text = error.message if error else event.message or ""
        if not any(text.startswith(f"{check} failed in ") for check in checks):
            return " ".join(text.split())
    return "" if steps else " ".join(next((event.message for event in events if event.message), "").split())
