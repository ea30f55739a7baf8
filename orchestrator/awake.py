"""What it means that this computer sleeps while a run goes on where only it keeps the machine: the words for it.

Colab takes away what nobody gives a sign of life for, when it does not say; with a store results left as they arose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_PLAN = (
    "THIS COMPUTER MUST STAY AWAKE: while it sleeps nobody tells Colab that the VM is in use, and Colab may take it"
    " away with all that is on it. With --store results leave as they arise"
)
DETACHED = "This computer must stay awake until it is done: asleep, it can't keep Colab from taking the VM away."
AFTER_SLEEP = "Colab may have taken it meanwhile, with what was not home yet"


def must_stay(plan: Mapping[str, Any]) -> bool:
    """Whether a sleep of this computer may cost the run; `plan` as in the ledger, where glance.py asks in SQL."""
    return plan["offer"]["provider"] == "colab" and not plan.get("store")
