"""What RunPod tells, as plain facts: offers, pods. Unknown keys and words are tolerated, nulls and absences too.

An offer's name says what to order: `[2x ]NVIDIA GeForce RTX 3090[@EU-RO-1|@community]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from providers.base import Allocation, Mark, Offer
from providers.errors import ProviderError
from providers.http import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

CONSOLE = "https://console.runpod.io/pods"
MARK_VARIABLE = "GPURUN_ALLOCATION"  # not GPURUN_MARK: every process of the pod has it, and not all are the job's
PRICE_VARIABLE = "GPURUN_GPU_PRICE"  # USD an hour of its GPUs as ordered: tells whether `cost` has the disk in it
COMMUNITY = "community"
DISK_USD_GB_HOUR = Decimal("0.10") / 730  # container disk while it runs: docs.runpod.io/pods/pricing (2026-08)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # were 10 to 14 lower-case letters and digits (2026-11)
_GPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
_PLACE = re.compile(r"[A-Z0-9-]{2,32}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_NAME = re.compile(r"(?:(?P<count>\d+)x )?(?P<gpu>[^@]+)(?:@(?P<place>.+))?")
_MOST_PLACES = 4  # data centers of one type that are offered by name
_LEAST_USD = Decimal("0.000001")
_LEVELS = ("HIGH", "MEDIUM", "LOW")

# RunPod's id of a GPU -> our name, and its memory in MiB as nvidia-smi prints it (orchestrator/estimate/data/gpus.csv).
_GPUS = {
    "NVIDIA L4": ("l4", 23034),
    "NVIDIA A40": ("a40", 46068),
    "NVIDIA L40": ("l40", 46068),
    "NVIDIA L40S": ("l40s", 46068),
    "NVIDIA A100-SXM4-40GB": ("a100-40gb", 40960),
    "NVIDIA A100 80GB PCIe": ("a100-80gb-pcie", 81920),
    "NVIDIA A100-SXM4-80GB": ("a100-80gb-sxm", 81920),
    "NVIDIA H100 PCIe": ("h100-pcie", 81559),
    "NVIDIA H100 80GB HBM3": ("h100-sxm", 81559),
    "NVIDIA H100 NVL": ("h100-nvl", 95830),
    "NVIDIA H200": ("h200-sxm", 143771),
    "NVIDIA H200 NVL": ("h200-nvl", 143771),
    "NVIDIA B200": ("b200", 183359),
    "NVIDIA B300 SXM6 AC": ("b300", 275040),
    "NVIDIA RTX A4000": ("rtx-a4000", 16376),
    "NVIDIA RTX A4500": ("rtx-a4500", 20470),
    "NVIDIA RTX A5000": ("rtx-a5000", 24564),
    "NVIDIA RTX A6000": ("rtx-a6000", 49140),
    "NVIDIA RTX 2000 Ada Generation": ("rtx-2000-ada", 16380),
    "NVIDIA RTX 4000 Ada Generation": ("rtx-4000-ada", 20475),
    "NVIDIA RTX 5000 Ada Generation": ("rtx-5000-ada", 32760),
    "NVIDIA RTX 6000 Ada Generation": ("rtx-6000-ada", 49140),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": ("rtx-pro-6000", 97887),
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": ("rtx-pro-6000-wk", 97887),
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": ("rtx-pro-6000-maxq", 97887),
    "NVIDIA GeForce RTX 3090": ("rtx-3090", 24576),
    "NVIDIA GeForce RTX 3090 Ti": ("rtx-3090-ti", 24564),
    "NVIDIA GeForce RTX 4080": ("rtx-4080", 16376),
    "NVIDIA GeForce RTX 4080 SUPER": ("rtx-4080-super", 16376),
    "NVIDIA GeForce RTX 4090": ("rtx-4090", 24564),
    "NVIDIA GeForce RTX 5080": ("rtx-5080", 16303),
    "NVIDIA GeForce RTX 5090": ("rtx-5090", 32607),
    "Tesla V100-SXM2-16GB": ("v100-16gb", 16384),
    "Tesla V100-PCIE-16GB": ("v100-16gb", 16384),
    "Tesla V100-SXM2-32GB": ("v100-32gb", 32768),
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a pod's own sshd answers; the port changes with every restart."""

    host: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod as RunPod lists it."""

    id: str
    name: str  # as it stands there: to compare, not to print
    status: str
    mark: Mark | None
    price: Decimal | None  # USD an hour, its disk included
    created: datetime | None
    created_within: float  # seconds by which that may be later than it is told
    address: Address | None  # None = none yet, or not running
    uptime: float | None  # of the container, seconds
    has_volume: bool

    @property
    def gone(self) -> bool:
        """RunPod's own word that it ended."""
        return self.status == "TERMINATED"

    @property
    def billing(self) -> bool:
        """Whether it may bill; stopped, a volume bills double, and what is ours is to be ended all the same."""
        return not self.gone and (self.status != "EXITED" or self.has_volume or self.mark is not None)

    def allocation(self) -> Allocation:
        """Show it as what bills, or no longer does."""
        return Allocation(
            self.id,
            self.mark,
            printable(self.name, 80),
            billing=self.billing,
            price=self.price,
            since=self.created,
            console_url=CONSOLE,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an offer's name says."""

    gpu: str
    count: int
    cloud: str  # SECURE | COMMUNITY
    place: str  # a data center's id; "" = any


def is_id(text: str) -> bool:
    """Whether RunPod can have given such an id, and a URL can carry it."""
    return _ID.fullmatch(text) is not None


def same_attempt(one: Mark | None, other: Mark) -> bool:
    """Whether two marks are of one attempt."""
    if one is None:
        return False
    return (one.home, one.run_id, one.attempt, one.node) == (other.home, other.run_id, other.attempt, other.node)


# ── pods ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pod(row: Any) -> Pod:
    """Read a pod.

    Raises:
        ProviderError: it has no usable id: something that may bill can't be passed over in silence.
    """
    fields = _mapping(row)
    name = _text(fields, "id")
    if not is_id(name):
        raise ProviderError("RunPod lists a pod without an id that can be used", hint=f"look at {CONSOLE}")
    env, status = _mapping(fields.get("env")), _text(fields, "status")
    created = _text(fields, "createdAt")
    return Pod(
        id=name,
        name=_text(fields, "name"),
        status=status,
        mark=Mark.parse(_text(fields, "name")) or Mark.parse(_text(env, MARK_VARIABLE)),
        price=_cost(fields, env),
        created=_time(created),
        created_within=0.0 if "." in created else 1.0,
        address=_address(fields) if status == "RUNNING" else None,  # stopped ones show stale ports (runpodctl 315)
        uptime=_number(_mapping(fields.get("runtime")), "uptime"),
        has_volume=bool(_mapping(fields.get("mounts"))),
    )


def _cost(fields: Mapping[str, Any], env: Mapping[str, Any]) -> Decimal | None:
    """Read what it costs now; whether `cost` has the disk in it, nobody says: by what was agreed to it shows."""
    cost = _usd(fields, "cost")
    if not cost:
        return None
    try:
        agreed = Decimal(_text(env, PRICE_VARIABLE) or "NaN")
    except ArithmeticError:
        agreed = Decimal("NaN")
    disk = Decimal(int(_number(fields, "disk") or 0)) * DISK_USD_GB_HOUR
    with_disk = not agreed.is_finite() or disk / 2 <= cost - agreed <= 2 * disk  # rounded, or at another rate
    whole = cost if with_disk else cost + disk
    return whole.quantize(_LEAST_USD, ROUND_HALF_UP)  # dearer than agreed it is ended, with the disk or without


def _address(fields: Mapping[str, Any]) -> Address | None:
    """Read `ssh.direct`: `ssh.proxy` has neither commands nor files."""
    direct = _mapping(_mapping(fields.get("ssh")).get("direct"))
    host, user, port = _text(direct, "host"), _text(direct, "username"), _number(direct, "port")
    if not _HOST.fullmatch(host) or not _USER.fullmatch(user) or port is None or not 0 < port < 2**16:
        return None
    return Address(host, int(port), user)


# ── offers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def offers(data: Any, cloud: str, count: int, disk_gb: int, seen_at: datetime) -> Iterator[Offer]:
    """Read the catalogue for so many GPUs on one cloud: the type anywhere first, then by data center.

    Raises:
        ProviderError: it is no catalogue.
    """
    rows = _mapping(data).get("gpus")
    if not isinstance(rows, list):
        raise ProviderError("RunPod's catalogue of GPUs can't be read", hint="gpurun doctor")
    for row in rows:
        kind = _mapping(row)
        price = _usd(_mapping(kind.get("price")), cloud.lower())
        most = _number(_mapping(kind.get("maxCount")), cloud.lower())
        there = kind.get(cloud.lower()) is True  # a type that a cloud lacks may show a price of 0 there
        if not _GPU.fullmatch(_text(kind, "id")) or not price or not there or (most or 0) < count:
            continue
        if _text(kind, "manufacturer") != "AMD":
            yield from _of_kind(kind, price, cloud, count, disk_gb, seen_at)


def _of_kind(
    kind: Mapping[str, Any], price: Decimal, cloud: str, count: int, disk_gb: int, seen_at: datetime
) -> Iterator[Offer]:
    gpu_id = _text(kind, "id")
    gpu, mib = _GPUS.get(gpu_id, (_plain(_text(kind, "name") or gpu_id), int(1024 * (_number(kind, "memory") or 0))))
    what = f"{count}x {gpu_id}" if count > 1 else gpu_id
    places = [""] if cloud == "SECURE" else [COMMUNITY]
    if cloud == "SECURE":  # never for the other: a data center that is listed makes a create fail there (runpodctl 326)
        places += _places(kind)
    for place in places:
        yield Offer(
            "runpod",
            f"{what}@{place}" if place else what,
            gpu,
            count,
            (price * count + disk_gb * DISK_USD_GB_HOUR).quantize(_LEAST_USD, ROUND_HALF_UP),
            vram_gib=round(mib / 1024, 1),
            disk_gib=float(disk_gb),
            region=place if place != COMMUNITY else "",
            available=_text(kind, "availability") in _LEVELS,
            seen_at=seen_at,
            cloud=COMMUNITY if place == COMMUNITY else "",
        )


def _places(kind: Mapping[str, Any]) -> list[str]:
    """Name the data centers that have most of it."""
    rows = kind.get("dataCenters")
    listed = [(_text(one, "availability"), _text(one, "id")) for one in map(_mapping, rows or ())]
    usable = [(_LEVELS.index(level), name) for level, name in listed if level in _LEVELS and _PLACE.fullmatch(name)]
    return [name for _, name in sorted(usable)][:_MOST_PLACES]


def wanted(offer: Offer) -> Wanted | None:
    """Read an offer's name back; None = it is none of ours."""
    match = _NAME.fullmatch(offer.name)
    if match is None or not _GPU.fullmatch(match["gpu"]):
        return None
    place = match["place"] or ""
    if place == COMMUNITY:
        return Wanted(match["gpu"], int(match["count"] or 1), "COMMUNITY", "")
    if place and not _PLACE.fullmatch(place):
        return None
    return Wanted(match["gpu"], int(match["count"] or 1), "SECURE", place)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _plain(name: str) -> str:
    return "-".join(re.sub(r"[^a-z0-9]+", " ", name.lower()).split())


def usd(value: Any) -> Decimal | None:
    """Read an amount of USD; None = it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        return None
    return Decimal(str(value))


def amount(fields: Mapping[str, Any], name: str) -> Decimal:
    """Read an amount that must be there.

    Raises:
        ProviderError: it is not, or is none.
    """
    found = usd(fields.get(name))
    if found is None:
        raise ProviderError(f"RunPod's record of what it charged has no {name} that can be read", hint="gpurun doctor")
    return found


def _usd(fields: Mapping[str, Any], name: str) -> Decimal | None:
    found = usd(fields.get(name))
    return found if found is not None and found > 0 else None


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**9:
        return None
    return float(value)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def time_of(fields: Mapping[str, Any], name: str) -> datetime | None:
    """Read a time; None = it is none."""
    return _time(_text(fields, name))


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
