"""The table of `bench/faults_http.py --provider colab`: what goes wrong, and what a user may expect of it.

Seconds of a fault are the vendor's: divided by the pace like all that it takes time for.
"""

from __future__ import annotations

from dataclasses import replace

from fault_cases import Case, Wish, here, of, ours

_ALWAYS: dict[str, object] = {"times": None}
_NOTHING_GIVEN: dict[str, tuple[Wish, str]] = {
    "capacity": ({"capacity": True}, "no_capacity"),
    "too_many": ({"too_many": True}, "no_capacity"),
    "not_entitled": ({"not_entitled": True}, "no_capacity"),
    "outcome 1": ({"outcome": {"code": 1}}, "no_capacity"),
    "outcome 2": ({"outcome": {"code": 2}}, "no_capacity"),
    "outcome 5": ({"outcome": {"code": 5}}, "credentials"),
    "recaptcha": ({"recaptcha": True}, "credentials"),
    "token_refused": ({"token_refused": True}, "credentials"),
    "key_rejected always": ({"key_rejected": _ALWAYS}, "credentials"),
}
_ONE_VM: dict[str, Wish] = {
    "none": {},
    # nothing was given, and that is unclear: looked for, then ordered again
    "server_error at assign": {"server_error": of("assign")},
    "bad_gateway at assign": {"bad_gateway": of("assign")},
    "gateway_timeout at assign": {"gateway_timeout": of("assign")},
    "rate_limited at assign": {"rate_limited": of("assign")},
    # safe questions are asked again
    "key_rejected": {"key_rejected": True},
    "key_rejected at assign": {"key_rejected": of("assign")},
    "xsrf_rejected at assign": {"xsrf_rejected": of("assign")},
    "xsrf_rejected at unassign": {"xsrf_rejected": of("unassign")},
    "server_error": {"server_error": True},
    "bad_gateway": {"bad_gateway": True},
    "unavailable": {"unavailable": True},
    "gateway_timeout": {"gateway_timeout": True},
    "rate_limited": {"rate_limited": True},
    "slow_reply at assign": {"slow_reply": of("assign", seconds=ours(4))},
    "clock_skew": {"clock_skew": True},
    "no_prefix": {"no_prefix": True},
    "api_down after assign": {"api_down": {"when": "assign", "seconds": ours(4)}},
    "api_down 503 after assign": {"api_down": {"when": "assign", "seconds": ours(4), "how": "503"}},
    "api_down at unassign": {"api_down": {"when": "unassign", "seconds": ours(4)}},
    # given, and not told: found by its notebook, never given twice
    "assign_hangs": {"assign_hangs": True},
    "reply_lost": {"reply_lost": True},
    "reply_500": {"reply_500": True},
    "reply_504": {"reply_504": True},
    "reply_garbled": {"reply_garbled": True},
    "reply_lost + list_lag": {"reply_lost": True, "list_lag": {"seconds": 30}},
    # what lists tell
    "list_lag": {"list_lag": True},
    "list_flicker": {"list_flicker": True},
    "foreign": {"foreign": True},
    # the way in
    "token_ttl": {"token_ttl": True},
    "token_401": {"token_ttl": True, "token_401": True},
    "proxy_error": {"proxy_error": True},
    "contents_413": {"contents_413": {"bytes": 300_000}},
    "contents_slow": {"contents_slow": True},
    "keep_alive_silent": {"keep_alive_silent": True},
    "runtime_refuses": {"runtime_refuses": True},
    # the end
    "unassign_500": {"unassign_500": {"times": 9}},
    "unassign_ignored": {"unassign_ignored": {"times": 1}},
    "server_error at unassign": {"server_error": of("unassign", 6)},
    "lingers": {"lingers": True},
}
_WHILE_RUNNING: dict[str, Wish] = {
    "websocket_cut x10": {"websocket_cut": here(after=0, count=10, every=ours(0.4))},
    "link_cut": {"link_cut": here(after=0, count=6, every=ours(0.4))},
    "link_blackhole": {"link_blackhole": here(after=0, seconds=ours(6))},
    "link_freeze": {"link_freeze": here(after=0, seconds=ours(6))},
    "login_ends": {"login_ends": True},
    "list_flicker while running": {"list_flicker": {"times": 2}},
    "rate_limited while running": {"rate_limited": {"times": 12}},
    "server_error while running": {"server_error": {"times": 12}},
    "key_rejected while running": {"key_rejected": {"times": 12}},
    "api_down while running": {"api_down": {"seconds": ours(6)}},
    "proxy_error while running": {"proxy_error": {"times": 12}},
}
# name -> faults, words: one such VM costs an attempt
_SECOND_VM: dict[str, tuple[Wish, str]] = {
    "substituted": ({"substituted": True}, "in place of"),
    "cuda_broken": ({"cuda_broken": True}, "CUDA error 802"),
    "driver_old": ({"driver_old": True}, "driver"),
}
_LOST_WHILE_RUNNING: dict[str, Wish] = {
    "vanish": {"vanish": here(after=0)},
    "lifetime": {"lifetime": here(seconds=0)},
    "idle_reaper": {"idle_reaper": here(seconds=0)},
}


def cases() -> list[Case]:
    """Give the whole table, the long ones first."""
    table = [Case("disk_full", {"disk_full": True}, machines=2)]
    table.append(Case("substituted twice", {"substituted": {"times": 2}}, "provider", 3, machines=2))
    # the units are used up: the VM goes, and no other is to be had
    table.append(Case("balance", {}, "no_capacity", 3, running={"balance": {"units": 0, "free": 0}}, steps=40))
    table.append(Case("free_tier", {"free_tier": True}, "refused", 4, machines=0))
    table.append(Case("rate_dearer", {"rate_dearer": True}, "provider", 3, words="agreed to"))
    for name, (faults, words) in _SECOND_VM.items():
        table.append(Case(name, faults, machines=2, words=words))
    for name, faults in _LOST_WHILE_RUNNING.items():
        table.append(Case(name, {}, machines=2, words="lost", running=faults, steps=60))
    table += [Case(name, {}, running=faults, steps=40) for name, faults in _WHILE_RUNNING.items()]
    table += [Case(name, faults) for name, faults in _ONE_VM.items()]
    table += [Case(name, faults, reason, 3, machines=0) for name, (faults, reason) in _NOTHING_GIVEN.items()]
    return [replace(case, provider="colab", gpu="t4") for case in table]
