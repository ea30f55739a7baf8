"""How Lambda misbehaves: its table of faults. What a row means is said in simulators/faults.py."""

from __future__ import annotations

from simulators.faults import EVERYWHERE, Book, Fault, on_instance, on_launch, on_link, on_reply, on_request

# `of` names an operation, see OPERATIONS.
_ROWS = (
    # before the deed: nothing was made
    on_launch("launch_capacity", "listed, yet refused: insufficient-capacity"),
    on_launch("quota", "400 global/quota-exceeded", dice=False),
    on_launch("billing_address", "403 global/invalid-address", dice=False),
    on_launch("launch_400", "an unknown type, region, key or image is answered with 400 instead of 404", times=None),
    on_request("account_inactive", "403 global/account-inactive on everything", times=None, dice=False),
    on_request("key_rejected", "401 with the right key"),
    on_request("rate_limited", "a bare 429 without Retry-After", times=3, body=""),
    on_request("server_error", "500 global/internal-error", times=2),
    on_request("unavailable", "503 provider/internal-unavailable", times=2),
    on_request("bad_gateway", "502 with a page of HTML", times=2),
    on_request("cloudflare", "403 with Cloudflare's page", dice=False),
    on_request("redirect", "301 to another host: the key must not follow", dice=False),
    on_request("slow_reply", "the answer takes so long", seconds=30),
    on_request("clock_skew", "the Date header is ahead by so much", times=None, seconds=120),
    Fault(
        "api_down",
        "nobody answers (how: refused, or 503) for so long, `delay` after: now, launch, active, terminate",
        {**EVERYWHERE, "seconds": 60, "how": "refused", "when": "now", "delay": 0},
    ),
    # after the deed: it is done, and the caller is not told; a launch stays hidden for a while
    on_reply("reply_lost", "done, then the connection is closed without an answer"),
    on_reply("reply_502", "done, then 502 with a page of HTML"),
    on_reply("reply_429", "done, then a bare 429"),
    on_reply("reply_empty", "done, then 200 with no id in it"),
    on_reply("reply_garbled", "done, then 200 with a body that is no JSON"),
    # what lists and looks tell
    on_instance("list_lag", "not listed for so long (get: GET by id says 404 as well)", seconds=30, get=False),
    on_request("list_flicker", "the list is empty though something bills", times=2),
    on_request("get_flicker", "GET by id says 404 though it bills"),
    on_request(
        "second_page", "pages of `size`, unasked; the first is empty when all would fit on it", times=None, size=1
    ),
    on_request("terminated_listed", "what is terminated stays on the list until it is gone", times=None),
    on_request("fields_missing", "optional fields are left out", times=None, fields="name,hostname,private_ip"),
    on_request(
        "unknown_status", "a status that the vendor made up later, in place of active", times=3, word="resizing"
    ),
    # the life of an instance
    on_instance("slow_boot", "active only so long after the launch", seconds=857),
    on_instance("unhealthy", "never active, no sshd; with `after`: unhealthy so long after active", after=None),
    on_instance("preempted", "preempted so long after active; bills until it is terminated", after=60),
    on_instance("vanish", "gone so long after active, without a word", after=60),
    on_instance("ip_late", "no address until so long after active", seconds=120),
    on_instance("ip_never", "active, and never an address"),
    on_instance("sshd_late", "sshd comes up so long after active", seconds=60),
    on_instance("sshd_never", "active, and sshd never answers"),
    on_instance("wrong_host_key", "shows another host key than the one in user_data"),
    on_instance("price_dearer", "billed at `factor` times the price on offer", factor=1.5, dice=False),
    on_instance("cuda_broken", "CUDA error 802 while nvidia-smi is happy"),
    on_instance("driver_old", "a driver too old for the stack"),
    on_instance("disk_full", "no byte left on the disk, so long after active", after=0),
    *on_link("active"),
    # the end
    on_request(
        "terminate_ignored", "accepted, and not carried out; `shows` what is listed then", times=2, shows="active"
    ),
    on_request("terminate_unknown", "global/unknown, and nothing done", status=400),
    on_instance("terminating_lingers", "terminating for so long", seconds=600),
    on_request(
        "terminate_again", "a second terminate is answered with (how:) 404 or unknown", times=None, how="unknown"
    ),
)

# What an operation is called: as in `GET <control>/requests`.
OPERATIONS = (
    *("launch", "terminate", "restart", "list", "get", "rename", "types", "regions", "images"),
    *("keys", "add_key", "drop_key", "filesystems", "firewall_rules", "firewall_rulesets", "firewall_global"),
)
_WORDS = {
    ("*", "of"): OPERATIONS,
    ("api_down", "how"): ("refused", "503"),
    ("api_down", "when"): ("now", "launch", "active", "terminate"),
    ("terminate_again", "how"): ("404", "unknown"),
}

BOOK = Book(_ROWS, _WORDS)
