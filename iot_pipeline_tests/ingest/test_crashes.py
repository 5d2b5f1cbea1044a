"""A load that is killed or fails, or meets another one: nothing is lost, doubled or half seen."""

import errno
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from iot_pipeline import connect, get_measurements
from iot_pipeline.errors import IotPipelineError, WarehouseBusyError, WarehouseNotReadyError
from iot_pipeline.ingest import load, load_mapping, load_timeseries
from iot_pipeline_tests.conftest import OTHER_SENSOR, SENSOR, Bucket, Reading, csv_of, row
from iot_pipeline_tests.ingest.faults import COMMITS, counting, dying, failing

pytestmark = pytest.mark.system

KILL_ROUNDS = int(os.environ.get("IOT_TEST_KILL_ROUNDS", "12"))


def committed_content(bucket: Bucket) -> list[Reading] | None:
    """Return what a reader sees, once it is clear that it adds up; None while nothing has been loaded."""
    try:
        connection = connect(bucket.warehouse)
    except WarehouseNotReadyError:
        return None
    with connection:
        content = connection.execute(
            "SELECT sensor_uuid, epoch_us(timestamp), sensor_value FROM measurements ORDER BY ALL"
        ).fetchall()
        files = connection.execute(
            "SELECT rows_read, rows_loaded, rows_rejected, rows_duplicate FROM source_files"
        ).fetchall()
        ((n_rejects,),) = connection.execute("SELECT count(*) FROM rejected_rows").fetchall()
    assert len(set(content)) == len(content)
    assert sum(loaded for _, loaded, _, _ in files) == len(content)
    assert all(read == loaded + rejected + duplicate for read, loaded, rejected, duplicate in files)
    assert all(count >= 0 for counts in files for count in counts)
    assert n_rejects == sum(rejected for _, _, rejected, _ in files)
    return content


# ------------------------------------------------------- dying or failing at every step


@dataclass(frozen=True)
class Story:
    """A warehouse before a load, and what the load must make of it."""

    bucket: Bucket
    before: list[Reading] | None
    after: list[Reading]
    full_reload: bool

    def tellings(self) -> Iterator[tuple[int, Bucket]]:
        """Yield for every step of the load its number and a fresh copy of the warehouse."""
        rehearsal = self._copy(0)
        with counting() as stopwatch:
            rehearsal.load(full_reload=self.full_reload)
        assert committed_content(rehearsal) == self.after
        assert stopwatch.steps > 20
        for step in range(stopwatch.steps):
            yield step, self._copy(step + 1)

    def _copy(self, number: int) -> Bucket:
        warehouse = self.bucket.warehouse.with_name(f"copy-{number}")
        if self.before is not None:
            shutil.copytree(self.bucket.warehouse, warehouse)
        return replace(self.bucket, warehouse=warehouse)


@pytest.fixture(params=["first load", "reload", "a file breaks", "full reload"])
def story(request: pytest.FixtureRequest, bucket: Bucket) -> Story:
    old = [row("2013-01-01 00:00", value=1), row("2013-02-01 00:00", value=2)]
    new = [row("2013-01-01 00:00", value=3), row("2013-02-01 00:00", value=4)]
    before = None
    if request.param != "first load":
        bucket.write("changed.csv", *old, "refused")
        bucket.write("stays.csv", *old[:1], row("2013-02-02 00:00", OTHER_SENSOR))
        bucket.load()
        before = committed_content(bucket)
    bucket.write("changed.csv", *new, "refused")
    bucket.write("new.csv", *new[1:], row("2013-02-01 00:00", OTHER_SENSOR, 5))
    scratch = replace(bucket, warehouse=bucket.warehouse.with_name("scratch"))
    scratch.load()
    if request.param == "a file breaks":
        bucket.write("stays.csv", b"<html></html>")
    return Story(bucket, before, scratch.content(), full_reload=request.param == "full reload")


def test_a_load_that_dies_before_any_of_its_steps_leaves_the_old_state_and_the_next_one_mends_all(
    story: Story,
) -> None:
    for step, bucket in story.tellings():
        with dying(step):
            bucket.load(full_reload=story.full_reload)
        assert committed_content(bucket) in (story.before, story.after), f"died before step {step}"
        bucket.load()
        assert committed_content(bucket) == story.after, f"died before step {step}"


@pytest.mark.parametrize("story", ["reload"], indirect=True)
def test_a_disk_full_at_any_step_is_a_clear_error_leaves_the_old_state_and_a_later_load_mends_all(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    for step, bucket in story.tellings():
        caplog.clear()
        error = ""
        with failing(step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
            try:
                bucket.load(full_reload=story.full_reload)
            except (OSError, IotPipelineError) as caught:
                error = str(caught)
        assert "No space left on device" in (error or caplog.text), f"failed at step {step}"
        assert "can't read" not in error
        # Only what comes after the commits may fail without failing the load.
        allowed = (story.before, story.after) if error else (story.after,)
        assert committed_content(bucket) in allowed, f"failed at step {step}"
        bucket.load()
        assert committed_content(bucket) == story.after, f"failed at step {step}"


@pytest.mark.parametrize("changes", [True, False])
def test_what_a_killed_load_left_behind_is_cleared_away_by_the_next_one(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, *, changes: bool
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    bucket.write("data_0.csv", row(), "refused")
    for step in range(12):
        with dying(step):
            bucket.load()
        if changes:
            bucket.write("data_0.csv", row(value=step), "refused")
    bucket.load()
    files = [path.name for path in bucket.warehouse.rglob("*") if path.is_file()]
    assert not any(name.endswith(".part") for name in files)
    assert sum(name.endswith(".parquet") for name in files) == len(["readings", "rejects", "month", "ledger"])


# ------------------------------------------------------------------------ a real kill


def load_in_process(source: str, warehouse: str, pipe: Connection, n_workers: int) -> None:
    def show_workers(_: object) -> None:
        if n_workers > 1:
            pipe.send([child.pid for child in multiprocessing.active_children()])

    load.PARALLEL_BYTES = 0
    os.environ["IOT_WORKERS"] = str(n_workers)
    pipe.send("started")
    try:
        pipe.send(load_timeseries(source=source, warehouse=warehouse, on_progress=show_workers))
    except IotPipelineError as error:
        pipe.send(f"{type(error).__name__}: {error}")


class LoadProcess:
    """A load in a process of its own, past its imports."""

    def __init__(self, bucket: Bucket, n_workers: int = 1) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["iot_pipeline_tests.ingest.test_crashes"])
        self._pipe, pipe = context.Pipe()
        arguments = (str(bucket.source), str(bucket.warehouse), pipe, n_workers)
        self._process = context.Process(target=load_in_process, args=arguments)
        self._process.start()
        pipe.close()
        assert self.receive() == "started"

    def receive(self) -> Any:
        return self._pipe.recv()

    def result(self) -> Any:
        try:
            return self.receive()
        finally:
            self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def sha256(content: list[Reading]) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()


def write_version(bucket: Bucket, version: int) -> None:
    """Change one file, add another, and let them share readings and refused rows with others."""
    for key in (f"data_{version % 3}.csv", f"data_{version + 3}.csv"):
        rows = (
            row(f"2013-{1 + i % 3:02}-{1 + i % 28:02} {i % 24:02}:{(i + version) % 60:02}", value=i)
            for i in range(0, 6_000, 1 + version % 3)
        )
        bucket.write(key, *rows, "refused")


def test_the_content_after_kills_at_random_moments_equals_that_of_an_uninterrupted_load(
    bucket: Bucket,
) -> None:
    randomness = random.Random(7)  # noqa: S311 - moments, not secrets
    write_version(bucket, 0)
    bucket.load()
    write_version(bucket, 1)
    started = time.monotonic()
    LoadProcess(bucket).result()
    seconds = time.monotonic() - started
    n_killed = 0
    for version in range(2, 2 + KILL_ROUNDS):
        before = DeltaTable(bucket.warehouse / "source_files").version()
        write_version(bucket, version)
        process = LoadProcess(bucket)
        time.sleep(randomness.uniform(0, seconds))
        process.kill()
        assert committed_content(bucket)
        n_killed += DeltaTable(bucket.warehouse / "source_files").version() == before
    assert n_killed  # how many depends on what else the machine does
    bucket.load()
    scratch = replace(bucket, warehouse=bucket.warehouse.with_name("scratch"))
    scratch.load()
    content = committed_content(bucket)
    assert content is not None
    assert sha256(content) == sha256(scratch.content())


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_workers_of_a_killed_load_end_with_it(bucket: Bucket) -> None:
    for version in range(4):
        write_version(bucket, version)
    process = LoadProcess(bucket, n_workers=2)
    workers = process.receive()
    process.kill()
    try:
        deadline = time.monotonic() + 5
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_alive, workers))
        assert len(workers) == 2
    finally:
        for worker in filter(is_alive, workers):
            os.kill(worker, signal.SIGKILL)
    bucket.load()
    content = committed_content(bucket)
    assert content


def test_a_load_on_several_processes_makes_the_same(bucket: Bucket) -> None:
    for version in range(4):
        write_version(bucket, version)
    report = bucket.load()
    parallel = replace(bucket, warehouse=bucket.warehouse.with_name("parallel"))
    process = LoadProcess(parallel, n_workers=2)
    results = iter(process.receive, None)
    assert next(result for result in results if not isinstance(result, list)) == report
    process.kill()
    assert committed_content(parallel) == committed_content(bucket)


# ------------------------------------------------------------------- readers and writers


def write_mapping(bucket: Bucket) -> None:
    mapping = csv_of(f"sensor_00000;{SENSOR}", header="sensor_name;sensor_uuid")
    bucket.source.joinpath("mapping.csv").write_bytes(mapping)


def write_generation(bucket: Bucket, number: int) -> None:
    """Let every reading of both files and both months be the number, and refuse as many rows."""
    for key in ("data_0.csv", "data_1.csv"):
        times = [f"2013-{month:02}-{day:02} 0{key[5]}:00" for month in (1, 2) for day in range(1, 29)]
        bucket.write(key, *(row(time, value=number) for time in times), *["refused"] * number)


def test_readers_see_wholly_the_old_state_or_wholly_the_new_one_during_loads(bucket: Bucket) -> None:
    write_mapping(bucket)
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    write_generation(bucket, 0)
    bucket.load()
    seen: set[int] = set()
    faults: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with connect(bucket.warehouse) as connection:
                for _ in range(2):
                    (state,) = connection.execute(STATE_SQL).fetchall()
                    frame = get_measurements("sensor_00000", "2013-01-01", "2013-03-01", warehouse=warehouse)
                    values = set(frame["sensor_value"])
                    if state != (112, 112, 2 * state[3], state[3], state[3]) or len(values) != 1:
                        faults.append((state, values))
                    seen.add(state[3])

    warehouse = bucket.warehouse
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 9):
            write_generation(bucket, number)
            bucket.load(full_reload=number % 4 == 0)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert faults == []
    assert len(seen) > 2


STATE_SQL = """
    SELECT count(*), (SELECT sum(rows_loaded)::BIGINT FROM source_files),
        (SELECT count(*) FROM rejected_rows), min(sensor_value)::BIGINT, max(sensor_value)::BIGINT
    FROM measurements
"""


def test_a_connection_keeps_its_state_while_loads_go_on(bucket: Bucket) -> None:
    write_generation(bucket, 1)
    bucket.load()
    with connect(bucket.warehouse) as connection:
        write_generation(bucket, 2)
        bucket.load()
        assert connection.execute(STATE_SQL).fetchall() == [(112, 112, 2, 1, 1)]


def test_a_second_load_in_the_same_process_is_refused_with_one_clear_line(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row())
    refusals = []

    def load_meanwhile(_: object) -> None:
        with pytest.raises(WarehouseBusyError) as caught:
            bucket.load()
        refusals.append(str(caught.value))

    report = bucket.load(on_progress=load_meanwhile)
    assert report.rows_loaded == 1
    assert set(refusals) == {
        f"process {os.getpid()} is writing {bucket.warehouse / 'timeseries'}: try again when it is done"
    }
    assert bucket.load().files_unchanged == 1


def test_a_second_load_in_another_process_is_refused_and_nothing_is_mixed(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row())
    results: list[Any] = []
    bucket.load(on_progress=lambda _: results.append(LoadProcess(bucket).result()) if not results else None)
    table = bucket.warehouse / "timeseries"
    assert results == [
        f"WarehouseBusyError: process {os.getpid()} is writing {table}: try again when it is done"
    ]
    assert committed_content(bucket) is not None
    assert len(DeltaTable(bucket.warehouse / "source_files").history()) <= 2


def test_a_killed_load_blocks_nobody(bucket: Bucket) -> None:
    write_version(bucket, 0)
    LoadProcess(bucket).kill()
    assert bucket.load().rows_loaded > 0


# ----------------------------------------------------------------------------- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount") or "mount"
    with suppress(OSError):
        if os.geteuid() == 0:
            mounted = subprocess.run(
                [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True
            )
            if mounted.returncode == 0:
                yield disk
                subprocess.run([shutil.which("umount") or "umount", "--lazy", disk], check=True)
                return
    pytest.skip("needs the right to mount a small disk")


@pytest.mark.parametrize("n_rows", [12_000, 100_000])
def test_a_full_disk_is_a_clear_error_keeps_the_old_state_readable_and_more_room_mends_it(
    bucket: Bucket, small_disk: Path, n_rows: int
) -> None:
    bucket = replace(bucket, warehouse=small_disk / "warehouse")
    bucket.write("data_0.csv", row(value=1), "refused")
    bucket.load()
    before = committed_content(bucket)
    numbers = random.Random(1)  # noqa: S311 - figures that don't compress
    times = [f"2013-01-{1 + i % 28:02} {i % 24:02}:{i % 60:02}" for i in range(n_rows)]
    bucket.write("data_1.csv", *(row(time, value=numbers.random()) for time in times), *["x" * 900] * 100)
    for _ in range(2):
        with pytest.raises((OSError, IotPipelineError), match="No space left on device") as caught:
            bucket.load()
        assert "can't read" not in str(caught.value)
        assert committed_content(bucket) == before
    mount = shutil.which("mount") or "mount"
    subprocess.run([mount, "-o", "remount,size=64m", small_disk], check=True)
    assert bucket.load().rows_loaded == n_rows
    assert committed_content(bucket) != before


@dataclass(frozen=True)
class Power:
    """Remembers what has been synced, and what had been when a table was committed to."""

    synced: set[Path] = field(default_factory=set)
    synced_at_commit: dict[str, set[Path]] = field(default_factory=dict)


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    power = Power()
    fsync, move = os.fsync, Path.replace

    def remember_sync(descriptor: int) -> None:
        fsync(descriptor)
        power.synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    def remember_move(path: Path, target: Path) -> Path:
        if path in power.synced:
            power.synced.add(target)
        power.synced.discard(target.parent)
        return move(path, target)

    def watch(commit: Callable[..., Any]) -> Callable[..., Any]:
        def remember_commit(table: Any, *arguments: Any, **options: Any) -> Any:
            name = Path(getattr(table, "table_uri", table)).name
            power.synced_at_commit[name] = set(power.synced)
            return commit(table, *arguments, **options)

        return remember_commit

    monkeypatch.setattr(os, "fsync", remember_sync)
    monkeypatch.setattr(Path, "replace", remember_move)
    for owner, name in COMMITS:
        monkeypatch.setattr(owner, name, watch(getattr(owner, name)))
    return power


def written(directory: Path) -> set[Path]:
    return {path for path in (directory, *directory.rglob("*")) if path.suffix != ".lock"}


def test_what_was_reported_as_loaded_survives_a_power_loss(bucket: Bucket, power: Power) -> None:
    bucket.write("data_0.csv", row(), "refused", row("2013-02-01 00:00"))
    bucket.load()
    assert written(bucket.warehouse) - power.synced == set()


def test_readings_are_on_the_disk_before_the_commit_that_names_them(bucket: Bucket, power: Power) -> None:
    bucket.write("data_0.csv", row(), "refused", row("2013-02-01 00:00"))
    bucket.load()
    months = [path for path in bucket.warehouse.joinpath("timeseries").iterdir() if "month=" in path.name]
    files = written(bucket.warehouse / "bronze").union(*map(written, months))
    assert len(months) == 2
    assert files - power.synced_at_commit["timeseries"] == set()


def test_the_readings_commit_is_on_the_disk_before_the_ledger_names_it(bucket: Bucket, power: Power) -> None:
    bucket.write("data_0.csv", row(), "refused")
    bucket.load()
    assert written(bucket.warehouse / "timeseries") - power.synced_at_commit["source_files"] == set()


def test_the_mapping_survives_a_power_loss(bucket: Bucket, power: Power) -> None:
    write_mapping(bucket)
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    assert written(bucket.warehouse) - power.synced == set()
