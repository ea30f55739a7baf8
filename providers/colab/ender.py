"""How a VM of Colab's ends itself: payload/ender.py's orders, a POST to an address that only the VM reaches.

`google.colab.runtime.unassign()` sends the same one (googlecolab/colabtools, 2026-08); it asks for no key. Whether it
obeys can't be tried without ending the VM: GET and OPTIONS of /unassign might end it too, where a server looks at no
method. So all that is asked is whether anybody answers at that address, which proves a way and no power.
"""

from __future__ import annotations

from typing import Any

from providers.base import Holder, Place, Proof
from providers.wire import ENDER_OVERRUN_SECONDS

_ADDRESS = "http://{env:TBE_RUNTIME_ADDR}"  # in the kernel's environment, and so in the watchdog's

HOLDER = Holder(
    "watchdog",
    Place.MACHINE,
    Proof.UNPROVEN,
    extendable=True,
    worst_overrun_seconds=ENDER_OVERRUN_SECONDS,
    evidence="posts to the VM's own unassign address, which can't be tried without ending it: stays unproven",
)


def orders() -> dict[str, Any]:
    """Spell the orders that end the VM they lie on. Nothing in them is secret."""
    return {
        "routes": [{"method": "POST", "url": f"{_ADDRESS}/unassign"}],
        "look": {"method": "GET", "url": f"{_ADDRESS}/"},
        "alive": [],
        "gone": [],
        "there": [{}],  # any answer
        "pace_seconds": 1.0,
    }
