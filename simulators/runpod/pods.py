"""One pod as the vendor knows it, and as the vendor spells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from simulators.clock import iso
from simulators.runpod.catalogue import DISK_USD_GB_MONTH, HOURS_A_MONTH, Kind

if TYPE_CHECKING:
    from simulators.faults import Hit
    from simulators.hosts import Host
    from simulators.runpod.container import Container

_MICRO = Decimal("0.000001")
ACTIONS = {
    "PROVISIONING": ["stop", "terminate"],
    "STARTING": ["stop", "terminate"],
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
    "TERMINATED": [],
}


@dataclass(frozen=True, slots=True)
class Order:
    """A create that was found valid. `argv` none = the image's own command; disk and volume in GB."""

    kind: Kind
    count: int
    cloud: str
    data_center: str | None
    name: str
    image: str
    argv: tuple[str, ...]
    args: str
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    disk: int
    volume: int
    volume_path: str
    ports: tuple[str, ...]
    env: dict[str, str]
    mounts: dict[str, Any]
    cuda: str

    @property
    def is_official(self) -> bool:
        """Whether it is an image of RunPod's own: with /start.sh."""
        return self.image.startswith("runpod/")

    def disk_price(self, *, running: bool) -> Decimal:
        """USD an hour for its disks; stopped, only the volume is left, at twice the price."""
        rate = DISK_USD_GB_MONTH / HOURS_A_MONTH
        return (rate * (self.disk + self.volume) if running else rate * 2 * self.volume).quantize(_MICRO)


@dataclass(slots=True)
class Line:
    """A line of a pod's log."""

    when: float
    source: str
    text: str
    number: int


@dataclass(slots=True)
class Pod:
    """What was created. Moments are epoch seconds of the vendor's clock; prices USD an hour."""

    id: str
    number: int
    order: Order
    name: str
    price: Decimal  # of the GPUs
    address: str
    machine: str
    key: str
    created: float
    listed_from: float
    found_from: float
    faults: dict[str, Hit] = field(default_factory=dict)
    status: str = "PROVISIONING"
    locked: bool = False
    started: float | None = None
    container_since: float | None = None
    mapped: bool = False  # may the address be told
    port: int | None = None  # where no real machine is
    old_port: tuple[int | None, float] = (None, 0.0)  # told until then
    restarts: int = 0
    host: Host | None = None
    container: Container | None = None
    lines: list[Line] = field(default_factory=list)
    said: int = 0  # lines ever

    @property
    def alive(self) -> bool:
        """Tell whether it has not been ended."""
        return self.status != "TERMINATED"

    @property
    def cost(self) -> Decimal:
        """What `cost` tells: 0 when it is stopped."""
        if self.status in {"EXITED", "TERMINATED"}:
            return Decimal(0)
        return self.price + (self.order.disk_price(running=True) if "cost_with_disk" in self.faults else 0)

    def public_port(self, now: float) -> int | None:
        """Give the public port of 22/tcp as it is told."""
        if not self.mapped or self.status != "RUNNING" or "22/tcp" not in self.order.ports:
            return None
        old, until = self.old_port
        if old is not None and now < until:
            return old
        return self.port if self.container is None else self.container.port


def spell(pod: Pod, now: float, user: str) -> dict[str, object]:
    """Spell a pod as the vendor does."""
    order, port = pod.order, pod.public_port(now)
    running = pod.status == "RUNNING"
    row: dict[str, object] = {
        "id": pod.id,
        "name": pod.name,
        "image": order.image,
        "args": order.args,
        "disk": order.disk,
        "ports": list(order.ports),
        "env": order.env,
        "registry": None,
        "status": pod.status,
        "actions": ACTIONS[pod.status],
        "mounts": order.mounts,
        "gpu": {
            "id": order.kind.id,
            "count": order.count,
            "vcpuCount": float(order.kind.vcpus * order.count),
            "memory": float(order.kind.ram * order.count),
        },
        "cloud": order.cloud,
        "dataCenterId": order.data_center,
        "cudaVersion": order.cuda,
        "ssh": {"proxy": _proxy(pod), "direct": _direct(pod.address, port, user)},
        "template": None,
        "cost": float(round(pod.cost, 6)),
        "locked": pod.locked,
        "globalNetworking": {"enabled": False},
        "runtime": _runtime(pod, port, now) if running else None,
        "createdAt": stamp(pod.created),
        "startedAt": None if pod.started is None else stamp(pod.started),
    }
    if order.entrypoint or order.cmd:
        row |= {"entrypoint": list(order.entrypoint), "cmd": list(order.cmd)}
    return row


def stamp(moment: float) -> str:
    """Spell a moment in whole seconds."""
    return f"{iso(moment)[:19]}Z"


def _proxy(pod: Pod) -> dict[str, object]:
    user = f"{pod.id}-{pod.machine}"
    return {"host": "ssh.runpod.io", "port": 22, "username": user, "command": f"ssh {user}@ssh.runpod.io"}


def _direct(address: str, port: int | None, user: str) -> dict[str, object] | None:
    if port is None:
        return None
    return {"host": address, "port": port, "username": user, "command": f"ssh {user}@{address} -p {port}"}


def _runtime(pod: Pod, port: int | None, now: float) -> dict[str, object]:
    busy = {"util": 0}
    ports = [] if port is None else [{"private": 22, "public": port, "type": "tcp", "ip": pod.address}]
    return {
        "uptime": 0 if pod.container_since is None else int(now - pod.container_since),
        "gpus": [{"util": 0, "memoryUtil": 0} for _ in range(pod.order.count)],
        "cpu": busy,
        "memory": busy,
        "ports": ports,
    }


def plainly(pod: Pod, now: float) -> dict[str, object]:
    """Tell of a pod what the control shows."""
    return {
        "id": pod.id,
        "name": pod.name,
        "type": pod.order.kind.id,
        "region": pod.order.data_center or "COMMUNITY",
        "status": pod.status,
        "address": pod.address,
        "port": pod.public_port(now),
        "restarts": pod.restarts,
        "created": iso(pod.created),
        "faults": sorted(pod.faults),
        "host": pod.host is not None,
        "passed_bytes": 0 if pod.host is None else pod.host.passed_bytes(),
    }
