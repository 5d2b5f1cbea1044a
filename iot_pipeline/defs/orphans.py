"""Marks runs whose process was killed as failed; Dagster would wait for them forever.

`make dev` and the code location of `docker compose` run this module before they start Dagster's services. The
sensor `orphaned_runs` calls it every minute.
"""

import dagster as dg
import psutil

UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def fail_orphaned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark unfinished runs whose process is gone from this machine as failed; return their ids."""
    orphans = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        processes = _processes_of(instance, run.run_id)
        if processes and not any(_is_alive(process, since) for process, since in processes):
            instance.report_run_failed(run, "The run's process was killed. What it had committed is kept.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            orphans.append(run.run_id)
    return orphans


def _processes_of(instance: dg.DagsterInstance, run_id: str) -> list[tuple[int, float]]:
    """Return the ids of the processes that the run's log names as executing it, and when it did so."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    found = [
        (entry.get_dagster_event().engine_event_data.metadata.get("pid"), entry.timestamp)
        for entry in entries
    ]
    return [(int(str(process.value)), timestamp) for process, timestamp in found if process is not None]


def _is_alive(process: int, since: float) -> bool:
    # After a restart, especially of a container, a younger process may have the same id.
    try:
        found = psutil.Process(process)
        return found.create_time() <= since and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """Fail the orphaned runs of the instance at DAGSTER_HOME."""
    with dg.DagsterInstance.get() as instance:
        for run_id in fail_orphaned_runs(instance):
            print(f"run {run_id} was killed: marked as failed")


if __name__ == "__main__":
    main()
