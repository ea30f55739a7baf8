"""A machine for tests: a private sshd with a home of its own, jobs to start on it, and a look at what lives there."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import tarfile
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from boxes import PAYLOAD, until
from grounds import STEPS
from sshd import QUICK, Proxy, Sshd

from providers.base import Blob, Job, Mark, Phase
from providers.ssh.remote import SshRemote
from providers.wire import GUARDS

if TYPE_CHECKING:
    from collections.abc import Callable


@functools.cache
def packed(code: str) -> bytes:
    """A bundle with this program in it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as tar:
        for script in PAYLOAD.glob("*.py"):
            tar.add(script, f"payload/{script.name}")
        for name, content in (("config.json", b"{}"), ("code/steps.py", code.encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


class Machine:
    """An sshd behind a proxy; every remote of it goes through the proxy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sshd = Sshd(path / "machine").start()
        self.proxy = Proxy(self.sshd.port)
        self.proxy.__enter__()
        self.remotes: list[SshRemote] = []

    def job(self, work: str = "short", *, code: str = STEPS, command: tuple[str, ...] = (), **more) -> Job:
        now = datetime.now(UTC).replace(microsecond=0)
        mark = Mark("beef", f"ssh-260101-{uuid.uuid4().hex[:6]}", 1, now + timedelta(seconds=90))
        bundle = self.path / f"{mark.run_id}.tar.gz"
        bundle.write_bytes(packed(code))
        command = command or ("{python}", "-S", "code/steps.py", work)
        job = Job(mark, bundle, (), command, now + timedelta(seconds=80), mark.ceiling, 90, 5, 60)
        return replace(job, **more)

    def blob(self, name: str, data: bytes) -> Blob:
        path = self.path / f"blob-{uuid.uuid4().hex}"
        path.write_bytes(data)
        return Blob(sha256(data).hexdigest(), len(data), path, name)

    def remote(self, job: Job, *, direct: bool = False, **more) -> SshRemote:
        remote = SshRemote(self.sshd.target(0 if direct else self.proxy.port), job.mark, patience=QUICK, **more)
        self.remotes.append(remote)
        return remote

    def folder(self, job: Job) -> Path:
        return self.sshd.home / ".gpurun" / "jobs" / str(job.mark)

    def read(self, job: Job, name: str) -> dict:
        try:
            return json.loads((self.folder(job) / name).read_bytes())
        except FileNotFoundError:
            return {}

    def install(self, job: Job) -> None:
        """Put the door there without starting anything."""
        (self.folder(job) / "payload").mkdir(parents=True, exist_ok=True)
        for name in ("door.py", "place.py", "fetch.py", *GUARDS):
            shutil.copy(PAYLOAD / name, self.folder(job) / "payload" / name)

    def does(self, job: Job, code: str) -> None:
        """Have the door run other code, that knows `word`."""
        (self.folder(job) / "payload").mkdir(parents=True, exist_ok=True)
        start = "import sys\nword = '\\n' + sys.argv[1]\n"
        (self.folder(job) / "payload/door.py").write_text(start + code)

    def says(self, job: Job, said: object, stream: bytes = b"") -> None:
        """Have the door answer this to any question, bytes behind it."""
        told = f"print(word, {json.dumps(said)!r}, flush=True)\nsys.stdout.buffer.write({stream!r})\n"
        self.does(job, told)

    def ended(self, remote: SshRemote) -> None:
        until(lambda: remote.status().phase is Phase.EXITED, "the end of the job")

    def living(self) -> dict[int, str]:
        """Every process that was started in this machine's home or in a session of its sshd."""
        found = {}
        home = f"HOME={self.sshd.home}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if home in (path / "environ").read_bytes().split(b"\0"):
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return {pid: command for pid, command in found.items() if command}

    def kill(self) -> None:
        """End everything that lives here, as a reboot does."""
        while living := self.living():
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the jobs, let go, and see that nothing is left."""
        for remote in self.remotes:
            remote.close()
        for folder in (self.sshd.home / ".gpurun" / "jobs").glob("*"):
            (folder / "end.json").write_text("{}")
        left = _silence(self.living)
        self.proxy.__exit__(None, None, None)
        self.sshd.stop()
        assert left == {}


def _silence(living: Callable[[], dict[int, str]], seconds: float = 5.0) -> dict[int, str]:
    end = time.monotonic() + seconds
    while (left := living()) and time.monotonic() < end:
        time.sleep(0.02)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return left


def read_log(remote: SshRemote) -> bytes:
    log = b""
    while piece := remote.logs(len(log)):
        log += piece
    return log
