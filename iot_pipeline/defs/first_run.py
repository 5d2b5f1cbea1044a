"""Launches an installation's first run unless there is one already, and waits for it to finish.

`docker compose up` runs this module once the services are up.
"""

import sys
import time
from collections.abc import Callable

import dagster as dg
from dagster_graphql import DagsterGraphQLClient

from iot_pipeline.defs.automation import reload

WEBSERVER = ("webserver", 3000)
POLL_SECONDS = 2
FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def ensure_run(instance: dg.DagsterInstance, launch: Callable[[], str]) -> str:
    """Return the id of the job's latest successful or unfinished run, or launch one.

    Args:
        instance: Where the runs are recorded.
        launch: Launches a run and returns its id.
    """
    not_failed = [status for status in dg.DagsterRunStatus if status not in FAILED]
    runs = instance.get_runs(dg.RunsFilter(job_name=reload.name, statuses=not_failed), limit=1)
    return runs[0].run_id if runs else launch()


def wait_for(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """Wait for a run to finish and return its status; run monitoring ends runs that hang."""
    while True:
        run = instance.get_run_by_id(run_id)
        if run is None:
            sys.exit(f"run {run_id} was deleted")
        if run.is_finished:
            return run.status
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Ensure that the instance at DAGSTER_HOME has a run; exit with an error if the run fails."""
    with dg.DagsterInstance.get() as instance:
        run_id = ensure_run(
            instance, lambda: DagsterGraphQLClient(*WEBSERVER).submit_job_execution(reload.name)
        )
        print(f"run {run_id} of {reload.name}: waiting for it to finish")
        status = wait_for(instance, run_id)
    if status in FAILED:
        sys.exit(f"run {run_id} of {reload.name}: {status.value}, see Runs on the web page for the reason")
    print(f"run {run_id} of {reload.name}: {status.value}")


if __name__ == "__main__":
    main()
