"""All that is known of one run, for `gpurun show`: plan beside truth, who can stop it, its history, its files."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator import requote, store_words, truth
from orchestrator.home import read_json
from orchestrator.ledger import Ledger
from orchestrator.measuring import measured
from orchestrator.render import ago, clean, facts, moment, price, rfc3339, size, table, wrap
from orchestrator.screens import console_of, is_adopted, run_json
from orchestrator.words import has_begun, proof_words, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.estimate.learnt import Measured
    from orchestrator.glance import Run
    from orchestrator.home import Home
    from orchestrator.records import Event

_SHOWN_FILES = 20
_ID = 20  # characters of an allocation's id in the table
_PLACES = ("config.json", "log.txt", "metrics.jsonl", "result.json")


@dataclass(frozen=True, slots=True)
class Dossier:
    """What `show` knows."""

    run: Run
    plan: dict[str, Any]
    status: dict[str, Any]
    result: dict[str, Any]
    events: tuple[Event, ...]
    files: tuple[tuple[str, int], ...]  # name in the run's folder, bytes
    folder: Path
    probed: requote.Requote | None = None  # what the first steps on the machine said
    measured: Measured | None = None  # by the whole run

    def beside(self, now: float) -> list[truth.Line]:
        """Put the quote beside the truth; `now` is by our clock."""
        return truth.lines(self.plan.get("quote") or {}, self.measured, self.run.seconds(now))

    def as_json(self) -> dict[str, Any]:
        """Give it for programs."""
        return {
            **run_json(self.run, self.folder),
            "plan": self.plan,
            "status": self.status,
            "result": self.result,
            "quote_and_truth": truth.as_json(self.beside(time.time())),
            "probe": self.probed.as_json() if self.probed else None,
            "events": [{**asdict(event), "time": rfc3339(event.time)} for event in self.events],
            "files": [{"name": name, "size": count} for name, count in self.files],
        }


def read(home: Home, run: Run) -> Dossier:
    """Read ledger and folder of one run."""
    ledger = Ledger(home.ledger)
    try:
        row, events = ledger.run(run.run_id), tuple(ledger.events(run.run_id))
    finally:
        ledger.close()
    folder = home.run(run.run_id)
    status, result = read_json(folder.status) or {}, read_json(folder.result) or {}
    files, probed = tuple(_files(folder.path)), requote.read(folder.metrics)
    return Dossier(run, row.plan, status, result, events, files, folder.path, probed, measured(row, result))


def _files(folder: Path) -> list[tuple[str, int]]:
    paths = [folder / name for name in _PLACES]
    paths += sorted((folder / "artifacts").rglob("*")) + sorted((folder / "checkpoints").glob("step-*"))
    found = []
    for path in paths:
        if path.is_dir() and path.parent.name == "checkpoints":
            found.append((path.relative_to(folder).as_posix() + "/", sum(f.stat().st_size for f in path.rglob("*"))))
        elif path.is_file():
            found.append((path.relative_to(folder).as_posix(), path.stat().st_size))
    return found


def screen(known: Dossier, now: float) -> str:
    """Lay it out for a person."""
    run = known.run
    head = facts(
        [
            ("run", run.run_id),
            ("state", _state(run, now)),
            ("why", "" if run.reason == "completed" else clean(run.detail)),
            ("billing", _billing(run)),
            ("probe", known.probed.words() if known.probed else ""),
            ("store", "\n".join(store_words.trouble(run, known.status))),
            ("look at", console_of(run)),
            ("folder", str(known.folder)),
        ]
    )
    parts = [head, _plan_beside_truth(known, now), _holders(known), _history(known.events), _file_table(known.files)]
    return "\n\n".join(part for part in parts if part)


def _billing(run: Run) -> str:
    if is_adopted(run):
        return clean(run.evidence)
    if run.is_done or run.freed:
        return f"nothing bills any more: {clean(run.evidence)}"
    return "MAY STILL BILL: it should have ended" if run.unproven else "not proven ended yet"


def _state(run: Run, now: float) -> str:
    if run.is_done:
        return f"{verdict(run.outcome, run.reason)}, {moment(run.ended)}"
    seen = f", seen {ago(now - run.seen)}" if run.seen else ", not seen yet"
    return f"{'stopping, ' if run.stopping else ''}{run.state}, attempt {run.attempt}{seen}"


def _plan_beside_truth(known: Dossier, now: float) -> str:
    run, plan = known.run, known.plan
    offer, quote = plan["offer"], plan["quote"]
    whole, *stages = (one for one in known.beside(now) if one.kind in {"time", "stage"})
    name, likely, took = whole.cells()
    most = Decimal(quote["worst"]) if is_adopted(run) else run.worst  # of another home's run none is reserved here
    cost = truth.dollars(quote, run.low, run.high, most)
    cost = (*cost[:2], "not known in this home") if is_adopted(run) else cost
    rows = [
        ("where", f"{offer['provider']} {offer['name']}", _rented(run)),
        *(one.cells() for one in known.beside(now) if one.kind in {"memory", "speed"}),
        (name, likely or "not known before", took + ("" if run.is_done else " so far")),
        *(one.cells() for one in stages),
        ("ends by", moment(run.deadline), moment(run.ended)),
        ("price", price(Decimal(offer["price"])), ""),
        cost,
        ("steps", str(quote.get("steps") or ""), _steps(known)),
    ]
    return table(("", "PLAN", "TRUTH"), rows)


def _rented(run: Run) -> str:
    return "launch not settled" if run.intended else _short(run.allocation_id) or "nothing launched yet"


def _short(name: str) -> str:
    """Leave the table room for figures; the history below has it whole."""
    return name if len(name) <= _ID else f"{name[: _ID - 1]}…"


def _steps(known: Dossier) -> str:
    total, step = known.status.get("total_steps"), max(known.run.step, int(known.status.get("step") or 0))
    return f"{step} of {total}" if total else str(step) if step else ""


def _holders(known: Dossier) -> str:
    if known.run.is_done:
        return ""  # there is nothing left to stop
    begun = has_begun(known.run.state)
    rows = [
        (one["name"], one["place"], proof_words({**one, "proven_at": ""}, begun=begun), str(one.get("evidence", "")))
        for one in known.run.held_by()
    ]
    return table(("WHO STOPS IT", "WHERE", "PROOF", "EVIDENCE"), rows)


def _history(events: Sequence[Event]) -> str:
    """Each event, its words whole: they are what is asked for when a run went wrong."""
    rows = [(moment(one.time)[11:19], one.actor, one.verb, one.kind) for one in events]
    lines = table(("UTC", "WHO", "VERB", ""), rows).split("\n")
    column = max(map(len, lines)) + 2
    said = ("WHAT", *(clean(one.text) for one in events))
    folded = (wrap(f"{line:<{column}}{text}", indent=" " * column) for line, text in zip(lines, said, strict=True))
    return "\n".join(line.rstrip() for line in folded) if rows else ""


def _file_table(files: Sequence[tuple[str, int]]) -> str:
    rows = [(name, size(count)) for name, count in files[:_SHOWN_FILES]]
    more = len(files) - _SHOWN_FILES
    text = table(("FILE", "SIZE"), rows, right=(1,)) if rows else ""
    return f"{text}\n… and {more} more" if more > 0 else text
