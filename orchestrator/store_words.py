"""What to tell a person when results don't get to the store: why, what becomes of them, what to type. No I/O.

The machine's own words (payload/upload.py), as its controller left them in status.json.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.render import clean, moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.glance import Run

PATIENCE_SECONDS = 30.0  # that nothing goes through before it is worth a word: a server may have a bad moment
_NEXT = (
    (r"no slot is left", "fewer files: nothing can be done while it runs"),
    (
        r"507|Quota|Full|InsufficientStorage",
        "next: make room: gpurun store ls, gpurun store rm RUN; it goes on by itself",
    ),
    (r"says (?:400|401|403)", "next: let the key write there again; every 5 min the machine gets a fresh leave"),
    (r"says 404", "next: make the bucket again; it goes on by itself"),
    (r"other bytes", "next: look at what stands between: what the store keeps is not what was sent"),
)
_ELSE = "nothing to type: it is tried again each minute"


def trouble(run: Run, said: Mapping[str, object]) -> list[str]:
    """Say what is wrong with a run's way into its store, in two lines; [] = nothing is."""
    waits, silent = said.get("launch_waits"), said.get("store_silent")
    if isinstance(waits, str) and waits and run.state == "pending":
        until = moment(run.deadline)[11:16]
        return [
            f"nothing is launched yet: {clean(waits)}",
            f"it is asked again until {until} UTC; next: mend that, or gpurun stop {run.run_id}",
        ]
    if isinstance(silent, str) and silent and not run.is_done:
        until = moment(run.deadline)[11:16]
        return [
            f"the store can't be asked: {clean(silent)}",
            f"what lies there is not given up before {until} UTC; next: mend that, then gpurun resume {run.run_id}",
        ]
    error, since, seen = (said.get(key) for key in ("store_error", "store_failing", "seen"))
    if run.is_done or not isinstance(error, str) or not error or said.get("store") in {"", "whole", "sent"}:
        return []
    begun = _time(since)
    if begun is not None and (_time(seen) or 0.0) - begun < PATIENCE_SECONDS:
        return []
    when = f" since {moment(begun)[11:16]} UTC" if begun is not None else ""
    what = next((words for shape, words in _NEXT if re.search(shape, error)), _ELSE)
    keeps = (
        f"the machine keeps it until {moment(run.deadline)[11:16]} UTC, and this computer brings it home while awake"
    )
    return [f"not in the store{when}: {clean(error)}", f"{keeps}; {what}"]


def last_word(said: Mapping[str, object]) -> str:
    """Say of a run that is over that its machine had not brought everything there; "" = it had, or has no store."""
    error = said.get("store_error")
    if said.get("store") not in {"busy", "stuck"} or not isinstance(error, str) or not error:
        return ""
    return f"not everything is there, when the machine last spoke: {clean(error)}\nwhat there is: gpurun store ls"


def _time(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None
