"""What docker-compose.yml must not lose: loopback ports, no default passwords, services without rights."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"sample-bucket", "first-run"}
CLUSTER = {"scheduler", "worker"}
OURS = {name for name, service in SERVICES.items() if service["image"] == "iot-pipeline"}
VARIABLE = re.compile(r"\$\{(\w+)(:[-?])?")

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
every_long_running_service = pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))


def example() -> dict[str, str]:
    """Return the variables of .env.example, the commented ones too."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", "\n".join(lines), flags=re.MULTILINE))


def is_secret(variable: str) -> bool:
    return variable.endswith(("PASSWORD", "KEY"))


@every_service
def test_ports_are_open_on_this_machine_only(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@every_service
def test_a_service_has_no_rights_on_the_machine(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["user"] not in {"root", "0", "0:0"}
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"}


@every_service
def test_what_is_kept_is_in_named_volumes(service: dict[str, Any]) -> None:
    mounted = {volume.partition(":")[0] for volume in service.get("volumes", [])}
    assert mounted <= COMPOSE["volumes"].keys()


def test_no_service_reaches_the_engine() -> None:
    assert "docker.sock" not in TEXT


@every_long_running_service
def test_a_long_running_service_has_a_health_check_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["mem_limit"]


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_a_one_shot_service_stays_ended(name: str) -> None:
    assert SERVICES[name]["restart"] == "no"


def test_every_image_is_pinned_or_built_here() -> None:
    assert [name for name in OURS if "build" in SERVICES[name]] == ["code-location"]
    pulled = [SERVICES[name]["image"] for name in SERVICES.keys() - OURS]
    assert all(re.fullmatch(r"[\w/]+:\d+\.\d+(\.\d+)?", image) for image in pulled)


def test_the_example_names_every_variable() -> None:
    assert {name for name, _ in VARIABLE.findall(TEXT)} == example().keys() - {"COMPOSE_PROFILES"}


def test_the_example_gives_no_secret_a_value() -> None:
    assert {name for name, value in example().items() if is_secret(name) and value} == set()


def test_a_secret_has_no_default_and_says_so_when_it_is_missing() -> None:
    required = {name for name, operator in VARIABLE.findall(TEXT) if operator == ":?"}
    assert required == {"POSTGRES_PASSWORD", "STORE_ACCESS_KEY", "STORE_SECRET_KEY"}
    # Another bucket's credentials fall back on the store's, nothing else does.
    for name in filter(is_secret, example()):
        defaults = re.findall(rf"\$\{{{name}:-(.+)\}}", TEXT)
        assert defaults == ([] if name in required else [f"${{{name.replace('S3', 'STORE')}}}"])


def test_only_what_reads_the_bucket_holds_its_credentials() -> None:
    holders = {name for name in OURS if "AWS_SECRET_ACCESS_KEY" in SERVICES[name].get("environment", {})}
    assert holders == {"code-location", "worker", "explore", "sample-bucket"}


def test_only_what_sends_alerts_holds_their_urls() -> None:
    for name in ("IOT_ALERT_URLS", "IOT_HEARTBEAT_URL"):
        holders = {service for service in SERVICES if name in SERVICES[service].get("environment", {})}
        assert holders == {"code-location"}


def test_only_the_cluster_is_started_on_demand() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        name: [example()["COMPOSE_PROFILES"]] for name in CLUSTER
    }


def test_no_service_that_always_runs_depends_on_the_cluster() -> None:
    assert not any(
        CLUSTER & SERVICES[name].get("depends_on", {}).keys() for name in SERVICES.keys() - CLUSTER
    )


def test_a_worker_finds_what_the_code_location_finds() -> None:
    code_location, worker = SERVICES["code-location"], SERVICES["worker"]
    assert worker["environment"].items() <= code_location["environment"].items()
    assert set(worker["volumes"]) <= set(code_location["volumes"])
    assert worker["mem_limit"] == code_location["mem_limit"]


def test_the_scheduler_is_where_the_example_says() -> None:
    address = example()["IOT_DASK_SCHEDULER"]
    assert address == "tcp://scheduler:8786"
    assert f"dask worker {address} " in SERVICES["worker"]["command"]
    assert "--port 8786 " in SERVICES["scheduler"]["command"]
    assert not any("ports" in SERVICES[name] for name in CLUSTER)


def test_the_sample_is_never_uploaded_to_another_bucket_than_the_stores() -> None:
    environment = SERVICES["sample-bucket"]["environment"]
    assert environment["AWS_ENDPOINT_URL_S3"] == "http://store:9000"
    assert environment["AWS_ACCESS_KEY_ID"].startswith("${STORE_ACCESS_KEY:?")
    assert environment["AWS_SECRET_ACCESS_KEY"].startswith("${STORE_SECRET_KEY:?")


def test_the_settings_of_the_instance_are_those_of_make_dev_and_where_its_state_is() -> None:
    rules = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    places = yaml.safe_load((ROOT / "docker" / "dagster.yaml").read_text())
    assert places.keys() == {"storage", "compute_logs", "local_artifact_storage"}
    assert not rules.keys() & places.keys()


def test_the_image_has_the_pinned_versions_of_the_requirements() -> None:
    pins = set((ROOT / "requirements.txt").read_text().split("\n")) - {"-e .", ""}
    assert pins <= set((ROOT / "requirements-compose.txt").read_text().split("\n"))
