"""The Hub asked before any money moves: models, data sets, revisions, gates, columns, and where a push goes.

Asked with the token that the machine will have, since only that one counts there. One request a repository, ten
seconds at most; a Hub that can't be reached is told once. `HF_ENDPOINT` leads elsewhere, as in the Hub's own client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import data_files, explain
from orchestrator.config import Chain
from providers.errors import ConfigError, CredentialsError, GpurunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.config import Data
    from orchestrator.templates import Template

TOKEN = "HF_TOKEN"  # noqa: S105 (the name of a variable)
_SECONDS = 10.0  # for one answer
_FILES = {"model": "config.json", "adapter": "adapter_config.json"}  # without which nothing can be loaded
_LOADED: tuple[Literal["model", "adapter"], ...] = ("model", "adapter")

Token = str | bool | None  # None = whatever this computer has; False = none


@dataclass(frozen=True, slots=True)
class Wanted:
    """One repository that a template names."""

    where: str  # the key that names it: "training.model"
    kind: Literal["model", "adapter", "dataset", "push"]
    name: str
    revision: str | None = None
    data: Data | None = None
    step: object = None  # the part of the training that reads the data


@dataclass(frozen=True, slots=True)
class Unreachable(Exception):  # noqa: N818 (no error of gpurun's: how a question ended)
    """The Hub gave no answer, which says nothing about what is there."""

    why: str


def wanted(template: Template) -> tuple[Wanted, ...]:
    """Name what a template has on the Hub. Files that are shipped, packages and earlier steps are not."""
    shipped = {file.value for file in template.files}  # a file that two steps read is listed once
    return tuple(one for one in _named(template) if _as_sent(template, one.where) not in shipped)


def _as_sent(template: Template, where: str) -> object:
    """Give the value that the machine gets for a key."""
    node: Any = template.config
    for key in where.split(".")[1:]:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _named(template: Template) -> Iterator[Wanted]:
    training = template.settings.training
    parts = training.steps.items() if isinstance(training, Chain) else [("", training)]
    key: Literal["model", "adapter"]
    for name, part in parts:
        at = f"training.steps.{name}" if name else "training"
        for key in _LOADED:
            value = getattr(part, key, None)
            if value is not None and not value.startswith(data_files.NOT_HERE):
                revision = getattr(part, "revision", None) if key == "model" else None
                yield Wanted(f"{at}.{key}", key, value, revision)
        data = getattr(part, "data", None)
        for which in ("train", "eval") if data is not None else ():
            value = getattr(data, which)
            if value is not None:
                repository, _, revision = value.partition("@")
                yield Wanted(f"{at}.data.{which}", "dataset", repository, revision or None, data, part)
        push = getattr(part, "push", None)
        if push is not None:
            yield Wanted(f"{at}.push.repo", "push", push.repo)


def check(every: Sequence[Wanted], token: Token) -> tuple[str, ...]:
    """Ask for each; gives one line a repository. `token` is what the machine will have.

    Raises:
        ConfigError: it is not there, or the data lack what the method reads.
        CredentialsError: the token may not read it, or not write there.
    """
    told: list[str] = []
    for place, one in enumerate(every):
        try:
            if not place:
                _knock()
            told.append(_ask(one, token))
        except Unreachable as error:
            names = ", ".join(dict.fromkeys(other.name for other in every[place:]))
            return (*told, f"not checked: {names} ({error.why}); the machine looks before it loads anything")
    return tuple(dict.fromkeys(told))


def _knock() -> None:
    """Find out whether anybody is there at all: the Hub's client tries for a quarter of a minute."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise Unreachable("HF_HUB_OFFLINE is set here")
    address = urlsplit(constants.ENDPOINT)
    port = address.port or {"http": 80}.get(address.scheme, 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_SECONDS / 2).close()
    except OSError as error:
        raise Unreachable(f"the Hub at {address.netloc} can't be reached from here") from error


def _ask(one: Wanted, token: Token) -> str:
    """Ask for one repository, and put the client's many errors into ours."""
    import httpx2
    from huggingface_hub import errors

    try:
        return {"dataset": _dataset, "push": _push}.get(one.kind, _model)(one, token)
    except errors.GatedRepoError as error:
        raise _gated(one, token) from error
    except errors.RepositoryNotFoundError as error:
        raise _absent(one, token) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{one.where}: {one.name} has no revision {explain.show(one.revision)}") from error
    except errors.EntryNotFoundError as error:
        raise ConfigError(f"{one.where}: {one.name} on the Hub has no {_FILES[one.kind]}, so nothing loads") from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{one.where}: {explain.show(one.name)} is no name of the Hub's") from error
    except errors.HfHubHTTPError as error:
        raise _refused(one, error, token) from error
    except (httpx2.HTTPError, OSError) as error:
        raise Unreachable(f"the Hub gave no answer: {type(error).__name__}") from error


def _model(one: Wanted, token: Token) -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(one.name, _FILES[one.kind], revision=one.revision)
    found = get_hf_file_metadata(url, token=token, timeout=_SECONDS)
    return f"{one.kind} {one.name} is there{f', at {found.commit_hash[:7]}' if found.commit_hash else ''}"


def _dataset(one: Wanted, token: Token) -> str:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    found = api.dataset_info(one.name, revision=one.revision, timeout=_SECONDS)
    if found.gated:
        api.auth_check(one.name, repo_type="dataset")
    told = _described(found.card_data)
    if told is None:
        return f"data {one.name} is there; its columns are not described: the machine checks each row"
    _check_split(one, told)
    _check_columns(one, told)
    return f"data {one.name} is there, with the columns that the method reads"


def _push(one: Wanted, token: Token) -> str:
    from huggingface_hub import HfApi, errors

    if token is False:
        raise CredentialsError(
            f"{one.where}: a push to {one.name} needs a token on the machine", hint=f"secrets: [{TOKEN}]"
        )
    api = HfApi(token=token)
    try:
        api.auth_check(one.name, write=True)
    except errors.GatedRepoError:
        raise
    except errors.RepositoryNotFoundError:
        _check_namespace(one, api.whoami())
        return f"push target {one.name} is to be made"
    return f"push target {one.name} can be written"


def _check_namespace(one: Wanted, me: dict[str, Any]) -> None:
    """Look whether a repository may be made under that name."""
    owner, mine = one.name.rpartition("/")[0], str(me.get("name", ""))
    orgs = {str(org.get("name")): str(org.get("roleInOrg", "")) for org in me.get("orgs", ())}
    role = str(((me.get("auth") or {}).get("accessToken") or {}).get("role", ""))
    if owner not in {"", mine, *orgs} or orgs.get(owner) == "read":
        raise CredentialsError(
            f"{one.where}: {mine} may not write in {owner}", hint=f"push to {mine}/{one.name.rpartition('/')[2]}"
        )
    if role == "read":
        raise CredentialsError(
            f"{one.where}: the token may only read", hint="make one that writes: https://huggingface.co/settings/tokens"
        )


# ── what went wrong, in our words ────────────────────────────────────────────────────────────────────────────────────


def _page(one: Wanted) -> str:
    return f"https://huggingface.co/{'datasets/' if one.kind == 'dataset' else ''}{one.name}"


def _gated(one: Wanted, token: Token) -> CredentialsError:
    gets = "" if token is not False else f", and let the machine have your token: secrets: [{TOKEN}]"
    return CredentialsError(
        f"{one.where}: {one.name} is gated, and {_whose(token)} may not read it",
        hint=f"accept its terms at {_page(one)}{gets}",
    )


def _absent(one: Wanted, token: Token) -> GpurunError:
    what = "data set" if one.kind == "dataset" else "model"
    hint = f"where it is private, let the machine have your token: secrets: [{TOKEN}]" if token is False else ""
    elsewhere = _elsewhere()
    if elsewhere:
        own = f"HF_ENDPOINT leads to {elsewhere}; a rehearsal's Hub has only what was pushed to it: gpurun launch demo"
        hint = f"{hint}; {own}" if hint else own
    return ConfigError(f"{one.where}: the Hub has no {what} {one.name} that {_whose(token)} may read", hint=hint)


def _elsewhere() -> str:
    """Say where the Hub is that is asked; "" = it is the vendor's own."""
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    return "" if place.hostname == "huggingface.co" else place.netloc


def _whose(token: Token) -> str:
    return f"the machine, which gets no {TOKEN}," if token is False else f"your {TOKEN}" if token else "this computer"


def _refused(one: Wanted, error: Any, token: Token) -> Exception:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status == 401 and token is False:  # the Hub tells nobody without a token what is private
        return _absent(one, token)
    if status in {401, 403}:
        return CredentialsError(
            f"{one.where}: the Hub refuses the token for {one.name} ({status})",
            hint="make another: https://huggingface.co/settings/tokens",
        )
    return Unreachable(f"the Hub answered {status}")


# ── the data's own card ──────────────────────────────────────────────────────────────────────────────────────────────


def _described(card: Any) -> dict[str, Any] | None:
    """Give the description of the configuration that is loaded by default; None = the card has none."""
    told = None if card is None else card.get("dataset_info")
    every: list[Any] = told if isinstance(told, list) else [told]
    every = [one for one in every if isinstance(one, dict) and isinstance(one.get("features"), list)]
    if len(every) > 1:
        every = [one for one in every if one.get("config_name") == "default"]
    return every[0] if len(every) == 1 else None


def _check_split(one: Wanted, told: dict[str, Any]) -> None:
    if one.data is None or not isinstance(told.get("splits"), list):
        return
    sizes = {str(split.get("name")): split.get("num_examples") for split in told["splits"] if isinstance(split, dict)}
    name = one.data.eval_split if one.where.endswith(".eval") else one.data.split
    plain = name.partition("[")[0]  # "train[:10%]"
    if sizes and plain.isidentifier() and plain not in sizes:
        key = f"{one.where.rpartition('.')[0]}.{'eval_split' if one.where.endswith('.eval') else 'split'}"
        raise ConfigError(f"{key}: {one.name} has no split {plain}; it has {' '.join(sizes)}")
    if sizes.get(plain) == 0:
        raise ConfigError(f"{one.where}: the split {plain} of {one.name} has no rows")


def _check_columns(one: Wanted, told: dict[str, Any]) -> None:
    if one.data is None:
        return
    columns = [str(each["name"]) for each in told["features"] if isinstance(each, dict) and "name" in each]
    choices = data_files.fields_needed(one.data, one.step)
    if not choices or any(set(names) <= set(columns) for names in choices):
        return
    wanted = " or ".join(" and ".join(f'"{name}"' for name in names) for names in choices)
    raise ConfigError(f"{one.where}: {one.name} has no {wanted}; it has {' '.join(columns)}")
