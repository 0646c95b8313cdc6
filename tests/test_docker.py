"""docker-compose.yaml and Dockerfile, as far as they can be judged without Docker."""

import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import psycopg
import pytest
import yaml
from airflow.cli.cli_parser import get_parser

from loop_attentive.catalogue import INCLUDE
from loop_attentive.db import CONNECTION_ID
from loop_attentive.settings import Shop

ROOT = INCLUDE.parent
COMPOSE_FILE = ROOT / "docker-compose.yaml"
COMPOSE = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "loop-attentive"]

VARIABLE = re.compile(r"\$\{([A-Z_]+)(:\?[^}]*)?\}")


def airflow_command(service: dict[str, Any]) -> list[str]:
    return service.get("command", [])


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_it_keeps_to_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_whatever_it_refers_to_exists() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        assert {config["source"] for config in service.get("configs", [])} <= COMPOSE["configs"].keys()
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= COMPOSE["volumes"].keys()
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[needed]


def test_the_parts_of_airflow_are_apart() -> None:
    parts = sorted(airflow_command(service)[0] for service in SERVICES.values() if airflow_command(service))
    assert parts == ["api-server", "dag-processor", "scheduler", "triggerer"]


def test_the_sandbox_is_behind_its_profile() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["sandbox"]} == {
        "sandbox-warehouse",
        "sandbox-attentive",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_limited_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert service["restart"] in ("unless-stopped", "on-failure")


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"init", "sandbox-warehouse"}))
def test_every_server_is_watched(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_every_connection_is_given_to_every_part(name: str) -> None:
    shop = Shop(name="default")
    needed = {f"AIRFLOW_CONN_{each.upper()}" for each in (shop.warehouse, shop.attentive, CONNECTION_ID)}
    assert needed <= SERVICES[name]["environment"].keys()


@pytest.mark.parametrize("name", OURS)
def test_further_connections_reach_every_part(name: str) -> None:
    assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]


def test_every_variable_is_required_and_explained() -> None:
    used = VARIABLE.findall(COMPOSE_FILE.read_text())
    assert {name for name, _ in used} == example().keys()
    assert all(message for _, message in used)
    assert "$" not in VARIABLE.sub("", COMPOSE_FILE.read_text())


def test_no_secret_is_in_the_files() -> None:
    assert set(example().values()) == {""}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|SECRET|CONN", name):
                assert VARIABLE.search(value), f"{name} is written out"
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert not re.search("(PASSWORD|KEY|SECRET|CONN_[A-Z_]*)=", dockerfile)


def test_every_airflow_command_exists() -> None:
    """In the version that the image installs, which is the one that runs here."""
    commands = [airflow_command(service) for service in SERVICES.values() if airflow_command(service)]
    commands += [found.split() for found in re.findall(r"airflow ([a-z -]+?) &&", str(SERVICES["init"]["entrypoint"]))]
    checks = [service["healthcheck"]["test"] for service in SERVICES.values() if "healthcheck" in service]
    commands += [check[2:] for check in checks if check[1] == "airflow"]
    assert len(commands) == 8
    for command in commands:
        get_parser().parse_args(command)  # raises SystemExit for what it does not know


def test_every_module_that_is_run_exists() -> None:
    entrypoints = str([service.get("entrypoint") for service in SERVICES.values()])
    modules = re.findall(r"(?:-m', '|python -m )([a-z_.]+)", entrypoints)
    assert sorted(modules) == ["loop_attentive.migrate", "sandbox.attentive", "sandbox.live"]
    for module in modules:
        assert find_spec(module)


def test_the_image_has_the_tested_versions() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "-r /tmp/requirements.txt" in dockerfile
    assert not re.search("pip install.*==", dockerfile)
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M))
    for package in ("apache-airflow", "apache-airflow-providers-http", "pandas", "psycopg", "aiohttp", "sqlalchemy"):
        assert pins[package] == version(package)


def test_every_image_is_pinned() -> None:
    images = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.M)
    images += [service["image"] for name, service in SERVICES.items() if name not in OURS]
    assert all(re.search(r":\d+\.\d+", image) for image in images), images


def test_the_image_is_built_once_by_a_service_that_all_others_wait_for() -> None:
    """Builds of one image side by side fail, and none of it is in any registry."""
    assert [name for name in OURS if "build" in SERVICES[name]] == ["init"]
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}
    assert all("init" in SERVICES[name]["depends_on"] for name in OURS if name != "init")


def test_its_postgresql_is_the_tested_one(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        tested = connection.info.parameter_status("server_version")
    assert SERVICES["postgres"]["image"] == f"postgres:{tested}-bookworm"


def test_the_image_holds_everything_that_the_code_reads() -> None:
    copied = set(re.findall(r"^COPY (\S+)", (ROOT / "Dockerfile").read_text(), re.M))
    assert copied == {"requirements.txt", "dags", "include", "plugins", "sandbox"}
    assert all((ROOT / each).exists() for each in copied)
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_through == copied


def test_it_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(), re.M)
    assert users == ["airflow"]
