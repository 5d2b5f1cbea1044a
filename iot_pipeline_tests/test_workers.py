"""How work is spread: over processes or not, the results are the same."""

import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from iot_pipeline import workers
from iot_pipeline.errors import WorkerError
from iot_pipeline.workers import Workers, open_workers

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_WORKERS", "2")


def test_without_parallel_work_no_process_is_started() -> None:
    with open_workers(parallel=False) as workers:
        assert list(workers.run(process_of, [0])) == [os.getpid()]


def process_of(_: int) -> int:
    return os.getpid()


def test_parallel_work_runs_in_other_processes_with_one_thread_for_linear_algebra() -> None:
    before = dict(os.environ)
    with open_workers(parallel=True) as workers:
        assert os.getpid() not in list(workers.run(process_of, [0]))
        assert list(workers.run(os.getenv, ["OPENBLAS_NUM_THREADS"])) == ["1"]
    assert dict(os.environ) == before


def test_a_script_without_a_main_guard_may_use_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from iot_pipeline.workers import open_workers\n"
        "with open_workers(parallel=True) as workers:\n"
        "    print(sorted(workers.run(abs, [-1, -2, -3])))\n"
    )
    answer = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)
    assert answer.stdout == "[1, 2, 3]\n"


@pytest.mark.parametrize("parallel", [False, True])
def test_all_tasks_are_run_and_an_error_of_one_is_raised(parallel: bool) -> None:  # noqa: FBT001 - parametrised
    with open_workers(parallel=parallel) as workers:
        assert sorted(workers.run(abs, range(-20, 0))) == list(range(1, 21))
        with pytest.raises(ValueError, match="negative"):
            list(workers.run(math.factorial, [3, -1, 4]))


def test_no_more_tasks_than_allowed_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "TASKS_PER_WORKER", 1)
    lock, running, most = threading.Lock(), 0, 0

    def task(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    with ThreadPoolExecutor(8) as threads:
        list(Workers(threads, lambda: 3).run(task, range(20)))
    assert most == 3


def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(WorkerError, match="IOT_WORKERS=1"), open_workers(parallel=True) as workers:
        list(workers.run(os._exit, [1]))
