"""One order at Lambda: the key is registered, the image pinned, the host key sent along, the machine asked for once.

    images -> ssh-keys -> launch -> the instance's id

A refusal in Lambda's own words takes the key back. Anything else is unclear: the machine may be there, under its mark.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from providers.errors import (
    CredentialsError,
    GpurunError,
    NoCapacityError,
    ProviderError,
    QuotaError,
    StateError,
    UnclearError,
    UsageError,
)
from providers.lambdalabs import api, reading
from providers.ssh.keys import public_path, read_public, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from providers.base import Job, Mark, Offer
    from providers.http import Reply
    from providers.lambdalabs.api import Api

log = logging.getLogger("gpurun.lambda")

LANE = "launch"
_LAUNCH_SECONDS = 60.0  # a launch was seen to answer after 5 s (2026-07); others allow 120
# Unpinned, images were seen to differ by region: 22.04 with Python 3.10 here, 24.04 with 3.12 there (2026-07).
_FAMILIES = ("lambda-stack-24-04", "lambda-stack-22-04")
_STACK = "lambda-stack-"
_REGISTERED = "registered"  # file beside the keys: the id of the key at Lambda, until it is deleted there
_DEFINITE = frozenset({400, 401, 403, 404, 409, 422})  # with a code that we know: any other pair proves nothing
_WRONG_ORDER = frozenset(
    {
        "global/invalid-parameters",
        "global/duplicate",
        api.NO_SUCH_INSTANCE,
        api.NOTHING_THERE,
        "instance-operations/launch/file-system-in-wrong-region",
    }
)


def launch(lambda_: Api, job: Job, offer: Offer) -> str:
    """Rent one machine; gives its id.

    Raises:
        NoCapacityError, QuotaError, CredentialsError, UsageError: nothing was rented.
        UnclearError: it may have been.
    """
    if not offer.region:
        raise NoCapacityError(f"{offer.name} is sold out in every region", hint="wait for it: --wait-for-capacity 2h")
    folder, public, host_key = _keys(job)
    family = _family(lambda_, offer)
    name = _register(lambda_, job.mark, public, folder)
    try:
        reply = _order(lambda_, _wish(job.mark, offer, name, family, host_key))
        return _id_of(reply)
    except (NoCapacityError, QuotaError, CredentialsError, UsageError):
        forget_key(lambda_, folder)
        raise


def forget_key(lambda_: Api, folder: Path) -> None:
    """Delete this attempt's key at Lambda: it opens nothing that is to come. What fails is left to `tidy`."""
    path = folder / _REGISTERED
    try:
        key_id = path.read_text().strip()
        if reading.is_id(key_id):
            lambda_.drop_key(key_id)
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, GpurunError) as error:
        log.warning("the key in %s is still registered: %s", folder, error)


def _keys(job: Job) -> tuple[Path, str, tuple[str, str] | None]:
    """Read this attempt's keys: their folder, the client's public half, the machine's pair."""
    if job.client_key is None:
        raise UsageError(f"{job.mark} has no key pair: nobody could log in")
    try:
        host = None
        if job.host_key is not None:
            host = (job.host_key.read_text(), read_public(public_path(job.host_key)))
        return job.client_key.parent, read_public(public_path(job.client_key)), host
    except (OSError, UnicodeDecodeError, StateError) as error:
        raise UsageError(f"the keys of {job.mark} can't be read: {type(error).__name__}") from None


def _family(lambda_: Api, offer: Offer) -> str:
    """Choose the image's family for a region: ours, else the newest Lambda Stack that is there."""
    host = "arm64" if reading.is_arm(offer.name) or "arm64" in offer.source else "x86_64"
    here = {
        image.family
        for image in lambda_.images()
        if image.region == offer.region and image.architecture == host and image.family.startswith(_STACK)
    }
    chosen = next((family for family in _FAMILIES if family in here), max(here, default=_FAMILIES[0]))
    if chosen != _FAMILIES[0] or not here:
        log.warning("%s lists no image of %s: asking for %s", offer.region, _FAMILIES[0], chosen)
    return chosen


def _register(lambda_: Api, mark: Mark, public: str, folder: Path) -> str:
    """Register the client's key under the mark; gives the name it has there."""
    key = _registered(lambda_, mark, public)
    try:
        write_private(folder / _REGISTERED, f"{key.id}\n".encode())
    except OSError as error:
        lambda_.drop_key(key.id)
        raise UsageError(f"{folder} can't be written: {error.strerror}", hint="gpurun doctor") from error
    return key.name


def _registered(lambda_: Api, mark: Mark, public: str) -> reading.Key:
    try:
        return _post_key(lambda_, mark, public)
    except CredentialsError:
        raise
    except (ProviderError, UsageError):  # a name that is taken, a lost answer: the list tells whether it is there
        there = next((key for key in lambda_.list_keys() if key.id and key.public == public), None)
        if there is None:
            raise
        return there


def _post_key(lambda_: Api, mark: Mark, public: str) -> reading.Key:
    reply = lambda_.reply("POST", "/ssh-keys", body={"name": str(mark), "public_key": f"{public} {mark}"})
    if api.code_of(reply) in _WRONG_ORDER:
        raise UsageError(f"Lambda does not register the key {mark}: {api.error_of(reply)}")
    key = reading.key(api.data_of(reply))
    if not key.id or key.public != public:
        raise ProviderError("Lambda registered another key than the one that was sent", hint="gpurun doctor")
    return key


def _wish(mark: Mark, offer: Offer, key_name: str, family: str, host_key: tuple[str, str] | None) -> dict[str, Any]:
    wish: dict[str, Any] = {
        "region_name": offer.region,
        "instance_type_name": offer.name.partition("@")[0],
        "ssh_key_names": [key_name],
        "name": str(mark),
        "image": {"family": family},
        "tags": [{"key": reading.TAG, "value": str(mark)}],
    }
    if host_key is not None:
        wish["user_data"] = user_data(*host_key)
    return wish


def user_data(private: str, public: str) -> str:
    """Spell the cloud-config that gives the machine our host key and no other. JSON is YAML, and quotes safely."""
    keys = {"ed25519_private": private, "ed25519_public": public}
    return "#cloud-config\n" + json.dumps({"ssh_deletekeys": True, "ssh_keys": keys}, indent=1) + "\n"


def _order(lambda_: Api, wish: dict[str, Any]) -> Reply:
    try:
        return lambda_.reply("POST", "/instance-operations/launch", body=wish, lane=LANE, read_seconds=_LAUNCH_SECONDS)
    except ProviderError as error:
        raise UnclearError(f"{error}; it may have rented {wish['name']}", hint=error.hint) from error


def _id_of(reply: Reply) -> str:
    """Read the id out of a launch's answer; one POST, one machine, or it is unclear."""
    definite = reply.status in _DEFINITE
    if definite and api.code_of(reply) in _WRONG_ORDER:
        raise UsageError(f"Lambda rents nothing for this order: {api.error_of(reply)}")
    try:
        data = api.data_of(reply)
    except ProviderError as error:
        if definite and isinstance(error, NoCapacityError | QuotaError | CredentialsError):
            raise
        raise UnclearError(f"{error}; it may have rented", hint=error.hint) from error
    ids = data.get("instance_ids") if isinstance(data, dict) else None
    if not isinstance(ids, list) or len(ids) != 1 or not isinstance(ids[0], str) or not reading.is_id(ids[0]):
        raise UnclearError(f"{reply.what} took the order and gave no id that can be used")
    return ids[0]
