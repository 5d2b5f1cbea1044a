"""Past runs are forgotten after a while."""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from iot_pipeline.defs.retention import delete_old_runs, tidy_up, weekly_tidy_up
from iot_pipeline.settings import PROJECT_ROOT

pytestmark = pytest.mark.system

PICTURE = 500_000


@dg.asset
def noise() -> dg.MaterializeResult[None]:
    sys.stdout.write("making noise")
    return dg.MaterializeResult(metadata={"picture": dg.MetadataValue.md("x" * PICTURE)})


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    shutil.copy(PROJECT_ROOT / "dagster_home" / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return dg.DagsterInstance.get()


def run_once(instance: dg.DagsterInstance) -> str:
    result = dg.materialize([noise], instance=instance)
    assert result.success
    return result.run_id


def size_of(run_id: str, directory: Path) -> int:
    """Return the bytes of the files of a run: its database of events, its logs."""
    named = [path for path in directory.rglob("*") if run_id in str(path)]
    return sum(path.stat().st_size for path in named if path.is_file())


def test_an_old_run_is_forgotten_and_gives_back_its_space(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run_id = run_once(instance)
    before = size_of(run_id, tmp_path)
    assert delete_old_runs(instance, datetime.now(UTC) + timedelta(days=1)) == 1
    assert instance.get_run_by_id(run_id) is None
    assert instance.all_logs(run_id) == []
    assert size_of(run_id, tmp_path) < before - PICTURE


def test_a_recent_run_is_kept(instance: dg.DagsterInstance) -> None:
    run_id = run_once(instance)
    assert tidy_up.execute_in_process(instance=instance).success
    assert instance.get_run_by_id(run_id)
    assert instance.all_logs(run_id)


def test_a_run_that_has_not_finished_is_kept(instance: dg.DagsterInstance) -> None:
    run = dg.DagsterInstance.create_run_for_job(
        instance,
        dg.define_asset_job("all").resolve(asset_graph=dg.Definitions([noise]).resolve_asset_graph()),
    )
    assert delete_old_runs(instance, datetime.now(UTC) + timedelta(days=1)) == 0
    assert instance.get_run_by_id(run.run_id)


def test_it_is_done_every_sunday() -> None:
    assert weekly_tidy_up.cron_schedule == "0 5 * * 0"
    assert weekly_tidy_up.default_status == dg.DefaultScheduleStatus.RUNNING
