"""What outlives its machine comes home: by whose word the run ended, and how long that is tried. Pure.

    nothing bills ──> the store holds all of it: fetch, again and again for a while ──> home, or `gpurun pull` later
                      it can't be asked: wait so long, and never buy again before it has answered

Not here: when nothing bills any more (proof.py), where the files come from (stored.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.words import Act, Reason
from providers.base import Phase, seconds_between

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.facts import Memory, Rules, Seen
    from providers.base import RemoteStatus

_PATIENCE_SECONDS = 300.0  # with a store that fails, once nothing bills; after so long without a try, anew
_LIMITS = (Reason.DEADLINE, Reason.BUDGET)


def word_of(memory: Memory, remote: RemoteStatus, rules: Rules) -> tuple[Reason, str]:
    """Take the payload's own word of how it ended; lost where it left none."""
    if remote.reason not in set(Reason):
        return Reason.LOST, remote.detail or f"ended without a result while {memory.state}"
    reason = Reason(remote.reason)
    if reason is Reason.STOPPED and memory.reason is Reason.PROVIDER:  # and because of that: its price, it says
        return Reason.PROVIDER, memory.detail
    if reason is Reason.STOPPED and memory.reason in _LIMITS:
        reason = memory.reason or reason  # we told it to stop because of that
    if reason is Reason.DEADLINE:
        reason = rules.time_is_up
    return reason, "" if reason is Reason.COMPLETED else remote.detail


def overruled(memory: Memory, remote: RemoteStatus | None, rules: Rules) -> Memory:
    """Let a result that turned up late overrule "lost" and a limit."""
    if memory.reason not in {Reason.LOST, *_LIMITS} or remote is None or remote.reason not in set(Reason):
        return memory
    reason, detail = word_of(memory, remote, rules)
    return replace(memory, reason=reason, detail=detail, reroll=False)


def files_home(memory: Memory, remote: RemoteStatus | None, rules: Rules) -> Memory:
    """Everything whole there is whole here."""
    return replace(overruled(memory, remote, rules), collected=True)


def bring(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> tuple[Memory, Act | None]:
    """Say what is done, now that nothing bills, for files that are not home; None = no more."""
    look = seen.observation
    if memory.collected:
        return memory, None
    if not seen.stored and not seen.mute:  # a job's lie with its vendor, a local run's in their folder: once
        exited = look is not None and look.phase is Phase.EXITED
        return (replace(memory, collected=True), Act.COLLECT) if exited else (memory, None)
    if seen.stored:
        memory = overruled(memory, seen.remote, rules)
    slept = memory.tried is None or seconds_between(memory.tried, now) >= _PATIENCE_SECONDS  # or the vendor was silent
    since = now if memory.freed is None or slept else memory.freed
    bound = now < rules.deadline and memory.reroll and not memory.stop_requested
    if seconds_between(since, now) < _PATIENCE_SECONDS or (seen.mute and bound):
        return replace(memory, freed=since, tried=now), Act.COLLECT if seen.stored else Act.WAIT
    words = "its results are in the store" if seen.stored else "its store does not answer"
    detail = " · ".join(part for part in (memory.detail, f"{words}: gpurun pull brings them") if part)
    return replace(memory, detail=detail), None
