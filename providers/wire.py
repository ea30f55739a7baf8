"""What the controller and a machine say to each other, spelt once for every byte plane: payload/README.md in Python.

    Job, Order ──> arm.json, job.json, order.json          what a machine says of itself ──> RemoteStatus, Manifest

No bytes are moved here. All that a machine says is untrusted: wrong types count as not said, texts are cut, numbers
stay finite, and a name leads to no place outside the folder that it is asked for.
"""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from providers.base import Entry, Holder, Manifest, OrderKind, Phase, Place, Proof, RemoteStatus
from providers.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from providers.base import Job, Order

GUARDS = (
    "watchdog.py",
    "agent.py",
    "children.py",
    "processes.py",
    "limits.py",
    "birth.py",
    "lever.py",
    "helper.py",
    "ender.py",
    "comeback.py",
    "rearm.py",
    "output.py",
    "outcome.py",
    "porter.py",
    "spoken.py",
    "probe.py",
)  # what must run before the bundle is there
ENDER_OVERRUN_SECONDS = 60  # a look a second, then a request each half a minute at the most, and the vendor's own time
MAX_ENTRIES = 100_000  # files of one attempt: more is a machine gone mad, and would fill this computer's memory
_FRESH_SECONDS = 30.0  # a watchdog that looked so lately lives: a machine that swaps takes its time
_ASKED_SECONDS = 1800.0  # an ender that reached its vendor so lately can do it again: one lost packet proves nothing
_FAILURES = 2  # that an ender may have before it counts as none
_STUCK_SECONDS = 180.0  # nothing went through to the store for so long: nobody waits for it
_LONGEST_TEXT = 2000  # characters of a word from the machine


# ── what we say ──────────────────────────────────────────────────────────────────────────────────────────────────


def arm_json(job: Job) -> dict[str, object]:
    """Spell the watchdog's orders: what it must know before anything else is there."""
    return {
        "mark": str(job.mark),
        "deadline": job.deadline.timestamp(),
        "ceiling": job.ceiling.timestamp(),
        "max_seconds": job.max_seconds,
        "end": ["processes"],
    }


def job_json(job: Job) -> dict[str, object]:
    """Spell a job: its limits, and what to run."""
    return {
        "mark": str(job.mark),
        "command": list(job.command),
        "deadline": job.deadline.timestamp(),
        "ceiling": job.ceiling.timestamp(),
        "max_seconds": job.max_seconds,
        "grace_seconds": job.grace_seconds,
        "max_idle_seconds": job.max_idle_seconds,
        "log_limit_bytes": job.log_limit_bytes,
        **({"setup": list(job.setup), "gpus": job.gpus} if job.setup else {}),
        **({"probe": dict(job.probe)} if job.probe else {}),
    }


def order_json(order: Order) -> dict[str, object]:
    """Spell an order to the agent."""
    content: dict[str, object] = {"id": order.id, "kind": str(order.kind)}
    if order.kind is OrderKind.DEADLINE and order.deadline is not None:
        content["deadline"] = order.deadline.timestamp()
        if order.ceiling is not None:
            content["ceiling"] = order.ceiling.timestamp()
    if order.kind is OrderKind.STORE and order.store is not None:
        content["store"] = json.loads(order.store.reveal())
    return content


# ── what the machine says ────────────────────────────────────────────────────────────────────────────────────────


def status_of(said: Mapping[str, Any], now: float, *, ahead: float = 0.0, rented: bool = False) -> RemoteStatus:
    """Put status.json, result.json and watchdog.json together; the locks say who lives.

    Args:
        said: `agent`, `watchdog` (their locks are held), `began` (the agent's lock was ever taken), what stands in
            the files: `result`, `status`, `proof`; and `begun` = false where a job is armed in the course of its
            start: without job.json it waits for that, whoever died meanwhile; `restarting`: the agent died with the
            machine, and is about to be started again; `looked`: when the watchdog looked last, written without a disk.
        now: the machine's own clock in epoch seconds: whether a proof is fresh is judged by it.
        ahead: how many seconds that clock is ahead of ours; times are given by ours.
        rented: it costs until its vendor is told; else its processes are all that costs.
    """
    agent, guarded, began = (said.get(key) is True for key in ("agent", "watchdog", "began"))
    result, beat, proof = (_object(said.get(key)) for key in ("result", "status", "proof"))
    waits = (guarded and not began) or (said.get("begun") is False and not proof.get("ended"))
    waits = waits or said.get("restarting") is True
    over = bool(result) or not (agent or waits)
    return RemoteStatus(
        phase=Phase.EXITED if over else Phase.RUNNING if agent else Phase.READY,
        heartbeat=_time(beat.get("time"), ahead),
        stage=_text(beat.get("stage")),
        step=int(number(beat.get("step")) or 0),
        total_steps=int(number(beat.get("total_steps")) or 0),
        exit_code=_code(result.get("exit_code")),
        reason=_text(result.get("reason")),
        detail=_text((result or beat).get("detail") or ("" if result else proof.get("ended"))),
        deadline=_time(beat.get("deadline")),  # as it was told: by our clock
        watchdog=_holder(said, proof, now, ahead, rented=rented),
        store=_store(proof, now),
        store_error=_text(proof.get("store_error")),
        store_failing=_time(proof.get("store_failing") or None, ahead),
        store_until=_time(proof.get("store_until") or None),  # as it was told: by our clock
    )


def _store(proof: Mapping[str, Any], now: float) -> str:
    """Say how far the results are on their way into the store, in the words of `RemoteStatus.store`."""
    said, failing = _text(proof.get("store")), number(proof.get("store_failing")) or 0.0
    return "stuck" if said == "busy" and failing and now - failing > _STUCK_SECONDS else said


def _holder(said: Mapping[str, Any], proof: Mapping[str, Any], now: float, ahead: float, *, rented: bool) -> Holder:
    """Say what is known of the watchdog: its lock proves that it lives, its files when it last looked."""
    held = said.get("watchdog") is True
    times = [time for time in (number(proof.get("time")), number(said.get("looked"))) if time]
    seen = min(times, key=lambda time: abs(now - time), default=None)
    at = _time(seen, ahead)
    fresh = held and seen is not None and at is not None and abs(now - seen) < _FRESH_SECONDS
    when = f"pid {_text(proof.get('pid'))[:20]} looked at {at:%H:%M:%S} UTC" if at is not None else "never looked"
    words = f"its lock is {'held' if held else 'free'}; {when}"
    if not fresh and at is not None:
        words = f"last alive at {at:%H:%M:%S} UTC; its lock is {'held' if held else 'free'}"
    state, proven_at = Proof.PROVEN if fresh else Proof.ABSENT, at if fresh else None
    if held and at is None:
        state = Proof.UNPROVEN
    if fresh and rented:
        state, proven_at, said_of_it = _ender(proof, now, ahead)
        words = f"{said_of_it}; {words}"
    return Holder(
        "watchdog",
        Place.MACHINE,
        state,
        extendable=True,
        worst_overrun_seconds=ENDER_OVERRUN_SECONDS if rented else 2,
        evidence=words,
        proven_at=proven_at,
    )


def _ender(proof: Mapping[str, Any], now: float, ahead: float) -> tuple[Proof, datetime | None, str]:
    """Say whether a living watchdog can end its machine at the vendor: only what its ender was told there proves it."""
    said, evidence = _text(proof.get("ender")), _text(proof.get("ender_evidence"))[:200]
    if not said:
        return Proof.ABSENT, None, "no key on this machine: it ends its processes, not the bill"
    asked, at = number(proof.get("ender_at")), _time(proof.get("ender_at"), ahead)
    failures = number(proof.get("ender_failures")) or 0
    user = _text(proof.get("ender_user"))[:40]
    whose = "readable to root only" if user == "root" else f"readable to {user or 'its user'} (no root was to be had)"
    if said == "there":
        return Proof.UNPROVEN, None, f"its ender: {evidence}: whether it is obeyed can't be tried without ending it"
    if asked is None or at is None:
        state = Proof.ABSENT if failures >= _FAILURES else Proof.UNPROVEN
        return state, None, f"its ender: {evidence or said}"
    if (said == "refused" and failures >= _FAILURES) or abs(now - asked) > _ASKED_SECONDS:
        return Proof.ABSENT, None, f"its ender: {evidence}; last good at {at:%H:%M:%S} UTC"
    return Proof.PROVEN, at, f"its ender: {evidence}, at {at:%H:%M:%S} UTC, with a key {whose}"


def manifest_of(listed: Iterable[object], *, final: bool) -> Manifest:
    """Read the lines of a manifest; one that makes no sense is passed over.

    Raises:
        IntegrityError: there are more than `MAX_ENTRIES`.
    """
    entries = [entry for entry in map(entry_of, listed) if entry is not None]
    if len(entries) > MAX_ENTRIES:
        raise IntegrityError(f"the machine names {len(entries)} files; {MAX_ENTRIES} at most can be believed")
    return Manifest(tuple(entries), final=final)


def entry_of(facts: object) -> Entry | None:
    """Read one line of a manifest; None = it makes no sense."""
    said = _object(facts)
    name, size, digest = said.get("name"), said.get("size"), said.get("sha256")
    if isinstance(name, str) and isinstance(size, int) and isinstance(digest, str) and size >= 0:
        return Entry(name, size, digest)
    return None


# ── names and files here ─────────────────────────────────────────────────────────────────────────────────────────


def inside(folder: Path, name: str, known: set[str] | None = None) -> Path:
    """Find a name under a folder; one that leads out of it is an attack or a bug, and refused.

    `known` remembers which folders were looked at, for those who ask for thousands of names.

    Raises:
        IntegrityError: absolute, `..`, empty, no name for any disk, or through a link that leaves the folder.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise IntegrityError(f"the name {name[:200]!a} can stand on no disk") from error
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise IntegrityError(f"the name {name[:200]!r} leads outside")
    path = os.path.join(folder, *parts)  # noqa: PTH118 (thousands of names: a Path costs twenty times as much)
    parent = os.path.dirname(path)  # noqa: PTH120 (as above)
    known = set() if known is None else known
    if parent not in known and not _is_below(parent, folder):
        raise IntegrityError(f"the name {name[:200]!r} leads outside, through a link")
    if os.path.islink(path) and not _is_below(path, folder):  # noqa: PTH114 (as above)
        raise IntegrityError(f"the name {name[:200]!r} leads outside, through a link")
    known.add(parent)
    return Path(path)


def _is_below(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())


def digest_of(path: Path) -> str:
    """Hash a file: its sha256 in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def number(value: object) -> float | None:
    """Read a finite number; None = it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # JSON knows integers that no float can hold
        return None


def _time(value: object, ahead: float = 0.0) -> datetime | None:
    seconds = number(value)
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds - ahead, UTC)
    except (ValueError, OverflowError, OSError):  # beyond the calendar
        return None


def _text(value: object) -> str:
    return str(value)[:_LONGEST_TEXT] if isinstance(value, str | int | float) and value else ""


def _code(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
