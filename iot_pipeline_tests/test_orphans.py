"""What a killed process leaves behind under Dagster: a failed run, and a queue that goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest

from iot_pipeline.defs.automation import orphaned_runs
from iot_pipeline.defs.orphans import fail_orphaned_runs

pytestmark = pytest.mark.system

POOL = "one_at_a_time"
ENDLESS_RUN = """
import sys, time
import dagster as dg

@dg.asset(pool="one_at_a_time")
def endless():
    print("started", flush=True)
    time.sleep(600)

with dg.DagsterInstance.get() as instance:
    dg.materialize([endless], instance=instance)
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return dg.DagsterInstance.get()


@pytest.fixture
def endless_run(instance: dg.DagsterInstance) -> subprocess.Popen[str]:
    """Start a run in a process of its own and return when its asset is being made."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_RUN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    return process


@pytest.fixture
def endless_run_in_a_pool(
    instance: dg.DagsterInstance, request: pytest.FixtureRequest
) -> subprocess.Popen[str]:
    instance.event_log_storage.set_concurrency_slots(POOL, 1)
    run: subprocess.Popen[str] = request.getfixturevalue("endless_run")
    return run


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def status(instance: dg.DagsterInstance) -> dg.DagsterRunStatus:
    (run,) = instance.get_runs()
    return run.status


def test_the_run_of_a_killed_process_ends_as_failed(
    instance: dg.DagsterInstance, endless_run: subprocess.Popen[str]
) -> None:
    kill(endless_run)
    assert status(instance) == dg.DagsterRunStatus.STARTED
    assert len(fail_orphaned_runs(instance)) == 1
    assert status(instance) == dg.DagsterRunStatus.FAILURE
    assert fail_orphaned_runs(instance) == []


def test_the_run_of_a_killed_process_that_nobody_has_reaped_ends_as_failed(
    instance: dg.DagsterInstance, endless_run: subprocess.Popen[str]
) -> None:
    os.kill(endless_run.pid, signal.SIGKILL)
    while psutil.Process(endless_run.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert len(fail_orphaned_runs(instance)) == 1
    endless_run.communicate()


def test_a_run_that_is_alive_is_left_alone(
    instance: dg.DagsterInstance, endless_run: subprocess.Popen[str]
) -> None:
    assert fail_orphaned_runs(instance) == []
    assert status(instance) == dg.DagsterRunStatus.STARTED
    kill(endless_run)


def test_an_id_that_a_younger_process_was_given_does_not_keep_a_run_alive(
    instance: dg.DagsterInstance, endless_run: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: started)
    assert len(fail_orphaned_runs(instance)) == 1
    assert status(instance) == dg.DagsterRunStatus.FAILURE
    kill(endless_run)


def test_the_run_of_a_killed_process_keeps_no_place_in_a_pool(
    instance: dg.DagsterInstance, endless_run_in_a_pool: subprocess.Popen[str]
) -> None:
    kill(endless_run_in_a_pool)
    assert instance.event_log_storage.get_concurrency_info(POOL).active_slot_count == 1
    fail_orphaned_runs(instance)
    assert instance.event_log_storage.get_concurrency_info(POOL).active_slot_count == 0


def test_a_run_that_hangs_is_ended_by_the_monitor_after_hours() -> None:
    settings = (Path(__file__).parent.parent / "dagster_home" / "dagster.yaml").read_text()
    assert "max_runtime_seconds: 14400" in settings


def test_a_sensor_looks_for_runs_of_killed_processes_every_minute(
    instance: dg.DagsterInstance, endless_run: subprocess.Popen[str]
) -> None:
    assert orphaned_runs.default_status == dg.DefaultSensorStatus.RUNNING
    assert orphaned_runs.minimum_interval_seconds == 60
    assert look(instance) == "Every run is alive."
    kill(endless_run)
    (run,) = instance.get_runs()
    assert look(instance) == f"Marked as failed: {run.run_id}"
    assert status(instance) == dg.DagsterRunStatus.FAILURE


def look(instance: dg.DagsterInstance) -> str:
    answer = orphaned_runs(dg.build_sensor_context(instance=instance))
    assert isinstance(answer, dg.SkipReason)
    return answer.skip_message or ""
