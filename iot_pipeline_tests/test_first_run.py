"""The first run of an installation: it is launched when there is none, and only then."""

import dagster as dg
import pytest

from iot_pipeline.defs.first_run import FAILED, ensure_run, wait_for

NEW_RUN = "new run"
HOPEFUL = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS]


def instance_with(*statuses: dg.DagsterRunStatus, job_name: str = "reload") -> dg.DagsterInstance:
    instance = dg.DagsterInstance.ephemeral()
    for status in statuses:
        instance.add_run(dg.DagsterRun(job_name=job_name, run_id=f"run {status.value}", status=status))
    return instance


def launch() -> str:
    return NEW_RUN


def test_an_installation_without_a_run_gets_one() -> None:
    assert ensure_run(instance_with(), launch) == NEW_RUN


def test_runs_of_other_jobs_do_not_count() -> None:
    assert ensure_run(instance_with(dg.DagsterRunStatus.SUCCESS, job_name="other"), launch) == NEW_RUN


@pytest.mark.parametrize("status", FAILED)
def test_after_a_run_that_failed_there_is_another(status: dg.DagsterRunStatus) -> None:
    assert ensure_run(instance_with(status), launch) == NEW_RUN


@pytest.mark.parametrize("status", HOPEFUL)
def test_a_run_that_succeeded_or_may_yet_is_enough(status: dg.DagsterRunStatus) -> None:
    assert ensure_run(instance_with(dg.DagsterRunStatus.FAILURE, status), launch) == f"run {status.value}"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.SUCCESS, *FAILED])
def test_a_run_is_followed_to_its_end(status: dg.DagsterRunStatus) -> None:
    assert wait_for(instance_with(status), f"run {status.value}") == status


def test_a_run_that_was_deleted_is_not_waited_for() -> None:
    with pytest.raises(SystemExit, match="run nothing was deleted"):
        wait_for(instance_with(), "nothing")
