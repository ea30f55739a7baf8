"""The table of bench/faults_http.py: what goes wrong, and what a user may expect of it. Judged nowhere here.

Seconds of a fault are the vendor's: divided by the pace like all that it takes time for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PACE = 40.0
HURRY = 120.0  # where the boot limit itself is waited for: 10 s

Wish = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Case:
    """One launch: the faults, and how it must end. `machines` = how many may ever be rented."""

    name: str
    faults: Wish
    reason: str = "completed"
    exit: int = 0
    machines: int = 1
    words: str = ""  # in the run's own account of its failed attempts
    running: Wish | None = None  # armed once the training has done some steps
    steps: int = 8
    pace: float = PACE
    linger: float = 15.0  # that what was ended is still shown
    provider: str = "lambda"
    gpu: str = "a10"


def of(operation: str, times: int | None = 1, **more: object) -> dict[str, object]:
    """Strike one operation."""
    return {"of": operation, "times": times, **more}


def here(**more: object) -> dict[str, object]:
    """Strike what is rented already."""
    return {"instance": "*", **more}


def ours(seconds: float) -> float:
    """Turn seconds of ours into the vendor's."""
    return seconds * PACE


_ALWAYS: dict[str, object] = {"times": None}
_NOTHING_RENTED = {
    "quota": ({"quota": True}, "no_capacity"),
    "billing_address": ({"billing_address": True}, "no_capacity"),
    "account_inactive": ({"account_inactive": True}, "credentials"),
    "launch_capacity always": ({"launch_capacity": _ALWAYS}, "no_capacity"),
    "key_rejected at once": ({"key_rejected": True}, "credentials"),
    "key_rejected at launch": ({"key_rejected": of("launch")}, "credentials"),
    "cloudflare at once": ({"cloudflare": True}, "provider"),
    "redirect at once": ({"redirect": True}, "provider"),
    "api_down at once": ({"api_down": {"seconds": ours(20)}}, "provider"),
    "api_down 503 at once": ({"api_down": {"seconds": ours(20), "how": "503"}}, "provider"),
}
_ONE_MACHINE: dict[str, Wish] = {
    "none": {},
    "launch_capacity": {"launch_capacity": True},
    "launch_400": {"launch_400": True},
    # nothing was made, and that is unclear: looked for, then launched again
    "rate_limited at launch": {"rate_limited": of("launch")},
    "server_error at launch": {"server_error": of("launch")},
    "unavailable at launch": {"unavailable": of("launch")},
    "bad_gateway at launch": {"bad_gateway": of("launch")},
    "cloudflare at launch": {"cloudflare": of("launch")},
    "redirect at launch": {"redirect": of("launch")},
    # safe verbs are asked again
    "rate_limited": {"rate_limited": True},
    "server_error": {"server_error": True},
    "unavailable": {"unavailable": True},
    "bad_gateway": {"bad_gateway": True},
    "slow_reply": {"slow_reply": of("types", seconds=ours(7))},
    "slow_reply at launch": {"slow_reply": of("launch", seconds=ours(7))},
    "clock_skew": {"clock_skew": True},
    "api_down after launch": {"api_down": {"when": "launch", "seconds": ours(4)}},
    "api_down 503 after launch": {"api_down": {"when": "launch", "seconds": ours(4), "how": "503"}},
    "api_down at active": {"api_down": {"when": "active", "seconds": ours(6)}},
    "api_down 503 at active": {"api_down": {"when": "active", "seconds": ours(6), "how": "503"}},
    "api_down at terminate": {"api_down": {"when": "terminate", "seconds": ours(4)}},
    "api_down 503 at terminate": {"api_down": {"when": "terminate", "seconds": ours(4), "how": "503"}},
    # rented, and not told: found by its mark, never rented twice
    "reply_lost": {"reply_lost": True},
    "reply_502": {"reply_502": True},
    "reply_429": {"reply_429": True},
    "reply_empty": {"reply_empty": True},
    "reply_garbled": {"reply_garbled": True},
    "reply_lost of the key": {"reply_lost": of("add_key")},
    "reply_lost + list_lag": {"reply_lost": True, "list_lag": {"seconds": 45, "get": True}},
    "reply_lost + list_flicker": {"list_flicker": True, "reply_lost": {"hidden_seconds": 0}},
    "reply_lost + second_page": {"second_page": True, "reply_lost": True},
    "reply_lost + fields_missing": {"fields_missing": {"fields": "name,tags,hostname"}, "reply_lost": True},
    "reply_lost at terminate": {"reply_lost": of("terminate")},
    "reply_502 at terminate": {"reply_502": of("terminate"), "terminate_again": {"how": "404"}},
    # what lists and looks tell
    "list_lag": {"list_lag": {"get": True}},
    "fields_missing": {"fields_missing": {"fields": "name,hostname,private_ip,tags,first_healthy,jupyter_token"}},
    "unknown_status": {"unknown_status": {"times": 8}},
    # the life of a machine
    "slow_boot": {"slow_boot": True},
    "ip_late": {"ip_late": True},
    "sshd_late": {"sshd_late": True},
    # the end
    "terminate_ignored": {"terminate_ignored": True},
    "terminate_ignored, shown": {"terminate_ignored": {"times": 1, "shows": "terminating"}},
    "terminate_unknown": {"terminate_unknown": {"times": 3}},
    "terminate_unknown 404": {"terminate_unknown": {"times": 2, "status": 404}},
    "key_rejected at terminate": {"key_rejected": of("terminate", 2)},
    "rate_limited at terminate": {"rate_limited": of("terminate", 6)},
    "server_error at terminate": {"server_error": of("terminate", 6)},
}
_WHILE_RUNNING: dict[str, Wish] = {
    "key_rejected while running": {"key_rejected": {"times": 12}},
    "rate_limited while running": {"rate_limited": {"times": 12}},
    "server_error while running": {"server_error": {"times": 12}},
    "cloudflare while running": {"cloudflare": {"times": 6}},
    "redirect while running": {"redirect": {"times": 6}},
    "get_flicker while running": {"get_flicker": {"times": 2}},
    "unknown_status while running": {"unknown_status": {"times": 10}},
    "unhealthy while running": {"unhealthy": here(after=0)},  # it still answers: what it does is brought home
    "api_down while running": {"api_down": {"seconds": ours(6)}},
    "link_cut": {"link_cut": here(after=0, count=6, every=ours(0.4))},
    "link_blackhole": {"link_blackhole": here(after=0, seconds=ours(6))},
    "link_freeze": {"link_freeze": here(after=0, seconds=ours(6))},
}
# name -> faults, words: one such machine costs an attempt, two cost the run
_SECOND_MACHINE: dict[str, tuple[Wish, str]] = {
    "unhealthy": ({"unhealthy": True}, "unhealthy"),
    "wrong_host_key": ({"wrong_host_key": True}, "host key"),
    "cuda_broken": ({"cuda_broken": True}, "CUDA error 802"),
    "driver_old": ({"driver_old": True}, "driver"),
}
_LOST_WHILE_RUNNING: dict[str, tuple[Wish, str]] = {
    "preempted": ({"preempted": here(after=0)}, "preempted"),
    "vanish": ({"vanish": here(after=0)}, "vanished"),
}


def cases() -> list[Case]:
    """Give the whole table, the long ones first."""
    long = {"pace": HURRY, "machines": 2}
    table = [
        Case("sshd_never always", {"sshd_never": _ALWAYS}, "provider", 3, **long),
        Case("ip_never always", {"ip_never": _ALWAYS}, "provider", 3, **long),
        Case("sshd_never", {"sshd_never": True}, **long),
        Case("ip_never", {"ip_never": True}, **long),
        Case("terminating_lingers", {"terminating_lingers": True}, pace=HURRY),
        Case("disk_full", {"disk_full": True}, machines=2, words="No space left"),
        Case("disk_full always", {"disk_full": _ALWAYS}, "provider", 3, machines=2, words="No space left"),
        Case(
            "disk_full while running", {"disk_full": {"after": ours(7)}}, "failed", 1, steps=200, words="No space left"
        ),
        Case("vanish always", {"vanish": {"times": None, "after": 0}}, "lost", 1, machines=2, words="gone"),
        Case("price_dearer", {"price_dearer": True}, "provider", 3, words="agreed to"),
        # the first one's end is still listed while the second launch is looked for by its mark
        Case(
            "terminated_listed",
            {"terminated_listed": True, "unhealthy": True, "reply_lost": {"skip": 1}},
            machines=2,
            linger=120.0,
        ),
        Case("link_cut at start", {"link_cut": {"after": 0, "count": 8, "every": ours(0.3)}}),
        Case("link_cut by bytes", {"link_cut": {"after": 0, "bytes": 20000, "count": 6}}),
        Case("link_blackhole at start", {"link_blackhole": {"after": 0, "seconds": ours(5)}}),
        Case("link_freeze at start", {"link_freeze": {"after": 0, "seconds": ours(5)}}),
    ]
    for name, (faults, words) in _SECOND_MACHINE.items():
        always = dict.fromkeys(faults, _ALWAYS)
        reason, code = ("provider", 3) if name in {"unhealthy", "wrong_host_key"} else ("lost", 1)
        table.append(Case(name, faults, machines=2, words=words))
        table.append(Case(f"{name} always", always, reason, code, machines=2, words=words))
    for name, (faults, words) in _LOST_WHILE_RUNNING.items():
        table.append(Case(name, {}, machines=2, words=words, running=faults, steps=40))
    table += [Case(name, {}, running=faults, steps=40) for name, faults in _WHILE_RUNNING.items()]
    table += [Case(name, faults) for name, faults in _ONE_MACHINE.items()]
    table += [Case(name, faults, reason, 3, machines=0) for name, (faults, reason) in _NOTHING_RENTED.items()]
    return table
