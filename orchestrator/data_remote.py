"""Data that lie at an address: brought here once, looked at and hashed as any file of the user's, then shipped.

    s3://bucket/key or …/folder/             the keys that boto3 finds; --s3-endpoint where it is not AWS
    hf://buckets/you/name/path               HF_TOKEN, or what `hf auth login` left
    hf://datasets/you/name[@revision][/path]
        └─> <home>/data/<address>/<state there>/<its name>        another state is another folder: nothing is mixed

No key goes to a machine: it gets the bytes, or a signed GET of them (stored_data.py). An address that ends in no file
is a folder: all its files that a training reads are brought.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator import settings_file
from orchestrator.render import size as sized
from orchestrator.store import Address, is_endpoint, open_store
from orchestrator.terminal import Terminal
from providers import wire
from providers.base import Secret
from providers.errors import (
    ConfigError,
    CredentialsError,
    GpurunError,
    IntegrityError,
    ProviderError,
    StateError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from huggingface_hub import HfApi

    from orchestrator.data_files import DataFile
    from orchestrator.home import Home

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
SHAPES = "s3://bucket/file.jsonl, hf://datasets/you/name/file.jsonl or hf://buckets/you/name/file.jsonl"
_DATASET = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+))?", re.ASCII)
_BUCKET = re.compile(r"(?P<bucket>[\w.-]+/[\w.-]+)(?:/(?P<path>.+))?", re.ASCII)
_S3 = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<path>.+))?", re.ASCII)
_NO_DATA = re.compile(r"(?i)(?:.*/)?(?:readme|license|dataset_infos|dataset_info)[^/]*")
_TOLD_BYTES = 2**24
_SPARE_BYTES = 2**30  # of the disk, that data brought here leave free
_FILE_SECONDS = 6 * 3600.0  # for one file of a data set
_LIST_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class There:
    """One file at an address."""

    name: str  # below the address's bucket or repository
    size: int  # bytes
    state: str  # changes with its content


@dataclass(frozen=True, slots=True)
class Brought:
    """What an address is here: a file, or a folder; `sources` = each file's own address, by its path."""

    path: Path
    sources: dict[Path, str]
    endpoint: str = ""


class Place(Protocol):
    """Where data lie."""

    base: str  # the address of its root, with a slash at its end
    endpoint: str  # of an S3 that is not AWS

    def listed(self, prefix: str) -> Iterator[There]:
        """Name the files whose names begin so."""

    def bring(self, name: str, folder: Path) -> Path:
        """Write one file somewhere below a folder; gives its path."""


class Bringer:
    """Brings what lies at addresses into a home."""

    def __init__(self, home: Home, endpoint: str | None = None) -> None:
        self._home = home
        self._endpoint = endpoint

    def __call__(self, address: str, where: str) -> Brought:
        """Bring what lies there, unless just that is here; `where` names the setting.

        Raises:
            ConfigError: it is no address, or nothing lies there that could be trained on.
            CredentialsError, ProviderError: it can't be read.
            StateError: the disk.
        """
        address = address.strip()
        try:
            place, path = self._opened(address)
            return _brought(place, path, address, self._home.ensure().root / "data")
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}", hint=error.hint) from error
        except IntegrityError as error:
            raise ConfigError(f"{where}: {address}: {error}") from error
        except ProviderError as error:
            raise type(error)(f"{where}: {address}: {error}", hint=_next(error, address)) from error
        except OSError as error:
            words = f"{where}: {address} can't be written here: {error.strerror or error}"
            raise StateError(words, hint="another home: export GPURUN_HOME=…") from error

    def _opened(self, address: str) -> tuple[Place, str]:
        scheme, _, rest = address.partition("://")
        kind, _, below = rest.partition("/")
        if scheme == "s3" and (found := _S3.fullmatch(rest)):
            return _Objects(Address(found["bucket"], endpoint=self._s3_endpoint())), found["path"] or ""
        if scheme == "hf" and kind == "buckets" and (found := _BUCKET.fullmatch(below)):
            return _Objects(Address(found["bucket"], scheme="hf")), found["path"] or ""
        if scheme == "hf" and kind == "datasets" and (found := _DATASET.fullmatch(below)):
            return _Dataset(found["repo"], found["revision"]), found["path"] or ""
        raise ConfigError(f'"{address}" is no address of data', hint=SHAPES)

    def _s3_endpoint(self) -> str:
        typed = self._endpoint
        if typed is None:
            typed = str(settings_file.load(self._home.root / settings_file.NAME).get("s3-endpoint") or "")
        if typed and not is_endpoint(typed):
            raise ConfigError(f'"{typed}" is no endpoint', hint="--s3-endpoint https://host")
        return typed


def is_address(value: str) -> bool:
    """Say whether a value is meant as an address."""
    return value.strip().partition("://")[0] in {"s3", "hf", "gs", "az", "http", "https"} and "://" in value


def refuse_unused(endpoint: str | None, store: str, files: Sequence[DataFile]) -> None:
    """Refuse an S3 server that was typed and that nobody would ask.

    Raises:
        UsageError: neither the store nor any of the data is in S3.
    """
    if endpoint is None or any(address.startswith("s3:") for address in (store, *(file.source for file in files))):
        return
    words = "--s3-endpoint is the server of an s3:// address, and neither the store nor the data is at one"
    raise UsageError(words, hint="--store s3://bucket/prefix, or drop it")


def kept_bytes(home: Home) -> int:
    """Count what data from addresses take up in a home, bytes."""
    return sum(path.stat().st_size for path in (home.root / "data").rglob("*") if path.is_file())


# ── bringing ────────────────────────────────────────────────────────────────────────────────────


def _brought(place: Place, path: str, address: str, cache: Path) -> Brought:
    files, whole = _found(place, path, address)
    state = sha256(json.dumps([[one.name, one.size, one.state] for one in files]).encode()).hexdigest()[:12]
    final = cache / sha256(place.base.encode() + path.encode()).hexdigest()[:16] / state
    top = path.rstrip("/").rpartition("/")[2] or place.base.rstrip("/").rpartition("/")[2].partition("@")[0]
    names = {one.name: top if whole else f"{top}/{one.name[len(path.rstrip('/')) :].lstrip('/')}" for one in files}
    if not final.is_dir():
        _bring_all(place, files, names, final, address)
    sources = {final / here: f"{place.base}{name}" for name, here in names.items()}
    return Brought(final / top, sources, place.endpoint)


def _found(place: Place, path: str, address: str) -> tuple[list[There], bool]:
    """List what is meant; the second: it is one file, and no folder.

    Raises:
        ConfigError: there is nothing, or nothing that could be trained on.
    """
    listed = sorted(place.listed(path.rstrip("/")), key=lambda one: one.name)
    exact = [one for one in listed if one.name == path]
    if exact:
        return exact, True
    folder = f"{path.rstrip('/')}/" if path else ""
    below = [one for one in listed if one.name.startswith(folder)]
    files = [one for one in below if _is_data(one.name.removeprefix(folder)) and one.size]
    if files:
        return files, False
    if below:
        kinds = " ".join(SUFFIXES)
        raise ConfigError(f"{address} holds no data: {len(below)} other files; known kinds are {kinds}")
    near = _neighbour(place, path)
    raise ConfigError(f"there is nothing at {address}{near}", hint="look at its bucket, then name a file or a folder")


def _is_data(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and name.lower().endswith(SUFFIXES) and not _NO_DATA.fullmatch(name)


def _neighbour(place: Place, path: str) -> str:
    folder = path.rstrip("/").rpartition("/")[0]
    around = {one.name for one in place.listed(f"{folder}/" if folder else "")}
    close = difflib.get_close_matches(path, around, n=1)
    return f"; did you mean {place.base}{close[0]}?" if close else ""


def _bring_all(place: Place, files: Sequence[There], names: dict[str, str], final: Path, address: str) -> None:
    """Bring files aside, then move all into place in one stroke.

    Raises:
        StateError: there is no room for them.
        IntegrityError: a name leads outside, or a file is not as large as it was listed.
    """
    total = sum(one.size for one in files)
    final.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(final.parent).free
    if total + _SPARE_BYTES > free:
        words = f"{address} has {sized(total)}, and {sized(free)} are free here"
        raise StateError(words, hint="a home on a larger disk: export GPURUN_HOME=…; or a data set's name on the Hub")
    if total > _TOLD_BYTES:
        Terminal().say(f"bringing {address}: {sized(total)}")
    aside = final.with_name(f".{final.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    for one in files:
        target = wire.inside(aside, names[one.name])
        target.parent.mkdir(parents=True, exist_ok=True)
        came = place.bring(one.name, aside / ".coming")
        if came.stat().st_size != one.size:
            raise IntegrityError(f"{one.name} has {came.stat().st_size} bytes, not {one.size}")
        came.replace(target)
    shutil.rmtree(aside / ".coming", ignore_errors=True)
    if not final.is_dir():  # somebody else's launch may have been quicker
        aside.rename(final)


def _next(error: GpurunError, address: str) -> str:
    """Give what is to be typed next: data are only read."""
    if isinstance(error, CredentialsError) and address.startswith("hf:"):
        return "make a token that may read it at https://huggingface.co/settings/tokens, export HF_TOKEN=…"
    return "look at its name" if error.hint.startswith("make it first") else error.hint or f"look at {address}"


# ── places ──────────────────────────────────────────────────────────────────────────────────────


class _Objects:
    """A bucket, in S3 or on the Hub."""

    def __init__(self, address: Address) -> None:
        self.base, self.endpoint = f"{address}/", address.endpoint
        self._store = open_store(address)

    def listed(self, prefix: str) -> Iterator[There]:
        """Name the files whose names begin so."""
        for one in self._store.kept(prefix):
            yield There(one.key, one.size, one.written.isoformat())

    def bring(self, name: str, folder: Path) -> Path:
        """Write one file."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "object"
        with path.open("wb") as file:
            for block in self._store.stream(name):
                file.write(block)
        return path


class _Dataset:
    """A data set's repository on the Hub, at one commit."""

    endpoint = ""

    def __init__(self, repo: str, revision: str | None) -> None:
        from orchestrator.store_hub import endpoint_of, own_token
        from providers.hf_jobs.hub import Hub, MissingError

        self._repo = repo
        self._hub = Hub(endpoint_of(), Secret(own_token()))
        try:
            found = self._hub.run(repo, lambda api: api.dataset_info(repo, revision=revision))
        except MissingError as error:
            at = f" at {revision}" if revision else ""
            words = f"the Hub has no data set {repo}{at} that this computer may read"
            raise ConfigError(words, hint=f"look at https://huggingface.co/datasets/{repo}") from error
        self._commit = str(found.sha)
        self.base = f"hf://datasets/{repo}@{self._commit[:12]}/"

    def listed(self, prefix: str) -> Iterator[There]:
        """Name the files whose names begin so."""

        def call(api: HfApi) -> list[There]:
            rows = api.list_repo_tree(self._repo, recursive=True, revision=self._commit, repo_type="dataset")
            return [There(one.path, one.size, one.blob_id) for one in rows if isinstance(one, RepoFile)]

        from huggingface_hub.hf_api import RepoFile

        found = self._hub.run(f"files of {self._repo}", call, _LIST_SECONDS)
        yield from (one for one in found if one.name.startswith(prefix))

    def bring(self, name: str, folder: Path) -> Path:
        """Write one file."""

        def call(api: HfApi) -> str:
            return api.hf_hub_download(self._repo, name, repo_type="dataset", revision=self._commit, local_dir=folder)

        return Path(self._hub.run(name, call, _FILE_SECONDS))
