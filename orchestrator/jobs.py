"""A run's job on disk, and the `Job` of one attempt made from it.

`runs/<id>/job.json` holds what does not change from attempt to attempt: command, blobs, limits in seconds and the
*names* of secrets. Values of secrets are read from the environment each time and are never written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.home import read_json, write_json
from providers.base import Blob, Job, Mark, Offer, utc
from providers.errors import JobGoneError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.home import RunFolder
    from orchestrator.records import RunRow
    from providers.base import Secret


_AFTER_TRAINING = ("evaluation", "checkpoints", "bring home")  # stages of a quote, likely seconds


@dataclass(frozen=True, slots=True)
class JobFile:
    """What `job.json` holds."""

    command: tuple[str, ...]
    blobs: tuple[Blob, ...]
    max_idle_seconds: int
    secrets: tuple[str, ...]
    setup: tuple[str, ...] = ()
    gpus: int = 0

    def write(self, folder: RunFolder) -> None:
        """Keep it in the run's folder."""
        blobs = [[blob.sha256, blob.size, str(blob.path), blob.name, blob.source, blob.endpoint] for blob in self.blobs]
        values = {name: getattr(self, name) for name in self.__slots__} | {"blobs": blobs}
        write_json(folder.job, values)

    @classmethod
    def read(cls, folder: RunFolder) -> JobFile:
        """Read it back.

        Raises:
            JobGoneError: it is gone, or a file of the bundle or the data that it names is.
            StateError: it is damaged.
        """
        values = read_json(folder.job)
        if values is None:
            raise JobGoneError(f"{folder.job} is gone: the run can't be started")
        blobs = tuple(Blob(sha, size, Path(path), *more) for sha, size, path, *more in values["blobs"])
        for path in (folder.bundle, *(blob.path for blob in blobs)):
            if not path.exists():
                raise JobGoneError(f"{path} is gone: the run can't be started")
        return cls(
            command=tuple(values["command"]),
            blobs=blobs,
            max_idle_seconds=values["max_idle_seconds"],
            secrets=tuple(values["secrets"]),
            setup=tuple(values.get("setup", ())),
            gpus=values.get("gpus", 0),
        )

    def job(self, row: RunRow, folder: RunFolder, home_id: str, secrets: Mapping[str, Secret]) -> Job:
        """Make the job of the run's present attempt."""
        launched = row.created if row.memory.intended is None else row.memory.intended.timestamp()
        return Job(
            mark=mark_of(row, home_id),
            bundle=folder.bundle,
            blobs=self.blobs,
            command=self.command,
            deadline=utc(row.deadline),
            ceiling=utc(row.ceiling),
            max_seconds=int(row.ceiling - launched),
            grace_seconds=row.grace_seconds,
            max_idle_seconds=self.max_idle_seconds,
            checkpoint=newest_checkpoint(folder.checkpoints),
            secrets=secrets,
            gpus=self.gpus,
            setup=self.setup,
            key_on_machine=bool(row.plan.get("key_on_machine")),
            take_substitute=bool(row.plan.get("take_substitute")),
            probe=_probe(row, launched) if row.plan.get("probe_steps") else {},
        )


def _probe(row: RunRow, launched: float) -> dict[str, float]:
    """Say what the machine judges the first steps by."""
    stages = (row.plan.get("quote") or {}).get("stages") or {}
    after = sum(stages[name][1] for name in _AFTER_TRAINING if name in stages)
    price = float(offer_of(row).price)
    return {"steps": row.plan["probe_steps"], "after_seconds": after, "usd_per_hour": price, "launched": launched}


def mark_of(row: RunRow, home_id: str) -> Mark:
    """Give the mark of the run's present attempt."""
    return Mark(home_id, row.run_id, row.memory.attempt, utc(row.ceiling))


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that came home whole (its CHECKPOINT.json is fetched last)."""
    whole = [path for path in folder.glob("step-*") if (path / "CHECKPOINT.json").is_file()]
    return max(whole, key=checkpoint_step, default=None)


def checkpoint_step(path: Path) -> int:
    """Read the step out of a checkpoint folder's name; -1 = it is none."""
    number = path.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def offer_of(row: RunRow) -> Offer:
    """Give the offer that the run's present attempt took, or is to take."""
    return row.memory.offer or candidates_of(row.plan)[0]


def candidates_of(plan: Mapping[str, Any]) -> tuple[Offer, ...]:
    """Rebuild the offers that the plan names, in the order in which they are tried."""
    return tuple(map(offer_from, plan.get("candidates") or [plan["offer"]]))


def offer_from(values: Mapping[str, Any]) -> Offer:
    """Rebuild an offer from its JSON."""
    seen = values["seen_at"]
    return Offer(
        **{
            **values,
            "price": Decimal(values["price"]),
            "seen_at": None if seen is None else datetime.fromisoformat(seen),
        }
    )
