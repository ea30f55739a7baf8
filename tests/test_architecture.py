"""The house rules that a machine can hold: who imports whom, sizes, broad handlers, a row for every provider."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import median

import pytest

from providers.base import Provider
from providers.table import PROVIDERS, open_provider

ROOT = Path(__file__).parent.parent
OURS = ("orchestrator", "providers", "payload", "simulators", "templates")
MODULES = sorted(path for name in OURS for path in (ROOT / name).rglob("*.py"))
SOURCES = sorted([*MODULES, *(path for name in ("tests", "bench") for path in (ROOT / name).rglob("*.py"))])

# Which of our folders may import which of our folders. `payload` is flat scripts: they know their neighbours only.
MAY_IMPORT = {
    "orchestrator": {"orchestrator", "providers", "templates"},
    "providers": {"providers"},
    "payload": {"payload"},
    "simulators": {"simulators"},
    "templates": {"templates"},
}

# Where anything at all is caught and not simply raised again, once a file.
MAY_CATCH_ALL = {
    "orchestrator/cli/__init__.py": "main: an error is told once, and becomes an exit code",
    "orchestrator/controller.py": "the tick: whatever breaks here, the meter must still stop",
    "orchestrator/notify.py": "telling: whatever breaks here, neither controller nor guard may be disturbed",
    "payload/watchdog.py": "the look: the time limit is judged whatever fails while looking",
    "payload/checkpoint.py": "each library words a full disk in its own way; all else is raised again",
}

# Standing alone on a bare machine: nothing but Python 3.9.
STDLIB_ONLY = tuple(
    f"payload/{name}.py"
    for name in (
        "afar",
        "agent",
        "birth",
        "browser",
        "cargo",
        "cells",
        "children",
        "comeback",
        "container",
        "courier",
        "door",
        "ender",
        "fetch",
        "helper",
        "inline",
        "lever",
        "loose",
        "limits",
        "mounted",
        "outcome",
        "output",
        "own_script",
        "own_setup",
        "parcel",
        "place",
        "porter",
        "probe",
        "processes",
        "rearm",
        "spoken",
        "upload",
        "watchdog",
    )
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> set[str]:
    """Top-level names of all that a module imports, wherever the import stands."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = path.relative_to(ROOT).parts[0]
            found.add((node.module or "").partition(".")[0] if node.level == 0 else home)
    return found


def functions(path: Path) -> list[tuple[str, int]]:
    """Each function of a module with its length in lines, from its first decorator."""
    found = []
    for node in ast.walk(parse(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.append((f"{name_of(path)}:{node.name}", (node.end_lineno or first) - first + 1))
    return found


def broad_handlers(path: Path) -> list[int]:
    """Lines that catch everything and carry on; one that ends in a bare `raise` only tidies up."""
    lines = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {each.id for each in caught if isinstance(each, ast.Name)}
            passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if (node.type is None or names & {"Exception", "BaseException"}) and not passes_on:
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_downwards(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    assert imports(path) & set(OURS) <= MAY_IMPORT[home]


@pytest.mark.parametrize("name", STDLIB_ONLY)
def test_what_guards_the_machine_needs_only_python(name: str) -> None:
    assert imports(ROOT / name) <= {*sys.stdlib_module_names, *(Path(each).stem for each in STDLIB_ONLY)}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_stays_under_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_function_stays_under_60_lines(path: Path) -> None:
    # The story of a training script is its main: it reads from top to bottom, in labelled parts.
    story = f"{name_of(path)}:main" if path.match("payload/train_*.py") or path.match("payload/export.py") else ""
    assert [(name, lines) for name, lines in functions(path) if lines > 60 and name != story] == []


def test_half_of_the_functions_stay_under_ten_lines() -> None:
    lengths = [lines for path in MODULES for _, lines in functions(path)]
    assert median(lengths) < 10


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_main_and_the_ticks_catch_everything(path: Path) -> None:
    assert len(broad_handlers(path)) <= (name_of(path) in MAY_CATCH_ALL)


def test_the_payload_is_shipped_without_the_controller(tmp_path: Path) -> None:
    """Copied elsewhere, with none of our folders on the path, every script compiles and the guards answer."""
    for script in (ROOT / "payload").glob("*.py"):
        (tmp_path / script.name).write_bytes(script.read_bytes())
    for name in ("watchdog.py", "agent.py"):
        command = [sys.executable, "-I", "-S", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
        assert "ImportError" not in done.stderr
        assert "ModuleNotFoundError" not in done.stderr


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_in_the_table_keeps_the_contract_and_has_its_row(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (f"{name.upper()}_API_KEY", f"{name.upper()}_TOKEN"):
        monkeypatch.setenv(variable, "secret_architecture_0123456789abcdef")
    login = {"type": "authorized_user", "client_id": "id", "client_secret": "secret", "refresh_token": "1//token"}
    (tmp_path / "login.json").write_text(json.dumps(login))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "login.json"))
    assert isinstance(open_provider(name, tmp_path), Provider)
    assert f"\n| `{name}` |" in (ROOT / "README.md").read_text(encoding="utf-8")
    if name != "local":  # this computer is its own simulator
        assert list((ROOT / "simulators").glob(f"{name}*"))


def test_every_adapter_stands_in_the_table() -> None:
    shared = {
        "__init__",
        "base",
        "clocks",
        "ending",
        "environ",
        "errors",
        "fetching",
        "freight",
        "table",
        "http",
        "optional",
        "pacing",
        "ssh",
        "starting",
        "wire",
    }
    adapters = {f"providers.{path.stem}" for path in (ROOT / "providers").iterdir() if path.name[0] not in "_."}
    assert adapters - {f"providers.{name}" for name in shared} == {module for module, _ in PROVIDERS.values()}


def test_every_package_that_is_asked_for_is_pinned_for_development() -> None:
    pinned = re.findall(r"^([\w-]+)==\S+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*whole["project"]["dependencies"], *whole["dependency-groups"]["dev"]]
    asked += [name for extra in whole["project"]["optional-dependencies"].values() for name in extra]
    plain = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name, maxsplit=1)[0]).lower() for name in asked}
    assert plain - {name.replace("_", "-").lower() for name in pinned} == set()
