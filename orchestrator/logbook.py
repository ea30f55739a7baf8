"""`gpurun logs`: a run's log on stdout, cleaned line by line or byte for byte, to its end or as it grows."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, BinaryIO

from orchestrator import glance
from orchestrator.follow import parse
from orchestrator.view import POLL_SECONDS, Keeper, Tail, decoded, readable
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.home import Home
    from orchestrator.view import Beside


def show(
    home: Home,
    run_id: str,
    out: BinaryIO,
    *,
    last: int | None,
    raw: bool,
    follow: bool,
    beside: Sequence[Beside] = (),
) -> None:
    """Write the log to `out`; with `follow`, until nothing of the run bills.

    Raises:
        UsageError: there is no log yet, and nobody wants to wait for it.
    """
    path = home.run(run_id).log
    if not path.exists():
        over = glance.find(home, run_id, time.time()).is_done
        if over or not follow:
            hint = f"gpurun show {run_id}" if over else f"gpurun logs -f {run_id}"
            raise UsageError(f"{run_id} has no log{'' if over else ' yet'}", hint=hint)
    tail, looking = Tail(path), (Keeper(home), *beside)
    while True:
        now = time.time()
        run = glance.find(home, run_id, now)
        over = run.is_done or not follow
        for one in () if over else looking:  # before a line: a pipe that takes none must not leave a run to nobody
            one.look(run, now)
        _write(tail.lines(last=over), out, last=last, raw=raw)
        last = None
        if over:
            return
        time.sleep(POLL_SECONDS)


def _write(lines: Iterable[bytes], out: BinaryIO, *, last: int | None, raw: bool) -> None:
    shown = lines if raw else _readable(lines)
    out.writelines(shown if last is None else deque(shown, maxlen=last))
    out.flush()


def _readable(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if parse(line) is None:
            yield readable(decoded(line)).encode() + b"\n"
