"""requirements.txt (asked), requirements.lock (installed) and installer.lock (what installs it) agree."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def lines_of(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and line[0] not in "# "]


ASKED = {canonicalize_name(each.name): each for each in map(Requirement, lines_of("payload/requirements.txt"))}
LOCKED = {canonicalize_name(each.name): each for each in map(Requirement, lines_of("payload/requirements.lock"))}


def installed(name: str) -> str:
    return importlib.metadata.version(name).partition("+")[0]


def needed() -> set[str]:
    """What the installed packages say they need, from what is asked on; a build of torch brings its own CUDA."""
    found, ahead = set(), set(ASKED)
    while ahead:
        name = ahead.pop()
        found.add(name)
        for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
            other = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({**default_environment(), "extra": ""})
            if wanted and other not in found and not re.match(r"triton|nvidia-|cuda-", other):
                ahead.add(other)
    return found


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_lock_lies_in_the_ranges_that_are_asked(name: str) -> None:
    (pin,) = LOCKED[name].specifier
    assert ASKED[name].specifier.contains(pin.version)


def test_the_lock_holds_the_versions_that_the_tests_run_with_and_all_that_they_need() -> None:
    assert {name: f"=={installed(name)}" for name in needed()} == {
        name: str(LOCKED[name].specifier) if name in LOCKED else "not locked" for name in needed()
    }


def test_every_line_of_the_lock_pins_one_version() -> None:
    assert [str(each) for each in LOCKED.values() if not re.fullmatch(r"==[^,*]+", str(each.specifier))] == []


def test_what_is_asked_starts_where_gpuruns_own_extra_does() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extra = map(Requirement, whole["project"]["optional-dependencies"]["payload"])
    lower = {name: {str(each) for each in asked.specifier if each.operator == ">="} for name, asked in ASKED.items()}
    assert {each.name: {str(each.specifier)} for each in extra}.items() <= lower.items()


def test_setup_can_read_every_operator_that_stands_in_requirements_txt() -> None:
    assert {each.operator for asked in ASKED.values() for each in asked.specifier} <= {">=", "<", "=="}


def test_the_installer_is_pinned_by_its_hashes() -> None:
    text = (ROOT / "payload/installer.lock").read_text(encoding="utf-8")
    assert re.search(r"^uv==[\d.]+ \\$", text, re.MULTILINE)
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", text)) > 2
