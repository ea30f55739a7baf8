"""`gpurun costs`, laid out: the table, the plot, what bills now, and what the vendors say they charged. 80 columns."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.accounts import Answer, Whose
from orchestrator.cost import NOTHING
from orchestrator.costs import total
from orchestrator.render import WIDTH, clean, duration, fit, moment, money, money_range, price, table, wrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.accounts import Account
    from orchestrator.cost import Interval
    from orchestrator.costs import By, Entry
    from providers.base import Allocation

SCOPE = (
    "This home's ledger only: what another computer launched is not in it. Each run at the price that was paid then;"
    " days and months are UTC."
)
_FULL, _MAYBE = "█", "░"
_BAR = 52


def costs_table(each: Sequence[Entry], by: By) -> str:
    """What was quoted beside what was paid; what goes on is said under its line."""
    if by == "run":
        head, right = ("RUN", "WHERE", "DAY", "LIKELY", "AT MOST", "PAID"), (3, 4, 5)
        rows = [(one.name, one.provider, _day(one.first), *_money(one)) for one in each]
    else:
        head, right = (by.upper(), "RUNS", "", "LIKELY", "AT MOST", "PAID"), (3, 4, 5)
        rows = [(one.name, str(one.runs), "", *_money(one)) for one in each]
    summed = total(each)
    rows.append(("total", "" if by == "run" else str(summed.runs), "", *_money(summed)))
    first, *lines = table(head, rows, right=right).split("\n")
    told = [first]
    for one, line in zip((*each, summed), lines, strict=True):
        told.append(line)
        if one.unfinished:
            told.append(fit(f"  {_so_far(one, by)}", WIDTH))
    return "\n".join(told)


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%d %b}"


def _money(one: Entry) -> tuple[str, str, str]:
    likely = "-" if one.likely is None else money(one.likely)
    return likely, money(one.worst), money_range(one.paid.low, one.paid.high)


def _so_far(one: Entry, by: By) -> str:
    if by == "run" and one.runs == 1 and one.state:
        return f"{one.state}: so far; at most {money(one.at_most)}"
    return f"{one.unfinished} unfinished: so far; at most {money(one.at_most)}"


# ── the plot ────────────────────────────────────────────────────────────────────────────────────


def plot(found: Mapping[str, Interval], unit: str) -> str:
    """A bar a day or month; the light end of a bar is what may have been billed and was not witnessed."""
    most = max((one.high for one in found.values()), default=Decimal(0))
    if not most:
        return f"paid by {unit} (UTC): nothing"
    unsure = any(one.low != one.high for one in found.values())
    lines = [f"paid by {unit} (UTC){f'; {_MAYBE} = not witnessed, at most' if unsure else ''}"]
    for label, one in found.items():
        lines.append(f"{label:<10}  {_bar(one, most):<{_BAR}}  {money_range(one.low, one.high)}".rstrip())
    return "\n".join(lines)


def _bar(one: Interval, most: Decimal) -> str:
    low, high = (int((part * _BAR / most).to_integral_value()) for part in (one.low, one.high))
    full = _FULL * max(low, int(one.low > 0))
    return full + _MAYBE * max(high - len(full), int(one.high > 0 and not full))


# ── what the vendors say ────────────────────────────────────────────────────────────────────────


def account_lines(one: Account, now: float) -> str:
    """What bills now at one vendor, and what it charged."""
    match one.answer:
        case Answer.NO_KEY:
            return wrap(f"{one.provider:<8}not asked: {one.why}", indent=" " * 8)
        case Answer.FAILED:
            return wrap(f"{one.provider:<8}CAN'T TELL what bills there: {one.why}", indent=" " * 8)
    head = f"{one.provider:<8}{_rate(one)}"
    lines = [head, *(_line(allocation, whose, now) for allocation, whose in one.billing)]
    lines.append(wrap(f"{'':8}{_charged(one)}", indent=" " * 8))
    return "\n".join(lines)


def _rate(one: Account) -> str:
    if not one.billing:
        return "nothing bills now"
    unknown = f", and {one.unpriced} at a price that is not told" if one.unpriced else ""
    costs = "bills nothing: $0.00/h" if not one.price else f"bills {price(one.price)} now"
    return f"{costs}{unknown}"


def _line(allocation: Allocation, whose: Whose, now: float) -> str:
    since = f", for {duration(now - allocation.since.timestamp())}" if allocation.since else ""
    rate = "price not told" if allocation.price is None else price(allocation.price)
    name = allocation.mark.run_id if allocation.mark else clean(allocation.name or allocation.id)
    words = {
        Whose.OURS: "this home's",
        Whose.OTHERS: "another home's",
        Whose.FOREIGN: "also billing here: not gpurun's",
    }[whose]
    return fit(f"{'':8}{rate:<9} {name} ({words}{since})", WIDTH)


def _charged(one: Account) -> str:
    if not one.tells_bills:
        where = f": look at {one.console_url}" if one.console_url else ""
        return f"its own bill: not told by {one.provider.capitalize()}{where}"
    if one.charged is None:
        return f"its own bill: CAN'T TELL: {one.no_bill}"
    charged = one.charged
    others = f", and {money(charged.others)} for what is not in this ledger" if charged.others else ""
    if not charged.usd and charged.paid == NOTHING:
        return f"its own bill: exactly $0.00{others}"
    verdict = "the ledger agrees" if charged.agrees else "the ledger DIFFERS"
    paid = money_range(charged.paid.low, charged.paid.high)
    return f"its own bill since {moment(charged.since)[:10]}: {money(charged.usd)}{others}; {verdict}: {paid}"
