"""`gpurun costs`, laid out: the table, the plot, what bills now, and what the vendors say they charged. 80 columns."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.accounts import Answer, Verdict, Whose, ask_all
from orchestrator.cost import NOTHING
from orchestrator.costs import entries, plotted, total
from orchestrator.ledger import Ledger
from orchestrator.render import (
    LONGEST_RUN_ID,
    WIDTH,
    clean,
    duration,
    fit,
    moment,
    money,
    money_range,
    price,
    rfc3339,
    table,
    wrap,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.accounts import Account
    from orchestrator.cost import Interval
    from orchestrator.costs import By, Entry
    from orchestrator.home import Home
    from orchestrator.records import RunRow
    from providers.base import Allocation

SCOPE = (
    "This home's ledger only: what another computer launched is not in it. Each run at the price that was paid then;"
    " days and months are UTC."
)
_FULL, _MAYBE = "█", "░"
_BAR = 52


@dataclass(frozen=True, slots=True)
class Story:
    """What `costs` knows of the ledger, and the means to ask the vendors."""

    home: Path
    home_id: str
    rows: tuple[RunRow, ...]
    ids: frozenset[str]
    by: By
    now: float

    def accounts(self) -> Iterator[Account]:
        """Ask each vendor; one after another, since each may take its time."""
        return ask_all(self.home, self.home_id, self.rows, self.ids, self.now)

    def as_json(self, *, plot: bool) -> dict[str, Any]:
        """Give all of it for programs, the vendors' answers included."""
        each = entries(self.rows, self.by, self.now)
        unit, bars = plotted(self.rows, self.now, by_month=self.by == "month") if plot else ("", {})
        summed = total(each).as_json("provider")
        return {
            "home": self.home_id,
            "scope": "this home's ledger only",
            "as_of": rfc3339(self.now),
            "by": self.by,
            "entries": [one.as_json(self.by) for one in each],
            "total": {key: value for key, value in summed.items() if key != "provider"},
            "plot": [{unit: at, "paid_low_usd": one.low, "paid_usd": one.high} for at, one in bars.items()],
            "accounts": [one.as_json() for one in self.accounts()],
        }

    def screen(self, *, plot: bool) -> str:
        """Lay out what the ledger knows."""
        if not self.rows:
            return "no runs yet: gpurun launch demo"
        text = costs_table(entries(self.rows, self.by, self.now), self.by)
        if not plot:
            return text
        unit, bars = plotted(self.rows, self.now, by_month=self.by == "month")
        return f"{text}\n\n{plot_of(bars, unit)}"


def read(home: Home, by: By, now: float) -> Story:
    """Read the ledger; a home in which nothing was launched yet is left as it is. `now` is by our clock."""
    if not home.ledger.exists():
        return Story(home.root, "", (), frozenset(), by, now)
    with closing(Ledger(home.ledger)) as ledger:
        ids = frozenset(one.id for one in ledger.allocations())
        return Story(home.root, ledger.home_id, tuple(ledger.runs()), ids, by, now)


def scope() -> str:
    """Say what all this does not know."""
    return wrap(SCOPE)


def costs_table(each: Sequence[Entry], by: By) -> str:
    """What was quoted beside what was paid; what goes on is said under its line."""
    if by == "run":
        head, right = ("RUN", "WHERE", "DAY", "LIKELY", "QUOTED MOST", "PAID"), (3, 4, 5)
        rows = [(one.name, one.provider, _day(one.first), *_money(one)) for one in each]
    else:
        head, right = (by.upper(), "RUNS", "", "LIKELY", "QUOTED MOST", "PAID"), (3, 4, 5)
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
    what = one.state if by == "run" and one.state else f"{one.unfinished} unfinished"
    if one.at_most > one.paid.high and not one.unproven:
        return f"{what}: so far; at most {money(one.at_most)}"
    return f"{what}: so far, and it may go on past what was quoted"


# ── the plot ────────────────────────────────────────────────────────────────────────────────────


def plot_of(found: Mapping[str, Interval], unit: str) -> str:
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
    name = allocation.mark.run_id if allocation.mark else fit(clean(allocation.name or allocation.id), LONGEST_RUN_ID)
    words = {
        Whose.OURS: "this home's",
        Whose.OTHERS: "another home's",
        Whose.FOREIGN: "also billing here: not gpurun's",
    }[whose]
    return wrap(f"{'':8}{rate:<9} {name} ({words}{since})", indent=" " * 18)


def _charged(one: Account) -> str:
    if not one.tells_bills:
        where = f": look at {one.console_url}" if one.console_url else ""
        return f"its own bill: not told by {_title(one)}{where}"
    if one.charged is None:
        return f"its own bill: CAN'T TELL: {one.no_bill}"
    charged = one.charged
    others = f", and {money(charged.others)} for what is not in this ledger" if charged.others else ""
    if not charged.usd and charged.paid == NOTHING:
        return f"its own bill: exactly $0.00{others}"
    verdict = {
        Verdict.AGREES: "the ledger agrees",
        Verdict.LATE: f"not all of it is in {_title(one)}'s record yet: the ledger says",
        Verdict.DIFFERS: "the ledger DIFFERS",
    }[charged.verdict]
    paid = money_range(charged.paid.low, charged.paid.high)
    return f"its own bill since {moment(charged.since)[:10]}: {money(charged.usd)}{others}; {verdict}: {paid}"


def _title(one: Account) -> str:
    from providers.table import TITLES

    return TITLES.get(one.provider, one.provider.capitalize())
