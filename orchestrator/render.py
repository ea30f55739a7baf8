"""The only place that formats: money, durations, sizes, times, tables, the live line, JSON.

Pure functions of their arguments; no clock, no terminal, nothing heavy to import. Text that came from a machine
or a vendor passes through `clean` before it is shown. Tables fit 80 columns.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH = 80
LONGEST_RUN_ID = 38  # columns; a name that is another's is cut to as many
_CENT, _MILL, _NANO = Decimal("0.01"), Decimal("0.001"), Decimal("1e-9")

# CSI, OSC/DCS/PM/APC with their payload, and two-byte escapes: removed whole, so that no half of one is left to read.
_ESCAPE = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)


def clean(text: str) -> str:
    """Neutralise one line of untrusted text: no escape sequence, no control or reordering character is left.

    Tabs become blanks; what else can't be printed (control, format, line separator, lone surrogate) becomes U+FFFD.
    """
    text = text.rstrip("\r\n")
    if text.isprintable():
        return text
    text = re.sub(_ESCAPE, "", text).expandtabs(4)
    return "".join(char if char.isprintable() or _joins(char) else _space(char) for char in text)


def _joins(char: str) -> bool:
    return char in "\u200c\u200d"  # joiners: part of emoji and of several scripts, harmless


def _space(char: str) -> str:
    return " " if char.isspace() and ord(char) > 0x9F and char not in "\u2028\u2029" else "\ufffd"


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def money(usd: Decimal) -> str:
    """`$1.20`; more than nothing but less than a cent is `<$0.01`, never `$0.00`."""
    if 0 < usd < _CENT:
        return "<$0.01"
    return f"${usd.quantize(_CENT, ROUND_HALF_UP):,}"


def money_range(low: Decimal, high: Decimal) -> str:
    """`$1.20-1.35` with an en dash; one amount when both ends are the same cent. The ends are rounded outwards.

    Ends less than a cent apart are told by a tenth of it: as cents they would look much further apart. What is all
    below a cent is `<$0.01`, as one amount would be.
    """
    if low == high or high < _CENT:
        return money(high)
    unit = _CENT if high - low >= _CENT else _MILL
    floor, ceiling = low.quantize(_CENT, ROUND_FLOOR), high.quantize(_CENT, ROUND_CEILING)
    if floor != ceiling:
        floor, ceiling = low.quantize(unit, ROUND_FLOOR), high.quantize(unit, ROUND_CEILING)
    return f"${floor:,}\u2013{ceiling:,}" if floor != ceiling else money(high)


def price(usd_per_hour: Decimal) -> str:
    """`$1.29/h`; what costs nothing is `free`."""
    return f"{money(usd_per_hour)}/h" if usd_per_hour else "free"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 05 s`, `2 h 14 min`, `3 d 4 h`: the two units that matter."""
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for limit, unit, big, small, digits in (
        (60, 1, "", "s", 0),
        (3600, 60, "min", "s", 2),
        (86400, 3600, "h", "min", 2),
    ):
        if whole < limit:
            if unit == 1:
                return f"{whole} {small}"
            left = (whole % unit) // (unit // 60)
            return f"{whole // unit} {big}" + (f" {left:0{digits}} {small}" if left else "")
    days, hours = whole // 86400, whole % 86400 // 3600
    return f"{days} d" + (f" {hours} h" if hours else "")


def clock(seconds: float) -> str:
    """`00:42`, `1:02:03`: a running clock, of even width while it ticks."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def size(count: float) -> str:
    """Bytes in powers of 1000: `512 B`, `1.2 kB`, `91 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.1f} {unit}" if unit != "B" and count < 9.95 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB" if count < 9.95 else f"{count:,.0f} TB"


def number(value: float) -> str:
    """Four significant digits at most, thousands short: `0.4123`, `12.3k`, `2e-05`; `nan` and `inf` as such."""
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 (only nan differs from itself)
        return str(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """`0.124 %`, `25 %`: three digits below one per cent, none from ten."""
    value = 100 * share
    return f"{value:.{3 if value < 1 else 1 if value < 10 else 0}f} %"


def moment(epoch_seconds: float | None) -> str:
    """`2026-11-22 14:32:05 UTC`; nothing for None."""
    if epoch_seconds is None:
        return ""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch_seconds))


def rfc3339(epoch_seconds: float | None) -> str | None:
    """`2026-11-22T14:32:05Z`, for programs; None stays None."""
    return moment(epoch_seconds).replace(" UTC", "Z").replace(" ", "T") or None


def ago(seconds: float) -> str:
    """`just now`, `42 s ago`, `6 h ago`: one unit is enough for the past."""
    if seconds < 2:
        return "just now"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds) // unit} {name} ago"
    return f"{int(seconds) // 86400} d ago"


# ── tables and blocks ────────────────────────────────────────────────────────────────────────────────────────────────


def display_width(text: str) -> int:
    """Terminal columns: wide characters count two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def fit(text: str, width: int) -> str:
    """Cut to `width` columns, with an ellipsis where something is lost."""
    if display_width(text) <= width:
        return text
    kept = text[: max(0, width - 1)]
    while kept and display_width(kept) > width - 1:
        kept = kept[:-1]
    return kept.rstrip() + "…" if width > 0 else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), width: int = WIDTH) -> str:
    """Columns two blanks apart, `right` ones flush right; the first stays whole, the widest others give way."""
    lines = [[clean(cell) for cell in row] for row in (head, *rows)]
    widths = [max(display_width(line[column]) for line in lines) for column in range(len(head))]
    room = width - 2 * (len(head) - 1)
    while sum(widths) > room and max(widths[1:], default=0) > 4:
        widths[widths.index(max(widths[1:]), 1)] -= 1
    if sum(widths) > room:
        widths[0] = max(4, widths[0] - sum(widths) + room)
    return "\n".join(_row(line, widths, right) for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded = []
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = fit(cell, width)
        blank = " " * (width - display_width(text))
        padded.append(blank + text if column in right else text + blank)
    return "  ".join(padded).rstrip()


def facts(pairs: Sequence[tuple[str, str]], *, width: int = WIDTH) -> str:
    """`name   value` lines; a long value goes on under itself. Pairs without a value are left out."""
    shown = [(name, clean(line)) for name, value in pairs if value for line in _named(value)]
    column = max((len(name) for name, _ in pairs), default=0) + 2
    lines, before = [], ""
    for name, value in shown:
        head = name if name != before else ""
        body = _wrap(value, width - column)
        lines += [f"{head if not index else '':<{column}}{line}" for index, line in enumerate(body)]
        before = name
    return "\n".join(lines)


def _named(value: str) -> list[str]:
    return [line for line in value.split("\n") if line]


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    # A path or a command is copied by people: it is never broken in the middle.
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False) or [""]


def wrap(text: str, *, width: int = WIDTH, indent: str = "") -> str:
    """Fold a sentence at blanks, later lines under `indent`; words longer than the line stay whole."""
    import textwrap

    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


_COMMAND = re.compile(r"\b(?:gpurun|export|mv|ls|cd|rm|pip|python) [^;,()]+")


def fold(text: str, width: int, *, indent: str = "") -> str:
    """Fold prose to a terminal's width as `wrap` does; a command to be copied stays in one piece."""
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", "\x00"), text)  # no blank, no break
    return wrap(whole, width=max(20, width), indent=indent).replace("\x00", " ")


# ── colour ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_STYLES = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}


def wants_colour(*, terminal: bool, environ: Mapping[str, str]) -> bool:
    """Only on a terminal that can, and never against NO_COLOR (https://no-color.org: set and not empty)."""
    return terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def paint(text: str, style: str, *, colour: bool) -> str:
    """Wrap text in one of the styles `good bad warn dim bold`, or leave it."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colour and text else text


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Progress(NamedTuple):
    """What the live line shows; unknown is None or empty, and then left out."""

    stage: str
    stage_seconds: float
    step: int = 0
    total_steps: int = 0
    loss: float | str | None = None
    accuracy: float | None = None
    tokens_per_second: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    spent_low: Decimal = Decimal(0)
    spent_high: Decimal = Decimal(0)
    shipped: tuple[int, int] | None = None  # bytes that are there, of how many


def live_line(now: Progress, width: int = WIDTH) -> str:
    """One line of where a run is; what does not fit is left out from the least important on. Dollars always stay."""
    parts = [(0, f"{clean(now.stage)} {clock(now.stage_seconds)}"), (0, money_range(now.spent_low, now.spent_high))]
    parts[1:1] = [part for part in _progress_parts(now) if part[1]]
    while sum(display_width(text) + 2 for _, text in parts) - 2 > width and any(rank for rank, _ in parts):
        parts.remove(max(parts, key=lambda part: part[0]))
    return fit("  ".join(text for _, text in parts), width)


def _progress_parts(now: Progress) -> list[tuple[int, str]]:
    steps = f"step {now.step:,}" + (f"/{now.total_steps:,}" if now.total_steps else "") if now.step else ""
    share = f"{100 * min(1.0, now.step / now.total_steps):.0f} %" if now.step and now.total_steps else ""
    loss = "" if now.loss is None else f"loss {now.loss if isinstance(now.loss, str) else number(now.loss)}"
    accuracy = "" if now.accuracy is None else f"accuracy {now.accuracy:.3f}"
    rate = f"{number(now.tokens_per_second)} tok/s" if now.tokens_per_second else ""
    if not rate and now.samples_per_second:
        rate = f"{number(now.samples_per_second)} rows/s"
    left = "" if now.seconds_left is None else f"{duration(now.seconds_left)} left"
    return [
        (1, _bar(*now.shipped) if now.shipped else ""),
        (1, steps),
        (5, share),
        (2, clean(loss)),
        (6, accuracy),
        (4, rate),
        (3, left),
    ]


def _bar(done: int, whole: int) -> str:
    full = 20 * min(done, whole) // max(whole, 1)
    return f"[{'#' * full}{'.' * (20 - full)}] {size(done)} of {size(whole)} sent"


# ── for programs ─────────────────────────────────────────────────────────────────────────────────────────────────────


# Keys under which the ledger and the plan keep dollars as text, so that nothing of them is lost on the way.
_MONEY = frozenset({"price", "low", "likely", "worst", "max_cost", "usd_per_hour", "units_per_hour"})
_AMOUNT = re.compile(r"-?\d+(\.\d+)?(E[+-]?\d+)?")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?(\+00:00|Z)")


def to_json(value: object, *, indent: int | None = 2) -> str:
    """JSON as every `--json` prints it: money as numbers in USD, to a billionth, times in RFC 3339 with Z."""
    import json

    return json.dumps(_plain(value), indent=indent, ensure_ascii=False)


def _plain(value: object, key: str = "") -> object:
    """Give plain values; `key` is the name under which a value stands."""
    if isinstance(value, str):
        return _text(value, key)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Decimal):
        return float(value.quantize(_NANO, ROUND_HALF_UP))
    if hasattr(value, "items"):
        return {str(name): _plain(one, str(name)) for name, one in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name), name) for name in value.__dataclass_fields__}
    if isinstance(value, set | frozenset):
        return [_plain(one, key) for one in sorted(value)]
    if isinstance(value, list | tuple):
        return [_plain(one, key) for one in value]
    return _text(str(value.isoformat()) if hasattr(value, "isoformat") else str(value), key)


def _text(text: str, key: str) -> str | float:
    if key in _MONEY and _AMOUNT.fullmatch(text):
        return float(Decimal(text).quantize(_NANO, ROUND_HALF_UP))
    found = _TIME.fullmatch(text)
    return f"{found[1]}T{found[2]}Z" if found else text
