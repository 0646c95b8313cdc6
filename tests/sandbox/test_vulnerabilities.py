"""The check of the pins never takes silence for safety."""

import sys

import pytest

from sandbox import vulnerabilities
from sandbox.vulnerabilities import CLEAN, FOUND, NOT_CHECKED, report

SAFE = {"name": "attrs", "version": "26.1.0", "vulns": []}
UNSAFE = {"name": "idna", "version": "3.0", "vulns": [{"id": "PYSEC-2024-60", "fix_versions": ["3.7"]}]}
SKIPPED = {"name": "zipp", "skip_reason": "Dependency not found on PyPI and could not be audited: zipp (4.1.2)"}


def test_nothing_known() -> None:
    assert report([SAFE]) == (CLEAN, ["1 packages, no known vulnerability."])


def test_a_known_vulnerability_is_named_with_its_mend() -> None:
    code, lines = report([SAFE, UNSAFE, SKIPPED])
    assert code == FOUND
    assert lines[0] == "idna 3.0: PYSEC-2024-60, mended in 3.7"
    assert "1 of 3 packages were not checked" in lines[1]


def test_what_could_not_be_checked_is_no_success() -> None:
    code, lines = report([SAFE, SKIPPED])
    assert code == NOT_CHECKED
    assert "1 of 2 packages were not checked" in lines[0]


def test_a_tool_that_breaks_off_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [sys.executable, "-c", "import sys; sys.exit('ERROR: no route to host')"]
    assert vulnerabilities.main(broken) == NOT_CHECKED
    assert "could not be asked: ERROR: no route to host" in capsys.readouterr().err
