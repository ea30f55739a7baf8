"""`gpurun guard install --on hf`: the guard in a vendor's scheduled job, awake when this computer is not.

    this gpurun, the keys, whom to tell ──> the vendor's outpost (providers/hf_jobs/outpost.py) ──> its first pulse
    hf://<namespace>/<home> in `guard-elsewhere` ──> each plan asks for that pulse, as it asks a guard over ssh

It is a guard without a ledger: it judges by marks alone. Installed only with its price shown and agreed to; proven by
the pulse of its first pass. Nothing is undone in silence: what was scheduled stays until it is uninstalled.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
import time
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import bundle, guard_pulse, guard_timer, keys, settings_file, targets
from orchestrator.home import read_json, write_json
from orchestrator.ledger import Ledger
from orchestrator.render import ago, clean, money, wrap
from providers.base import Secret
from providers.errors import CredentialsError, GpurunError, StateError, UnreachableError
from providers.table import open_outpost

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.guard_pulse import Pulse
    from orchestrator.home import Home
    from providers.hf_jobs.outpost import HfOutpost, Post

NAME = "guard-afar.json"
PATIENCE_SECONDS = 900.0  # for the first pulse: a job may wait for its hardware
_POLL_SECONDS = 2.0
# What `gpurun guard once` imports; a test runs it with nothing else.
_NEEDS = ("click", "requests", "platformdirs", "urllib3", "idna", "certifi", "charset-normalizer")
_ELSEWHERE = "guard-elsewhere"


@dataclass(frozen=True, slots=True)
class Terms:
    """What an installation means, before anybody agrees to it."""

    on: str
    outpost: HfOutpost
    hourly: Decimal
    secrets: dict[str, Secret]
    home_id: str

    def text(self) -> str:
        """Say what it costs, and what leaves this computer."""
        daily, monthly = money(self.hourly * 24), money(self.hourly * 730)
        return wrap(
            f"A job on {self.on} all the time, paid by {self.outpost.namespace}: {money(self.hourly)}/h, so {daily} a"
            f" day and {monthly} a month, until: gpurun guard uninstall --on {self.on}. It looks each half minute and"
            f" ends what is past its ceiling. {' and '.join(self.secrets)} go there as secrets of the job: who rules"
            f" {self.outpost.namespace} at {self.on} can use them.",
            indent="  ",
        )


@dataclass(frozen=True, slots=True)
class Afar:
    """A guard afar as it is now; `trouble` says why nothing can be told of it."""

    on: str
    address: str
    hourly: Decimal
    scheduled: bool | None = None  # None = the vendor could not be asked
    suspended: bool = False
    next_at: float | None = None
    pulse: Pulse | None = None
    trouble: str = ""

    def stale(self, now: float) -> str:
        """Say why it proves no living guard; "" = it does."""
        if self.scheduled is None:
            return self.trouble
        if self.scheduled is False:
            return "it is scheduled no more"
        if self.suspended:
            return "it is suspended"
        if self.pulse is None:
            return self.trouble or "it has not run yet"
        return guard_pulse.staleness(self.pulse, now)

    def may_bill(self, now: float) -> bool:
        """Whether something may bill that should not, as far as anyone can tell by this guard."""
        return bool(self.stale(now)) or (self.pulse is not None and self.pulse.may_bill)


def terms(home: Home, on: str) -> Terms:
    """Find out what it would mean.

    Raises:
        CredentialsError: no key of another vendor is at hand, or none of this one.
        ProviderError: the vendor's prices can't be read.
    """
    kept = keys.stored(home)
    own = keys.VARIABLES[on]
    found = {
        name: Secret(value)
        for name in keys.VARIABLES.values()
        if name != own and (value := os.environ.get(name, "").strip() or kept.get(name, ""))
    }
    if not found:
        raise CredentialsError(
            f"there is nothing to guard from {on}: no key of another provider is at hand",
            hint=f"gpurun login lambda, then: gpurun guard install --on {on}",
        )
    keys.take_up(home)
    outpost = open_outpost(on, home.root)
    with closing(Ledger(home.ensure().ledger)) as ledger:
        home_id = ledger.home_id
    return Terms(on, outpost, outpost.hourly(), found, home_id)


def install(home: Home, agreed: Terms, say: Callable[[str], None], pause: Callable[[float], None] = time.sleep) -> Afar:
    """Schedule it, start it now, wait for its first pulse; then remove what was scheduled before.

    Raises:
        StateError, UnreachableError, CredentialsError: it is scheduled, and its first pass proved nothing.
        ProviderError: it was not scheduled.
    """
    outpost, post = agreed.outpost, _post(home, agreed)
    schedule = outpost.install(post)
    address = outpost.address(agreed.home_id)
    write_json(home.root / NAME, {"on": agreed.on, "address": address, "hourly": str(agreed.hourly)})
    say(f"scheduled on {agreed.on}; its first job starts now, which may take some minutes")
    pulse = _first_pulse(agreed, post, outpost.start_now(schedule), pause)
    outpost.remove(agreed.home_id, but=post.number)
    elsewhere = settings_file.get(home.root / settings_file.NAME, _ELSEWHERE)
    if elsewhere in {None, address}:
        settings_file.set_value(home.root / settings_file.NAME, _ELSEWHERE, address)
        say(f"plans count on it: {_ELSEWHERE} is {address}")
    else:
        say(f"plans ask {elsewhere}; to ask this one: gpurun config set {_ELSEWHERE} {address}")
    return Afar(agreed.on, address, agreed.hourly, scheduled=True, pulse=pulse)


def _post(home: Home, agreed: Terms) -> Post:
    from providers.hf_jobs.outpost import Post

    settings = {
        name: value
        for provider, variable in keys.VARIABLES.items()
        if variable in agreed.secrets
        for name, value in os.environ.items()
        if name.startswith(f"GPURUN_{provider.upper()}_") and guard_timer.is_passed(name, value)
    }
    told = _whom_to_tell(home)
    more = {"GPURUN_GUARD_CONFIG": Secret(told)} if told else {}
    return Post(
        home=agreed.home_id,
        number=secrets.token_hex(4),
        archive=archive(),
        requirements=tuple(f"{name}=={importlib.metadata.version(name)}" for name in _NEEDS),
        secrets={**agreed.secrets, **more},
        settings=settings,
    )


def archive() -> bytes:
    """Pack this gpurun as far as a guard needs it."""
    members: dict[str, bytes | Path] = {}
    for package in ("orchestrator", "providers"):
        folder = Path(str(files(package).joinpath("__init__.py"))).parent
        for path in folder.rglob("*.py"):
            members[f"{package}/{path.relative_to(folder).as_posix()}"] = path
    return bundle.tar_gz(members)


def _whom_to_tell(home: Home) -> str:
    """Give the config.toml of a guard that is not on this computer: webhooks, ntfy and the heartbeat."""
    defaults = settings_file.load(home.root / settings_file.NAME)
    far = [
        one.text
        for one in targets.several(str(defaults.get("notify", "")))
        if one.way in {targets.Way.WEBHOOK, targets.Way.NTFY}
    ]
    kept = {"notify": " ".join(far), "heartbeat": str(defaults.get("heartbeat", ""))}
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in kept.items() if value)


def _first_pulse(agreed: Terms, post: Post, job_id: str, pause: Callable[[float], None]) -> Pulse:
    """Wait for the pulse of this very installation, and judge it."""
    waited, stays = (
        0.0,
        f"it stays scheduled; mend it and install it again, or: gpurun guard uninstall --on {agreed.on}",
    )
    while True:
        told = _told(agreed.outpost, agreed.home_id)
        pulse = _pulse(told) if told.get("post") == post.number else None
        if pulse is not None and not pulse.under_way:
            break
        ended = agreed.outpost.end_of(job_id)
        if ended or waited > PATIENCE_SECONDS:
            why = (
                agreed.outpost.trouble(agreed.home_id, post.number)
                or ended
                or f"nothing in {PATIENCE_SECONDS / 60:.0f} minutes"
            )
            raise StateError(f"the guard on {agreed.on} did not get to its pulse: {why}", hint=stays)
        pause(_POLL_SECONDS)
        waited += _POLL_SECONDS
    if not pulse.providers:
        raise CredentialsError(f"the guard on {agreed.on} finds no provider's key", hint=stays)
    if pulse.blind:
        raise UnreachableError(f"the guard on {agreed.on} can't tell: {pulse.blind[0]}", hint=stays)
    return pulse


def _told(outpost: HfOutpost, home_id: str) -> dict[str, Any]:
    try:
        told = json.loads(outpost.pulse(home_id) or b"{}")
    except ValueError:  # half of it, on its way
        return {}
    return told if isinstance(told, dict) else {}


def _pulse(told: dict[str, Any]) -> Pulse | None:
    """Read what lies there; None = nothing yet, or nothing that is a pulse."""
    try:
        return guard_pulse.parse(told)
    except ValueError:
        return None


# ── later ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def find(home: Home) -> Afar | None:
    """Look at what this home has installed afar; None = nothing. Asks the vendor."""
    kept = read_json(home.root / NAME)
    if kept is None:
        return None
    on, address, hourly = str(kept["on"]), str(kept["address"]), Decimal(str(kept["hourly"]))
    home_id = address.rpartition("/")[2]
    try:
        keys.take_up(home)
        outpost = open_outpost(on, home.root)
        standing = outpost.standing(home_id)
        told = _told(outpost, home_id)
        pulse = _pulse(told)
        trouble = "" if pulse else outpost.trouble(home_id)
    except GpurunError as error:
        return Afar(on, address, hourly, trouble=f"CAN'T TELL: {clean(str(error))}")
    if not standing:
        return Afar(on, address, hourly, scheduled=False, pulse=pulse)
    due = [one.next_at.timestamp() for one in standing if one.next_at is not None]
    suspended = all(one.suspended for one in standing)
    found = Afar(on, address, hourly, scheduled=True, pulse=pulse, trouble=trouble)
    return replace(found, suspended=suspended, next_at=min(due, default=None))


def uninstall(home: Home, on: str) -> list[str]:
    """Unschedule it, end its jobs, remove its files; names what was removed, as the vendor's own list has it.

    Raises:
        ProviderError: some of it is still there.
    """
    keys.take_up(home)
    outpost = open_outpost(on, home.root)
    with closing(Ledger(home.ensure().ledger)) as ledger:
        home_id = ledger.home_id
    gone = [f"schedule {one} on {on}, read back from its list" for one in outpost.remove(home_id)]
    outpost.forget(home_id)
    config = home.root / settings_file.NAME
    if settings_file.get(config, _ELSEWHERE) == outpost.address(home_id):
        settings_file.unset(config, _ELSEWHERE)
        gone.append(f"{_ELSEWHERE} = {outpost.address(home_id)}")
    if (home.root / NAME).exists():
        (home.root / NAME).unlink()
        gone.append(str(home.root / NAME))
    return gone


def lines(afar: Afar, now: float) -> list[str]:
    """Say how it is."""
    stale = afar.stale(now)
    state = f"on {afar.on}, {money(afar.hourly)}/h; {afar.trouble or 'scheduled each hour'}"
    if afar.pulse is None:
        return [state, stale]
    verdict = f"SILENT: {stale}" if stale else guard_pulse.summary(afar.pulse)
    return [state, f"last pass {ago(max(now - afar.pulse.when, 0.0))}: {verdict}"]
