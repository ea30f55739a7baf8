"""The table of `bench/faults_http.py --provider runpod`: what goes wrong, and what a user may expect of it.

Seconds of a fault are the vendor's: divided by the pace like all that it takes time for.
"""

from __future__ import annotations

from dataclasses import replace

from fault_cases import HURRY, Case, Wish, here, of, ours

_ALWAYS: dict[str, object] = {"times": None}
_NOTHING_RENTED: dict[str, tuple[Wish, str]] = {
    "no_balance": ({"no_balance": True}, "no_capacity"),
    "forbidden always": ({"forbidden": _ALWAYS}, "no_capacity"),
    "capacity always": ({"capacity": _ALWAYS}, "no_capacity"),
    "read_only_key": ({"read_only_key": True}, "no_capacity"),
    "key_rejected at once": ({"key_rejected": True}, "credentials"),
    "redirect at once": ({"redirect": True}, "provider"),
}
_ONE_POD: dict[str, Wish] = {
    "none": {},
    "capacity": {"capacity": 3},  # the fourth offer of five is taken
    "forbidden": {"forbidden": True},
    # nothing was made, and that is unclear: looked for, then launched again
    "rate_limited at create": {"rate_limited": of("create")},
    "server_error at create": {"server_error": of("create")},
    "bad_gateway at create": {"bad_gateway": of("create")},
    "redirect at create": {"redirect": of("create")},
    # safe verbs are asked again
    "rate_limited": {"rate_limited": True},
    "server_error": {"server_error": True},
    "unavailable": {"unavailable": True},
    "bad_gateway": {"bad_gateway": True},
    "slow_reply at create": {"slow_reply": of("create", seconds=ours(7))},
    "clock_skew": {"clock_skew": True},
    "api_down after create": {"api_down": {"when": "create", "seconds": ours(4)}},
    "api_down at running": {"api_down": {"when": "running", "seconds": ours(6)}},
    "api_down at delete": {"api_down": {"when": "delete", "seconds": ours(4)}},
    # rented, and not told: found by its mark, never rented twice
    "reply_500": {"reply_500": True},
    "reply_502": {"reply_502": True},
    "reply_lost": {"reply_lost": True},
    "reply_garbled": {"reply_garbled": True},
    "reply_500 + list_lag": {"reply_500": True, "list_lag": {"seconds": 30, "get": True}},
    "reply_lost + list_flicker": {"reply_lost": True, "list_flicker": True},
    "reply_lost + pages": {"pages": True, "reply_lost": True},
    # what lists and looks tell
    "list_lag": {"list_lag": {"get": True}},
    "no_pagination": {"no_pagination": True},
    "unknown_status": {"unknown_status": {"times": 8}},
    "logs_cut": {"logs_cut": {"events": 3, "times": 3}},
    "logs_refused": {"logs_refused": True},
    "graphql_retired": {"graphql_retired": True},
    "graphql_errors": {"graphql_errors": True},
    "cost_with_disk": {"cost_with_disk": True},
    # the life of a pod
    "slow_start": {"slow_start": {"seconds": ours(6)}},
    "ssh_late": {"ssh_late": True},
    "pod_key none": {"pod_key": {"may": "none"}},
    "pod_key all": {"pod_key": {"may": "all"}},
    # the end
    "delete_500": {"delete_500": {"times": 9}},
    "conflict at delete": {"conflict": True},
    "delete_ignored": {"delete_ignored": {"times": 1}},
    "terminated_lingers": {"terminated_lingers": True},
    "server_error at delete": {"server_error": of("delete", 6)},
    "key_rejected at delete": {"key_rejected": of("delete", 2)},
}
_WHILE_RUNNING: dict[str, Wish] = {
    "container_restart": {"container_restart": here(after=0)},
    "container_restart twice": {"container_restart": here(after=0, count=2, every=ours(5))},
    "port_change": {"port_change": here(after=0)},
    "stale_port": {"stale_port": here(seconds=ours(5)), "container_restart": here(after=0)},
    "get_flicker while running": {"get_flicker": {"times": 2}},
    "list_flicker while running": {"list_flicker": {"times": 2}},
    "unknown_status while running": {"unknown_status": {"times": 10}},
    "rate_limited while running": {"rate_limited": {"times": 12}},
    "server_error while running": {"server_error": {"times": 12}},
    "key_rejected while running": {"key_rejected": {"times": 12}},
    "api_down while running": {"api_down": {"seconds": ours(6)}},
    "link_cut": {"link_cut": here(after=0, count=6, every=ours(0.4))},
    "link_blackhole": {"link_blackhole": here(after=0, seconds=ours(6))},
    "link_freeze": {"link_freeze": here(after=0, seconds=ours(6))},
}
# name -> faults, words: one such pod costs an attempt
_SECOND_POD: dict[str, tuple[Wish, str]] = {
    "error": ({"error": True}, "ERROR"),
    "wrong_host_key": ({"wrong_host_key": True}, "host key"),
    "cuda_broken": ({"cuda_broken": True}, "CUDA error 802"),
    "driver_old": ({"driver_old": True}, "driver"),
}
_NEVER_UP = ("stuck_provisioning", "stuck_starting", "pull_fails", "ssh_never", "no_public_ip", "sshd_never")
_LOST_WHILE_RUNNING: dict[str, tuple[Wish, str]] = {
    "vanish": ({"vanish": here(after=0)}, "vanished"),
    "exited": ({"exited": here(after=0)}, "EXITED"),
}


def cases() -> list[Case]:
    """Give the whole table, the long ones first."""
    table = [Case(name, {name: True}, pace=HURRY, machines=2) for name in _NEVER_UP]
    table.append(Case("ssh_never always", {"ssh_never": _ALWAYS}, "provider", 3, pace=HURRY, machines=2))
    table.append(Case("disk_full", {"disk_full": True}, machines=2))
    # the account is empty: the pod goes, and no other is to be had
    table.append(Case("balance", {}, "no_capacity", 3, running={"balance": {"usd": 0}}, steps=40))
    table.append(Case("price_dearer", {"price_dearer": True}, "provider", 3, words="agreed to"))
    for name, (faults, words) in _SECOND_POD.items():
        table.append(Case(name, faults, machines=2, words=words))
    for name, (faults, words) in _LOST_WHILE_RUNNING.items():
        table.append(Case(name, {}, machines=2, words=words, running=faults, steps=40))
    table += [Case(name, {}, running=faults, steps=40) for name, faults in _WHILE_RUNNING.items()]
    table += [Case(name, faults) for name, faults in _ONE_POD.items()]
    table += [Case(name, faults, reason, 3, machines=0) for name, (faults, reason) in _NOTHING_RENTED.items()]
    return [replace(case, provider="runpod", gpu="a100") for case in table]
