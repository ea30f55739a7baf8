"""What the user typed after `launch`, and the user's defaults, made into a planned run.

flags > template > config.toml > built-in;  wish -> plan -> (asked) -> ledger + a background controller
"""

from __future__ import annotations

import shlex
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator import (
    credentials,
    data_remote,
    elsewhere,
    launch,
    own,
    preflight,
    requote,
    settings_file,
    stored,
    templates,
    vendors,
)
from orchestrator.ledger import Ledger
from orchestrator.plan import CAP, SoleHolderError
from orchestrator.processes import spawn_controller
from providers.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.home import Home
    from orchestrator.push import Push
    from orchestrator.settings_file import Value
    from orchestrator.templates import Template
    from orchestrator.yaml12 import Key

_LIMITS: dict[str, Key] = {
    "max-hours": ("limits", "max_hours"),
    "max-cost": ("limits", "max_cost"),
    "max-idle": ("limits", "max_idle_minutes"),
    "extendable-to": ("limits", "extendable_to_hours"),
    "max-attempts": ("limits", "max_attempts"),
    "accept-risk": ("limits", "accept_risk"),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of one `launch`."""

    template: str
    provider: str | None
    gpu: str | tuple[str, ...] | None
    sets: tuple[str, ...]
    max_hours: str | None = None
    max_cost: str | None = None
    max_idle: str | None = None
    extendable_to: str | None = None
    max_attempts: str | None = None
    accept_risk: bool = False
    key_on_machine: bool = False  # on no account a template's to say: it may be anybody's
    wait_for_capacity: float = 0.0  # seconds to go on asking for an offer that can't be had; 0 = not at all
    trust_on_first_use: bool = False  # take whatever host key a machine shows first
    cloud: str | None = None  # of a vendor that has several
    allow_free_tier: bool = False
    allow_substitute: bool = False  # another GPU than was asked for, where a vendor gives one
    push_to_hub: str | None = None  # a repository for the artifacts
    push_public: bool = False
    force: bool = False  # launch what does not fit, or can't be quoted
    store: str | None = None  # where results go as it trains; "none" = nowhere, though there is a default
    s3_endpoint: str | None = None
    probe: bool = False  # judge the run by its first steps on the machine
    include: tuple[str, ...] = ()  # files that go with a script
    secret: tuple[str, ...] = ()  # names of variables that a script needs
    arguments: tuple[str, ...] = ()  # of a script

    def flags(self) -> dict[str, tuple[Key, object]]:
        """Name the limits that were given as flags."""
        typed = {name: getattr(self, name.replace("-", "_")) for name in _LIMITS}
        given: dict[str, object] = {**typed, "accept-risk": self.accept_risk or None}
        return {f"--{name}": (_LIMITS[name], value) for name, value in given.items() if value is not None}


class Planned:
    """A plan to show, and the means to go through with it."""

    def __init__(self, home: Home, prepared: launch.Prepared, limits: dict[str, Any]) -> None:
        self._home = home
        self._prepared = prepared
        self.limits = limits
        self.plan = prepared.plan.as_json()
        self.launched = False
        self.push: Push | None = None

    def check(self) -> None:
        """Refuse what was planned only to be shown.

        Raises:
            RefusedError: the monthly cap, or this computer alone could stop the meter.
        """
        with closing(Ledger(self._home.ledger)) as ledger:
            self._prepared.check(ledger)

    def go(self) -> str:
        """Enter the run into the ledger and start its controller; gives the run's id.

        Raises:
            RefusedError: as `check`.
        """
        self.check()  # before a repository is made
        if self.push is not None:
            self.push.make()
        ledger = Ledger(self._home.ledger)
        try:
            stored.keep_run(self._prepared.row, self._home.run(self._prepared.row.run_id), ledger.home_id)
            run_id = launch.commit(self._prepared, ledger, datetime.now(UTC))
        finally:
            ledger.close()
        self.launched = True
        spawn_controller(self._home, run_id)
        return run_id


def read_template(home: Home, wish: Wish, defaults: Mapping[Key, object]) -> Template:
    """Read the template that was named, the user's defaults under it and the flags over it.

    Raises:
        ConfigError: no such template; a key, a value or a data file is wrong.
        UsageError: a `--set` that is no `key=value`.
    """
    if own.is_own(wish.template):
        return own.template(wish, defaults)
    if wish.include or wish.secret or wish.arguments:
        words = "--include, --secret and what stands behind -- are for a script or a notebook of yours"
        raise UsageError(words, hint="gpurun launch train.py --include data/ -- --epochs 3")
    mine = home.root / "templates"
    try:
        bring = data_remote.Bringer(home, wish.s3_endpoint)
        return templates.load(wish.template, wish.sets, flags=wish.flags(), defaults=defaults, own=mine, bring=bring)
    except ConfigError as error:
        error.hint = error.hint or f"mend it, then look: gpurun launch {shlex.quote(wish.template)} --dry-run"
        raise


@contextmanager
def planned(
    home: Home, wish: Wish, make: Callable[[Home, Wish, Mapping[Key, object]], Template] = read_template
) -> Iterator[Planned]:
    """Check everything that can be checked here and plan the run; what is not launched leaves nothing behind.

    `make` gives the template, of the home, the wish and the user's default limits.

    Raises:
        GpurunError: whatever is wrong; nothing was started.
    """
    defaults = settings_file.load(home.root / settings_file.NAME)
    template = make(home, wish, default_limits(defaults))
    _check_ceiling(wish, template)
    data_remote.refuse_unused(wish.s3_endpoint, wish.store or str(defaults.get("store") or ""), template.files)
    push = _push(wish)
    template = push.into(template) if push else template
    credentials.resolve(template.settings.secrets)  # now, not when a machine already bills
    settings_file.export_python(home.root / settings_file.NAME)
    providers = vendors.asked(home, wish.provider or str(defaults.get("provider") or ""), wish.gpu)
    home.ensure()
    ledger = Ledger(home.ledger)
    try:
        told = (*template.remarks, *([push.remark()] if push else ()))
        leave = replace(_leave(home, wish, defaults), remarks=told)
        store = stored.wanted(wish.store, wish.s3_endpoint, defaults)
        try:
            prepared = vendors.cheapest(home, ledger, providers, template, wish.gpu, datetime.now(UTC), leave)
        except SoleHolderError:  # shown all the same, and refused by `check`
            leave = replace(leave, alone=True)
            prepared = vendors.cheapest(home, ledger, providers, template, wish.gpu, datetime.now(UTC), leave)
        prepared = stored.with_store(prepared, store, typed=wish.store is not None)
    finally:
        ledger.close()
    plan = Planned(home, prepared, template.settings.limits.model_dump())
    plan.push = push
    try:
        yield plan
    finally:
        if not plan.launched:
            prepared.discard()


def _push(wish: Wish) -> Push | None:
    if wish.push_public and not wish.push_to_hub:
        raise UsageError("--push-public says how --push-to-hub pushes", hint="--push-to-hub you/model --push-public")
    if not wish.push_to_hub:
        return None
    from orchestrator import push

    return push.check(wish.push_to_hub, public=wish.push_public)


def _check_ceiling(wish: Wish, template: Template) -> None:
    """A ceiling before the deadline that was typed would be passed over in silence; as a default it may be."""
    limits = template.settings.limits
    if wish.extendable_to is not None and (limits.extendable_to_hours or 0) < limits.max_hours:
        raise UsageError(
            f"--extendable-to {wish.extendable_to} lies before the deadline of {limits.max_hours:g} h",
            hint=f"--extendable-to {2 * limits.max_hours:g}, or a shorter --max-hours",
        )


def default_limits(defaults: Mapping[str, Value]) -> dict[Key, object]:
    """Give the user's default limits, by their place in a template."""
    return {place: value for key, place in _LIMITS.items() if (value := defaults.get(key)) is not None}


def _leave(home: Home, wish: Wish, defaults: Mapping[str, Value]) -> launch.Leave:
    address = str(defaults.get("guard-elsewhere", ""))
    return launch.Leave(
        wait_seconds=wish.wait_for_capacity,
        trust_on_first_use=wish.trust_on_first_use,
        cloud=wish.cloud or "",
        free_tier=wish.allow_free_tier,
        substitute=wish.allow_substitute,
        key_on_machine=wish.key_on_machine,
        key_by_default=defaults.get("key-on-machine") == "yes",
        monthly_cap=monthly_cap(defaults),
        force=wish.force,
        preflight=preflight.check,
        probe_steps=requote.STEPS if wish.probe else 0,
        guards=lambda provider, now: elsewhere.holders(home, address, provider, now),
    )


def monthly_cap(defaults: Mapping[str, Value]) -> Decimal:
    """Give the user's cap, USD a UTC month; none is endless."""
    value = defaults.get("monthly-cap")
    return value if isinstance(value, Decimal) else CAP
