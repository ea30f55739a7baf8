"""One VM for all tests of a process; each test finds it without a mark, and with a gate of its own."""

from __future__ import annotations

import contextlib
import json
import uuid
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from boxes import until
from colabs import Gate, Runtime, Vm
from grounds import steps, steps_job

from providers.base import Access, Blob, Job, Phase
from providers.colab.remote import ColabRemote

if TYPE_CHECKING:
    from pathlib import Path


class Ground:
    """A VM behind a gate, and jobs to start on it."""

    def __init__(self, vm: Vm, runtime: Runtime, gate: Gate, path: Path) -> None:
        self.vm, self.runtime, self.gate, self.path = vm, runtime, gate, path
        self.remotes: list[ColabRemote] = []
        self.jobs: list[Job] = []

    def job(self, work: str = "short", *, command: tuple[str, ...] = (), **more) -> Job:
        folder = self.path / uuid.uuid4().hex
        folder.mkdir()
        self.jobs.append(steps_job(folder, command or steps(work), **more))
        return self.jobs[-1]

    def blob(self, name: str, data: bytes) -> Blob:
        path = self.path / f"blob-{uuid.uuid4().hex}"
        path.write_bytes(data)
        return Blob(sha256(data).hexdigest(), len(data), path, name)

    def remote(self, job: Job, folder: str = "ssh", **access) -> ColabRemote:
        remote = ColabRemote(self.gate.door(), job.mark, Access(self.path / folder, **access))
        self.remotes.append(remote)
        return remote

    def folder(self, job: Job) -> Path:
        return self.vm.job(job.mark)

    def read(self, job: Job, name: str) -> dict:
        return json.loads((self.folder(job) / name).read_bytes())

    def started(self, work: str = "short", **more) -> tuple[Job, ColabRemote]:
        job = self.job(work, **more)
        remote = self.remote(job)
        remote.start(job)
        return job, remote

    def ended(self, remote: ColabRemote) -> None:
        until(lambda: remote.status().phase is Phase.EXITED, "the end of the job")

    def close(self) -> None:
        for remote in self.remotes:
            remote.close()
        for job in self.jobs:
            if self.folder(job).exists():
                (self.folder(job) / "end.json").write_text("{}")  # for the kernel that waits
        self.vm.silence()
        with contextlib.suppress(FileNotFoundError):
            (self.vm.content / "gpurun-mark").unlink()


@pytest.fixture(scope="session")
def vm(tmp_path_factory):
    with Runtime() as runtime, Vm(tmp_path_factory.mktemp("colab") / "vm", runtime.address) as vm:
        yield vm, runtime


@pytest.fixture
def ground(vm, tmp_path):
    with Gate(vm[0].socket) as gate:
        ground = Ground(*vm, gate, tmp_path)
        yield ground
        ground.close()
