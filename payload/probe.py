"""The probe: the first steps of a training tell how long the rest takes; what its limits can't hold is stopped early.

    probe = Probe(folder, job.get("probe") or {})
    found = probe.look(output, passed, left, late, now)     # at each look; a verdict once, else None

The steps are the training's own, so nothing is done twice: where the time is enough it simply goes on. The verdict
lies in probe.json, so that an agent after a reboot does not judge again. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional

import processes as ps
from limits import number

if TYPE_CHECKING:
    from pathlib import Path

    from output import Output

FILE = "probe.json"


class Pace(NamedTuple):
    """What was measured: at `step`, after so many more than the first, a step took so long."""

    step: int
    steps: int
    total_steps: int  # 0 = not told: nobody can say how long the rest takes
    seconds_per_step: float

    @property
    def rest_seconds(self) -> float:
        """How long the steps that are left will take."""
        return max(self.total_steps - self.step, 0) * self.seconds_per_step


class Probe:
    """Watches the steps of one attempt until it has seen enough of them."""

    def __init__(self, folder: Path, wanted: Dict[str, Any]) -> None:
        self.file = folder / FILE
        steps = number(wanted.get("steps")) or 0
        self.steps = 0 if self.file.exists() else int(max(steps, 0))  # 0 = there is nothing to judge
        self.after = max(number(wanted.get("after_seconds")) or 0.0, 0.0)
        self.price = max(number(wanted.get("usd_per_hour")) or 0.0, 0.0)
        self.launched = number(wanted.get("launched"))  # epoch seconds, when the meter began at the earliest
        self.first: Optional[int] = None
        self.spent = 0.0
        self.words = ""  # why it was stopped

    def look(self, output: Output, passed: float, left: float, late: float, now: float) -> Optional[str]:
        """Judge once enough steps were seen; gives what the log is to say, None = nothing yet.

        The first step is left out: it compiles, tunes and fills caches. `left` and `late` are seconds until the
        training is told to save, and until what it then writes must be there; `now` is epoch seconds.
        """
        if not self.steps or not output.step:
            return None
        if self.first is None or output.step < self.first:  # it began, or began again from an older checkpoint
            self.first, self.spent = output.step, 0.0
            return None
        if output.stage.rpartition("/")[2] in {"", "train"}:  # an evaluation or a save is no step
            self.spent += passed
        done = output.step - self.first
        if done < self.steps:
            return None
        self.steps = 0
        pace = Pace(output.step, done, output.total_steps, self.spent / done)
        return self._judged(pace, output, left, late, now)

    def _judged(self, pace: Pace, output: Output, left: float, late: float, now: float) -> str:
        short = max(pace.rest_seconds - left, pace.rest_seconds + self.after - late)
        holds = not pace.total_steps or short <= 0
        usd = self._usd(pace, now)
        facts = {
            **pace._asdict(),
            "rest_seconds": pace.rest_seconds if pace.total_steps else None,
            "after_seconds": self.after,
            "left_seconds": left,
            "usd": usd,
            "holds": holds,
            "time": now,
            "tokens_per_second": output.last.get("tokens_per_second"),
            "peak_memory_gib": output.last.get("peak_memory_gib"),
        }
        with contextlib.suppress(OSError):  # a full disk: it would be judged again after a reboot
            ps.write_json(self.file, facts)
        words = _words(pace, self.after, left, usd, holds=holds)
        self.words = "" if holds else words
        return f"{words}{': it goes on' if holds else ': stopped here'}"

    def _usd(self, pace: Pace, now: float) -> Optional[float]:
        """What this machine will have cost at the end, by its price an hour."""
        if not self.price or self.launched is None or not pace.total_steps:
            return None
        return max(now - self.launched + pace.rest_seconds + self.after, 0.0) * self.price / 3600


def _words(pace: Pace, after: float, left: float, usd: Optional[float], *, holds: bool) -> str:
    told = f"the probe: {pace.steps} steps at {pace.seconds_per_step:.3g} s each"
    if not pace.total_steps:
        return f"{told}, and the training does not tell how many are to come (total_steps)"
    then = f" and {_time(after)} after them" if after else ""
    cost = f", about ${math.ceil(usd * 100) / 100:.2f} for this machine" if usd else ""
    enough = "are left until it must save" if holds else "are all that is left until it must save"
    rest = f"the other {pace.total_steps - pace.step} take {_time(pace.rest_seconds)}{then}"
    return f"{told}: {rest}{cost}; {_time(left)} {enough}"


def _time(seconds: float) -> str:
    """`2 h 5 min`, `4 min 10 s`, `12 s`."""
    whole = int(max(seconds, 0) + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
