"""Hugging Face's Hub on loopback, as far as Jobs need it: jobs as real processes, buckets, logs, and a meter.

with HfSimulator(pace=60) as hub:
    hub.announcement()      -> {"provider", "url", "control", "exports"}

Good enough for the unmodified `huggingface_hub` client and its `hf` command; `HF_ENDPOINT` leads here.
"""

from __future__ import annotations

import random
import secrets
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from simulators.clock import Clock
from simulators.folders import working_folder
from simulators.hf_jobs.control import Control
from simulators.hf_jobs.hub import Hub
from simulators.hf_jobs.world import HubWorld
from simulators.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulators.faults import Hit

SCHEDULE_SECONDS = 20.0  # from submission to RUNNING, on a good day
USER = "alice"


class HfSimulator:
    """The whole vendor. What it takes time for takes `pace` times less; its clock runs as ours until it is told."""

    def __init__(
        self,
        *,
        pace: float = 1.0,
        rate: float = 1.0,
        schedule_seconds: float = SCHEDULE_SECONDS,
        faults: Iterable[Hit] = (),
        seed: int | None = None,
    ) -> None:
        self._pace = pace
        self._ending = ExitStack()
        self._token = f"hf_{secrets.token_urlsafe(26)}"
        self._home = ""
        self.world = HubWorld(
            threading.RLock(),
            Clock(rate),
            pace=pace,
            schedule_seconds=schedule_seconds,
            dice=random.Random(seed) if seed is not None else random.SystemRandom(),  # noqa: S311 - ids, no secrets
        )
        self._hub = Server("hub", Hub(self.world, self._token, USER).answer)
        self._control = Server("control", Control(self.world).answer)
        self._faults = list(faults)

    def __enter__(self) -> Self:
        """Begin to serve."""
        with self._ending as ending:
            folder = ending.enter_context(working_folder("hf"))
            self._home = str(folder / "hf-home")
            self.world.settle(folder)
            self.world.agenda.start()
            ending.callback(self.world.agenda.stop)
            for server in (self._hub, self._control):
                server.listen()
                ending.callback(server.close)
            self.world.endpoint = self._hub.url
            ending.callback(self.world.close)  # first: it ends the streams that the servers wait for
            with self.world.lock:
                self.world.arm(self._faults)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End every job, thread and socket; leave no file."""
        self._ending.close()

    def announcement(self) -> dict[str, object]:
        """Tell where everything is: the one line that `python -m simulators` prints."""
        return {
            "provider": "hf",
            "url": self._hub.url,
            "control": self._control.url,
            "exports": {
                "HF_ENDPOINT": self._hub.url,
                "HF_TOKEN": self._token,
                "GPURUN_HF_NAMESPACE": USER,
                "HF_HOME": self._home,
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "GPURUN_HF_PACE": f"{self._pace:g}",
            },
        }
