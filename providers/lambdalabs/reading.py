"""What Lambda tells, as plain facts: offers, instances, keys, images. Unknown keys and words are tolerated, nulls too.

An instance's `jupyter_token` and `jupyter_url` open the machine: they are not even read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from providers.base import Allocation, Mark, Offer
from providers.errors import ProviderError
from providers.http import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

CONSOLE = "https://cloud.lambda.ai/instances"
TAG = "gpurun:mark"

# Ids were 32 hex digits (2026-11). A later kind may look otherwise; what could leave its place in a URL never can.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")  # a type's or a region's

# The middle of a type's name -> our name for the GPU, and its memory in MiB as nvidia-smi prints it (2026-11).
_GPUS = {
    "a10": ("a10", 23028),
    "rtx6000": ("quadro-rtx-6000", 24576),
    "a6000": ("rtx-a6000", 49140),
    "a100": ("a100-40gb", 40960),
    "a100_pcie": ("a100-40gb", 40960),
    "a100_sxm4": ("a100-40gb", 40960),
    "a100_80gb_sxm4": ("a100-80gb-sxm", 81920),
    "h100_pcie": ("h100-pcie", 81559),
    "h100_sxm5": ("h100-sxm", 81559),
    "gh200": ("gh200", 97871),
    "b200_sxm6": ("b200", 183359),
    "v100": ("v100-16gb", 16384),
    "v100_n": ("v100-16gb", 16384),
}
_FAR_OFF = 0.25  # lists differ on which A100 a type has: where the vendor's own words are this far off, they count
_MOST = 10**7


@dataclass(frozen=True, slots=True)
class Instance:
    """One machine as Lambda lists it."""

    id: str
    name: str  # as it stands there: to compare, not to print
    status: str
    ip: str  # "" = none yet
    tag: str
    key_names: tuple[str, ...]
    price: Decimal | None
    billed_from: datetime | None

    @property
    def marks(self) -> list[Mark]:
        """Every mark on it: its name first, which `extend` moves, then what it was launched with."""
        return [mark for mark in map(Mark.parse, (self.name, self.tag, *self.key_names)) if mark]

    @property
    def mark(self) -> Mark | None:
        """Whose it is, as of now."""
        return next(iter(self.marks), None)

    @property
    def birth_mark(self) -> Mark | None:
        """The mark of its launch, which names the job's folder on it; a tag can't be changed."""
        return next((mark for mark in map(Mark.parse, (self.tag, *self.key_names, self.name)) if mark), None)

    @property
    def gone(self) -> bool:
        """Lambda's own word that it ended."""
        return self.status == "terminated"

    def allocation(self) -> Allocation:
        """Show it as what bills, or no longer does."""
        return Allocation(
            self.id,
            self.mark,
            printable(self.name, 80),
            billing=not self.gone,
            price=self.price,
            since=self.billed_from,
            console_url=CONSOLE,
            ending=self.status == "terminating",
        )


@dataclass(frozen=True, slots=True)
class Key:
    """A registered public key."""

    id: str
    name: str
    public: str  # type and body, without the comment


@dataclass(frozen=True, slots=True)
class Image:
    """A machine image in one region."""

    family: str
    architecture: str
    region: str


def is_id(text: str) -> bool:
    """Whether Lambda can have given such an id, and a URL can carry it."""
    return _ID.fullmatch(text) is not None


def same_attempt(one: Mark | None, other: Mark) -> bool:
    """Whether two marks are of one attempt: its ceiling may have been moved."""
    return one is not None and _attempt(one) == _attempt(other)


def _attempt(mark: Mark) -> tuple[str, str, int, int | None]:
    return mark.home, mark.run_id, mark.attempt, mark.node


def instance(row: Any) -> Instance:
    """Read an instance.

    Raises:
        ProviderError: it has no usable id: something that may bill can't be passed over in silence.
    """
    fields = _mapping(row)
    name = _text(fields, "id")
    if not is_id(name):
        raise ProviderError("Lambda lists an instance without an id that can be used", hint=f"look at {CONSOLE}")
    tags = [_mapping(tag) for tag in _sequence(fields, "tags")]
    return Instance(
        id=name,
        name=_text(fields, "name"),
        status=_text(fields, "status"),
        ip=_address(_text(fields, "ip")),
        tag=next((_text(tag, "value") for tag in tags if _text(tag, "key") == TAG), ""),
        key_names=tuple(key for key in _sequence(fields, "ssh_key_names") if isinstance(key, str)),
        price=_price(_mapping(fields.get("instance_type"))),
        billed_from=_time(_text(fields, "first_healthy")),  # in the API since 2026-09: when billing began
    )


def key(row: Any) -> Key:
    """Read a registered key; one without a usable id has the id ""."""
    fields = _mapping(row)
    name = _text(fields, "id")
    return Key(name if is_id(name) else "", _text(fields, "name"), body_of(_text(fields, "public_key")))


def body_of(public: str) -> str:
    """Keep type and body of a public key: a comment is no part of it."""
    return " ".join(public.split()[:2])


def image(row: Any) -> Image:
    """Read an image's row."""
    fields = _mapping(row)
    return Image(_text(fields, "family"), _text(fields, "architecture"), _text(_mapping(fields.get("region")), "name"))


def offers(data: Any, seen_at: datetime) -> Iterator[Offer]:
    """Read `/instance-types`: one offer a type and region with room; a sold-out type once, unavailable.

    Raises:
        ProviderError: it is no catalogue.
    """
    if not isinstance(data, Mapping):
        raise ProviderError("Lambda's catalogue of instance types can't be read", hint="gpurun doctor")
    for entry in data.values():
        kind = _mapping(_mapping(entry).get("instance_type"))
        name, price = _text(kind, "name"), _price(kind)
        if not _NAME.fullmatch(name) or price is None:
            continue  # without a name or a price nothing can be planned
        listed = (_text(_mapping(row), "name") for row in _sequence(_mapping(entry), "regions_with_capacity_available"))
        regions = sorted({region for region in listed if _NAME.fullmatch(region)})
        for region in regions or [""]:
            yield _offer(kind, name, price, region, seen_at)


def _offer(kind: Mapping[str, Any], name: str, price: Decimal, region: str, seen_at: datetime) -> Offer:
    specs = _mapping(kind.get("specs"))
    spelt = re.fullmatch(r"(gpu|cpu)_(\d+)x_(.+)", name)
    count = _number(specs, "gpus")
    if count is None:
        count = int(spelt[2]) if spelt and spelt[1] == "gpu" else 0
    gpu, vram = _gpu(spelt[3] if spelt else name, _text(kind, "gpu_description")) if count else ("", 0.0)
    return Offer(
        "lambda",
        f"{name}@{region}" if region else name,
        gpu,
        count,
        price,
        vram_gib=vram,
        vcpus=_number(specs, "vcpus") or 0,
        memory_gib=float(_number(specs, "memory_gib") or 0),
        disk_gib=float(_number(specs, "storage_gib") or 0),
        region=region,
        available=bool(region),
        seen_at=seen_at,
        source="live, arm64 host" if is_arm(name, _text(kind, "architecture")) else "live",
    )


def is_arm(type_name: str, architecture: str = "") -> bool:
    """Whether a type's host is arm64, which takes other wheels: told since 2026-09, known of Grace before."""
    return architecture == "arm64" if architecture else re.search(r"_g[hb]\d", type_name) is not None


def _gpu(middle: str, description: str) -> tuple[str, float]:
    """Name a type's GPU and its memory in GiB."""
    told = re.search(r"\((\d{1,4}) GB", description)
    gib = float(told[1]) if told else 0.0
    name, mib = _GPUS.get(middle, ("", 0))
    if name and (not gib or abs(gib * 1024 - mib) <= _FAR_OFF * mib):
        return name, round(mib / 1024, 1)
    short = name.partition("-")[0] if name else middle.replace("_", "-")
    return f"{short}-{gib:.0f}gb" if name else short, gib


def _price(kind: Mapping[str, Any]) -> Decimal | None:
    cents = _number(kind, "price_cents_per_hour")
    return Decimal(cents) / 100 if cents else None


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST
    return int(value) if usable and value is not None and value == int(value) else None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    return value if isinstance(value, list) else []


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
