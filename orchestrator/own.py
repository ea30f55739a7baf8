"""`gpurun launch train.py` and `launch notebook.ipynb`: a user's own program as a run like any other.

    train.py ──> lint ──> what it needs (PEP 723, requirements.txt beside it, or gpurun's own environment)
             └─> Template: code/train.py and what --include names, run by payload/own_script.py in code/

Nothing of it is run or imported here.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator import bundle, explain, lint, yaml12
from orchestrator.config import Settings
from orchestrator.data_files import DataFile
from orchestrator.lint import index
from orchestrator.lint.modules import NOTEBOOK, STACK
from orchestrator.templates import Template
from providers.errors import BundleError, ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.lint import Finding, Report
    from orchestrator.wish import Wish
    from orchestrator.yaml12 import Key

SUFFIXES = (".py", ".ipynb")
MAX_INCLUDED_BYTES = 2 * 2**30
SETUP = ("{python}", "payload/own_setup.py")
_FOLDERS = ("artifacts", "outputs")  # what an earlier run here left is not shipped
_FLAGS = {"max_idle_minutes": "--max-idle", "extendable_to_hours": "--extendable-to", "max_attempts": "--max-attempts"}
_MOST_TOLD = 40
_PROGRESS = 'any output counts as a step, until it prints steps: ::metrics {"step": 1, "loss": 0.5}'


@dataclass(frozen=True, slots=True)
class Looked:
    """A script as it was looked through."""

    path: Path
    report: Report
    requirements: Path | None

    def told(self, findings: Sequence[Finding]) -> list[str]:
        """Say findings, one line each."""
        lines = [one.sentence(self.path.name) for one in findings]
        more = len(lines) - _MOST_TOLD
        return [*lines[:_MOST_TOLD], f"… and {more} more"] if more > 0 else lines

    def as_json(self, one: Finding) -> dict[str, Any]:
        """Give a finding to a program."""
        level = "error" if one.error else "warning"
        place = {"file": str(self.path), "cell": one.cell or None, "line": one.line or None}
        return {"level": level, **place, "text": one.text, "fix": one.fix, "source": one.source}


def is_own(wanted: str) -> bool:
    """Whether what was named is a program of the user's, and no template."""
    return wanted.lower().endswith(SUFFIXES)


def look(
    path: Path,
    included: Sequence[tuple[str, Path]] = (),
    secrets: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Looked:
    """Read and lint a script or a notebook; the index is asked for the packages that it names.

    Raises:
        ConfigError: there is no such file, no text in it, or it is neither.
    """
    if not is_own(path.name):
        raise ConfigError(f"{path.name} is no script and no notebook", hint="a file that ends in .py or .ipynb")
    text = _read(path)
    beside = path.parent / lint.REQUIREMENTS
    requirements = beside if beside.is_file() and path.name != beside.name else None
    report = lint.check(
        path.name,
        text,
        requirements=None if requirements is None else _read(requirements),
        here=_neighbours(path),
        shipped=[name for name, _ in included],
        secrets=secrets,
        arguments=arguments,
    )
    report = index.asked(report)
    return Looked(path, report, requirements if report.beside else None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}", hint=f"ls {shlex.quote(str(path.parent))}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error


def _neighbours(path: Path) -> list[str]:
    """Name what Python would import from beside the script: files, and folders with Python in them."""
    around = [each for each in path.absolute().parent.iterdir() if each.name != path.name]
    folders = [each.name for each in around if each.is_dir() and list(each.glob("*.py"))]
    return [*(each.name for each in around if each.suffix == ".py"), *folders]


def template(wish: Wish, defaults: Mapping[Key, object]) -> Template:
    """Make the template of a script.

    Raises:
        ConfigError: lint found what will fail there, or a limit is none.
        UsageError: a flag that a script has no use for.
        BundleError: a file to include is not to be shipped.
    """
    if wish.sets:
        raise UsageError("--set changes a template; a script has arguments", hint=f"gpurun launch {wish.template} -- …")
    path = Path(wish.template).expanduser().absolute()
    included = include(path, wish.include)
    looked = look(path, included, wish.secret, wish.arguments)
    _refuse(looked, force=wish.force)
    files = [DataFile(file, f"code/{name}", (), name) for name, file in included]
    if looked.requirements is not None and lint.REQUIREMENTS not in dict(included):
        files.append(DataFile(looked.requirements, f"code/{lint.REQUIREMENTS}", (), lint.REQUIREMENTS))
    config = _config(looked, wish)
    return Template(
        settings=_settings(wish, defaults, path),
        source=path,
        files=tuple(files),
        config=config,
        command=("{python}", "payload/own_script.py", "config.json"),
        code=path,
        setup=SETUP if {"dependencies", "requirements", "extras"} & config.keys() else (),
        remarks=(("packages", _packages(config)), ("progress", _PROGRESS), ("lint", "\n".join(_remarks(looked, wish)))),
    )


def _refuse(looked: Looked, *, force: bool) -> None:
    errors = looked.report.errors
    if not errors or force:
        return
    count = "one thing" if len(errors) == 1 else f"{len(errors)} things"
    told = "\n".join(looked.told(errors))
    raise ConfigError(
        f"{looked.path.name}: {count} will fail there\n{told}", hint="mend it; or go on all the same: --force"
    )


def _remarks(looked: Looked, wish: Wish) -> list[str]:
    forced = looked.report.errors if wish.force else ()
    return [*(f"WILL FAIL: {line}" for line in looked.told(forced)), *looked.told(looked.report.warnings)]


def _packages(config: Mapping[str, Any]) -> str:
    """Say whence its packages come."""
    own = "an environment of its own, with the machine's torch where that serves"
    if "requirements" in config:
        return f"{lint.REQUIREMENTS}: {own}"
    if "dependencies" in config:
        return f"{', '.join(config['dependencies']) or 'none'}: {own}"
    return f"it names none: gpurun's own ({', '.join(STACK)})"


def _config(looked: Looked, wish: Wish) -> dict[str, Any]:
    """Say what the machine is to do; its content stands in it, since equal runs are told by it."""
    packages = looked.report.packages
    config: dict[str, Any] = {
        "method": "script",
        "script": looked.path.name,
        "arguments": list(wish.arguments),
        "sha256": sha256(looked.path.read_bytes()).hexdigest(),
    }
    if looked.requirements is not None:
        config["requirements"] = lint.REQUIREMENTS
    elif packages.dependencies is not None:
        config["dependencies"] = list(packages.dependencies)
    if packages.python:
        config["python"] = packages.python
    if looked.path.suffix.lower() == ".ipynb":
        config["extras"] = list(NOTEBOOK)
    return config


def _settings(wish: Wish, defaults: Mapping[Key, object], path: Path) -> Settings:
    limits: dict[str, Any] = {str(place[-1]): value for place, value in defaults.items() if place[0] == "limits"}
    for place, value in wish.flags().values():
        limits[str(place[-1])] = yaml12.scalar(value) if isinstance(value, str) else value
    raw = {
        "name": re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:24].strip("-") or "script",
        "training": {"method": "script", "command": ["{python}", path.name]},
        "limits": limits,
        "secrets": list(wish.secret),
    }
    try:
        return Settings.model_validate(raw, strict=True)
    except ValidationError as error:
        flags = {"max_hours": "--max-hours", "max_cost": "--max-cost", **_FLAGS}
        raise explain.to_config_error(error, raw, lambda at: flags.get(str(at[-1]), "gpurun launch")) from error


# ── further files ────────────────────────────────────────────────────────────────────────────────────────────────────


def include(script: Path, wanted: Sequence[str]) -> list[tuple[str, Path]]:
    """Find the files that go along, by their names in the script's folder.

    Raises:
        BundleError: one is missing, lies elsewhere, looks like a key, or they are too many bytes.
    """
    folder, found = script.absolute().parent, {}
    for text in wanted:
        path = Path(text).expanduser()
        path = path.absolute() if path.absolute().exists() else (folder / path).absolute()
        if not path.exists():
            raise BundleError(f"--include {text}: there is no such file or folder")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"--include {text} does not lie in the script's folder {folder}", hint="copy it there")
        found.update(_files(folder, path, text))
    found.pop(script.name, None)
    size = sum(path.stat().st_size for path in found.values())
    if size > MAX_INCLUDED_BYTES:
        raise BundleError(
            f"what --include names is {size / 2**30:.1f} GiB, more than {MAX_INCLUDED_BYTES >> 30} GiB",
            hint="have the script download it there",
        )
    return sorted(found.items())


def _files(folder: Path, path: Path, text: str) -> dict[str, Path]:
    name = path.resolve().relative_to(folder.resolve())
    if path.is_file():
        if bundle.is_secret(name.as_posix()):
            raise BundleError(f"--include {text}: it looks like a key", hint="hand a value on: --secret NAME")
        return {name.as_posix(): path}
    inner = {(name / each).as_posix(): file for each, file in bundle.inside(path)}
    return {
        each: file for each, file in inner.items() if each.split("/")[0] not in _FOLDERS or text.strip("./") in _FOLDERS
    }
