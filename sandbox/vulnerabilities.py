"""Compares the pins with the database of known vulnerabilities (PyPI's, by pip-audit), and says when it could not.

pip-audit passes over a package that it cannot ask about, and succeeds: here that is no success.
"""

import json
import subprocess
import sys
from typing import Any

CLEAN, FOUND, NOT_CHECKED = 0, 1, 2
"""Exit codes."""


def report(dependencies: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit code, and what to say. dependencies: of pip-audit's JSON."""
    checked = [dependency for dependency in dependencies if "skip_reason" not in dependency]
    skipped = len(dependencies) - len(checked)
    lines = [
        f"{dependency['name']} {dependency['version']}: {vulnerability['id']}, "
        f"mended in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for dependency in checked
        for vulnerability in dependency["vulns"]
    ]
    if skipped:
        lines.append(
            f"{skipped} of {len(dependencies)} packages were not checked: the database of vulnerabilities "
            "(pypi.org/pypi/…/json) could not be reached for them. That says nothing about their safety; try again "
            "where the internet is reachable."
        )
    if len(lines) > bool(skipped):
        return FOUND, lines
    return (NOT_CHECKED, lines) if skipped else (CLEAN, [f"{len(checked)} packages, no known vulnerability."])


def main(command: list[str]) -> int:
    """command: runs pip-audit, without its options of output."""
    done = subprocess.run([*command, "--format", "json"], check=False, capture_output=True, text=True)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except json.JSONDecodeError:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        print(f"The database of vulnerabilities could not be asked: {last[0]}", file=sys.stderr)
        return NOT_CHECKED
    code, lines = report(dependencies)
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
