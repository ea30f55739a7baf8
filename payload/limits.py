"""When a job must end: pure. Facts in, a verdict out; no clock, no file, no process is looked at here.

    limits = Limits(deadline, ceiling, max_seconds, armed)      # armed: steady seconds at the arming
    left = limits.left(limits.deadline, Clock(wall, steady))    # seconds, by the earlier of two clocks
    judge(Facts(left, limits.left(limits.ceiling, clock), agent="alive")) -> Verdict(act, why)

`watchdog.py` gathers the facts once a second and does what the verdict says; a simulation may do the same:

    WAIT   go on (`why` != "": the job is over, and the machine waits to be emptied, at most until the deadline)
    START  start the agent, once
    END    end every process of the job; then judge again with `over=why` if there is an ender, else leave
    FIRE   start the ender if it does not run, end every process; never leave before the vendor says that it is gone

`armed_before` gives `armed` again after a kill or a reboot: to be restarted wins no time.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, NamedTuple, Optional

MARGIN = 5.0  # seconds past the deadline that an agent gets to have obeyed, where only processes are to be ended
LEAVING = 1 / 3  # of the run, at most, for what must leave after the training: it is there to train
LEAVE = 10.0  # seconds after result.json until what still runs is ended

WAIT, START, END, FIRE = "wait", "start", "end", "fire"


class Clock(NamedTuple):
    """Both clocks; handed in, so that a test can make one jump."""

    wall: Callable[[], float]  # epoch seconds, UTC
    steady: Callable[[], float]  # seconds that no one can set


class Limits:
    """The ends of a job by two clocks; the earlier wins, so that setting the clock back lengthens nothing."""

    def __init__(self, deadline: float, ceiling: float, max_seconds: float, armed: float) -> None:
        self.ceiling = ceiling
        self.deadline = min(deadline, ceiling)
        self.max_seconds = max_seconds  # from the arming to the ceiling
        self.armed = armed  # by the steady clock

    def move(self, deadline: float, ceiling: Optional[float] = None) -> None:
        """Move the deadline, never past the ceiling; a new ceiling moves the steady clock's by as much."""
        if ceiling is not None and math.isfinite(ceiling):
            self.max_seconds += ceiling - self.ceiling
            self.ceiling = ceiling
        if math.isfinite(deadline):
            self.deadline = deadline
        self.deadline = min(self.deadline, self.ceiling)

    def left(self, moment: float, clock: Clock) -> float:
        """Seconds left to a moment named in wall time; negative = past it."""
        return min(moment - clock.wall(), self.armed + self.max_seconds - (self.ceiling - moment) - clock.steady())

    def reserve(self, took: float, grace: float) -> float:
        """Seconds, before the grace, in which the last checkpoint leaves: half more than the one before `took`."""
        run = self.max_seconds - (self.ceiling - self.deadline)
        return min(1.5 * took, max(grace, run * LEAVING))


class Facts(NamedTuple):
    """What a watchdog knows at one look."""

    deadline_left: float  # seconds, from `Limits.left`
    ceiling_left: float
    agent: str = "none"  # none: not started since the machine is up; coming: on its way to its lock; alive; dead
    job: bool = True  # job.json is there: all that the agent needs is in place
    result: bool = False  # result.json is there: the attempt is over, and its files are whole
    since_result: float = 0.0  # seconds that the result was seen
    alone: bool = False  # no process of the job lives but the watchdog and the agent
    stopped: bool = False  # the agent is stopped by a signal: it obeys nobody
    folder: bool = True  # the job's folder is there
    ordered: bool = False  # end.json is there: end everything now
    ender: bool = False  # the machine can end itself at its vendor
    over: str = ""  # why the job's processes were ended before; "" = they were not
    store: str = ""  # "busy": results are on their way into a store; "whole": all is verified there; "" = there is none
    last_words: str = ""  # of an agent that is dead


class Verdict(NamedTuple):
    """What to do, and why."""

    act: str
    why: str = ""


def judge(facts: Facts, margin: float = MARGIN) -> Verdict:
    """Say what a watchdog does at this look."""
    why = out_of_time(facts, margin)
    if why:
        return Verdict(FIRE if facts.ender else END, why)
    if facts.over and facts.ender and facts.store == "whole":  # nobody need fetch anything
        return Verdict(FIRE, "all is in the store")
    if facts.over:  # what nobody fetched may still be: the machine waits, at most until the deadline
        return Verdict(WAIT if facts.ender or facts.store == "busy" else END, facts.over)
    if facts.result:
        if facts.agent != "alive" and facts.alone:
            return Verdict(END, "done")
        return Verdict(END, "done, with processes left over") if facts.since_result > LEAVE else Verdict(WAIT)
    if facts.agent == "dead":
        return Verdict(END, f"the agent is gone without a result ({facts.last_words or 'nobody saw how'})")
    return Verdict(START if facts.agent == "none" and facts.job else WAIT)


def out_of_time(facts: Facts, margin: float = MARGIN) -> str:
    """Say why there is no more time at all: the limits, an order, or nothing that is worth a wait; "" = there is."""
    if not facts.folder:
        return "the folder is gone"
    if facts.ordered:
        return "ended by order"
    if facts.ceiling_left <= 0:
        return "the ceiling has come"
    if facts.ender:  # the machine is what costs: it goes at the deadline, whatever is unfinished
        return "the deadline has passed" if facts.deadline_left <= 0 else ""
    # It obeyed, and hashes what there is: it may, to the ceiling.
    finishing = facts.agent == "alive" and facts.alone and not facts.stopped
    return "the deadline has passed" if facts.deadline_left <= -margin and not finishing else ""


def armed_before(before: Dict[str, Any], boot: str, wall: float, steady: float) -> float:
    """When a job was armed, in steady seconds, by the last watchdog.json ({} = it is armed now).

    Being killed or restarted must not win time. Within one boot the steady clock goes on. After another its seconds
    begin anew: then what was used counts, and the time that the machine was off as far as the wall clock tells; one
    that went back tells nothing and wins nothing.
    """
    since, used, last = (number(before.get(key)) for key in ("armed_steady", "used", "time"))
    if before.get("boot") == boot and since is not None:
        return min(since, steady)
    off = max(0.0, wall - last) if last is not None else 0.0
    return steady - max(0.0, used or 0.0) - off


def limits_of(order: Dict[str, Any], armed: float) -> Limits:
    """Read limits from arm.json or job.json.

    Raises:
        ValueError: one is missing or no finite number: nothing may start without its end.
    """
    numbers = []
    for key in ("deadline", "ceiling", "max_seconds"):
        value = number(order.get(key))
        if value is None:
            raise ValueError(f"{key} must be a number, not {order.get(key)!r}")
        numbers.append(value)
    return Limits(numbers[0], numbers[1], numbers[2], armed)


def number(value: Any) -> Optional[float]:
    """Give a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
