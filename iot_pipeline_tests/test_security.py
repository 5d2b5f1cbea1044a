"""Secrets stay secret, and what comes from data stays data."""

import ast
import os
import re
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest

from iot_pipeline.settings import PROJECT_ROOT
from iot_pipeline_tests.conftest import SENSOR, Bucket, csv_of, row
from iot_pipeline_tests.runs import definitions_on, materialize, metadata_of
from iot_pipeline_tests.s3_server import running_s3_server

pytestmark = pytest.mark.system

CANARY = "canary+in/the/coal=mine00000000000000000"
BUCKET = "code-challenge-data"
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'


# ------------------------------------------------------------------------------- secrets


@dataclass(frozen=True)
class Run:
    """A run of the assets in a process of its own, as from the shell.

    Attributes:
        directory: Holds all that it wrote: DAGSTER_HOME and the warehouse.
        output: What it printed.
        exit_code: 0 if it succeeded.
    """

    directory: Path
    output: str
    exit_code: int

    def texts(self) -> Iterator[str]:
        """Yield all that was printed or written, with what Dagster's databases hold compressed."""
        yield self.output
        for path in self.directory.rglob("*"):
            if path.is_file():
                yield path.read_bytes().decode(errors="replace")
                if path.suffix == ".db":
                    yield from _values(path)

    def says(self, text: str) -> bool:
        return any(text in found for found in self.texts())


def _values(database: Path) -> Iterator[str]:
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for values in connection.execute(f'SELECT * FROM "{table}"'):
                for value in values:
                    if isinstance(value, bytes):
                        yield zlib.decompress(value).decode()
                    else:
                        yield str(value)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def access_key(server: str) -> str:
    """Fill a bucket and return the id of an access key that may read it; its secret is not the canary."""

    def client(service: str) -> Any:
        return boto3.session.Session().client(
            service,  # type: ignore[call-overload]
            endpoint_url=server,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",  # noqa: S106 - the server doesn't check it yet
        )

    s3, iam = client("s3"), client("iam")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(
        Bucket=BUCKET, Key="mapping/mapping.csv", Body=f"sensor_name;sensor_uuid\nsensor_00000;{SENSOR}\n"
    )
    rows = (row(f"2013-01-01 {hour:02}:00", value=hour) for hour in range(24))
    s3.put_object(Bucket=BUCKET, Key="timeseries/data_0.csv", Body=csv_of(*rows))
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=POLICY)
    key: str = iam.create_access_key(UserName="reader")["AccessKey"]["AccessKeyId"]
    return key


def run_all_assets(directory: Path, **environment: str) -> Run:
    home = directory / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((PROJECT_ROOT / "dagster_home" / "dagster.yaml").read_text())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    settings = {
        "DAGSTER_HOME": str(home),
        "IOT_SOURCE": f"s3://{BUCKET}",
        "IOT_WAREHOUSE": str(directory / "warehouse"),
        "AWS_CONFIG_FILE": str(directory / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
        "AWS_SECRET_ACCESS_KEY": CANARY,
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dagster",
            "asset",
            "materialize",
            "--select",
            "*",
            "-m",
            "iot_pipeline.definitions",
        ],
        env=kept | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return Run(directory, done.stdout, done.returncode)


@pytest.fixture(scope="module")
def good_run(server: str, access_key: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_all_assets(
        tmp_path_factory.mktemp("good"), AWS_ENDPOINT_URL_S3=server, AWS_ACCESS_KEY_ID=access_key
    )


def test_a_run_that_succeeds_shows_the_secret_nowhere(good_run: Run) -> None:
    assert good_run.exit_code == 0
    assert good_run.says("timeseries/data_0.csv")
    assert not good_run.says(CANARY)


def test_a_run_that_is_refused_shows_the_secret_nowhere(
    server: str, access_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    run = run_all_assets(tmp_path, AWS_ENDPOINT_URL_S3=server, AWS_ACCESS_KEY_ID=access_key)
    assert run.exit_code != 0
    assert run.says(f"can't list s3://{BUCKET}/: wrong secret: check AWS_SECRET_ACCESS_KEY")
    assert not run.says(CANARY)


def test_a_run_with_a_password_in_the_endpoint_is_refused_and_does_not_show_it(
    server: str, access_key: str, tmp_path: Path
) -> None:
    endpoint = server.replace("http://", "http://user:hunter2@")
    run = run_all_assets(tmp_path, AWS_ENDPOINT_URL_S3=endpoint, AWS_ACCESS_KEY_ID=access_key)
    assert run.exit_code != 0
    assert run.says("AWS_ENDPOINT_URL_S3 holds credentials")
    assert not run.says("hunter2")
    assert not run.says(CANARY)


RESOURCES = """{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails {
    name configFields { name defaultValueAsJson } configuredValues { key value }
    nestedResources { name resource { configuredValues { key value } } }
} } } } }"""


def test_the_page_shows_no_secret_where_it_shows_how_resources_are_configured(tmp_path: Path) -> None:
    answer = subprocess.run(
        [
            Path(sys.executable).with_name("dagster-graphql"),
            "-m",
            "iot_pipeline.definitions",
            "-t",
            RESOURCES,
        ],
        env=os.environ | {"DAGSTER_HOME": str(tmp_path), "AWS_SECRET_ACCESS_KEY": CANARY},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert '"name": "source"' in answer
    assert CANARY not in answer


# --------------------------------------------------------------------- files and settings


def test_a_run_writes_no_pickles(good_run: Run) -> None:
    stored = [path for path in (good_run.directory / "home" / "storage").rglob("*") if path.is_file()]
    assert stored
    assert {path.parent.name for path in stored} == {"compute_logs"}


def test_no_module_of_the_package_reads_or_writes_pickles() -> None:
    for path in (PROJECT_ROOT / "iot_pipeline").rglob("*.py"):
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, path


def test_what_is_deployed_holds_no_password() -> None:
    settings = [
        *PROJECT_ROOT.glob("*"),
        *(PROJECT_ROOT / "iot_pipeline").rglob("*.py"),
        *(PROJECT_ROOT / "dagster_home").glob("*.yaml"),
    ]
    # Set to a value, which neither a variable nor another thing's attribute is.
    literal = re.compile(
        r"""(?i)(password|secret_access_key|session_token)["']?\s*[:=]\s*["']?(?!\w+\.)\w{4,}"""
    )
    assert literal.search("MINIO_ROOT_PASSWORD: minioadmin")
    found = {
        f"{path.name}: {line.strip()}"
        for path in settings
        if path.is_file()
        for line in path.read_text(errors="ignore").splitlines()
        if literal.search(line)
    }
    assert found == set()


def test_the_web_page_is_bound_to_this_machine() -> None:
    (command,) = re.findall(r"dagster dev .*", (PROJECT_ROOT / "Makefile").read_text())
    assert "--host 127.0.0.1" in command


# ------------------------------------------------------------------------ values from data

IMAGE, LINK = "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> dg.ExecuteInProcessResult:
    """Run all assets on sensors and files whose names are markup; one has no readings."""
    directory = tmp_path_factory.mktemp("hostile")
    bucket = Bucket(directory / "source", directory / "warehouse")
    bucket.source.mkdir()
    mapping = [f"{name};{uuid}" for name, uuid in ((IMAGE, SENSOR), (LINK, SENSOR.replace("1", "3")))]
    (bucket.source / "mapping.csv").write_text("\n".join(["sensor_name;sensor_uuid", *mapping]))
    readings = [
        row(f"2013-01-{day:02} {hour:02}:00", value=hour) for day in range(1, 29) for hour in range(24)
    ]
    readings[300:310] = [line.rpartition(";")[0] + ";1e6" for line in readings[300:310]]
    bucket.write(f"{IMAGE}.csv", *readings, "refused")
    bucket.write(f"{LINK.replace('/', '')}.csv", b"no csv")
    return materialize(definitions_on(bucket.source, bucket.warehouse))


def is_markup(text: str) -> bool:
    return "<img src=x" in text or "](javascript:" in text


def test_names_from_data_are_never_part_of_markdown_a_description_or_a_link(
    hostile_run: dg.ExecuteInProcessResult,
) -> None:
    made: list[dg.AssetMaterialization] = [
        event.step_materialization_data.materialization
        for event in hostile_run.get_asset_materialization_events()
    ]
    checked = list(hostile_run.get_asset_check_evaluations())
    values = [value for events in (made, checked) for event in events for value in event.metadata.values()]
    assert any(is_markup(str(value.value)) for value in values)
    assert not any(
        is_markup(value.md_str or "") for value in values if isinstance(value, dg.MarkdownMetadataValue)
    )
    assert not any(isinstance(value, dg.UrlMetadataValue) for value in values)
    descriptions = [event.description or "" for events in (made, checked) for event in events]
    assert not any(map(is_markup, descriptions))


def test_names_from_data_are_escaped_in_the_report(hostile_run: dg.ExecuteInProcessResult) -> None:
    page = Path(metadata_of(hostile_run, "anomaly_report")["page"]).read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert IMAGE not in page
