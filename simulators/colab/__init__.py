"""Google Colab on loopback: its tunnel protocol, its meter in units, and a real jupyter-server behind every VM.

with ColabSimulator(pace=60) as colab:
    colab.announcement()      -> {"provider", "url", "control", "exports"}

Good enough for the official google-colab-cli 0.7.5: `cli_home` in the announcement is a HOME with a login for it.
"""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from simulators import serving
from simulators.clock import Clock
from simulators.colab.api import Api
from simulators.colab.world import ColabWorld
from simulators.control import Control
from simulators.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulators.colab.machine import Machine
    from simulators.colab.vms import Vm
    from simulators.faults import Hit

_LONG_SECONDS = 10 * 365 * 86400.0
_LONG_AFTER = "2099-01-01T00:00:00Z"


class ColabSimulator:
    """The whole vendor. Whatever it takes time for takes `pace` times less; limits of idleness and age do not."""

    def __init__(
        self,
        *,
        pace: float = 1.0,
        rate: float = 1.0,
        faults: Iterable[Hit] = (),
        seed: int | None = None,
        machines: bool = True,
    ) -> None:
        self._pace = pace
        self._ending = ExitStack()
        self._folder = Path()
        self._api = Server("api")
        self.world = ColabWorld(
            threading.RLock(),
            Clock(rate),
            pace=pace,
            make_machine=self._make if machines else None,
            door=self._api,
            dice=random.Random(seed) if seed is not None else random.SystemRandom(),  # noqa: S311 - ids, no secrets
        )
        self._api.answer = Api(self.world).answer
        self._control = Server("control", Control(self.world).answer)
        self._faults = list(faults)

    def __enter__(self) -> Self:
        """Begin to serve."""
        with self._ending as ending:
            self._folder = serving.begin(ending, "colab", self.world, self._api, self._control)
            self._write_logins()
            with self.world.lock:
                self.world.arm(self._faults)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End every VM, thread and socket; leave no file."""
        self._ending.close()

    def announcement(self) -> dict[str, object]:
        """Tell where everything is: the one line that `python -m simulators` prints."""
        return {
            "provider": "colab",
            "url": self._api.url,
            "control": self._control.url,
            "cli_home": str(self._folder / "home"),
            "exports": {
                "GPURUN_COLAB_URL": self._api.url,
                "GOOGLE_APPLICATION_CREDENTIALS": str(self._folder / "login.json"),
                "GPURUN_COLAB_PACE": f"{self._pace:g}",
            },
        }

    def _write_logins(self) -> None:
        """Write a login that is refreshed at our /token, and one for the official command, which never needs to be."""
        google, uri = self.world.google, f"{self._api.url}/token"
        home = self._folder / "home" / ".config" / "colab-cli"
        home.mkdir(parents=True)
        token = google.mint(seconds=_LONG_SECONDS)
        for path, text in (
            (self._folder / "login.json", google.user_file(uri)),
            (home / "token.json", google.user_file(uri, token, _LONG_AFTER)),
        ):
            path.touch(0o600)
            path.write_text(text)

    def _make(self, vm: Vm) -> Machine:
        from simulators.colab.machine import Machine as RealMachine

        def unassign() -> None:
            with self.world.lock:
                self.world.agenda.run_due()
                self.world.lives.end(vm, "inside")

        return RealMachine(self._folder / vm.endpoint, vm, self.world, unassign)
