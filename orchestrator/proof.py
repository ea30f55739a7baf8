"""When it is proven that something is gone: how many reads said so, how far apart, on whose word. Pure.

An absence may be a lag of the vendor's list: three reads, spread over that lag, are needed. The vendor's own word of
an end is one read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.words import Launch
from providers.base import Observation, Phase, Proof, seconds_between

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from orchestrator.facts import Memory, Rules, Seen

PROOF_READS = 3
_SETTLE_SECONDS = 2.0  # least time over which the reads are spread, however quick the vendor's lists are


def what_counts(looks: Sequence[Observation]) -> Observation:
    """Of looks at all that one attempt made, give the one that is hardest to believe in: what bills counts first.

    Then what is merely absent, since it takes more reads than the vendor's own word of an end.
    """
    return max(looks, key=lambda look: (look.billing, look.phase is Phase.ABSENT and not _on_its_word(look)))


def _on_its_word(look: Observation) -> bool:
    return look.ended or look.billed_until is not None


def remember(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Memory:
    """Count absences that follow one another, keep the newest step, and since when nobody there could end it.

    Within the list's lag of its launch the absence of a thing says nothing, so it is not counted.
    """
    if seen.remote is not None:
        proven = seen.remote.watchdog is not None and seen.remote.watchdog.proof is Proof.PROVEN
        step = max(memory.step, seen.remote.step)
        memory = replace(memory, step=step, unheld=None if proven else memory.unheld or now)
    absent = seen.observation is not None and seen.observation.phase is Phase.ABSENT
    unlisted = memory.launch is Launch.INTENDED and seen.found == ()
    if absent or unlisted:
        at = seen.asked or now  # a computer may sleep between an answer and the look at it
        if memory.intended is not None and seconds_between(memory.intended, at) < rules.list_lag_seconds:
            return memory
        return replace(memory, absences=(*memory.absences[: PROOF_READS - 1], at))  # the first ones and the last
    if seen.observation is not None or seen.found:
        return replace(memory, absences=())
    return memory


def proven_absent(memory: Memory, rules: Rules, lags: float = 1.0) -> bool:
    """Judge whether enough reads, spread over the vendor's list lag, said "no such thing"."""
    if len(memory.absences) < PROOF_READS:
        return False
    spread = max(lags * rules.list_lag_seconds, _SETTLE_SECONDS)
    settled = memory.intended is None or seconds_between(memory.intended, memory.absences[-1]) >= spread
    return settled and seconds_between(memory.absences[0], memory.absences[-1]) >= spread


def proven_free(memory: Memory, look: Observation, rules: Rules) -> bool:
    """Judge whether nothing bills: the vendor's own word of an end, or absence proven."""
    if look.billing:
        return False
    if look.phase is Phase.ABSENT:
        return look.ended or look.billed_until is not None or proven_absent(memory, rules)
    return look.phase is Phase.EXITED or look.billed_until is not None
