"""Score the estimator against published measurements, each source left out of what its constants are fitted to.

    python bench/estimate.py [--table FILE.csv] [--rows] [--as-shipped]

Memory is compared like with like: allocated, reserved or whole process, as the row says; rows of unknown kind and of
quality C are left out. Speed counts padding as tokens, as the rows do. `--as-shipped` scores the constants as they are;
a table of one's own is always scored so. Writes bench/results/local/estimate.json.
Goals: one GPU mean 8 %, at most 5 % of rows more than 10 % too low; several GPUs mean 12 %; speed mean 20 %, 90 %
inside a band of 30 % where card and method are in the data.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import estimate_fit as fitting  # noqa: E402 (the repository's root must be importable first)
from estimate_rows import Row, card, read  # noqa: E402

from orchestrator.estimate.footprint import KEPT  # noqa: E402
from orchestrator.estimate.speed import FITTED, KNOWN, band, chip, tokens_per_second  # noqa: E402

TABLE = ROOT / "bench" / "data" / "measured.csv"
RESULT = ROOT / "bench" / "results" / "local" / "estimate.json"
FAR_LOW = -0.10


@dataclass(frozen=True, slots=True)
class Scored:
    """One figure against one reading."""

    what: str  # memory, second (another reading of the same run), speed
    id: str
    source: str
    model: str
    method: str
    card: str
    gpus: int
    kind: str
    measured: float
    error: float  # relative
    inside: bool = True  # the quoted band
    known: bool = True  # card and method are in the data


def main() -> None:
    options = _options()
    rows = read(options.table)
    shipped = options.as_shipped or options.table != TABLE
    scored = [
        one for source in sorted({row.source for row in rows}) for one in _score_source(rows, source, shipped=shipped)
    ]
    if options.rows:
        _print_rows(scored)
    _print_tables(scored)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"summary": summary(scored), "rows": [asdict(one) for one in scored]}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE, help="measurements in the same columns")
    parser.add_argument("--rows", action="store_true", help="print the error of each row")
    parser.add_argument("--as-shipped", action="store_true", help="the constants as they are, nothing left out")
    return parser.parse_args()


def _score_source(rows: list[Row], source: str, *, shipped: bool) -> list[Scored]:
    rest = [row for row in rows if row.source != source]
    # Quality C tells of the allocator where lengths vary: of other sources there is nothing else.
    kept = KEPT if shipped else fitting.fit_kept([row for row in rest if row.quality != "C" or row.work.lengths_vary])
    timed = [row for row in rest if row.speed and row.quality != "C" and card(row.card)]
    own = [row for row in rows if row.source == source and row.quality != "C"]
    needs_speed = any(row.speed for row in own)
    constants = FITTED if shipped or not needs_speed else fitting.fit_speed(timed)
    known = KNOWN if shipped else {(chip(one), row.method) for row in timed if (one := card(row.card))}
    found: list[Scored] = []
    for row in own:
        for kind, size in fitting.readings_of(row):
            what = "memory" if (kind, size) == (row.kind, row.memory) else "second"
            found.append(_scored(row, what, kind, size, fitting.memory_error(row, kind, size, kept)))
        on = card(row.card)
        if row.speed and on:
            pace = tokens_per_second(row.work, on, row.gpus, constants)
            is_known = (chip(on), row.method) in known
            low, high = band(known=is_known)
            inside = pace * low <= row.speed <= pace * high
            found.append(
                _scored(row, "speed", "tokens/s", row.speed, pace / row.speed - 1, inside=inside, known=is_known)
            )
    return found


def _scored(row: Row, what: str, kind: str, size: float, error: float, **band: bool) -> Scored:
    return Scored(what, row.id, row.source, row.model, row.method, row.card, row.gpus, kind, size, error, **band)


def summary(scored: list[Scored]) -> dict[str, dict[str, float]]:
    """Give the figures that the goals name."""
    groups = {
        "memory, one GPU": [one for one in scored if one.what == "memory" and one.gpus == 1],
        "memory, several GPUs": [one for one in scored if one.what == "memory" and one.gpus > 1],
        "second reading, one GPU": [one for one in scored if one.what == "second" and one.gpus == 1],
        "second reading, several": [one for one in scored if one.what == "second" and one.gpus > 1],
        "speed": [one for one in scored if one.what == "speed"],
        "speed, card and method known": [one for one in scored if one.what == "speed" and one.known],
    }
    return {name: _figures(group) for name, group in groups.items() if group}


def _figures(group: list[Scored]) -> dict[str, float]:
    count = len(group)
    return {
        "rows": count,
        "mean": sum(abs(one.error) for one in group) / count,
        "bias": sum(one.error for one in group) / count,
        "worst": max((one.error for one in group), key=abs),
        "far too low": sum(one.error < FAR_LOW for one in group) / count,
        "inside": sum(one.inside for one in group) / count,
    }


def _print_tables(scored: list[Scored]) -> None:
    _print_table("", summary(scored))
    for key in ("method", "card", "source"):
        groups: dict[str, list[Scored]] = defaultdict(list)
        for one in scored:
            if one.what != "second":
                groups[f"{one.what:6} {getattr(one, key) or 'not stated'}"].append(one)
        _print_table(f"by {key}", {name: _figures(group) for name, group in sorted(groups.items())})


def _print_table(title: str, figures: dict[str, dict[str, float]]) -> None:
    print(f"\n{title:32} rows   mean   bias  worst  >10% low  in band")
    for name, one in figures.items():
        shares = " ".join(
            f"{100 * one[key]:+6.1f}" if key in {"bias", "worst"} else f"{100 * one[key]:6.1f}"
            for key in ("mean", "bias", "worst")
        )
        print(
            f"{name[:32]:32} {one['rows']:4d} {shares}    {100 * one['far too low']:6.1f}   {100 * one['inside']:6.1f}"
        )


def _print_rows(scored: list[Scored]) -> None:
    for one in scored:
        print(f"{one.what:6} {one.source:16} {one.id:22} {one.kind:15} {one.measured:10.4g} {100 * one.error:+7.1f} %")


if __name__ == "__main__":
    main()
