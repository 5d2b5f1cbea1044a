"""Runs whose process was killed: Dagster takes them for running, so what waits for them would wait for ever.

`make dev` calls this before it starts Dagster's services, the sensor `orphaned_runs` every minute.
"""

import os

import dagster as dg

UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def fail_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the unfinished runs of this machine whose process is gone as failed; return their ids."""
    orphans = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        processes = _processes_of(instance, run.run_id)
        if processes and not any(_is_alive(process) for process in processes):
            instance.report_run_failed(run, "The run's process was killed. What it had committed is kept.")
            orphans.append(run.run_id)
    return orphans


def _processes_of(instance: dg.DagsterInstance, run_id: str) -> list[int]:
    """Return the ids of the processes that said in the run's log that they execute it."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    found = [entry.get_dagster_event().engine_event_data.metadata.get("pid") for entry in entries]
    return [int(str(value.value)) for value in found if value is not None]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> None:
    """Fail the orphaned runs of the instance at DAGSTER_HOME."""
    with dg.DagsterInstance.get() as instance:
        for run_id in fail_orphaned_runs(instance):
            print(f"run {run_id} was killed: marked as failed")


if __name__ == "__main__":
    main()
