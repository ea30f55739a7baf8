"""Jobs and providers for Lambda on loopback, and the look at its journal that every such test ends with."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from openapi import validate_exchange

from providers.base import Job, Mark
from providers.lambdalabs import LambdaProvider
from providers.ssh.keys import make_pair

if TYPE_CHECKING:
    from pathlib import Path

    from simulators_fixture import LambdaSim

    from providers.base import Offer

A10 = "gpu_1x_a10@us-west-1"


def lambda_job(home: Path, *, hours: float = 2, **more) -> Job:
    """A job with fresh keys in the folder of its run."""
    now = datetime.now(UTC).replace(microsecond=0)  # a mark tells seconds
    mark = Mark("beef", f"unit-261122-{uuid.uuid4().hex[:6]}", 1, now + timedelta(hours=hours))
    folder = home / "runs" / mark.run_id / "ssh" / "1"
    for name in ("client_ed25519", "host_ed25519"):
        make_pair(folder / name)
    job = Job(mark, home / "bundle.tar.gz", (), ("true",), mark.ceiling, mark.ceiling, int(hours * 3600), 60, 600)
    return replace(job, client_key=folder / "client_ed25519", host_key=folder / "host_ed25519", **more)


def open_lambda(sim: LambdaSim, home: Path, **more: str) -> LambdaProvider:
    """Open it as a process with nothing but the simulator's exports would."""
    return LambdaProvider.from_home(home, {**sim.exports, **more})


def offer_of(provider: LambdaProvider, name: str = A10) -> Offer:
    return next(offer for offer in provider.offers() if offer.name == name)


def hold_to_the_document(sim: LambdaSim, agent: str = "gpurun/") -> set[tuple[str, str]]:
    """Check every request of ours against the official document; gives the operations that were asked."""
    ours = [record for record in sim.asked() if record["headers"].get("user-agent", "").startswith(agent)]
    return {validate_exchange(record) for record in ours}
