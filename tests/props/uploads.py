"""A machine's disk and the uploader on it: the shipped porter, uploader and courier, in processes of the simulation.

    rig (what is whole by now) --Disk--> a folder --upload.Uploader--> courier --> buckets.Connection

A look comes every few seconds, not twice a second; else nothing of theirs is changed but the time.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from engine import Killed, current

from payload import porter as porters
from payload import upload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dogs import Machine
    from engine import Process
    from world import World

LOOK = 5.0  # seconds between two looks of the uploader's
_NOBODY = 2**31 - 1  # no process has this number


class Disk:
    """The job's folder: what the rig says is whole lies there, as its training and agent would have left it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.world.root / "machines" / machine.thing.id
        self._shown: tuple[Any, ...] = ()
        self._names: set[str] = set()

    def begin(self, leave: str) -> None:
        """Lay the leave to write into the store where the uploader looks for it."""
        self.folder.mkdir(parents=True)
        (self.folder / "store.json").write_text(leave)

    def take_leave(self, leave: str) -> None:
        """Put a fresh one in the place of the last."""
        aside = self.folder / "store.json.new"
        aside.write_text(leave)
        aside.replace(self.folder / "store.json")

    def show(self) -> None:
        """Bring it up to date."""
        rig, now = self.machine.rig, self.machine.world.engine.now
        if rig.began is None:
            return
        step, word = rig.progress(now)
        if self._shown == (step // 30, step // rig.every, word, rig.first, rig.began):
            return
        self._shown = (step // 30, step // rig.every, word, rig.first, rig.began)
        (self.folder / "log.txt").write_bytes(rig.log(now))
        files = rig.files(now)
        for name, content in files.items():
            if name not in self._names or name == "result.json":
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
        for name in self._names - files.keys():
            (self.folder / name).unlink()
            if name.startswith("checkpoints/"):
                with contextlib.suppress(OSError):
                    (self.folder / name).parent.rmdir()
        self._names = set(files)

    def left(self) -> dict[str, bytes]:
        """What the training leaves to its user, by the names that it will have."""
        names = [name for name in self._names if name.startswith(("artifacts/", "code/outputs/"))]
        return {name.replace("code/", "artifacts/"): (self.folder / name).read_bytes() for name in names}

    def say_ended(self, why: str) -> None:
        """Write what the watchdog says once it has ended all."""
        if self.folder.exists():
            (self.folder / "watchdog.json").write_text(json.dumps({"ended": why}))

    def drop(self) -> None:
        """Take it away with its machine."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Helper:
    """The porter's hand: a process of the simulation instead of the system's."""

    pid = _NOBODY

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._process: Process | None = None
        self._said: dict[str, Any] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self, argv: list[str]) -> None:
        folder = self._machine.disk.folder
        assert argv[-2:] == [str(folder / "payload" / "upload.py"), str(folder)]
        self.close()
        self._said = None

        def work() -> None:
            uploader = upload.Uploader(
                folder, upload.courier_of(json.loads((folder / "store.json").read_text()), folder)
            )
            self._said = uploader.said
            self._machine.disk.show()
            uploader.run()

        self._process = self._machine.world.engine.spawn(self._machine, f"uploader {self._machine.thing.id}", work)

    def hear(self) -> list[dict[str, Any]]:
        if self._process is None or self._said is None:
            if self._process is not None and not self._process.alive:
                self._process = None
            return []
        said = dict(self._said)
        if not self._process.alive:
            self._process = None
        return [said]

    def dies(self) -> None:
        """kill -9: its pipe ends."""
        assert self._process is not None
        self._process.kill()

    def close(self) -> None:
        """It leaves when nobody hears it."""
        if self._process is not None:
            self._process.kill()
            self._process = None


def porter_of(machine: Machine) -> porters.Porter:
    """A watchdog's porter."""
    made = porters.Porter(machine.disk.folder)
    made.helper = Helper(machine)
    return made


def _sleep(seconds: float) -> None:
    current().computer.pause(max(seconds, LOOK) if seconds == upload.LOOK else seconds)


def _steady() -> float:
    return current().computer.steady()


def _wall() -> float:
    return current().computer.wall()


@contextlib.contextmanager
def uploaders(world: World) -> Iterator[None]:
    """Give the shipped uploader the simulated time."""
    clockwork = SimpleNamespace(sleep=_sleep, monotonic=_steady, time=_wall)
    real = upload.time, upload.random
    upload.time, upload.random = clockwork, SimpleNamespace(uniform=world.luck.uniform)
    try:
        yield
    finally:
        upload.time, upload.random = real


def pause(machine: Machine, seconds: float) -> None:
    """Let a process on a machine wait: the machine may be gone by then, and files have come and gone."""
    machine.world.engine.sleep(seconds)
    if machine.thing.ended is not None and machine.thing.ended <= machine.world.engine.now:
        raise Killed
    machine.disk.show()
