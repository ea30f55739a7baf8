"""A VM as the simulator knows it, and as the vendor spells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulators.clock import iso
from simulators.colab.catalogue import VARIANTS

if TYPE_CHECKING:
    from simulators.colab.catalogue import Kind
    from simulators.colab.machine import Machine
    from simulators.faults import Hit
    from simulators.hosts import Host

FRONTEND_SECONDS = 1800  # `fit`
_SUCCESS = 4


@dataclass(slots=True)
class Vm:
    """What was assigned. Moments are epoch seconds of the vendor's clock."""

    endpoint: str
    number: int
    nbh: str
    kind: Kind  # what was given
    created: float
    listed_from: float
    active: float  # the last activity
    pinged: float  # the last keep-alive
    faults: dict[str, Hit] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)  # of the proxy -> their ends
    ended: float | None = None
    listed_until: float = 0.0  # past its end
    ended_by: str = ""
    url: str = ""
    host: Host | None = None
    machine: Machine | None = None
    foreign: bool = False  # opened by somebody in a browser

    @property
    def alive(self) -> bool:
        """Tell whether it has not been ended."""
        return self.ended is None


def spell(vm: Vm, token: str, seconds: float) -> dict[str, object]:
    """Spell a row of the list; `seconds` = how long its token lasts."""
    return {
        "accelerator": vm.kind.accelerator,
        "endpoint": vm.endpoint,
        "variant": VARIANTS.index(vm.kind.variant),
        "machineShape": int(vm.kind.high),
        "runtimeProxyInfo": {"token": token, "tokenExpiresInSeconds": max(int(seconds), 1), "url": vm.url},
    }


def spell_assigned(vm: Vm, token: str, seconds: float, tier: int) -> dict[str, object]:
    """Spell what an assign answers."""
    return {
        **spell(vm, token, seconds),
        "fit": FRONTEND_SECONDS,
        "allowedCredentials": True,
        "sub": 2 if tier else 1,
        "subTier": tier,
        "outcome": _SUCCESS,
    }


def plainly(vm: Vm) -> dict[str, object]:
    """Tell of a VM what the control shows."""
    return {
        "id": vm.endpoint,
        "nbh": vm.nbh,
        "type": vm.kind.name,
        "status": "assigned" if vm.alive else "gone",
        "created": iso(vm.created),
        "ended_by": vm.ended_by,
        "active": iso(vm.active),
        "pinged": iso(vm.pinged),
        "foreign": vm.foreign,
        "faults": sorted(vm.faults),
        "host": vm.host is not None,
        "url": vm.url,
        "passed_bytes": 0 if vm.host is None else vm.host.passed_bytes(),
    }
