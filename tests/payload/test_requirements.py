"""requirements.txt: pinned to what the tests ran with."""

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = Path(__file__).parents[2] / "payload" / "requirements.txt"
LINES = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("line", LINES)
def test_the_installed_version_is_the_one_that_is_pinned(line: str) -> None:
    wanted = Requirement(line)
    assert wanted.specifier.contains(importlib.metadata.version(wanted.name))
    assert canonicalize_name(wanted.name) == "torch" or line.count("==") == 1  # the machine's own torch is kept
