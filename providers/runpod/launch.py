"""One order at RunPod: image, GPU, the attempt's public key, the pod's own command; sent once.

What the pod's environment holds, the API tells to every key of the account: a mark, a price and a public key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from providers.errors import (
    CredentialsError,
    NoCapacityError,
    ProviderError,
    QuotaError,
    StateError,
    UnclearError,
    UsageError,
)
from providers.runpod import api, command, reading, strangers
from providers.ssh.keys import public_path, read_public

if TYPE_CHECKING:
    from decimal import Decimal

    from providers.base import Job, Offer
    from providers.http import Reply
    from providers.runpod.api import Api
    from providers.runpod.reading import Wanted
    from providers.runpod.witness import Witness

IMAGE = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"  # what RunPod's own documents name (2026-08)
CUDA = "12.8"  # what that image needs of the host's driver
_CREATE_SECONDS = 100.0  # dstack allows 120
# Told in RunPod's own words, each of these says that nothing was made; any other answer but 201 says nothing.
_WRONG_ORDER = frozenset({400, 404, 409, 413, 422})


def launch(runpod: Api, job: Job, offer: Offer, orders: dict[str, Any], witness: Witness) -> str:
    """Rent one pod; gives its id.

    Raises:
        NoCapacityError, QuotaError, CredentialsError, UsageError: nothing was rented.
        UnclearError: it may have been.
    """
    wanted = reading.wanted(offer)
    if wanted is None:
        raise UsageError(f"{offer.name!r} is no offer of RunPod's", hint="gpurun offers --provider runpod")
    wish = _wish(job, offer, wanted, orders)
    read = _id_of
    try:
        reply = strangers.deploy(runpod, wish, _CREATE_SECONDS) if wanted.cloud == "COMMUNITY" else None
        if reply is not None:
            read = strangers.id_of
        else:
            reply = runpod.reply("POST", "/pods", body=wish, read_seconds=_CREATE_SECONDS)
    except ProviderError as error:
        raise UnclearError(f"{error}; it may have rented {job.mark}", hint=error.hint) from error
    made = read(reply, str(job.mark))
    witness.made(made, reply)
    return made


def _wish(job: Job, offer: Offer, wanted: Wanted, orders: dict[str, Any]) -> dict[str, Any]:
    disk_gb = int(offer.disk_gib)
    wish: dict[str, Any] = {
        "name": str(job.mark),
        "image": IMAGE,
        "gpu": {"id": wanted.gpu, "count": wanted.count, "minCudaVersion": CUDA},
        "cloud": wanted.cloud,
        "disk": disk_gb,
        "ports": ["22/tcp"],
        "env": {
            "PUBLIC_KEY": _public_key(job),
            reading.MARK_VARIABLE: str(job.mark),
            reading.PRICE_VARIABLE: _gpu_price(offer, disk_gb),
        },
        "args": command.args(job, orders),
    }
    if wanted.place:  # called preferred, and enforced (RunPod, 2026-08)
        wish["dataCenterIds"] = [wanted.place]
    return wish


def _gpu_price(offer: Offer, disk_gb: int) -> str:
    price: Decimal = offer.price - disk_gb * reading.DISK_USD_GB_HOUR
    return f"{price:.6f}"


def _public_key(job: Job) -> str:
    if job.client_key is None:
        raise UsageError(f"{job.mark} has no key pair: nobody could log in")
    try:
        return f"{read_public(public_path(job.client_key))} {job.mark}"
    except StateError as error:
        raise UsageError(f"the keys of {job.mark} can't be read: {error}") from None


def _id_of(reply: Reply, mark: str) -> str:
    """Read the id out of a create's answer; one POST, one pod, or it is unclear."""
    words = api.problem(reply)
    if words is not None:
        refusal = api.error_of(reply)
        if reply.status == 403:  # of a pool too: the next offer may be open to this key
            raise NoCapacityError(str(refusal), hint=refusal.hint)
        if isinstance(refusal, NoCapacityError | QuotaError | CredentialsError):
            raise refusal
        if reply.status in _WRONG_ORDER:
            raise UsageError(f"RunPod rents nothing for this order: {refusal}")
    try:
        made = reading.pod(api.ok(reply))
    except ProviderError as error:
        raise UnclearError(f"{error}; it may have rented {mark}", hint=error.hint) from error
    if made.name != mark:
        raise UnclearError(f"{reply.what} answered with another pod than {mark}")
    return made.id
