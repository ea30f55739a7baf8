"""RunPod on loopback: its API, its meter, and a real container behind every pod.

with RunPodSimulator(pace=60) as runpod:
    runpod.announcement()      -> {"provider", "url", "control", "exports"}
"""

from __future__ import annotations

import getpass
import random
import secrets
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from simulators import serving
from simulators.clock import Clock
from simulators.control import Control
from simulators.runpod.api import GRAPHQL, PREFIX, Api
from simulators.runpod.world import PodWorld
from simulators.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulators.faults import Hit
    from simulators.runpod.container import Container, Plan
    from simulators.runpod.pods import Pod

# What a container is told at birth; all other faults are the vendor's.
_MACHINE_FAULTS = frozenset({"wrong_host_key", "sshd_never", "cuda_broken", "driver_old", "disk_full"})
START_SECONDS = 60.0  # from create to RUNNING: 30 s to minutes were seen, by the size of the image


class RunPodSimulator:
    """The whole vendor. Whatever it takes time for (pulling, mapping, pausing you) takes `pace` times less.

    Its clock, and with it the meter, runs as ours does until `POST <control>/clock` says otherwise.
    """

    def __init__(
        self,
        *,
        pace: float = 1.0,
        rate: float = 1.0,
        start_seconds: float = START_SECONDS,
        faults: Iterable[Hit] = (),
        seed: int | None = None,
        machines: bool = True,
    ) -> None:
        self._pace = pace
        self._ending = ExitStack()
        self._folder = Path()
        self._key = f"rpa_{secrets.token_hex(20).upper()}"
        self._api = Server("api")
        user = getpass.getuser()  # an unprivileged sshd lets in nobody else; root, as with the vendor, where it is one
        self.world = PodWorld(
            threading.RLock(),
            Clock(rate),
            pace=pace,
            start_seconds=start_seconds,
            make_container=self._make if machines else None,
            door=self._api,
            dice=random.Random(seed) if seed is not None else random.SystemRandom(),  # noqa: S311 - ids, no secrets
        )
        self._api.answer = Api(self.world, self._key, user).answer
        self._control = Server("control", Control(self.world).answer)
        self._faults = list(faults)

    def __enter__(self) -> Self:
        """Begin to serve."""
        with self._ending as ending:
            self._folder = serving.begin(ending, "runpod", self.world, self._api, self._control)
            ending.callback(self.world.logs.close)  # first: the servers wait for its streams
            with self.world.lock:
                self.world.arm(self._faults)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End every container, thread and socket; leave no file."""
        self._ending.close()

    def announcement(self) -> dict[str, object]:
        """Tell where everything is: the one line that `python -m simulators` prints."""
        return {
            "provider": "runpod",
            "url": self._api.url + PREFIX,
            "control": self._control.url,
            "exports": {**self._addresses(), "RUNPOD_API_KEY": self._key, "GPURUN_RUNPOD_PACE": f"{self._pace:g}"},
        }

    def _addresses(self) -> dict[str, str]:
        return {
            "GPURUN_RUNPOD_URL": self._api.url + PREFIX,
            "GPURUN_RUNPOD_GRAPHQL_URL": self._api.url + GRAPHQL,
        }

    def _make(self, pod: Pod) -> Container:
        from simulators.runpod.container import Container as RealContainer

        world = self.world

        def exited(code: int) -> None:
            # In a thread of its own: the vendor's lock must not hold up who waits for this container.
            threading.Thread(target=world.lives.exited, args=(pod, code), name=f"exit {pod.id}", daemon=True).start()

        return RealContainer(
            self._folder / pod.id, partial(self._plan, pod), partial(world.logs.say, pod, "container"), exited
        )

    def _plan(self, pod: Pod) -> Plan:
        from simulators.machine.image import Gpu
        from simulators.runpod.container import Plan as RealPlan

        order, kind = pod.order, pod.order.kind
        faults = frozenset(pod.faults) & _MACHINE_FAULTS
        own = {
            "RUNPOD_POD_ID": pod.id,
            "RUNPOD_DC_ID": order.data_center or "",
            "RUNPOD_POD_HOSTNAME": f"{pod.id}-{pod.machine}",
            "RUNPOD_GPU_COUNT": str(order.count),
            "RUNPOD_CPU_COUNT": str(kind.vcpus * order.count),
            "RUNPOD_API_KEY": pod.key,
            "CUDA_VERSION": "12.8.1",
        }
        return RealPlan(
            name=pod.id,
            ip=pod.address,
            argv=order.argv,
            env={**own, **order.env, **self._addresses()},
            gpu=Gpu(kind.id, order.count, kind.mib, faults),
            is_official=order.is_official,
            volume_path=order.volume_path,
            faults=faults,
        )
