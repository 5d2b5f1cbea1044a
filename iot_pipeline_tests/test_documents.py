"""What the documents tell people to type works as it stands there, and their links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent
TYPED = ("README.md", "docs/using.md", "docs/running.md")
LINKED = (
    *TYPED,
    "SOLUTION.md",
    "docs/architecture.md",
    "docs/detection.md",
    "docs/scaling.md",
    "benchmarks/README.md",
)
BLOCKS = [
    block
    for name in TYPED
    for block in re.findall(
        r"^```(sh|python)\n(.*?)^```$", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL
    )
]
ACTIVATION = next(text for language, text in BLOCKS if text.startswith(". .venv/bin/activate"))
BY_OTHERS = ("make ", "docker compose ")
"""`make` is run for the tests of the web page, `docker compose` for those of an installation."""


def typed(*languages: str) -> list[str]:
    """Return the blocks that nobody else runs."""
    return [
        text
        for language, text in BLOCKS
        if language in languages and text != ACTIVATION and not text.startswith(BY_OTHERS)
    ]


@pytest.fixture
def project(tmp_path: Path, sample_warehouse: Path) -> Path:
    """Return a copy of what of the project a user's commands read and write, loaded."""
    shutil.copytree(sample_warehouse, tmp_path / "data" / "warehouse")
    shutil.copytree(ROOT / "data" / "sample", tmp_path / "data" / "sample")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "dagster_home").mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", tmp_path / "dagster_home")
    shutil.copy(ROOT / ".env.example", tmp_path)
    return tmp_path


def run(project: Path, *command: str) -> str:
    """Run a command in the project as after the activation line, and return what it prints."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DAGSTER_HOME": str(project / "dagster_home"),
        "DAGSTER_MODULE_NAME": "iot_pipeline.definitions",
        "IOT_WAREHOUSE": str(project / "data" / "warehouse"),
    }
    answer = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.parametrize("text", typed("python"))
def test_python_from_the_documents_runs(project: Path, text: str) -> None:
    run(project, sys.executable, "-W", "error", "-c", text)


@pytest.mark.parametrize("text", typed("sh"))
def test_a_command_from_the_documents_runs(project: Path, text: str) -> None:
    text = text.replace("--sensors 500 --days 1096", "--sensors 3 --days 10").replace(
        " /tmp/", f" {project}/"
    )
    text = re.sub(r"(IOT_\w+=)/tmp/", rf"\1{project}/", text)
    run(project, "sh", "-euc", text.replace("docker compose up\n", ""))


def test_the_activation_line_names_the_module_and_the_home() -> None:
    shown = 'printf "%s\n" "$DAGSTER_MODULE_NAME" "$DAGSTER_HOME"'
    line = ACTIVATION.removeprefix(". .venv/bin/activate && ")
    answer = subprocess.run(
        ["/bin/sh", "-c", line + shown], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["iot_pipeline.definitions", str(ROOT / "dagster_home")]


def test_the_passwords_of_an_installation_are_made_up(project: Path) -> None:
    (text,) = [text for text in typed("sh") if ".env.example" in text]
    run(project, "sh", "-euc", text.replace("docker compose up\n", ""))
    settings = dict(
        line.split("=", 1) for line in (project / ".env").read_text().splitlines() if line[:1].isalpha()
    )
    assert len(settings) == len({value for value in settings.values() if len(value) == 32}) == 3


@pytest.mark.parametrize("name", LINKED)
def test_every_link_leads_to_a_file(name: str) -> None:
    document = ROOT / name
    links = re.findall(r"\]\(([\w./-]+)", document.read_text())
    assert [
        link for link in links if not link.startswith("http") and not (document.parent / link).exists()
    ] == []
