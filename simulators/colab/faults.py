"""How Colab misbehaves: its table of faults. What a row means is said in simulators/faults.py."""

from __future__ import annotations

from simulators.faults import EVERYWHERE, Book, Fault, on_instance, on_launch, on_link, on_reply, on_request

_ROWS = (
    # before the deed: nothing was assigned
    on_launch("capacity", "503 on assign: no machine of that type", times=2),
    on_launch("too_many", "412 on assign: too many active, or a limit for now"),
    on_launch("not_entitled", "400 on assign: not this accelerator for this account"),
    on_launch("outcome", "200 with an outcome and no endpoint: 1 denied, 2 time used up, 5 blocked", code=1),
    on_request("recaptcha", "GET assign asks for a browser: p is true", of="assign_get", dice=False),
    on_request("key_rejected", "401 with the right token"),
    on_request("xsrf_rejected", "403 on POST with the right token"),
    on_request("server_error", "500", times=2),
    on_request("bad_gateway", "502 with a page of HTML", times=2),
    on_request("unavailable", "503", times=2),
    on_request("gateway_timeout", "504 with a page of HTML", times=2),
    on_request("rate_limited", "429", times=3),
    on_request("slow_reply", "the answer takes so long", seconds=30),
    on_request("clock_skew", "the Date header is ahead by so much", times=None, seconds=120),
    on_request("no_prefix", "bodies come without )]}'", times=None),
    on_request("login_ends", "every access token that Google gave so far ends: 401 until it is refreshed", dice=False),
    on_request("token_refused", "Google answers invalid_grant to a refresh", of="token", dice=False),
    Fault(
        "api_down",
        "nobody answers (how: refused, or 503) for so long, `delay` after: now, assign, unassign",
        {**EVERYWHERE, "seconds": 60, "how": "refused", "when": "now", "delay": 0},
    ),
    # after the deed: it is done, and the caller is not told
    on_request("assign_hangs", "assigned, and no answer for so long; then the connection is closed", seconds=300),
    on_reply("reply_lost", "done, then the connection is closed without an answer", of="assign"),
    on_reply("reply_500", "done, then 500", of="assign"),
    on_reply("reply_504", "done, then 504 with a page of HTML", of="assign"),
    on_reply("reply_garbled", "done, then a body that is no JSON", of="assign"),
    # what lists tell
    on_instance("list_lag", "not listed for so long; assign knows it", seconds=30),
    on_request("list_flicker", "the list is empty though something runs", of="list", times=2),
    on_request("foreign", "so many VMs that somebody opened in a browser", times=1, count=1, dice=False),
    # the life of a VM
    on_instance("substituted", "another accelerator than the one asked for", to="L4", dice=False),
    on_instance("vanish", "gone so long after the assign, without a word", after=60),
    on_instance("idle_reaper", "taken when idle for so long; pings = only keep-alive counts", seconds=600, pings=False),
    on_instance("lifetime", "taken so long after the assign", seconds=3600),
    on_instance("rate_dearer", "draws `factor` times its units", factor=1.5, dice=False),
    on_instance("cuda_broken", "CUDA error 802 while nvidia-smi is happy"),
    on_instance("driver_old", "a driver too old for the stack"),
    on_instance("disk_full", "no byte left on the disk, so long after the assign", after=0),
    on_instance("runtime_refuses", "the VM's own unassign address answers with this status; 0 = it obeys", status=500),
    # the way into it
    on_request("token_ttl", "proxy tokens last for so long", times=None, seconds=20, dice=False),
    on_request("token_401", "a proxy token that ended gets 401 instead of 404", times=None),
    on_request("proxy_error", "the proxy answers 502 with a page of HTML", times=2),
    on_request("contents_413", "no body of more than so many bytes", times=None, bytes=1_000_000),
    on_request("contents_slow", "reading and writing files takes so long", times=3, seconds=5),
    on_instance(
        "websocket_cut", "every websocket is cut, so long after the assign, `count` times", after=20, count=1, every=20
    ),
    *on_link("the assign"),
    on_request("keep_alive_silent", "keep-alive never answers, as often seen; it counts all the same", times=None),
    # the end
    on_request("unassign_500", "500, and nothing done", of="unassign", times=3),
    on_request("unassign_ignored", "204, and not carried out", of="unassign", times=2),
    on_instance("lingers", "listed for so long after its end", seconds=30),
    # money
    on_request("balance", "so many units left from now on, and of the free quota", units=0.1, free=0.0, dice=False),
    on_request("free_tier", "nobody ever paid: so many units of the free quota", units=4.748, dice=False),
)

# What an operation is called: as in `GET <control>/requests`.
OPERATIONS = (
    *("assign_get", "assign", "list", "unassign_get", "unassign", "keep_alive", "ccu", "credentials"),
    *("token", "tokeninfo", "contents", "kernels", "channels", "resources", "tty", "vm"),
)
_WORDS = {
    ("*", "of"): OPERATIONS,
    ("api_down", "how"): ("refused", "503"),
    ("api_down", "when"): ("now", "assign", "unassign"),
    ("substituted", "to"): ("CPU", "T4", "L4", "G4", "A100", "H100"),
}

BOOK = Book(_ROWS, _WORDS)
