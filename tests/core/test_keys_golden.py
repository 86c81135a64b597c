"""Keys are the same everywhere: in the golden file, under every hash seed, in every supported Python."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import golden_cases
import pytest

SCRIPT = Path(golden_cases.__file__)
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")


def run_script(python: str, seed: str) -> dict[str, dict[str, str]]:
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [python, str(SCRIPT)], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def find_python(version: str) -> str:
    """An interpreter of this version from ``PATH`` or pyenv; skips the test where there is none."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *map(str, sorted(root.glob(f"{version}*/bin/python")))]
    for python in filter(None, candidates):
        asked = subprocess.run(
            [python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True
        )
        if asked.returncode == 0 and asked.stdout.startswith(version + "."):  # a shim may be an empty promise
            return python
    pytest.skip(f"no Python {version} found on PATH or in pyenv")


@pytest.mark.parametrize("name", golden_cases.values())
def test_encodings_are_golden(name: str) -> None:
    """Encodings equal those of the golden file."""
    assert golden_cases.current()["encodings"][name] == golden_cases.golden()["encodings"][name]


@pytest.mark.parametrize("name", golden_cases.calls())
def test_keys_are_golden(name: str) -> None:
    """Keys equal those of the golden file."""
    assert golden_cases.calls()[name] == golden_cases.golden()["keys"][name]


def test_nothing_was_taken_out_of_the_golden_file() -> None:
    """Each golden entry has its case, and no two entries are equal."""
    golden = golden_cases.golden()
    assert set(golden["encodings"]) == set(golden_cases.values())
    assert set(golden["keys"]) == set(golden_cases.calls())
    for entries in golden.values():
        assert len(set(entries.values())) == len(entries)


@pytest.mark.parametrize("seed", ["0", "1", "2", "3", "4294967295"])
def test_keys_are_the_same_under_every_hash_seed(seed: str) -> None:
    """A process with any hash seed makes the golden encodings and keys."""
    assert run_script(sys.executable, seed) == golden_cases.golden()


@pytest.mark.parametrize("version", SUPPORTED)
def test_keys_are_the_same_in_every_python(version: str) -> None:
    """Each supported, installed Python makes the golden encodings and keys."""
    assert run_script(find_python(version), "0") == golden_cases.golden()
