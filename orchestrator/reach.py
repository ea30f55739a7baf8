"""What it takes to work on a run's present attempt: its job, its keys, its connection.

    runs/<id>/ssh/<attempt>/  client_ed25519(.pub) host_ed25519(.pub)   made before the launch, gone at DONE

Not here: when any of it is used (controller.py).
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator import lifecycle, stored
from orchestrator.credentials import resolve
from orchestrator.facts import Seen
from orchestrator.home import write_json
from orchestrator.jobs import JobFile
from orchestrator.words import Act
from providers.base import Access, Order, OrderKind
from providers.errors import CredentialsError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from orchestrator.credentials import Redactor
    from orchestrator.home import RunFolder
    from orchestrator.ledger import Ledger
    from orchestrator.records import RunRow
    from providers.base import Job, Provider, Remote, RemoteStatus

CLIENT_KEY = "client_ed25519"
HOST_KEY = "host_ed25519"
_TELL_SECONDS = 0.5
_RENEW_SECONDS = 300.0  # between two leaves: what refuses one may refuse the next, until a person does something


class UnderWay:
    """The controller's present deed, and whether it is time for another: its bytes may take hours."""

    def __init__(
        self,
        provider: Provider,
        ledger: Ledger,
        run_id: str,
        *,
        clock: Callable[[], datetime],
        vendors: Callable[[], datetime],
    ) -> None:
        self._provider = provider
        self._ledger = ledger
        self._run_id = run_id
        self._clock, self._vendors = clock, vendors
        self.act, self.seen = Act.WAIT, Seen()

    def is_overtaken(self) -> bool:
        """Judge by what was seen before it, by the ledger and the time as they are now."""
        row = self._ledger.run(self._run_id)
        seen = replace(self.seen, accrued_high=row.accrued(self._clock().timestamp()).high)
        rules = row.rules(self._provider.traits)
        return lifecycle.is_overtaken(self.act, row.memory, seen, self._vendors(), rules)


class Reach:
    """Opens a remote once and keeps it; makes the job anew each time, secrets included."""

    def __init__(
        self,
        provider: Provider,
        folder: RunFolder,
        home_id: str,
        redactor: Redactor,
        unwanted: Callable[[], bool],
    ) -> None:
        """`unwanted` tells whether it is time for something else: asked while bytes are on their way."""
        self._unwanted = unwanted
        self._told = self._asked = 0.0
        self._renewed = -math.inf
        self._provider = provider
        self._folder = folder
        self._home_id = home_id
        self._redactor = redactor
        self._remote: tuple[str, Remote] | None = None

    def job(self, row: RunRow) -> Job:
        """Make the job of the present attempt; the first call makes its keys.

        Raises:
            JobGoneError: what is to be shipped is no longer there.
            CredentialsError: a secret is not set.
        """
        job_file = JobFile.read(self._folder)
        secrets = resolve(job_file.secrets)
        self._redactor.learn(secrets.values())
        job = job_file.job(row, self._folder, self._home_id, secrets)
        job = replace(job, store=stored.grant(row), sources=stored.sources(row, job_file))
        self._redactor.learn(stored.tokens(job.store))
        if not self._provider.traits.ssh:
            return job
        from providers.ssh.keys import make_pair

        folder = self._access(row).folder
        for made in (self._folder.ssh, folder):  # one by one: `parents` would leave the upper one open
            made.mkdir(exist_ok=True, mode=0o700)
        make_pair(folder / CLIENT_KEY, str(job.mark))
        job = replace(job, client_key=folder / CLIENT_KEY)
        if row.plan.get("trust_on_first_use") or not self._provider.traits.host_key_sent:
            return job  # a host key made here would be the only one that is taken
        make_pair(folder / HOST_KEY, str(job.mark))
        return replace(job, host_key=folder / HOST_KEY)

    def remote(self, row: RunRow) -> Remote:
        """Give the connection to the attempt's allocation, opened at the first call.

        Raises:
            UnreachableError: there is none yet.
        """
        allocation_id = row.memory.allocation_id
        if self._remote is None or self._remote[0] != allocation_id:
            self.close()
            self._remote = (allocation_id, self._provider.remote(allocation_id, self._access(row)))
        return self._remote[1]

    def source(self, row: RunRow, seen: Seen) -> Remote:
        """Give where the attempt's files come from: the store, once all of it is verified there, else the machine."""
        remote = stored.remote(row, go_on=self.go_on) if seen.stored else None
        return remote or self.remote(row)

    def renew_leave(self, row: RunRow, said: RemoteStatus | None, now: datetime) -> None:
        """Send the machine a fresh leave to write into the store where it needs one.

        Raises:
            ProviderError: none could be signed, or the machine not be told.
        """
        due = said is not None and stored.is_leave_due(row, said, now)
        if not due or time.monotonic() - self._renewed < _RENEW_SECONDS:
            return
        self._renewed = time.monotonic()
        self.remote(row).tell(Order(0, OrderKind.STORE, store=stored.grant(row)))

    def _access(self, row: RunRow) -> Access:
        trust = bool(row.plan.get("trust_on_first_use"))
        key = bool(row.plan.get("key_on_machine"))
        return Access(self._folder.ssh / str(row.memory.attempt), trust, self._shipped, self.go_on, key)

    def go_on(self) -> None:
        """Let bytes come home; nobody else stops the meter while this process waits for them.

        Raises:
            RemoteError: a limit was reached, or the user wants it to stop: that comes first.
        """
        if time.monotonic() - self._asked < _TELL_SECONDS:
            return
        self._asked = time.monotonic()
        if self._unwanted():
            raise RemoteError("left off bringing bytes home: a limit was reached, or a stop was asked for")

    def _shipped(self, done: int, whole: int) -> None:
        """Tell the viewer how far the shipping is.

        Raises:
            RemoteError: the user wants it no more.
        """
        if done < whole and time.monotonic() - self._told < _TELL_SECONDS:
            return
        self._told = time.monotonic()
        with contextlib.suppress(OSError):  # a full disk must not keep the job from starting
            write_json(self._folder.shipping, {"done": done, "whole": whole})
        if done < whole and self._unwanted():
            raise RemoteError("stopped while the job was being shipped")

    def close(self) -> None:
        """Let go of the connection."""
        if self._remote is not None:
            self._remote[1].close()
            self._remote = None

    def drop_keys(self) -> None:
        """Let go for good: the keys of all attempts go too."""
        self.close()
        shutil.rmtree(self._folder.ssh, ignore_errors=True)


def check_account(provider: Provider, row: RunRow) -> None:
    """Another account's "no such thing" says nothing about ours.

    Raises:
        CredentialsError: the key opens another account than the one that the plan was made on.
    """
    planned, now = row.plan["account"], provider.account()
    if now != planned:
        raise CredentialsError(
            f"the key opens the account {now}, and {row.run_id} runs on {planned}",
            hint=(
                f"set the key of {planned}, then: gpurun resume {row.run_id}; where that key is gone for good, see in"
                " the vendor's console, and with gpurun sweep on the key that works, that nothing of it bills"
            ),
        )
