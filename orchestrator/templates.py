"""Find a template, read it, lay `--set key=value` over it, and check it with its data before anything starts.

    name or path ──> YAML ──> overrides ──> Settings (config.py) ──> the payload's config.json + the files to ship

Not here: what the settings mean for time and money (plan.py), and packing (bundle.py).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from orchestrator import data_files, explain, yaml12
from orchestrator.config import Script, Settings
from providers.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.data_files import DataFile
    from orchestrator.data_remote import Bringer
    from orchestrator.yaml12 import Key

SCRIPTS = {
    "loop": "train_loop.py",
    "pretrain": "train_pretrain.py",
    "classify": "train_classify.py",
    "sft": "train_sft.py",
    "export": "export.py",
    "chain": "train_chain.py",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A template as the user wants it run."""

    settings: Settings
    source: Path  # the YAML file
    files: tuple[DataFile, ...]  # to be shipped beside the bundle, each once
    config: dict[str, Any]  # the payload's config.json
    command: tuple[str, ...]  # argv on the machine
    code: Path | None = None  # the user's own folder or file, shipped as code/
    bare: bool = False  # the machine as it is: no environment is made on it
    setup: tuple[str, ...] = ()  # argv that makes an environment of its own, wherever it runs; () = the usual one
    remarks: tuple[tuple[str, str], ...] = ()  # lines for the plan


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of `gpurun templates`."""

    name: str
    about: str
    source: Path
    builtin: bool


def load(
    wanted: str,
    sets: Sequence[str] = (),
    *,
    flags: Mapping[str, tuple[Key, object]] | None = None,
    defaults: Mapping[Key, object] | None = None,
    own: Path | None = None,
    cwd: Path | None = None,
    bring: Bringer | None = None,
) -> Template:
    """Read a template by name or path with its overrides.

    `flags` are limits by the name of their flag; `defaults` are the user's, for what the template leaves open;
    `own` is the user's folder of templates, `bring` brings data that lie at an address.

    Raises:
        ConfigError: no such template; a key, a value or a data file is wrong.
        UsageError: a `--set` that is no `key=value`.
    """
    source = find(wanted, own)
    raw, lines = yaml12.read(source)
    _lay_under(raw, defaults or {})
    from_flag = _lay_over(raw, sets)
    for flag, (path, value) in (flags or {}).items():
        _put(raw, path, yaml12.scalar(value) if isinstance(value, str) else value, flag)
        from_flag[path] = flag

    def origin(path: Key) -> str:
        return _origin(path, source, lines, from_flag)

    try:
        settings = Settings.model_validate(raw, strict=True)
    except ValidationError as error:
        raise explain.to_config_error(error, raw, origin) from error
    here = cwd or Path.cwd()

    def base(path: Key) -> Path:
        return here if _flag_of(path, from_flag) else source.parent

    files = data_files.collect(settings.training, base, origin, shared=builtin_folder(), bring=bring)
    return Template(
        settings=settings,
        source=source,
        files=tuple({file.name: file for file in files}.values()),
        config=payload_config(settings, files),
        command=command_for(settings),
        code=data_files.code_of(settings.training, base, origin),
    )


def payload_config(settings: Settings, files: Sequence[DataFile]) -> dict[str, Any]:
    """Give the payload its settings: every default spelt out, paths as they will be on the machine."""
    config = settings.model_dump(mode="json")["training"]
    for file in files:
        node = config
        for key in file.setting[1:-1]:
            node = node[key]
        node[file.setting[-1]] = file.value
    return dict(config)


def command_for(settings: Settings) -> tuple[str, ...]:
    """Give the argv of the training; `{python}` stands for the payload's interpreter."""
    if isinstance(settings.training, Script):
        return tuple(settings.training.command)
    return ("{python}", f"payload/{SCRIPTS[settings.training.method]}", "config.json")


# ── where templates lie ──────────────────────────────────────────────────────────────────────────────────────────────


def builtin_folder() -> Path:
    """Give the folder of the templates that come with gpurun."""
    return Path(str(resources.files("templates")))


def find(wanted: str, own: Path | None = None) -> Path:
    """Find a template's file: a path to a .yaml, then the user's own, then a built-in one.

    Raises:
        ConfigError: there is none.
    """
    if wanted.endswith((".py", ".ipynb")):
        raise ConfigError("a script of yours has no estimate: its hours are its quote", hint=f"gpurun launch {wanted}")
    if wanted.endswith((".yaml", ".yml")) or "/" in wanted:
        path = Path(wanted).expanduser()
        if path.is_file():
            return path.absolute()
        what = "is a folder, and no template file" if path.is_dir() else "is not there: no such template file"
        raise ConfigError(f"{wanted} {what}", hint="gpurun templates")
    known = {listed.name: listed.source for listed in sorted(names(own), key=lambda listed: not listed.builtin)}
    if wanted in known:
        return known[wanted]
    close = difflib.get_close_matches(wanted.lower(), known, n=1)
    guess = f"; did you mean {close[0]}?" if close else "."
    raise ConfigError(
        f"there is no template {explain.show(wanted)}{guess} Templates: {' '.join(sorted(known))}",
        hint="gpurun templates",
    )


def names(own: Path | None = None) -> list[Listed]:
    """Name every template, the user's own last; nothing is read yet."""
    listed = []
    for folder, builtin in ((builtin_folder(), True), (own, False)):
        paths = sorted(folder.glob("*.y*ml")) if folder and folder.is_dir() else []
        listed += [Listed(path.stem, "", path, builtin) for path in paths]
    return listed


def listing(own: Path | None = None) -> list[Listed]:
    """List templates with their one line; a broken one says so instead of hiding the others."""
    result = []
    for listed in names(own):
        try:
            about = str(yaml12.read(listed.source)[0].get("about", ""))
        except ConfigError as error:
            about = f"broken: {error}"
        result.append(Listed(listed.name, about, listed.source, listed.builtin))
    return result


# ── --set ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lay_over(raw: dict[str, Any], sets: Sequence[str]) -> dict[Key, str]:
    """Change `raw` by each `key=value`; tell which place came from which flag."""
    from_flag: dict[Key, str] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set {explain.show(text)} is not key=value", hint="for example: --set epochs=1")
        path = _full_path(key, raw)
        try:
            parsed = yaml12.scalar(value)
        except yaml.YAMLError as error:
            raise UsageError(
                f"--set {key}: {explain.show(value)} can't be read: {yaml12.problem(error)}",
                hint="quote the whole for your shell: --set 'key=[1, 2]'",
            ) from error
        _put(raw, path, parsed, text)
        from_flag[path] = f"--set {key}"
    return from_flag


def _lay_under(raw: dict[str, Any], defaults: Mapping[Key, object]) -> None:
    """Fill in what the template leaves open; what is no mapping is left for the check to complain about."""
    for path, value in defaults.items():
        node: Any = raw
        for key in path[:-1]:
            node = node.setdefault(str(key), {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(str(path[-1]), value)


def _full_path(key: str, raw: Mapping[str, Any]) -> Key:
    """Spell out a short key: `epochs` is `training.epochs`, `data.train` is `training.data.train`."""
    parts = tuple(key.split("."))
    if parts[0] in Settings.model_fields:
        return parts
    found = [at for at, model in explain.places(raw) if parts[0] in model.model_fields]
    if len(found) > 1 and () not in found:
        nearest = min(len(at) for at in found)
        short = [at for at in found if len(at) == nearest]
        if len(short) > 1:
            choices = " ".join(explain.dotted((*at, *parts)) for at in short)
            raise UsageError(f"--set {key} may mean several keys: {choices}", hint=f"--set {choices.split()[0]}=…")
        found = short
    if not found:
        valid = {name: at for at, model in explain.places(raw) for name in model.model_fields}
        close = explain.nearest(parts[0], list(valid))
        guess = explain.dotted((*valid[close], close, *parts[1:])) if close else ""
        known = " ".join(sorted(name for name, at in valid.items() if at in (("training",), ("limits",))))
        raise UsageError(
            f"--set {explain.show(key)} is not a key of this template"
            + (f"; did you mean {guess}?" if guess else f". Keys: {known}"),
            hint=f"--set {guess}=…" if guess else "",
        )
    return (*found[0], *parts)


def _put(raw: dict[str, Any], path: Key, value: object, text: str) -> None:
    node = raw
    for key in path[:-1]:
        inner = node.setdefault(str(key), {})
        if inner is None:
            inner = node[str(key)] = {}
        if not isinstance(inner, dict):
            raise UsageError(f"--set {explain.show(text)}: {key} is {explain.show(inner)}, it has no keys of its own")
        node = inner
    node[str(path[-1])] = value


def _flag_of(path: Key, from_flag: Mapping[Key, str]) -> str:
    """Give the flag that a place came from, the place itself or one above it."""
    return next((from_flag[path[:end]] for end in range(len(path), 0, -1) if path[:end] in from_flag), "")


def _origin(path: Key, source: Path, lines: Mapping[Key, int], from_flag: Mapping[Key, str]) -> str:
    flag = _flag_of(path, from_flag)
    if flag:
        return flag
    line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 0)
    return f"{source.name} line {line}" if line else source.name
