"""The first run of an installation: launched when it has none yet, and followed to its end.

`docker compose up` calls this when the services are up.
"""

import sys
import time
from collections.abc import Callable

import dagster as dg
from dagster_graphql import DagsterGraphQLClient

from iot_pipeline.defs.automation import reload

WEBSERVER = ("webserver", 3000)
SECONDS_BETWEEN_LOOKS = 2
FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def ensure_run(instance: dg.DagsterInstance, launch: Callable[[], str]) -> str:
    """Return the latest run of the job that succeeded or is under way, or else launch one.

    Args:
        instance: Where the runs are recorded.
        launch: Launches a run and returns its id.
    """
    hopeful = [status for status in dg.DagsterRunStatus if status not in FAILED]
    runs = instance.get_runs(dg.RunsFilter(job_name=reload.name, statuses=hopeful), limit=1)
    return runs[0].run_id if runs else launch()


def wait_for(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """Return a run's status when it has ended; the instance's run monitoring ends those that hang."""
    while True:
        run = instance.get_run_by_id(run_id)
        if run is None:
            sys.exit(f"run {run_id} was deleted")
        if run.is_finished:
            return run.status
        time.sleep(SECONDS_BETWEEN_LOOKS)


def main() -> None:
    """Ensure that the instance at DAGSTER_HOME has a run, launched through the webserver; fail if it does."""
    host, port = WEBSERVER

    def launch() -> str:
        return DagsterGraphQLClient(host, port_number=port).submit_job_execution(reload.name)

    with dg.DagsterInstance.get() as instance:
        run_id = ensure_run(instance, launch)
        print(f"run {run_id} of {reload.name}: waiting for its end")
        status = wait_for(instance, run_id)
    if status in FAILED:
        sys.exit(f"run {run_id} of {reload.name}: {status.value}, see the web page, Runs, for why")
    print(f"run {run_id} of {reload.name}: {status.value}")


if __name__ == "__main__":
    main()
