"""What RunPod charged, by its own record: pods one by one and hour by hour, all else on the account in one sum.

    GET /billing/pods -> a line a pod and hour      GET /billing -> the same hours with volumes, endpoints, clusters

Its hours begin at full ones. How late a record comes nobody has written down: see `LAG_SECONDS`.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from providers.base import seconds_between
from providers.errors import ProviderError
from providers.optional import Bill
from providers.runpod import api, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from providers.http import Reply
    from providers.runpod.api import Api

LAG_SECONDS = 7200.0  # the bucket's hour and one more; of balances five minutes are told, of records nothing
_HOURLY_SECONDS = 14 * 86400.0  # of a longer time days are enough: a row a pod and hour is too much to ask for
_FLOAT_USD = Decimal("0.000001")  # by which sums of JSON's floats differ from what was meant
_PODS = ("podGpuAmount", "podCpuAmount", "podDiskAmount")


def billed(runpod: Api, since: datetime, now: datetime) -> list[Bill]:
    """Give every charge from the hour of `since` on.

    Raises:
        ProviderError: a record can't be read: an amount passed over would be a bill that is too low.
    """
    size, span = ("hour", 3600) if seconds_between(since, now) < _HOURLY_SECONDS else ("day", 86400)
    begin = since - timedelta(seconds=since.timestamp() % span)
    window = {"bucketSize": size, "startTime": _spell(begin), "endTime": _spell(now + timedelta(seconds=span))}
    pods = [_bill(row, row.get("podId"), reading.amount(row, "totalAmount")) for row in _rows(runpod, "/pods", window)]
    others = [_bill(row, "", _beside(row)) for row in _rows(runpod, "", window)]
    return [one for one in (*pods, *others) if one.usd]


def _rows(runpod: Api, path: str, window: dict[str, str]) -> Iterator[dict[str, Any]]:
    reply = runpod.reply("GET", f"/billing{path}", params=window)
    rows = api.ok(reply).get("records")
    if not isinstance(rows, list):
        raise _senseless(reply)
    for row in rows:
        if not isinstance(row, dict):
            raise _senseless(reply)
        yield row


def _senseless(reply: Reply) -> ProviderError:
    return ProviderError(f"{reply.what} answered with records that can't be read")


def _beside(row: dict[str, Any]) -> Decimal:
    """What an hour cost without its pods."""
    parts = [reading.amount(row, name) for name in _PODS]
    left = reading.amount(row, "totalAmount") - sum(parts, Decimal(0))
    return left if abs(left) > _FLOAT_USD else Decimal(0)


def _bill(row: dict[str, Any], pod_id: object, usd: Decimal) -> Bill:
    since, until = (reading.time_of(row, name) for name in ("startTime", "endTime"))
    if since is None or not isinstance(pod_id, str):
        raise ProviderError("RunPod's record of what it charged has a line without its time or its pod")
    return Bill(since, until, usd, pod_id)


def _spell(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
