"""How the package hangs together: what imports what, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "iot_pipeline"
DAGSTER_SIDE = ("defs", "definitions.py")
MODULES = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in DAGSTER_SIDE]


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(answer.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported_by("import iot_pipeline") & {"dagster", "duckdb", "numpy", "pandas", "pyarrow"}


def test_querying_never_imports_dagster() -> None:
    modules = imported_by("from iot_pipeline import get_measurements, connect")
    assert "duckdb" in modules
    assert "dagster" not in modules


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_dagster_side_imports_dagster(path: Path) -> None:
    names = [
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    ]
    assert not [name for name in names if name.startswith(("dagster", "iot_pipeline.def"))]


def test_the_detector_needs_no_files_and_no_frames() -> None:
    modules = imported_by("from iot_pipeline.detection import detect_anomalies")
    assert not modules & {"duckdb", "pandas", "pyarrow", "deltalake", "iot_pipeline.warehouse"}


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import iot_pipeline  # noqa: PLC0415

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        iot_pipeline.nothing  # noqa: B018
