"""Airflow's parts in the sandbox find each other, whatever the environment says."""

from urllib.request import proxy_bypass

import pytest

from sandbox.airflow import settings


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_its_parts_speak_to_each_other_without_a_proxy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv(name, "intranet.example.com")
    monkeypatch.setenv("no_proxy", settings("host=/run", "http://127.0.0.1:1")["no_proxy"])
    hosts = ["127.0.0.1", "localhost", "intranet.example.com", "example.com"]
    assert [host for host in hosts if proxy_bypass(host)] == hosts[:3]
