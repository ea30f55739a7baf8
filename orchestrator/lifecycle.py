"""The one road of every run: what is remembered + what is seen + the time -> what to do next. Pure.

    PENDING -> PROVISIONING -> STARTING -> RUNNING -> COLLECTING -> TERMINATING -> DONE
       ^_______________ re-roll: next attempt, only after the last one is proven gone ______|

`decide` never touches a clock, a disk or a network. The controller saves the new memory, then acts.
Facts that deeds bring back (a launch accepted, files home) enter through the small functions at the end.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from orchestrator.capacity import try_next
from orchestrator.facts import Decision, Memory, Rules, Seen, Wish
from orchestrator.homecoming import bring, word_of
from orchestrator.proof import proven_absent, proven_free, remember
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Observation, Phase, RemoteStatus, seconds_between

PRICE_TOLERANCE = Decimal("1.01")
_START_TRIES = 3
_UNCLEAR_LAGS = 3.0  # of the list, for which an unclear launch is looked for: what turns up later nobody looks for
_STOP_MARGIN_SECONDS = 5.0
_LAST_SECONDS = 20.0  # for what a run that never ended by itself has at its deadline: its last words, a small adapter
_LOST_PATIENCE_SECONDS = 60.0
_PROOF_SECONDS = 60.0  # that a machine gets to prove that its holder can end it, and to prove it again
_UNHELD = "nothing on the machine could stop the meter"
_UNDER_WAY = (State.PROVISIONING, State.STARTING, State.RUNNING)
_LIMITS = (Reason.DEADLINE, Reason.BUDGET)
_WHICH = re.compile(r"SHA256:\S+|\b\d+(\.\d+){3}(:\d+)?|\b[0-9a-f]{16,}\b")  # which machine it was, not what broke


def decide(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    """Say what comes next for a run. Pure: the same arguments give the same decision."""
    seen = _merged(seen, rules)
    memory = remember(memory, seen, now, rules)
    if memory.launch is Launch.ACCEPTED and memory.state in _UNDER_WAY and seen.strays:
        return _twin(memory, seen.strays, now, rules)
    return _ROADS[memory.state](memory, seen, now, rules)


def is_overtaken(act: Act, memory: Memory, seen: Seen, now: datetime, rules: Rules) -> bool:
    """Say whether a deed that takes hours stands in the way of another: a limit was reached, or a stop was asked for.

    What is slow but moves is not given up for it: neither a start that began in time, nor the files of a lost machine.
    """
    if memory.state is State.TERMINATING:  # nothing bills any more
        return False
    bills = seen.observation is None or seen.observation.billing
    if bills and memory.state is State.COLLECTING and memory.entered and memory.entered >= rules.deadline:
        return seconds_between(memory.entered, now) > _LAST_SECONDS
    entered = None if memory.state is State.STARTING else memory.entered
    return decide(replace(memory, reason=None, entered=entered), seen, now, rules).act not in {act, Act.EXTEND}


def _merged(seen: Seen, rules: Rules) -> Seen:
    """See a machine whole: the vendor says that it is up, the machine itself what runs on it.

    While it does not answer it is still on its way.
    """
    look = seen.observation
    if look is None or look.phase is not Phase.READY:
        return seen
    here = Phase.QUEUED if seen.remote is None else seen.remote.phase
    phase = Phase.RUNNING if rules.bare else here
    return replace(seen, observation=replace(look, phase=phase))


def _done(memory: Memory, _seen: Seen, _now: datetime, _rules: Rules) -> Decision:
    return Decision(memory, Act.FINISH)


def _pending(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    if seen.strays:  # never two for one run
        return _stray(memory, seen.strays, now, rules)
    if seen.strays is None and memory.attempt > 1:
        return Decision(memory, Act.WAIT)
    waiting = memory.waiting_since is not None  # the limits count from the launch
    ending = _ending(memory, seen, now, rules, timed=not waiting)
    if ending is not None:
        evidence = memory.evidence or "nothing was launched"
        return Decision(replace(memory, reason=ending, evidence=evidence).to(State.DONE, now), Act.FINISH)
    if seen.strays is None or seen.last_attempt is None:
        return Decision(memory, Act.WAIT)
    if seen.last_attempt >= memory.attempt:  # of a ledger that was put back: no two attempts write to one place
        return Decision(replace(memory, attempt=seen.last_attempt + 1), Act.WAIT)
    return try_next(memory, seen, now, rules)


def _stray(memory: Memory, strays: tuple[str, ...], now: datetime, rules: Rules) -> Decision:
    """End what bills for the run and is not in the ledger: one that was put back knows less than there is."""
    memory = launch_accepted(memory, strays[0], strays[1:])
    return _end(memory, Reason.PROVIDER, "what the ledger does not know bills for it", now, rules, again=True)


def _twin(memory: Memory, strays: tuple[str, ...], now: datetime, rules: Rules) -> Decision:
    """End all that one launch made, when more of it turns up than was found at first."""
    ids = tuple(dict.fromkeys((*memory.extra_ids, *strays)))
    words = f"one launch made {len(ids) + 1} allocations"
    return _end(replace(memory, extra_ids=ids), Reason.PROVIDER, words, now, rules, again=True)


def _provisioning(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    if memory.launch is Launch.INTENDED:
        return _settle(memory, seen, now, rules)
    return _on_the_way(memory, seen, now, rules, rules.boot_limit_seconds, "never came up")


def _settle(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    """Find out what an unclear launch made, before anything else is launched."""
    if seen.found:
        ids = list(dict.fromkeys(one.id for one in seen.found))  # a list in pages may name one twice
        memory = replace(launch_accepted(memory, ids[0], tuple(ids[1:])), unclear=True)
        if len(ids) > 1:
            return _end(memory, Reason.PROVIDER, f"one launch made {len(ids)} allocations", now, rules, again=True)
        return Decision(memory, Act.WAIT)
    if seen.strays:
        return _stray(memory, seen.strays, now, rules)
    if seen.strays is None or not proven_absent(memory, rules, _UNCLEAR_LAGS):
        return Decision(memory, Act.WAIT)
    memory = replace(memory, launch=Launch.NOT_YET, evidence="not found by its mark over thrice the list's lag")
    return _next(_failed(memory, Reason.PROVIDER, "the launch left no trace", rules, now), now)


def _on_the_way(memory: Memory, seen: Seen, now: datetime, rules: Rules, limit: float, late: str) -> Decision:
    """Follow an accepted allocation until it runs, whatever it is: a machine or a job."""
    ending = _ending(memory, seen, now, rules)
    if ending is not None:
        return _end(memory, ending, memory.detail, now, rules)
    look = seen.observation
    if look is not None:
        wrong = seen.broken or look.failure
        if wrong or _dearer(memory, look):
            return _end(memory, Reason.PROVIDER, wrong or _dearer(memory, look), now, rules, again=bool(wrong))
        match look.phase:
            case Phase.RUNNING:
                return Decision(replace(memory, detail="").to(State.RUNNING, now), Act.FOLLOW)
            case Phase.EXITED if seen.remote is not None:
                return _finished(memory, seen.remote, now, rules)
            case Phase.ABSENT if proven_absent(memory, rules):
                return _end(memory, Reason.LOST, "gone before it ran", now, rules, again=True)
            case Phase.READY:
                if memory.state is State.PROVISIONING:
                    return Decision(memory.to(State.STARTING, now), Act.START)
    if memory.entered is not None and seconds_between(memory.entered, now) > limit:
        return _end(memory, Reason.PROVIDER, memory.detail or late, now, rules, again=True)
    ready = memory.state is State.STARTING and look is not None and look.phase is Phase.READY
    return Decision(memory, Act.START if ready else Act.WAIT)


def _dearer(memory: Memory, look: Observation | None) -> str:
    """Say that it costs more than what was agreed to; "" = it does not."""
    if memory.offer is None or look is None or look.price is None or look.price <= memory.offer.price * PRICE_TOLERANCE:
        return ""
    return f"it costs ${look.price}/h, and ${memory.offer.price}/h was agreed to"


def _starting(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    if memory.hopeless:
        return _end(memory, Reason.FAILED, memory.detail, now, rules)
    if memory.start_failures >= _START_TRIES:
        return _end(memory, Reason.PROVIDER, memory.detail, now, rules, again=True)
    return _on_the_way(memory, seen, now, rules, rules.start_limit_seconds, "the job would not start")


def _running(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    look, remote = seen.observation, seen.remote
    exited = look is not None and look.phase is Phase.EXITED
    if remote is not None and (exited or remote.phase is Phase.EXITED):
        return _finished(memory, remote, now, rules)
    if look is not None and look.phase is Phase.ABSENT and proven_absent(memory, rules):
        return _end(memory, Reason.LOST, "vanished", now, rules, again=True)
    if look is not None and look.failure and not rules.bare:
        return _broken(memory, look.failure, remote, now, rules)
    if seen.broken:  # nothing can be asked of it any more, and nothing told
        return _end(memory, Reason.LOST, seen.broken, now, rules, again=True)
    if rules.needs_watchdog and remote is not None and _is_unheld(memory, now):
        return _end(memory, Reason.PROVIDER, _UNHELD, now, rules, again=True)
    ending, dearer = _ending(memory, seen, now, rules), _dearer(memory, look)
    if dearer and memory.told_to_stop is None and ending is None:
        memory, ending = replace(memory, detail=dearer), Reason.PROVIDER
    ending = ending or _due_to_save(now, rules)
    if ending is None and memory.told_to_stop is None:
        return _carry_on(memory, seen, rules)
    if rules.bare:
        return _end(memory, ending or rules.time_is_up, memory.detail, now, rules)
    return _stopping(memory, ending, now, rules)


def _stopping(memory: Memory, ending: Reason | None, now: datetime, rules: Rules) -> Decision:
    """Let training save and leave; past the deadline, or when it takes too long, bring home what there is."""
    if now >= rules.deadline:
        return Decision(replace(memory, reason=ending).to(State.COLLECTING, now), Act.COLLECT)
    if memory.told_to_stop is None:
        return Decision(replace(memory, reason=ending, told_to_stop=now), Act.TELL_STOP)
    if seconds_between(memory.told_to_stop, now) > rules.grace_seconds + _STOP_MARGIN_SECONDS:
        return Decision(memory.to(State.COLLECTING, now), Act.COLLECT)
    return Decision(memory, Act.FOLLOW)


def _carry_on(memory: Memory, seen: Seen, rules: Rules) -> Decision:
    """Follow it; an extension that was asked for goes from the outside in: the vendor's limits, the machine, ours."""
    act = Act.WAIT if rules.bare else Act.FOLLOW
    wish = rules.wish
    if wish is None or wish.id <= memory.answered:
        return Decision(memory, act)
    if memory.moved != wish.id:
        return Decision(memory, Act.EXTEND)
    told = None if seen.remote is None else seen.remote.deadline
    if rules.bare or (told is not None and abs(seconds_between(told, wish.deadline)) < 1.0):
        return Decision(replace(memory, answered=wish.id), act, granted=wish)
    return Decision(memory, act)  # the machine has not taken it up yet


def _is_unheld(memory: Memory, now: datetime) -> bool:
    """Say whether nobody but this computer could stop it, for a while now, though the plan named the machine itself."""
    if memory.unheld is None or memory.entered is None or memory.told_to_stop is not None:
        return False
    return seconds_between(max(memory.unheld, memory.entered), now) > _PROOF_SECONDS


def _due_to_save(now: datetime, rules: Rules) -> Reason | None:
    """Say that training should be saving by now: the machine's own clock, by which it would, may be behind."""
    return rules.time_is_up if not rules.bare and now >= _save_by(rules) else None


def _save_by(rules: Rules) -> datetime:
    late = min(_STOP_MARGIN_SECONDS, rules.grace_seconds / 4)
    return rules.deadline - timedelta(seconds=rules.grace_seconds - late)


def seconds_to_limit(now: datetime, rules: Rules) -> float:
    """How long until the time alone asks for something: to save, to end. Nobody should sleep past that."""
    ahead = [seconds_between(now, moment) for moment in (_save_by(rules), rules.deadline)]
    return min((seconds for seconds in ahead if seconds > 0), default=math.inf)


def _broken(memory: Memory, failure: str, remote: RemoteStatus | None, now: datetime, rules: Rules) -> Decision:
    """The vendor calls the allocation broken while our job is on it: what still answers is brought home first."""
    if remote is None:
        return _end(memory, Reason.LOST, failure, now, rules, again=True)
    return Decision(replace(memory, reason=Reason.LOST, detail=failure).to(State.COLLECTING, now), Act.COLLECT)


def _finished(memory: Memory, remote: RemoteStatus, now: datetime, rules: Rules) -> Decision:
    """The payload ended: believe its own word, and call it lost where it left none."""
    reason, detail = word_of(memory, remote, rules)
    return Decision(replace(memory, reason=reason, detail=detail).to(State.COLLECTING, now), Act.COLLECT)


def _collecting(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    look = seen.observation
    may_bill = look is None or look.billing
    gone = look is not None and look.phase is Phase.ABSENT and proven_absent(memory, rules)
    impatient = (
        memory.reason is Reason.LOST
        and memory.entered is not None
        and seconds_between(memory.entered, now) > _LOST_PATIENCE_SECONDS
    )
    if seen.stored or (memory.collected and not seen.storing):
        return _end(memory, memory.reason or Reason.LOST, memory.detail, now, rules, again=memory.reason is Reason.LOST)
    if gone or impatient or seen.broken:  # whatever it had achieved, it is not here: never call that completed
        words = seen.broken or memory.detail or "gone before its files were home"
        return _end(memory, Reason.LOST, words, now, rules, again=True)
    if memory.stop_requested:
        asked = memory.told_to_stop or now
        memory = replace(memory, told_to_stop=asked)
        if seconds_between(max(asked, memory.entered or asked), now) > rules.grace_seconds + _STOP_MARGIN_SECONDS:
            words = " · ".join(part for part in ("its files would not come home", memory.detail) if part)
            return _end(memory, Reason.STOPPED, words, now, rules)
    if may_bill and now >= rules.deadline:
        reason = rules.time_is_up if memory.reason is Reason.COMPLETED else memory.reason
        return _end(memory, reason or rules.time_is_up, memory.detail, now, rules)
    return Decision(memory, Act.COLLECT)


def _terminating(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    look = seen.observation
    known = (memory.allocation_id, *memory.extra_ids)
    more = tuple(one for one in seen.strays or () if one not in known)
    if more:
        return Decision(replace(memory, extra_ids=memory.extra_ids + more, absences=()), Act.TERMINATE)
    if seen.strays:  # a list shows what is absent: of the reads in a row, none counts
        memory = replace(memory, absences=())
    if not memory.terminate_sent or look is None or not proven_free(memory, look, rules):
        patience = memory.entered is not None and seconds_between(memory.entered, now) < rules.ending_seconds
        absent = look is not None and look.phase is Phase.ABSENT and not look.billing
        ending = absent or (look is not None and look.ending)
        wait = memory.terminate_sent and ((absent and not seen.strays) or (ending and patience))
        return Decision(replace(memory, terminate_sent=True), Act.WAIT if wait else Act.TERMINATE)
    if seen.strays:  # a list that shows what was called ended: one of the two was wrong
        return Decision(memory, Act.TERMINATE)
    if seen.strays is None:
        return Decision(memory, Act.WAIT)
    memory = replace(memory, evidence=look.evidence)
    memory, act = bring(memory, seen, now, rules)
    return _next(memory, now) if act is None else Decision(memory, act)


def _next(memory: Memory, now: datetime) -> Decision:
    """The attempt is proven gone: the next one, or the end."""
    if not memory.reroll or memory.stop_requested:
        broke = memory.reason in {Reason.LOST, Reason.PROVIDER}
        reason = Reason.STOPPED if memory.stop_requested and broke else memory.reason
        return Decision(replace(memory, reason=reason).to(State.DONE, now), Act.FINISH)
    fresh = Memory(
        attempt=memory.attempt + 1,
        step=memory.step,
        answered=memory.answered,  # a wish that was refused must not come true on the next machine
        signatures=memory.signatures,
        evidence=memory.evidence,
    )
    return Decision(fresh.to(State.PENDING, now), Act.WAIT)


def _ending(memory: Memory, seen: Seen, now: datetime, rules: Rules, *, timed: bool = True) -> Reason | None:
    """Say whether a limit or the user wants this run to end."""
    if memory.stop_requested:
        return Reason.STOPPED
    if timed and now >= rules.deadline:
        return rules.time_is_up
    if rules.max_cost is not None and seen.accrued_high >= rules.max_cost:
        return Reason.BUDGET
    return None


def _end(memory: Memory, reason: Reason, detail: str, now: datetime, rules: Rules, *, again: bool = False) -> Decision:
    """Enter TERMINATING; `again` = a next attempt may help."""
    memory = replace(memory, detail=detail)
    memory = _failed(memory, reason, detail, rules, now) if again else replace(memory, reason=reason, reroll=False)
    return Decision(replace(memory.to(State.TERMINATING, now), terminate_sent=True), Act.TERMINATE)


def _failed(memory: Memory, reason: Reason, detail: str, rules: Rules, now: datetime) -> Memory:
    """Keep the failure's signature; a second one like it would only be bought again."""
    signature = f"{reason}: {_WHICH.sub('…', detail)} (step {memory.step})"
    again = (
        signature not in memory.signatures
        and memory.attempt < rules.max_attempts
        and not memory.stop_requested
        and now + timedelta(seconds=rules.grace_seconds) < rules.deadline
    )
    return replace(memory, reason=reason, detail=detail, reroll=again, signatures=(*memory.signatures, signature))


# ── facts that deeds bring back ─────────────────────────────────────────────────────────────────


def launch_accepted(memory: Memory, allocation_id: str, extra_ids: tuple[str, ...] = ()) -> Memory:
    """The vendor took the launch: from here on it may bill."""
    return replace(memory, launch=Launch.ACCEPTED, allocation_id=allocation_id, extra_ids=extra_ids, absences=())


def extended(memory: Memory, wish: Wish, *, moved: bool) -> Memory:
    """The vendor's limits are those of the wish, and the machine was told; or a limit can't be moved."""
    return replace(memory, moved=wish.id) if moved else replace(memory, answered=wish.id)


def launch_refused(memory: Memory, reason: Reason, detail: str, now: datetime) -> Memory:
    """The vendor rented nothing, in its own words, and would not another time."""
    done = replace(memory, launch=Launch.NOT_YET, reason=reason, detail=detail, evidence=f"refused: {detail}")
    return done.to(State.DONE, now)


def start_failed(memory: Memory, detail: str, *, permanent: bool, theirs: bool) -> Memory:
    """The job could not be started: it never will be, or the machine (`theirs`) is given up when it says so again."""
    before = memory.start_failures if detail == memory.detail else 0
    return replace(memory, detail=detail, hopeless=permanent, start_failures=before + 1 if theirs else 0)


_ROADS = {
    State.PENDING: _pending,
    State.PROVISIONING: _provisioning,
    State.STARTING: _starting,
    State.RUNNING: _running,
    State.COLLECTING: _collecting,
    State.TERMINATING: _terminating,
    State.DONE: _done,
}
