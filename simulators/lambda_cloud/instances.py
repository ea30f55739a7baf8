"""One instance as the vendor knows it, and as the vendor spells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulators.clock import iso
from simulators.lambda_cloud.catalogue import Kind, region

if TYPE_CHECKING:
    from simulators.faults import Hit
    from simulators.hosts import Host

ENDING = frozenset({"terminating", "terminated"})


@dataclass(frozen=True, slots=True)
class Order:
    """A launch that was found valid. `public_keys` are those that may log in."""

    kind: Kind
    region: str
    key_names: tuple[str, ...]
    public_keys: tuple[str, ...]
    name: str = ""
    hostname: str = ""
    user_data: str = ""
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Instance:
    """What was launched. Moments are epoch seconds of the vendor's clock."""

    id: str
    number: int  # in the order of launches: what a page of the list goes on from
    order: Order
    name: str
    cents: int
    address: str
    launched: float
    jupyter_token: str
    jupyter_host: str
    listed_from: float
    found_from: float
    faults: dict[str, Hit] = field(default_factory=dict)
    status: str = "booting"
    has_address: bool = False
    first_healthy: float | None = None
    ignored: str = ""  # the status shown after a terminate that was not carried out
    host: Host | None = None

    @property
    def alive(self) -> bool:
        """Tell whether it has not been ended."""
        return self.status not in ENDING


def spell_kind(kind: Kind, cents: int) -> dict[str, object]:
    """Spell an instance type as the vendor does."""
    return {
        "name": kind.name,
        "description": kind.description,
        "gpu_description": kind.card.description,
        "price_cents_per_hour": cents,
        "architecture": kind.card.architecture,  # since 2026-09
        "specs": {"vcpus": kind.vcpus, "memory_gib": kind.memory, "storage_gib": kind.storage, "gpus": kind.gpus},
    }


def spell(instance: Instance) -> dict[str, object]:
    """Spell an instance as the vendor does: what is not known yet is left out, not null."""
    order = instance.order
    row: dict[str, object] = {
        "id": instance.id,
        "status": instance.ignored or instance.status,
        "ssh_key_names": list(order.key_names),
        "file_system_names": [],
        "region": region(order.region),
        "instance_type": spell_kind(order.kind, instance.cents),
        "jupyter_token": instance.jupyter_token,
        "jupyter_url": f"https://jupyter-{instance.jupyter_host}.lambdaspaces.com/?token={instance.jupyter_token}",
        "actions": _actions(instance),
        "is_reserved": False,  # in the document's examples, not in its schema
    }
    if instance.name:
        row["name"] = instance.name
    if order.tags:
        row["tags"] = [{"key": key, "value": value} for key, value in order.tags]
    if instance.has_address:
        row["ip"] = instance.address
        row["private_ip"] = "10" + instance.address.removeprefix("127")
    if order.hostname or instance.has_address:
        row["hostname"] = order.hostname or instance.address
    if instance.first_healthy is not None:
        # Since 2026-10: when the first health check passed, which is when billing starts.
        row["first_healthy"] = iso(instance.first_healthy)
    return row


def _actions(instance: Instance) -> dict[str, object]:
    why = {"booting": "vm-has-not-launched"}.get(instance.status, "" if instance.alive else "vm-is-terminating")
    blocked = {"available": False, "reason_code": why, "reason_description": why.replace("-", " ")}
    free = {"available": True}
    actions: dict[str, object] = dict.fromkeys(
        ("migrate", "rebuild", "restart", "cold_reboot"), blocked if why else free
    )
    actions["terminate"] = free if instance.alive else blocked
    return actions
