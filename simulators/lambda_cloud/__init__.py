"""Lambda Cloud on loopback: its API, its meter, and a real machine behind every instance.

with LambdaSimulator(pace=60) as lambda_cloud:
    lambda_cloud.announcement()      -> {"provider", "url", "control", "exports"}
"""

from __future__ import annotations

import getpass
import random
import secrets
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from simulators import serving
from simulators.clock import Clock
from simulators.control import Control
from simulators.lambda_cloud.api import PREFIX, Api
from simulators.lambda_cloud.world import LambdaWorld
from simulators.server import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulators.faults import Hit
    from simulators.hosts import Machine
    from simulators.lambda_cloud.instances import Instance

# What a machine is told at birth; all other faults are the vendor's.
_MACHINE_FAULTS = frozenset({"wrong_host_key", "cuda_broken", "driver_old", "disk_full"})
BOOT_SECONDS = 120.0  # from launch to active, seen 113-333 s in 2026
LINGER_SECONDS = 15.0  # how long `terminating`, then `terminated` is shown: not documented


class LambdaSimulator:
    """The whole vendor. Whatever it takes time for (booting, ending, forgetting, pausing you) takes `pace` times less.

    Its clock, and with it the meter, runs as ours does until `POST <control>/clock` says otherwise.
    """

    def __init__(
        self,
        *,
        pace: float = 1.0,
        rate: float = 1.0,
        boot_seconds: float = BOOT_SECONDS,
        linger_seconds: float = LINGER_SECONDS,
        faults: Iterable[Hit] = (),
        seed: int | None = None,
        machines: bool = True,
    ) -> None:
        self._pace = pace
        self._ending = ExitStack()
        self._folder = Path()
        self._key = f"secret_rehearsal_{secrets.token_hex(16)}.{secrets.token_urlsafe(24)}"
        self._ssh_port = free_port()
        self._user = getpass.getuser()  # an unprivileged sshd lets in nobody else
        self._api = Server("api")
        self.world = LambdaWorld(
            threading.RLock(),
            Clock(rate),
            pace=pace,
            boot_seconds=boot_seconds,
            linger_seconds=linger_seconds,
            make_machine=self._make if machines else None,
            door=self._api,
            dice=random.Random(seed) if seed is not None else random.SystemRandom(),  # noqa: S311 - ids, no secrets
        )
        self._api.answer = Api(self.world, self._key).answer
        self._control = Server("control", Control(self.world).answer)
        self._faults = list(faults)

    def __enter__(self) -> Self:
        """Begin to serve."""
        with self._ending as ending:
            self._folder = serving.begin(ending, "lambda", self.world, self._api, self._control)
            with self.world.lock:
                self.world.arm(self._faults)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End every machine, thread and socket; leave no file."""
        self._ending.close()

    def announcement(self) -> dict[str, object]:
        """Tell where everything is: the one line that `python -m simulators` prints."""
        return {
            "provider": "lambda",
            "url": self._api.url + PREFIX,
            "control": self._control.url,
            "exports": {
                "GPURUN_LAMBDA_URL": self._api.url + PREFIX,
                "LAMBDA_API_KEY": self._key,
                "GPURUN_LAMBDA_SSH_PORT": str(self._ssh_port),
                "GPURUN_LAMBDA_SSH_USER": self._user,
                "GPURUN_LAMBDA_PACE": f"{self._pace:g}",
            },
        }

    def _make(self, instance: Instance) -> Machine:
        from simulators.machine import Machine as RealMachine

        kind = instance.order.kind
        return RealMachine(
            self._folder / instance.id,
            name=instance.order.hostname or instance.address.replace(".", "-"),
            ip=instance.address,
            port=self._ssh_port,
            user=self._user,
            authorized_keys=list(instance.order.public_keys),
            user_data=instance.order.user_data,
            gpus=kind.gpus,
            gpu_name=kind.card.smi_name,
            memory_mib=kind.card.memory_mib,
            faults=frozenset(instance.faults) & _MACHINE_FAULTS,
        )
