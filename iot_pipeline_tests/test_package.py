"""How the package hangs together: what imports what, and what an import costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iot_pipeline.settings import PROJECT_ROOT

pytestmark = pytest.mark.system


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(answer.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported_by("import iot_pipeline") & {"dagster", "duckdb", "numpy", "pandas", "pyarrow"}


def test_querying_never_imports_dagster() -> None:
    modules = imported_by("from iot_pipeline import get_anomalies, get_measurements, list_sensors, connect")
    assert "duckdb" in modules
    assert "dagster" not in modules


def test_imports_go_downwards_and_only_the_dagster_side_imports_dagster() -> None:
    answer = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


def test_the_detector_needs_no_files_and_no_frames() -> None:
    modules = imported_by("from iot_pipeline.detection import detect_anomalies")
    assert not modules & {"duckdb", "pandas", "pyarrow", "deltalake", "iot_pipeline.warehouse"}


def test_the_shell_starts_without_what_only_its_commands_need() -> None:
    modules = imported_by("import iot_pipeline.cli")
    assert not modules & {"dagster", "duckdb", "jinja2", "matplotlib", "numpy", "pandas", "pyarrow", "rich"}


def test_a_tab_offers_the_public_names_of_the_package_and_nothing_else() -> None:
    code = "import iot_pipeline; print(*dir(iot_pipeline))"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.split() == [
        *("connect", "get_anomalies", "get_measurements", "list_sensors", "plot"),
    ]


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import iot_pipeline  # noqa: PLC0415

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        iot_pipeline.nothing  # noqa: B018


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the package as its wheel installs it."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build: list[str | Path] = [
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--wheel-dir",
        directory,
        PROJECT_ROOT,
    ]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = directory.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", directory / "site", wheel], check=True)
    return directory / "site"


def test_outside_the_project_an_installed_package_keeps_its_data_in_the_current_directory(
    installed: Path, tmp_path: Path
) -> None:
    def run(statement: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")}
        answer = subprocess.run(
            [sys.executable, "-P", "-c", statement],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(installed)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    cli = "from iot_pipeline.cli import main; main({})"
    run(cli.format("['sample-data', '--sensors', '2', '--days', '3', '--seed', '1', 'data/sample']"))
    run("from iot_pipeline.ingest import *; load_mapping(); load_timeseries()")
    run("from iot_pipeline.anomalies import flag_anomalies; flag_anomalies()")
    assert "sensors:       2" in run(cli.format("['status']"))
    assert (tmp_path / "data" / "warehouse" / "mapping.sqlite").exists()
    run("from iot_pipeline.report import write_report; write_report()")  # its template is in the wheel
    assert "Sensor anomalies" in (tmp_path / "data" / "warehouse" / "report" / "index.html").read_text()
    assert run("import iot_pipeline; print(iot_pipeline.__file__)").startswith(str(installed))
    run("import iot_pipeline.definitions")
