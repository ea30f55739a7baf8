"""What the account was charged, in buckets of an hour at the least, by pod or all together."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from simulators.runpod.logs import moment
from simulators.runpod.pods import stamp
from simulators.runpod.replies import ProblemError
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from simulators.runpod.account import Account

_BUCKETS = {"hour": 3600, "day": 86400, "week": 7 * 86400, "month": 30 * 86400, "year": 365 * 86400}
_OF_PODS = ("totalAmount", "gpuAmount", "cpuAmount", "diskAmount")
_OF_OTHERS = (  # of these, only the fault `volume_charged` is simulated
    *("serverlessGpuAmount", "serverlessCpuAmount", "serverlessDiskAmount", "serverlessFeeAmount"),
    *("storageStandardAmount", "storageHighPerformanceAmount", "endpointAmount"),
    *("clusterGpuAmount", "clusterDiskAmount", "clusterNetworkingAmount"),
)


def of_pods(request: Request, account: Account, now: float, recorded: float) -> Reply:
    """Answer `/billing/pods`, with what was charged until `recorded`."""
    size, span, begin, end = _window(request, now)
    records = [
        {"startTime": stamp(since), "endTime": stamp(since + span), "podId": pod, **amounts}
        for pod, since, amounts in account.bills(begin, end, span, recorded)
        if request.query.get("podId", pod) == pod
    ]
    asked = {"startTime": stamp(begin), "endTime": stamp(end), "bucketSize": size, "podId": request.query.get("podId")}
    pods = {record["podId"] for record in records}
    return _reply(records, _OF_PODS, asked, uniquePodCount=len(pods))


def of_all(request: Request, account: Account, now: float, recorded: float) -> Reply:
    """Answer `/billing`, with what was charged until `recorded`."""
    size, span, begin, end = _window(request, now)
    sums: dict[float, dict[str, Decimal]] = {}
    for _, since, amounts in account.bills(begin, end, span, recorded):
        of_bucket = sums.setdefault(since, {})
        for name, usd in amounts.items():
            of_bucket[name] = of_bucket.get(name, Decimal(0)) + Decimal(str(usd))
    for when, charged in account.storage:
        if begin <= when < min(end, recorded):
            of_bucket = sums.setdefault(when // span * span, {})
            for name in ("totalAmount", "storageStandardAmount"):
                of_bucket[name] = of_bucket.get(name, Decimal(0)) + charged
    records = [
        {"startTime": stamp(since), "endTime": stamp(since + span), **_whole(sums[since])} for since in sorted(sums)
    ]
    asked = {"startTime": stamp(begin), "endTime": stamp(end), "bucketSize": size}
    return _reply(records, tuple(_whole({})), asked)


def _whole(sums: dict[str, Decimal]) -> dict[str, float]:
    of_pods = {f"pod{name[0].upper()}{name[1:]}": sums.get(name, 0) for name in _OF_PODS[1:]}
    of_others = {name: sums.get(name, 0) for name in _OF_OTHERS}
    named = {"totalAmount": sums.get("totalAmount", 0), **of_pods, **of_others}
    return {name: float(usd) for name, usd in named.items()}


def _window(request: Request, now: float) -> tuple[str, int, float, float]:
    """Read which buckets are asked for: their name, their length, the first and the end of the last.

    Raises:
        ProblemError: 400 where `lastN` and a time stand together, 422 for what makes no sense.
    """
    query = request.query
    size = query.get("bucketSize", "day")
    if size not in _BUCKETS:
        raise ProblemError(422)
    if "lastN" in query and {"startTime", "endTime"} & query.keys():
        raise ProblemError(400)
    span = _BUCKETS[size]
    try:
        end = moment(query["endTime"]) if "endTime" in query else now
        begin = moment(query["startTime"]) if "startTime" in query else end - 30 * 86400
        begin = end - int(query["lastN"]) * span if "lastN" in query else begin
    except ValueError:
        raise ProblemError(422) from None
    return size, span, begin // span * span, -(-end // span) * span


def _reply(records: list[dict[str, Any]], names: tuple[str, ...], asked: dict[str, Any], **more: int) -> Reply:
    totals = {name: float(sum(Decimal(str(record[name])) for record in records)) for name in names}
    metadata = {"query": asked, "recordCount": len(records), "totals": totals, **more}
    return as_json(200, {"records": records, "metadata": metadata})
