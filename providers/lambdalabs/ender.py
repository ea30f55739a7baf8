"""How a machine at Lambda ends itself, where the user gave leave: payload/ender.py's orders, for one machine's id.

A key at Lambda opens the whole account, so it is the machine's only by `--key-on-machine`. The id is pinned: the
orders end this machine and no other, whatever else the account has.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from providers.base import Holder, Place, Proof, Secret
from providers.http import user_agent
from providers.lambdalabs import api
from providers.wire import ENDER_OVERRUN_SECONDS

if TYPE_CHECKING:
    from typing import Any

HOLDER = Holder(
    "watchdog",
    Place.MACHINE,
    Proof.UNPROVEN,
    extendable=True,
    worst_overrun_seconds=ENDER_OVERRUN_SECONDS,
    evidence="ends its machine by the account's key, which it gets over SSH; asks Lambda about it once it is there",
)
_PACE_SECONDS = 1.1  # the API allows 1 request a second


def orders(url: str, key: Secret, instance_id: str) -> Secret:
    """Spell the orders that end this instance."""
    headers = {"Authorization": f"Bearer {key.reveal()}", "User-Agent": user_agent()}
    look: dict[str, Any] = {"method": "GET", "url": f"{url}/instances/{instance_id}", "headers": headers}
    route = {
        "method": "POST",
        "url": f"{url}/instance-operations/terminate",
        "headers": headers,
        "body": {"instance_ids": [instance_id]},
    }
    gone = [
        {"status": [200], "at": ["data", "status"], "in": ["terminated"]},
        {"status": [404], "at": ["error", "code"], "in": [api.NO_SUCH_INSTANCE]},
    ]
    alive = [{"status": [200], "at": ["data", "id"], "in": [instance_id]}]
    return Secret(
        json.dumps({"routes": [route], "look": look, "alive": alive, "gone": gone, "pace_seconds": _PACE_SECONDS})
    )
