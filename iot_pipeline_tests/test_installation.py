"""What `docker compose up` gives, on a real engine, from nothing to a killed container.

The tests build on each other, in their order. `.ci/compose-test` runs them.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from dagster import DagsterRunStatus
from dagster_graphql import DagsterGraphQLClient

from iot_pipeline.warehouse.status import read_status

pytestmark = [
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore:Using variable_values:DeprecationWarning"),  # Dagster's own call
]

ROOT = Path(__file__).parent.parent
SECRETS = {
    "POSTGRES_PASSWORD": "canary-of-postgres",
    "STORE_ACCESS_KEY": "canary-of-the-access-key",
    "STORE_SECRET_KEY": "canary-of-the-secret-key",
}
OURS = ["code-location", "webserver", "daemon", "explore", "scheduler", "worker"]
SERVICES = ["store", "postgres", *OURS]
PATIENCE = 300
FULL_RELOAD = {"ops": {"timeseries": {"config": {"full_reload": True}}}}
ACCESS = """
    import os, re
    status = dict(re.findall(r"(\\w+):\\s+(.*)", open("/proc/self/status").read()))
    writable = [path for path in ("/", "/app", "/etc", "/usr", "/var") if os.access(path, os.W_OK)]
    print(os.getuid(), status["CapEff"], status["CapPrm"], status["CapBnd"], status["NoNewPrivs"], writable)
"""
SCHEDULER = "tcp://scheduler:8786"
CLUSTER = f"""
    from distributed import Client
    client = Client("{SCHEDULER}")
    tasks = {{task["key"].partition("-")[0] for task in client.get_task_stream()}}
    print(len(client.nthreads()), "workers:", *sorted(tasks))
"""


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come; it takes as long as the machine takes, within reason."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.2)


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@dataclass(frozen=True)
class Installation:
    """The services of docker-compose.yml under a project name of their own."""

    env_file: Path
    port: int

    def compose(self, *arguments: str) -> str:
        """Run a command of docker compose and return what it prints."""
        options = ["--project-name", "iot-pipeline-test", "--env-file", str(self.env_file)]
        return run("docker", "compose", *options, *arguments)

    def up(self) -> int:
        """Start everything and return how the first run's service ended."""
        self.compose("up", "--detach")
        return int(run("docker", "wait", *self.containers("first-run")))

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, service: str) -> list[dict[str, Any]]:
        """Return what the engine knows of each container of a service."""
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", *self.containers(service)))
        return found

    def execute(self, service: str, *command: str) -> str:
        return self.compose("exec", "--no-TTY", service, *command)

    def kill_processes(self, service: str) -> None:
        """Kill all processes in a service's container at once, as when the machine's memory runs out."""
        killer = f"import os; os.kill(-1, {signal.SIGKILL:d})"
        # The killer's container goes away under it, so it can't tell how that went.
        with contextlib.suppress(AssertionError):
            self.execute(service, "python", "-c", killer)

    def is_healthy(self, service: str) -> bool:
        return all(found["State"]["Health"]["Status"] == "healthy" for found in self.inspect(service))

    def restarts(self, service: str) -> int:
        return sum(found["RestartCount"] for found in self.inspect(service))

    def set(self, **variables: object) -> None:
        """Add variables to the installation's file."""
        with self.env_file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in variables.items())

    def sql(self, statement: str) -> str:
        return self.execute("code-location", "iot-pipeline", "sql", statement)

    def counts(self) -> str:
        """Return how many readings, anomalies and files there are."""
        return self.sql("""
            SELECT
                (SELECT count(*) FROM measurements) AS readings,
                (SELECT count(*) FROM anomalies) AS anomalies,
                (SELECT count(*) FROM source_files) AS files
        """)

    def cluster(self) -> str:
        """Return how many workers there are, and what tasks they have done since this was asked first."""
        return self.execute("code-location", "python", "-c", dedented(CLUSTER))

    def last_load(self) -> str:
        return self.sql("SELECT max(loaded_at) FROM source_files")

    def graphql(self, query: str, **variables: object) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"})
        with urlopen(request) as response:  # noqa: S310
            return json.load(response)["data"]

    def runs(self) -> dict[str, str]:
        """Return the statuses of all runs by id, the latest first."""
        data = self.graphql("{ runsOrError { ... on Runs { results { runId status } } } }")
        return {entry["runId"]: entry["status"] for entry in data["runsOrError"]["results"]}

    def launch(self, run_config: dict[str, Any] | None = None) -> str:
        return DagsterGraphQLClient("127.0.0.1", port_number=self.port).submit_job_execution(
            "reload", run_config=run_config or {}
        )

    def wait_for(self, run_id: str, *statuses: DagsterRunStatus) -> str:
        """Wait until a run has one of the statuses and return it."""
        wait_until(lambda: self.runs()[run_id] in {status.value for status in statuses})
        return self.runs()[run_id]

    def captured_log(self, run_id: str) -> str:
        """Return what the web page shows of a run's stderr."""
        events = self.graphql(
            """query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
                ... on LogsCapturedEvent { fileKey } } } } }""",
            run=run_id,
        )["logsForRun"]["events"]
        (key,) = [event["fileKey"] for event in events if event]
        query = "query($key: [String!]!) { capturedLogs(logKey: $key) { stderr } }"
        return str(self.graphql(query, key=[run_id, "compute_logs", key])["capturedLogs"]["stderr"])


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """Return the environment without what would take precedence over the installation's own file."""
    ours = ("POSTGRES_", "STORE_", "S3_", "IOT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    ports = {name: free_port() for name in ("PORT", "EXPLORE_PORT", "STORE_PORT", "STORE_CONSOLE_PORT")}
    env_file = tmp_path_factory.mktemp("installation") / "env"
    installed = Installation(env_file, int(ports["PORT"]))
    installed.set(**SECRETS, **ports)
    installed.compose("build")
    try:
        yield installed
    finally:
        installed.compose("down", "--volumes")


def test_without_passwords_nothing_starts() -> None:
    with pytest.raises(AssertionError, match=r"(PASSWORD|KEY) .*give it a value in \.env"):
        Installation(Path(os.devnull), port=0).compose("config")


def test_the_first_start_ends_with_a_loaded_and_judged_bucket(
    installation: Installation, sample_warehouse: Path
) -> None:
    assert installation.up() == 0
    assert list(installation.runs().values()) == ["SUCCESS"]
    expected = read_status(sample_warehouse)
    status = installation.execute("code-location", "iot-pipeline", "status")
    assert f"readings:      {expected.readings:,} " in status
    assert f"anomalies:     {sum(expected.anomalies.values()):,} " in status


def test_the_schedule_is_running(installation: Installation) -> None:
    data = installation.graphql(
        "{ schedulesOrError(repositorySelector: {repositoryName: "
        '"__repository__", repositoryLocationName: "iot_pipeline"}) '
        "{ ... on Schedules { results { name scheduleState { status } } } } }"
    )
    running = {"name": "daily_reload", "scheduleState": {"status": "RUNNING"}}
    assert running in data["schedulesOrError"]["results"]


def test_the_page_shows_what_a_run_wrote_in_another_container(installation: Installation) -> None:
    (run_id,) = installation.runs()
    assert "Finished execution of step" in installation.captured_log(run_id)


def test_a_killed_code_location_ends_its_run_as_failed_and_the_next_one_succeeds(
    installation: Installation,
) -> None:
    before = installation.counts()
    killed = installation.launch(FULL_RELOAD)
    installation.wait_for(killed, DagsterRunStatus.STARTED)
    restarts = installation.restarts("code-location")
    installation.kill_processes("code-location")
    assert installation.wait_for(killed, DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS) == "FAILURE"
    assert installation.restarts("code-location") == restarts + 1
    wait_until(lambda: installation.is_healthy("code-location"))
    following = installation.launch()
    ended = installation.wait_for(following, DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE)
    assert ended == "SUCCESS"
    assert installation.counts() == before


def test_on_a_cluster_it_loads_and_judges_the_same(installation: Installation) -> None:
    before = installation.counts()
    installation.set(COMPOSE_PROFILES="cluster", IOT_DASK_SCHEDULER=SCHEDULER)
    assert installation.up() == 0
    wait_until(lambda: installation.is_healthy("worker"))
    assert installation.cluster() == "2 workers:"
    reloaded = installation.launch(FULL_RELOAD)
    ended = installation.wait_for(reloaded, DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE)
    assert ended == "SUCCESS"
    assert installation.counts() == before
    assert installation.cluster() == "2 workers: _convert_batch _judge_batch compact_month"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_becomes_healthy(installation: Installation, service: str) -> None:
    wait_until(lambda: installation.is_healthy(service))


@pytest.mark.parametrize("service", OURS)
def test_a_service_is_a_plain_user_without_capabilities_that_can_change_no_program(
    installation: Installation, service: str
) -> None:
    answer = installation.execute(service, "python", "-c", dedented(ACCESS))
    assert answer == f"10001 {'0' * 16} {'0' * 16} {'0' * 16} 1 []"


@pytest.mark.parametrize("service", SERVICES)
def test_the_engine_keeps_every_service_to_that(installation: Installation, service: str) -> None:
    for found in installation.inspect(service):
        assert found["Config"]["User"] not in {"", "root", "0"}
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert not found["HostConfig"]["CapAdd"]
        assert not found["HostConfig"]["Privileged"]


@pytest.mark.parametrize("service", SERVICES)
def test_only_this_machine_reaches_a_port(installation: Installation, service: str) -> None:
    for found in installation.inspect(service):
        ports = found["NetworkSettings"]["Ports"]
        assert {where["HostIp"] for published in ports.values() for where in published or []} <= {"127.0.0.1"}


def test_no_log_holds_a_secret(installation: Installation) -> None:
    info = installation.graphql("{ instance { info } }")["instance"]["info"]
    events = [
        installation.graphql("query($run: ID!) { logsForRun(runId: $run) { __typename ... on EventConnection "
            "{ events { ... on MessageEvent { message } } } } }", run=run_id)
        for run_id in installation.runs()
    ]  # fmt: skip
    captured = installation.execute("code-location", "sh", "-c", "cat $(find /var/lib/dagster -type f)")
    image = run("docker", "history", "--no-trunc", "iot-pipeline") + run("docker", "inspect", "iot-pipeline")
    shown = [installation.compose("logs"), json.dumps(events), captured]
    assert all("Finished execution of step" in text for text in shown)
    everything = "\n".join([*shown, info, image])
    assert [name for name, secret in SECRETS.items() if secret in everything] == []


def test_everything_outlives_its_containers_and_is_not_loaded_again(installation: Installation) -> None:
    def kept() -> list[Any]:
        return [installation.counts(), installation.last_load(), installation.runs()]

    before = kept()
    installation.compose("down")
    assert installation.up() == 0
    assert kept() == before
    assert " 0 files uploaded" in installation.compose("logs", "--no-log-prefix", "sample-bucket")


def dedented(code: str) -> str:
    return "\n".join(line.strip() for line in code.strip().splitlines())
