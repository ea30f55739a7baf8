"""How a vendor misbehaves: one table of faults, and those that are armed now.

    {"launch_capacity": 2, "list_lag": {"seconds": 40}, "sshd_never": true}       a number = times
    ["reply_lost", "disk_full"]                                                  each as its row says

Everywhere: `times` = how often it strikes (null = always), `skip` = how many chances it lets pass first. Faults of an
instance strike the next one that is launched, or with `"instance": "<id>"` (or `"*"`) those that are there.
Seconds are the vendor's own.
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Value = str | int | float | bool | None

_EVERYWHERE: dict[str, Value] = {"times": 1, "skip": 0}
_LAUNCH: dict[str, Value] = {"type": None, "region": None}
_INSTANCE: dict[str, Value] = {**_LAUNCH, "instance": None}


class FaultError(ValueError):
    """What was asked for is no fault, or no option of it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table: its options with their defaults, and what happens. `dice` = `--seed` may draw it."""

    name: str
    story: str
    options: Mapping[str, Value] = field(default_factory=dict)
    on_instance: bool = False
    dice: bool = True


def _on_request(name: str, story: str, *, dice: bool = True, **options: Value) -> Fault:
    return Fault(name, story, {**_EVERYWHERE, "of": None, **options}, dice=dice)


def _on_launch(name: str, story: str, *, dice: bool = True, **options: Value) -> Fault:
    return Fault(name, story, {**_EVERYWHERE, **_LAUNCH, **options}, dice=dice)


def _on_reply(name: str, story: str) -> Fault:
    return Fault(name, story, {**_EVERYWHERE, "of": "launch", "hidden_seconds": 20})


def _on_instance(name: str, story: str, *, dice: bool = True, **options: Value) -> Fault:
    return Fault(name, story, {**_EVERYWHERE, **_INSTANCE, **options}, on_instance=True, dice=dice)


# `of` names an operation, see OPERATIONS.
_ROWS = (
    # before the deed: nothing was made
    _on_launch("launch_capacity", "listed, yet refused: insufficient-capacity"),
    _on_launch("quota", "400 global/quota-exceeded", dice=False),
    _on_launch("billing_address", "403 global/invalid-address", dice=False),
    _on_launch("launch_400", "an unknown type, region, key or image is answered with 400 instead of 404", times=None),
    _on_request("account_inactive", "403 global/account-inactive on everything", times=None, dice=False),
    _on_request("key_rejected", "401 with the right key"),
    _on_request("rate_limited", "a bare 429 without Retry-After", times=3, body=""),
    _on_request("server_error", "500 global/internal-error", times=2),
    _on_request("unavailable", "503 provider/internal-unavailable", times=2),
    _on_request("bad_gateway", "502 with a page of HTML", times=2),
    _on_request("cloudflare", "403 with Cloudflare's page", dice=False),
    _on_request("redirect", "301 to another host: the key must not follow", dice=False),
    _on_request("slow_reply", "the answer takes so long", seconds=30),
    _on_request("clock_skew", "the Date header is ahead by so much", times=None, seconds=120),
    Fault(
        "api_down",
        "nobody answers (how: refused, or 503) for so long, `delay` after: now, launch, active, terminate",
        {**_EVERYWHERE, "seconds": 60, "how": "refused", "when": "now", "delay": 0},
    ),
    # after the deed: it is done, and the caller is not told; a launch stays hidden for a while
    _on_reply("reply_lost", "done, then the connection is closed without an answer"),
    _on_reply("reply_502", "done, then 502 with a page of HTML"),
    _on_reply("reply_429", "done, then a bare 429"),
    _on_reply("reply_empty", "done, then 200 with no id in it"),
    _on_reply("reply_garbled", "done, then 200 with a body that is no JSON"),
    # what lists and looks tell
    _on_instance("list_lag", "not listed for so long (get: GET by id says 404 as well)", seconds=30, get=False),
    _on_request("list_flicker", "the list is empty though something bills", times=2),
    _on_request("get_flicker", "GET by id says 404 though it bills"),
    _on_request(
        "second_page", "pages of `size`, unasked; the first is empty when all would fit on it", times=None, size=1
    ),
    _on_request("terminated_listed", "what is terminated stays on the list until it is gone", times=None),
    _on_request("fields_missing", "optional fields are left out", times=None, fields="name,hostname,private_ip"),
    _on_request(
        "unknown_status", "a status that the vendor made up later, in place of active", times=3, word="resizing"
    ),
    # the life of an instance
    _on_instance("slow_boot", "active only so long after the launch", seconds=857),
    _on_instance("unhealthy", "never active, no sshd; with `after`: unhealthy so long after active", after=None),
    _on_instance("preempted", "preempted so long after active; bills until it is terminated", after=60),
    _on_instance("vanish", "gone so long after active, without a word", after=60),
    _on_instance("ip_late", "no address until so long after active", seconds=120),
    _on_instance("ip_never", "active, and never an address"),
    _on_instance("sshd_late", "sshd comes up so long after active", seconds=60),
    _on_instance("sshd_never", "active, and sshd never answers"),
    _on_instance("wrong_host_key", "shows another host key than the one in user_data"),
    _on_instance("price_dearer", "billed at `factor` times the price on offer", factor=1.5, dice=False),
    _on_instance("cuda_broken", "CUDA error 802 while nvidia-smi is happy"),
    _on_instance("driver_old", "a driver too old for the stack"),
    _on_instance("disk_full", "no byte left on the disk, so long after active", after=0),
    _on_instance(
        "link_cut",
        "every connection is reset, so long after active (and `bytes` more), `count` times",
        after=20,
        count=1,
        every=20,
        bytes=None,
    ),
    _on_instance("link_blackhole", "packets go nowhere for so long", after=20, seconds=30, bytes=None),
    _on_instance(
        "link_freeze", "the peer stays connected and says nothing for so long", after=20, seconds=30, bytes=None
    ),
    # the end
    _on_request(
        "terminate_ignored", "accepted, and not carried out; `shows` what is listed then", times=2, shows="active"
    ),
    _on_request("terminate_unknown", "global/unknown, and nothing done", status=400),
    _on_instance("terminating_lingers", "terminating for so long", seconds=600),
    _on_request(
        "terminate_again", "a second terminate is answered with (how:) 404 or unknown", times=None, how="unknown"
    ),
)
TABLE: Mapping[str, Fault] = MappingProxyType({row.name: row for row in _ROWS})


# What an operation is called: as in `GET <control>/requests`.
OPERATIONS = (
    *("launch", "terminate", "restart", "list", "get", "rename", "types", "regions", "images"),
    *("keys", "add_key", "drop_key", "filesystems", "firewall_rules", "firewall_rulesets", "firewall_global"),
)
_WORDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("*", "of"): OPERATIONS,
    ("api_down", "how"): ("refused", "503"),
    ("api_down", "when"): ("now", "launch", "active", "terminate"),
    ("terminate_again", "how"): ("404", "unknown"),
}


_SPANS = {"seconds", "hidden_seconds", "after", "every", "delay"}


@dataclass(slots=True)
class Hit:
    """A fault that strikes, with its options."""

    name: str
    options: dict[str, Value]

    def number(self, option: str) -> float:
        """Give an option that is a number; none counts as zero."""
        value = self.options[option]
        return 0.0 if value is None else float(value)

    def text(self, option: str) -> str:
        """Give an option as words."""
        return str(self.options[option])

    def given(self, option: str) -> bool:
        """Tell whether an option has a value."""
        return self.options[option] is not None

    def hurried(self, pace: float) -> Hit:
        """Give the same with every span of time so much shorter."""
        if self.name == "clock_skew":  # no span: a reading
            return self
        spans = {name: value for name, value in self.options.items() if name in _SPANS and value is not None}
        return Hit(self.name, self.options | {name: float(value) / pace for name, value in spans.items()})


class Faults:
    """What is armed. Its owner holds the world's lock."""

    def __init__(self) -> None:
        self._armed: list[Hit] = []
        self.struck: list[str] = []

    def arm(self, hits: Iterable[Hit]) -> None:
        """Arm faults; arming one again replaces it, `times: 0` disarms it."""
        for hit in hits:
            self._armed = [other for other in self._armed if other.name != hit.name]
            if hit.options["times"] != 0:
                self._armed.append(hit)

    def take(self, name: str, **facts: str) -> Hit | None:
        """Let a fault strike if it is armed and meant for this; counts it."""
        for hit in self._armed:
            if hit.name == name and _meant(hit, facts) and self._due(hit):
                self.struck.append(name)
                return hit
        return None

    def take_for_instance(self, **facts: str) -> dict[str, Hit]:
        """Draw every fault that the next instance gets."""
        drawn = (self.take(row.name, **facts) for row in _ROWS if row.on_instance)
        return {hit.name: hit for hit in drawn if hit is not None}

    def clear(self) -> None:
        """Disarm everything; what an instance already has stays with it."""
        self._armed.clear()

    def armed(self) -> dict[str, dict[str, Value]]:
        """Show what is still armed."""
        return {hit.name: dict(hit.options) for hit in self._armed}

    def _due(self, hit: Hit) -> bool:
        skip, times = hit.options["skip"], hit.options["times"]
        if isinstance(skip, int) and skip > 0:
            hit.options["skip"] = skip - 1
            return False
        if isinstance(times, int):
            hit.options["times"] = times - 1
            if times <= 1:
                self._armed.remove(hit)
        return True


def _meant(hit: Hit, facts: Mapping[str, str]) -> bool:
    filters = {name: hit.options.get(name) for name in ("of", "type", "region", "when")}
    return all(want is None or facts.get(name) == want for name, want in filters.items())


def parse(wish: object) -> list[Hit]:
    """Read faults from JSON.

    Raises:
        FaultError: an unknown name or option, with the nearest known one.
    """
    if isinstance(wish, list) and all(isinstance(name, str) for name in wish):
        wish = dict.fromkeys(wish, True)
    if not isinstance(wish, dict):
        raise FaultError('faults are a list of names, or an object such as {"launch_capacity": 2}')
    return [_hit(name, value) for name, value in wish.items()]


def _hit(name: str, value: object) -> Hit:
    row = TABLE.get(name)
    if row is None:
        raise FaultError(f"no fault is called {name!r}{_nearest(name, TABLE)}")
    options = dict(row.options)
    if value is None or value is False:
        options["times"] = 0
    elif isinstance(value, int) and value is not True:
        options["times"] = _checked(name, "times", value)
    elif isinstance(value, dict):
        for option, given in value.items():
            if option not in options:
                raise FaultError(f"{name} has no option {option!r}{_nearest(option, options)}")
            options[option] = _checked(name, option, given)
    elif value is not True:
        raise FaultError(f"{name} takes a number of times, true, or an object of options")
    return Hit(name, options)


def _checked(name: str, option: str, value: object) -> Value:
    """Take an option's value if it is of the kind of its default."""
    usual = TABLE[name].options[option]
    words = _WORDS.get((name, option)) or _WORDS.get(("*", option))
    if words and value is not None and value not in words:
        raise FaultError(f"{name}: {option} is one of {', '.join(words)}, not {value!r}")
    if value is None and (usual is None or option == "times"):
        return None
    if isinstance(usual, str) or option in _LAUNCH or option in {"of", "instance"}:
        if not isinstance(value, str):
            raise FaultError(f"{name}: {option} is a word, not {value!r}")
        return value
    if not isinstance(value, int | float) or value < 0 or (isinstance(value, bool) and usual is not False):
        raise FaultError(f"{name}: {option} is a number of 0 or more, not {value!r}")
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def drawn(seed: int) -> list[Hit]:
    """Draw one to three faults: the same seed draws the same ones."""
    dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
    rows = dice.sample([row for row in _ROWS if row.dice], dice.randint(1, 3))
    return [Hit(row.name, dict(row.options)) for row in rows]


def listing() -> str:
    """Spell the table for a person."""
    lines = []
    for row in _ROWS:
        options = ", ".join(
            f"{name}={value!r}" for name, value in row.options.items() if value != _EVERYWHERE.get(name)
        )
        lines.append(f"{row.name:20} {row.story}\n{'':20}   {options or 'once'}")
    return "\n".join(lines)
