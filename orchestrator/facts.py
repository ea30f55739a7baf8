"""What the life cycle goes by: a run's limits, what is remembered of it, what was seen, what was decided. Plain facts.

lifecycle.py decides on them; memo.py writes a Memory down; records.py takes the Rules from the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.words import Act, Launch, Reason, State

if TYPE_CHECKING:
    from datetime import datetime

    from providers.base import Allocation, Observation, Offer, RemoteStatus


@dataclass(frozen=True, slots=True)
class Wish:
    """An extension that the user asked for: the limits as they are to be. `id` grows."""

    id: int
    deadline: datetime
    ceiling: datetime
    worst: Decimal  # USD: what the run may then cost
    max_cost: Decimal | None = None  # None = as it was


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a run and the vendor's pace; seconds and absolute UTC times."""

    deadline: datetime
    ceiling: datetime
    grace_seconds: float
    max_attempts: int
    list_lag_seconds: float
    boot_limit_seconds: float
    start_limit_seconds: float
    max_cost: Decimal | None = None
    candidates: tuple[Offer, ...] = ()  # what the user agreed to, in the order in which it is tried
    wait_until: datetime | None = None  # so long the user waits for capacity
    retry_seconds: float = 30.0  # between two rounds while nothing is to be had
    ending_seconds: float = 180.0  # that a vendor may take over an end before it is told again
    bare: bool = False  # an allocation without a job of ours: there is nothing to ask, tell or collect
    budget_bound: bool = False  # it is the money that sets the deadline
    needs_watchdog: bool = False  # nobody but this computer and the machine itself could stop the meter
    wish: Wish | None = None  # the last extension that was asked for

    @property
    def time_is_up(self) -> Reason:
        """Why a run ends at its deadline."""
        return Reason.BUDGET if self.budget_bound else Reason.DEADLINE


@dataclass(frozen=True, slots=True)
class Memory:
    """All that the life cycle remembers of a run: saved before each deed."""

    state: State = State.PENDING
    attempt: int = 1
    entered: datetime | None = None  # into this state
    reason: Reason | None = None
    detail: str = ""  # one line for a person
    launch: Launch = Launch.NOT_YET
    intended: datetime | None = None  # when this attempt's launch was committed to disk
    offer: Offer | None = None  # the one that this attempt takes
    refused: tuple[str, ...] = ()  # names of the offers that had no capacity in this round
    rounds: int = 0  # rounds in which nothing was to be had
    retry_at: datetime | None = None  # when the next round begins
    waiting_since: datetime | None = None  # for capacity
    allocation_id: str = ""
    unclear: bool = False  # the launch was found, not answered: it may have made more than was listed then
    extra_ids: tuple[str, ...] = ()  # a launch that made more than one: all are ended
    stop_requested: bool = False
    told_to_stop: datetime | None = None
    collected: bool = False
    hopeless: bool = False  # the job can't be started, here or anywhere
    start_failures: int = 0  # in a row, with the same words of the machine's
    terminate_sent: bool = False
    freed: datetime | None = None  # since when nothing bills, while what it left in the store is not home
    tried: datetime | None = None  # when that was last asked for
    absences: tuple[datetime, ...] = ()  # reads in a row that said "no such thing"
    step: int = 0  # newest step seen, for telling progress from repetition
    unheld: datetime | None = None  # since when the machine shows no holder of its own that could end it
    moved: int = 0  # the wish for which the vendor's limits were moved and the machine was told
    answered: int = 0  # the last wish that was granted or refused
    reroll: bool = False
    signatures: tuple[str, ...] = ()  # one a failed attempt
    evidence: str = ""  # on whose word nothing bills

    @property
    def is_done(self) -> bool:
        """Nothing bills, and that was read back."""
        return self.state is State.DONE

    def to(self, state: State, now: datetime) -> Memory:
        """Enter a state: what was absent in the last one proves nothing in this."""
        return replace(self, state=state, entered=now, absences=())


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the world. None = could not look, which proves nothing."""

    observation: Observation | None = None
    remote: RemoteStatus | None = None
    found: tuple[Allocation, ...] | None = None
    offers: tuple[Offer, ...] | None = None  # what may be taken now; None = as planned
    broken: str = ""  # the machine is not the one that was made: nothing may be sent to it
    accrued_high: Decimal = Decimal(0)
    looks: tuple[tuple[str, Observation], ...] = ()  # at each id of the attempt; `observation` is what counts of them
    asked: datetime | None = None  # when the vendor was asked: an answer is as old as its question
    stored: bool = False  # all of the attempt is verified in the store: nothing on the machine is worth a wait
    storing: bool = False  # it is on its way there
    mute: bool = False  # nothing bills any more, and the store can't be asked what it holds of it
    strays: tuple[str, ...] | None = ()  # what else bills for the run: a twin, or an attempt of a lost ledger's
    last_attempt: int | None = 0  # the highest of which the store has anything, where a launch is due


@dataclass(frozen=True, slots=True)
class Decision:
    """What to remember, and the one thing to do once it is saved."""

    memory: Memory
    act: Act
    late: int = 0  # seconds for which nothing could be rented: the limits count from the launch
    granted: Wish | None = None  # the limits are these from now on
