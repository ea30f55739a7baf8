"""How the Hub misbehaves: the rows of this vendor. `times` = how often (null = always), `skip` = chances to let pass.

Seconds are the vendor's own. A fault of a job strikes the next one that is submitted.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from simulators.faults import FaultError, Hit

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = str | int | float | bool | None

# name -> its options with their defaults; `of` names an operation (see hub.ROUTES), null = any
REQUEST: Mapping[str, Mapping[str, Value]] = {
    "no_credit": {"of": "submit"},  # 402, nothing made
    "forbidden": {"of": None},  # 403 with X-Error-Message
    "unauthorized": {"of": None},  # 401
    "rate_limited": {"of": None},  # 429
    "server_error": {"of": None},  # 500
    "bad_gateway": {"of": None},  # 502
    "reply_lost": {"of": "submit"},  # done, then the connection is closed
    "reply_500": {"of": "submit"},  # done, then 500
    "slow_reply": {"of": None, "seconds": 30},
    "clock_skew": {"of": None, "seconds": 120},
    "list_lag": {"of": "list", "seconds": 20},  # a fresh job is not listed for so long
    "pages": {"of": "list", "size": 1},
    "cancel_ignored": {"of": "cancel"},  # accepted, not carried out
    "logs_cut": {"of": "logs", "after": 3},  # the stream drops after so many new events
    "logs_502": {"of": "logs"},
    "batch_fails": {"of": "batch"},  # every operation of it failed
    "read_only_token": {},  # 403 to whoever would make or write a repository
}
JOB: Mapping[str, Mapping[str, Value]] = {
    "stuck_scheduling": {},  # never starts
    "slow_scheduling": {"seconds": 120},
    "image_fails": {},  # SCHEDULING -> ERROR
    "unknown_stage": {"word": "UPDATING", "seconds": 5},  # shown between SCHEDULING and RUNNING
    "vanish": {"after": 5},  # killed, and 404 from then on
    "bucket_lag": {"seconds": 20},  # what the job writes is seen so much later
    "spend_limit": {"after": 5},  # CANCELED by the resource group
    "price_dearer": {"factor": 1.5},
    "exit_code": {"code": 137, "after": 5},  # the container is killed
}
TABLE = {**REQUEST, **JOB}
_EVERYWHERE: Mapping[str, Value] = {"times": 1, "skip": 0}
_DEADLY = {"no_credit", "forbidden", "unauthorized", "price_dearer", "read_only_token"}
_ALWAYS = {"clock_skew", "pages"}


def parse(wish: object) -> list[Hit]:
    """Read faults from JSON: names, or names with a number of times, true, or options.

    Raises:
        FaultError: an unknown name or option.
    """
    if isinstance(wish, list) and all(isinstance(name, str) for name in wish):
        wish = dict.fromkeys(wish, True)
    if not isinstance(wish, dict):
        raise FaultError('faults are a list of names, or an object such as {"no_credit": 2}')
    return [_hit(name, value) for name, value in wish.items()]


def _hit(name: str, value: object) -> Hit:
    if name not in TABLE:
        raise FaultError(f"no fault is called {name!r}; there are {', '.join(TABLE)}")
    options: dict[str, Value] = {**_EVERYWHERE, **TABLE[name]}
    if name in _ALWAYS:
        options["times"] = None
    if value is None or value is False:
        options["times"] = 0
    elif isinstance(value, dict):
        if unknown := value.keys() - options.keys():
            raise FaultError(f"{name} has no option {', '.join(sorted(unknown))}")
        options.update(value)
    elif isinstance(value, int) and value is not True:
        options["times"] = value
    elif value is not True:
        raise FaultError(f"{name} takes a number of times, true, or an object of options")
    return Hit(name, options)


def drawn(seed: int) -> list[Hit]:
    """Draw one or two faults that a run can survive: the same seed draws the same ones."""
    dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
    names = dice.sample(sorted(TABLE.keys() - _DEADLY), dice.randint(1, 2))
    return [_hit(name, True) for name in names]  # noqa: FBT003 - as a wish spells it


def listing() -> str:
    """Spell the table for a person."""
    return "\n".join(
        f"{name:20} {', '.join(f'{key}={value!r}' for key, value in row.items())}" for name, row in TABLE.items()
    )
