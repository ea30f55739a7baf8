"""The byte plane of a machine that is reached over SSH: `providers.base.Remote`.

    start  shipping.py      status, tell, manifest  one question each, through door.py
    logs   one reader on the machine, as long as it is wanted      fetch   small files: trees.py, large: bulk.py
All that the machine says is untrusted: it is bounded, verified, and names no path outside the folder that is asked for.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from providers import wire
from providers.base import Entry, Manifest, Phase, RemoteStatus
from providers.errors import GpurunError, RemoteError, UnreachableError
from providers.ssh import bulk, shipping, trees
from providers.ssh.door import Door
from providers.ssh.link import Link, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from providers.base import Job, Mark, Order, Secret
    from providers.ssh.door import Answer
    from providers.ssh.link import Patience

_log = logging.getLogger(__name__)
_LOG_PIECE = 4 * 2**20  # bytes
_LOG_SECONDS = 15.0  # for bytes of the log that the machine says it has
_MANIFEST = 64 * 2**20  # bytes: `wire.MAX_ENTRIES` files with long names
_SMALL = 2**20  # bytes: a file below it costs less in a stream of many than by itself
_SAME_CLOCK = 2.0  # seconds that two clocks may differ, or an answer be on its way
_NO_CLOCK = 2.0**33  # seconds that no clock is off


class SshRemote:
    """One job on one machine. Nothing is connected before the first verb."""

    def __init__(
        self,
        target: Target | Callable[[], Target],
        mark: Mark,
        *,
        on_login: Callable[[], None] | None = None,
        progress: shipping.Progress | None = None,
        go_on: Callable[[], None] | None = None,
        patience: Patience | None = None,
        ender: Secret | None = None,
        ahead: float = 0.0,
    ) -> None:
        """`on_login` is called once, when a job was begun or found; `progress` with bytes shipped and to ship.

        `go_on` is called often while files come home; what it raises ends that, and the next fetch carries on.
        `ahead`: seconds by which the vendor's clock, which a job's limits are told by, is ahead of ours.
        `ender`: what the machine ends itself by, with a key of the account in it (payload/ender.py); None = nothing.
        """
        self._target = target
        self._link = Link(target, patience)
        self._door = Door(self._link, str(mark))
        self._on_login = on_login
        self._ender = ender
        self._ahead = ahead
        self._progress = progress
        self._go_on = go_on or (lambda: None)
        self._log_size = 0  # as the machine told last
        self._reader: tuple[int, Answer] | None = None  # its next byte's offset

    def start(self, job: Job) -> None:
        """Ship and start detached. See `shipping.start`."""
        target = self._target if isinstance(self._target, Target) else self._target()
        with shipping.alone(target.access.folder):
            self._link.connect()
            shipping.start(self._link, self._door, job, self._progress, ender=self._ender, ahead=self._ahead)
        self._greet()

    def status(self) -> RemoteStatus:
        """Ask who lives, and what the files say; READY as long as nothing was shipped."""
        self._link.connect()
        said = self._door.ask("status", repeatable=True)
        if said is None:
            return RemoteStatus(Phase.READY)
        self._greet()
        self._log_size = _count(said.get("log"))
        here, there = time.time(), wire.number(said.get("time"))
        if there is None or not _SAME_CLOCK < abs(there - here) < _NO_CLOCK:
            return wire.status_of(said, here, rented=True)
        return wire.status_of(said, there, ahead=there - here, rented=True)

    def tell(self, order: Order) -> None:
        """Leave an order; the agent looks for one twenty times a second."""
        self._connect()
        if self._door.ask("order", wire.order_json(order), repeatable=True) is None:
            raise RemoteError("the order can't be left: no job is on this machine yet")

    def manifest(self) -> Manifest:
        """Name the files that are whole right now."""
        return self._list()[0]

    def _list(self) -> tuple[Manifest, str]:
        """Give the manifest, and the folder on the machine that its names are relative to."""
        self._connect()
        said = self._door.ask("manifest", limit=_MANIFEST, repeatable=True)
        if said is None:
            return Manifest((), final=False), ""
        entries, folder = said.get("entries"), said.get("folder")
        if not isinstance(entries, list) or not isinstance(folder, str) or not folder.startswith("/"):
            raise RemoteError("the machine's manifest makes no sense")
        return wire.manifest_of(entries, final=said.get("final") is True), folder

    # ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────

    def logs(self, offset: int) -> bytes:
        """Read on from a byte offset; waits only for what the machine said it has."""
        for again in (True, False):
            try:
                reader = self._read_from(offset)
                if reader is None:
                    return b""
                piece = self._read(reader, offset)
            except UnreachableError:
                self._let_reader_go()
                if not again:
                    raise
                continue
            if piece or offset >= self._log_size:
                return piece
        raise RemoteError(f"the log of {self._log_size} bytes can't be read at {offset}")

    def _read_from(self, offset: int) -> Answer | None:
        """Go on with the reader that stands there, or send a new one; None = there is no job to have a log yet."""
        if self._reader is not None and self._reader[0] == offset:
            return self._reader[1]
        self._let_reader_go()
        self._connect()
        answer = self._door.open("log", str(offset))
        if answer is not None:
            self._reader = offset, answer
            self._log_size = _count(answer.said.get("size"))
        return answer

    def _read(self, reader: Answer, offset: int) -> bytes:
        """Read what has come, up to a piece; nothing is read ahead, so that the channel's window bounds what waits."""
        pieces: list[bytes] = []
        size, ended = 0, False
        wait = _LOG_SECONDS if offset < self._log_size else 0.0
        while size < _LOG_PIECE and not ended:
            try:
                piece = reader.read(wait, _LOG_PIECE - size)
            except TimeoutError:
                ended = wait > 0  # it owes us bytes: another may do better
                break
            except UnreachableError:
                if not pieces:
                    raise
                piece = b""
            ended = not piece
            pieces.append(piece)
            size += len(piece)
            wait = 0.0
        self._reader = offset + size, reader
        if ended:
            self._let_reader_go()
        return b"".join(pieces)

    def _let_reader_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader[1].close()

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        """Bring files home; what is there and right already is left.

        Raises:
            IntegrityError: a name leads outside, or the bytes are not the manifest's.
            RemoteError: a file is gone, or can't be written here.
        """
        manifest, folder = self._list()
        known = {entry.name: entry for entry in manifest.entries}
        targets: dict[Entry, Path] = {}
        looked_at: set[str] = set()
        for name in names:
            target = wire.inside(dest, name, looked_at)
            if name not in known:
                raise RemoteError(f"{name!r} is not among the whole files of this job (any more)")
            targets[known[name]] = target
        small = [entry for entry, at in targets.items() if entry.size < _SMALL and not _is_there(at, entry)]
        trees.pull_tree(self._link, folder, small, dest, go_on=self._go_on)
        for entry, target in targets.items():
            if entry.size >= _SMALL:
                remote = f"{folder}/{entry.name}"
                bulk.pull(self._link, remote, target, entry.size, entry.sha256, lambda _: self._go_on())

    def close(self) -> None:
        """Let go of the connection; the job goes on."""
        self._let_reader_go()
        self._link.close()

    def _connect(self) -> None:
        self._link.connect()
        self._greet()

    def _greet(self) -> None:
        """Say once that logins work. Never before a start: the vendor's API takes seconds, and the machine bills."""
        on_login, self._on_login = self._on_login, None
        if on_login is not None:
            try:
                on_login()
            except (GpurunError, OSError) as error:  # a convenience of the vendor's side: bytes don't wait for it
                _log.warning("after the first login: %s", error)


def _count(value: object) -> int:
    return max(0, int(wire.number(value) or 0))


def _is_there(target: Path, entry: Entry) -> bool:
    try:
        plain = target.is_file() and not target.is_symlink() and target.stat().st_size == entry.size
        return plain and wire.digest_of(target) == entry.sha256
    except OSError as error:
        raise RemoteError(f"{entry.name!r} can't be looked at here: {error.strerror or error}") from error
