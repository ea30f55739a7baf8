"""How RunPod misbehaves: its table of faults. What a row means is said in simulators/faults.py."""

from __future__ import annotations

from simulators.faults import EVERYWHERE, Book, Fault, on_instance, on_launch, on_link, on_reply, on_request

_ROWS = (
    # before the deed: nothing was made
    on_launch("capacity", "listed, yet refused: 400 with prose; `words` 0-2 = which", words=0),
    on_launch("no_balance", "402 on create", dice=False),
    on_launch("forbidden", "403 on create: no access to this pool"),
    on_request("key_rejected", "401 with the right key"),
    on_request("read_only_key", "403 on all that changes something", times=None, dice=False),
    on_request("rate_limited", "429 with Retry-After: `seconds`; 0 = without the header", times=3, seconds=2),
    on_request("server_error", "500 in the problem envelope", times=2),
    on_request("unavailable", "503 in the problem envelope", times=2),
    on_request("bad_gateway", "502 with a page of HTML", times=2),
    on_request("redirect", "301 to another host: the key must not follow", dice=False),
    on_request("conflict", "409: of a cluster, or not in this status", of="delete"),
    on_request("slow_reply", "the answer takes so long", seconds=30),
    on_request("clock_skew", "the Date header is ahead by so much", times=None, seconds=120),
    Fault(
        "api_down",
        "nobody answers (how: refused, or 503) for so long, `delay` after: now, create, running, delete",
        {**EVERYWHERE, "seconds": 60, "how": "refused", "when": "now", "delay": 0},
    ),
    # after the deed: it is done, and the caller is not told; a create stays hidden for a while
    on_reply("reply_lost", "done, then the connection is closed without an answer", of="create"),
    on_reply("reply_500", "done, then 500 (seen on v1, 2026-06)", of="create"),
    on_reply("reply_502", "done, then 502 with a page of HTML", of="create"),
    on_reply("reply_garbled", "done, then a body that is no JSON", of="create"),
    # what lists and looks tell
    on_instance("list_lag", "not listed for so long (get: GET by id says 404 as well)", seconds=30, get=False),
    on_request("list_flicker", "the list is empty though something bills", times=2),
    on_request("get_flicker", "GET by id says 404 though it bills"),
    on_request("pages", "pages of `size`, unasked", times=None, size=1),
    on_request("no_pagination", "a list without `pagination`, as in the document of 2026-08", times=None),
    on_request(
        "unknown_status", "a status that the vendor made up later, in place of RUNNING", times=3, word="MIGRATING"
    ),
    on_request("logs_cut", "the log's stream drops after so many events", of="logs", events=3),
    on_request("logs_refused", "the log answers 400, as one peer saw", of="logs", times=2),
    # the life of a pod
    on_instance("stuck_provisioning", "never more than PROVISIONING"),
    on_instance("stuck_starting", "never more than STARTING: a long pull, a bad host"),
    on_instance("slow_start", "RUNNING only so long after the create", seconds=900),
    on_instance("pull_fails", "STARTING for ever; only the system log says why"),
    on_instance("error", "status ERROR so long after RUNNING; bills on", after=0),
    on_instance("exited", "stopped so long after RUNNING; what it keeps bills on", after=60),
    on_instance("vanish", "gone so long after RUNNING, without a word", after=60),
    on_instance("ssh_late", "no direct SSH until so long after RUNNING", seconds=120),
    on_instance("ssh_never", "RUNNING, and never a direct SSH"),
    on_instance("no_public_ip", "the same, unless the order asked for a public address"),
    on_instance("sshd_never", "a mapped port behind which nobody listens"),
    on_instance("container_restart", "restarted so long after RUNNING, `count` times", after=60, count=1, every=60),
    on_instance("port_change", "another public port so long after RUNNING; what runs goes on", after=60),
    on_instance("stale_port", "after a restart the old port is told for so long", seconds=90),
    on_instance("wrong_host_key", "shows another host key than the log tells"),
    on_instance(
        "price_dearer",
        "`cost` is `factor` times the price on offer; with `after`: so long after RUNNING",
        factor=1.5,
        after=None,
        dice=False,
    ),
    on_instance("cost_with_disk", "`cost` includes the disk, which is not documented", dice=False),
    on_instance("cuda_broken", "CUDA error 802 while nvidia-smi is happy"),
    on_instance("driver_old", "a driver too old for the stack"),
    on_instance("disk_full", "no byte left on the disk, so long after RUNNING", after=0),
    on_instance("pod_key", "the key inside may: none, graphql, all", may="none", dice=False),
    *on_link("RUNNING"),
    # the end
    on_request("delete_ignored", "204, and not carried out", of="delete", times=2),
    on_request("delete_500", "500, and nothing done", of="delete", times=2),
    on_instance("terminated_lingers", "GET says TERMINATED for so long after the end", seconds=60),
    # money, and the old ways in
    on_request("balance", "the account has so many dollars left from now on", times=1, usd=0.1, dice=False),
    on_request("volume_charged", "so many dollars for a network volume, beside the pods", usd=1.5, dice=False),
    on_request("bills_late", "the records lack what was charged so long ago, and since", times=None, seconds=3600),
    on_request("graphql_retired", "GraphQL answers 410", times=None),
    on_request("graphql_errors", "GraphQL answers 200 with errors", times=2),
)

# What an operation is called: as in `GET <control>/requests`.
OPERATIONS = (
    *("create", "list", "get", "delete", "action", "update", "logs", "gpus", "gpu", "data_centers", "data_center"),
    *("ssh_keys", "put_ssh_keys", "pod_billing", "billing", "graphql", "v1"),
)
_WORDS = {
    ("*", "of"): OPERATIONS,
    ("api_down", "how"): ("refused", "503"),
    ("api_down", "when"): ("now", "create", "running", "delete"),
    ("pod_key", "may"): ("none", "graphql", "all"),
}

BOOK = Book(_ROWS, _WORDS)
