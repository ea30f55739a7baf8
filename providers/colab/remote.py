"""The byte plane of a VM of Colab's, over its own Jupyter server: `providers.base.Remote`.

    start  shipping.py     status, tell, manifest  one question each, desk.py -> kernels.py -> payload/door.py
    logs   by offset, through the same kernel      fetch  fetching.py      beside it a kernel that waits, never idle

The proxy's token expires each hour, and what it opens answers 404 then: nothing here takes a 404 for an end of the VM.
All that the VM says is untrusted: it is bounded, verified, and names no path outside the folder that is asked for.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from typing import TYPE_CHECKING

from providers import starting, wire
from providers.base import Manifest, OrderKind, Phase, RemoteStatus
from providers.colab import fetching, shipping
from providers.colab.desk import Desk
from providers.colab.jupyter import Jupyter
from providers.colab.kernels import Kernel, Waiting
from providers.errors import RemoteError, StartError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from providers.base import Access, Entry, Job, Mark, Order
    from providers.colab.door import Door

_log = logging.getLogger(__name__)
_LOG_PIECE = 2**20  # bytes
_LOG_MOST = 4 * 2**20  # bytes that one call gives
_SAME_CLOCK = 2.0  # seconds that two clocks may differ, or an answer be on its way
_NO_CLOCK = 2.0**33  # seconds that no clock is off


class ColabRemote:
    """One job on one VM. Nothing is asked before the first verb; one thread at a time."""

    def __init__(self, door: Door, mark: Mark, access: Access, *, ahead: float = 0.0) -> None:
        """`ahead`: seconds by which the vendor's clock, which a job's limits are told by, is ahead of ours."""
        self._mark = str(mark)
        self._access = access
        self._ahead = ahead
        self._jupyter = Jupyter(door)
        self._kernel = Kernel(self._jupyter, "ask")
        self._waiting = Waiting(self._jupyter)
        self._desk = Desk(self._jupyter, self._kernel, self._mark)

    def start(self, job: Job) -> None:
        """Ship and start detached. See `shipping.start`."""
        folder = self._access.folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = starting.alone(folder / "start.lock")
            with lock:
                self._start(job)
        except OSError as error:
            raise StartError(f"{folder} can't be written: {error.strerror or error}") from error

    def _start(self, job: Job) -> None:
        progress = self._access.progress or (lambda _done, _whole: None)
        shipping.start(self._jupyter, self._kernel, self._desk, job, progress, self._ahead)
        self._keep_busy()

    def status(self) -> RemoteStatus:
        """Ask who lives, and what the files say; READY as long as nothing was shipped."""
        said = self._desk.ask("status")
        if said is None:
            return RemoteStatus(Phase.READY)
        if said.get("begun") is True:
            self._keep_busy()
        here, there = time.time(), wire.number(said.get("time"))
        if there is None or not _SAME_CLOCK < abs(there - here) < _NO_CLOCK:
            return wire.status_of(said, here, rented=True)
        return wire.status_of(said, there, ahead=there - here, rented=True)

    def _keep_busy(self) -> None:
        """An idle VM is taken away sooner or later: seen to again and again, and no reason to stop anything."""
        try:
            self._waiting.keep_busy(self._mark)
        except (UnreachableError, RemoteError) as error:
            _log.warning("the VM may look idle to Colab: %s", error)

    def logs(self, offset: int) -> bytes:
        """Read on from a byte offset; empty = nothing new."""
        pieces = bytearray()
        while len(pieces) < _LOG_MOST:
            said = self._kernel.ask("log", self._mark, offset + len(pieces), _LOG_PIECE)
            try:
                data = base64.b64decode(str(said.get("data") or ""), validate=True)
            except (binascii.Error, ValueError) as error:
                raise RemoteError("the VM's log makes no sense") from error
            pieces += data
            if len(data) < _LOG_PIECE:
                break
        return bytes(pieces)

    def tell(self, order: Order) -> None:
        """Leave an order; the agent looks for one twenty times a second."""
        if self._desk.ask("order", wire.order_json(order)) is None:
            raise RemoteError("the order can't be left: no job is on this VM yet")
        if order.kind is OrderKind.DEADLINE:
            self._keep_busy()

    def manifest(self) -> Manifest:
        """Name the files that are whole right now."""
        said = self._desk.ask("manifest")
        if said is None:
            return Manifest((), final=False)
        entries = said.get("entries")
        if not isinstance(entries, list):
            raise RemoteError("the VM's manifest makes no sense")
        return wire.manifest_of(entries, final=said.get("final") is True)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        """Bring files home, verified; what is there and right already is left.

        Raises:
            IntegrityError: a name leads outside, or the bytes are not the manifest's.
            RemoteError: a file is gone, or can't be written here.
        """
        known = {entry.name: entry for entry in self.manifest().entries}
        wanted: dict[Entry, Path] = {}
        looked_at: set[str] = set()
        for name in names:
            target = wire.inside(dest, name, looked_at)
            if name not in known:
                raise RemoteError(f"{name!r} is not among the whole files of this job (any more)")
            wanted[known[name]] = target
        fetching.fetch(self._jupyter, self._kernel, self._mark, wanted, self._access.go_on or (lambda: None))

    def close(self) -> None:
        """Let go of the connections; the job goes on, and the kernel that waits waits."""
        self._waiting.close()
        self._kernel.close()
        self._jupyter.close()
