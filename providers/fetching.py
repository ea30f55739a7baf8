"""What a machine fetches by itself instead of being sent it: the controller's side of payload/fetch.py.

Rounds of some seconds each: between two it is told how far it is, and whether it is still wanted. What does not come
that way is shipped as if there were no other.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from providers import wire
from providers.errors import HostKeyError, RemoteError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from providers.base import Job

ROUND_SECONDS = 20.0
ANSWER_SECONDS = 180.0  # a round, and the hash of a large file on a slow disk
_IDLE_ROUNDS = 3  # in which nothing came

log = logging.getLogger(__name__)


def fetched(
    ask: Callable[[dict[str, Any]], dict[str, Any] | None],
    job: Job,
    missing: Collection[str],
    tell: Callable[[int], None],
) -> set[str]:
    """Have the machine fetch what it can; gives what is there by its own word, which `begin` checks.

    Args:
        ask: puts a request to `door.py`'s verb `fetch`.
        job: whose data they are.
        missing: the sha256 of what is not there.
        tell: is told how many bytes have come; may raise RemoteError to stop.
    """
    sources = {} if job.sources is None else json.loads(job.sources.reveal())
    wanted = {digest: sources[digest] for digest in missing if digest in sources}
    here: set[str] = set()
    before, idle = 0, 0
    while wanted and idle < _IDLE_ROUNDS:
        try:
            answer = ask({"sources": wanted, "seconds": ROUND_SECONDS}) or {}
        except (HostKeyError, UnreachableError):
            raise
        except RemoteError as error:
            log.warning("the machine can't fetch the data by itself: %s", error)
            return here
        got, failed = answer.get("here"), answer.get("failed")
        here |= {one for one in got if one in wanted} if isinstance(got, list) else set()
        refused = failed if isinstance(failed, dict) else {}
        for digest, words in refused.items():
            log.warning("%s is shipped from here: %s", str(digest)[:12], str(words)[:200])
        count = int(wire.number(answer.get("bytes")) or 0)
        idle = idle + 1 if count <= before and not here else 0
        before = max(count, before)
        tell(count)
        wanted = {digest: source for digest, source in wanted.items() if digest not in here and digest not in refused}
    return here
