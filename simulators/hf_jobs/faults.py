"""How the Hub misbehaves: the rows of this vendor. Seconds are its own; a job's fault strikes the next that is made."""

from __future__ import annotations

from simulators.faults import EVERYWHERE, Book, Fault, Value, on_request
from simulators.hf_jobs.hub import ROUTES


def _on_job(name: str, story: str, *, dice: bool = True, **options: Value) -> Fault:
    return Fault(name, story, {**EVERYWHERE, **options}, on_instance=True, dice=dice)


_ROWS = (
    # any request, or one operation: the names of `GET <control>/requests`
    on_request("no_credit", "402, nothing made", dice=False, of="submit"),
    on_request("forbidden", "403 with X-Error-Message", dice=False),
    on_request("unauthorized", "401", dice=False),
    on_request("rate_limited", "429"),
    on_request("server_error", "500"),
    on_request("bad_gateway", "502"),
    on_request("reply_lost", "done, then the connection is closed", of="submit"),
    on_request("reply_500", "done, then 500", of="submit"),
    on_request("slow_reply", "done, then held back for so long", seconds=30),
    on_request("clock_skew", "the Date header is so far ahead", times=None, seconds=120),
    on_request("list_lag", "a fresh job is not listed for so long", of="list", seconds=20),
    on_request("pages", "a list comes in pages of so many", of="list", times=None, size=1),
    on_request("cancel_ignored", "accepted, not carried out", of="cancel"),
    on_request("logs_cut", "the stream drops after so many new events", of="logs", after=3),
    on_request("logs_502", "502 to whoever would read a log", of="logs"),
    on_request("batch_fails", "every operation of a batch failed", of="batch"),
    on_request("read_only_token", "403 to whoever would make or write a repository", dice=False),
    # a job
    _on_job("stuck_scheduling", "never starts"),
    _on_job("slow_scheduling", "starts so much later", seconds=120),
    _on_job("image_fails", "SCHEDULING, then ERROR"),
    _on_job("unknown_stage", "so called between SCHEDULING and RUNNING, for so long", word="UPDATING", seconds=5),
    _on_job("vanish", "killed so long after its start, and 404 from then on", after=5),
    _on_job("bucket_lag", "what the job writes is seen so much later", seconds=20),
    _on_job("spend_limit", "CANCELED by the resource group so long after its start", after=5),
    _on_job("price_dearer", "so many times the price that was listed", dice=False, factor=1.5),
    _on_job("exit_code", "the container is killed so long after its start", code=137, after=5),
)
BOOK = Book(_ROWS, {("*", "of"): tuple(dict.fromkeys(operation for _, _, operation in ROUTES))})
