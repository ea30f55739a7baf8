"""Which vendors a launch asks where none was named: every one whose key is at hand, and the best offer of all is taken.

--provider, config ──> that one
--gpu auto, a10, … ──> this computer and every vendor with a key ──> each one's choice ──> the cheapest
neither            ──> this computer
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator import launch
from orchestrator.plan import SoleHolderError
from providers.errors import CredentialsError, GpurunError, ProviderError, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from orchestrator.home import Home
    from orchestrator.launch import Leave, Prepared
    from orchestrator.ledger import Ledger
    from orchestrator.plan import Gpus
    from orchestrator.quoting import Choice
    from orchestrator.templates import Template
    from providers.base import Provider

_KEYS = "rent one: gpurun launch … --provider lambda, with its key in LAMBDA_API_KEY or stored by gpurun login lambda"


def asked(home: Home, named: str | None, gpu: Gpus) -> list[Provider]:
    """Open the vendors that are to be asked.

    Raises:
        UsageError: no vendor is called that.
        CredentialsError: the one that was named has no key here.
    """
    from providers.table import looked_at, open_provider

    wanted = (gpu,) if isinstance(gpu, str) else tuple(gpu or ())
    if named or not set(wanted) - {"cpu"}:
        return [open_provider(named or "local", home.root)]
    found = []
    for name in looked_at(home.root):
        try:
            found.append(open_provider(name, home.root))
        except CredentialsError:
            continue  # no key: nothing can be rented there
    return found


def cheapest(
    home: Home,
    ledger: Ledger,
    providers: Sequence[Provider],
    template: Template,
    gpu: Gpus,
    now: datetime,
    leave: Leave,
) -> Prepared:
    """Plan the run at the vendor whose choice is likely the cheapest; at the next where that may not be launched.

    Raises:
        GpurunError: as `launch.prepare`; of several vendors, what each of them said.
    """
    if len(providers) == 1 and providers[0].name != "local":
        return launch.prepare(home, ledger, providers[0], template, gpu, now, leave)
    options: list[tuple[Provider, Choice]] = []
    refused: list[tuple[str, GpurunError]] = []
    for one in providers:
        if leave.key_on_machine and not one.traits.key_on_machine and len(providers) > 1:
            continue  # asked for in so many words, and of no use there
        try:
            options.append((one, launch.choice(home, ledger, one, template, gpu, now, leave)))
        except (RefusedError, ProviderError) as error:
            refused.append((one.name, error))
    options = [option for option in options if option[1].offers[0].gpu_count] or options  # a CPU is the last resort
    for one, choice in sorted(options, key=lambda option: option[1].order):
        try:
            return launch.prepare(home, ledger, one, template, gpu, now, leave, _among(choice, one, options, refused))
        except SoleHolderError as error:
            refused.append((one.name, error))
    raise _nobody(refused) if refused else UsageError("--key-on-machine has no use on any vendor whose key is here")


def _among(
    choice: Choice,
    one: Provider,
    options: Sequence[tuple[Provider, Choice]],
    refused: Sequence[tuple[str, GpurunError]],
) -> Choice:
    """Say of how many vendors it is, and which could not be had."""
    others = [other.name for other, _ in options if other is not one]
    words = f"{one.name} is the cheapest of {', '.join((one.name, *others))}" if others else ""
    left = [f"{name}: {error}".partition("\n")[0] for name, error in refused if name != "local"]
    parts = [words, choice.why, *(f"left out {each}" for each in left)]
    return replace(choice, why="; ".join(part for part in parts if part))


def _nobody(refused: Sequence[tuple[str, GpurunError]]) -> GpurunError:
    """Give the one refusal, or all of them in one."""
    away = [(name, error) for name, error in refused if name != "local"]
    if not away:
        _, error = refused[0]
        error.hint = "; ".join(part for part in (error.hint, _KEYS) if part)
        return error
    if len(away) == 1:
        return away[0][1]
    told = "\n".join(f"{name}: {error}" for name, error in away)
    return RefusedError(f"none of {len(away)} vendors can be taken:\n{told}", hint=away[0][1].hint)
