"""The controller's side of payload/door.py: one question, one command, one answer in a frame.

    ask("status") ──> sh -c '… python3 payload/door.py WORD MARK status' ──> noise of the login shell, "WORD {JSON}"

The word is new for each question, so that nothing the machine printed before can stand for an answer. What comes is
bounded, and never believed to be of any type. None as an answer: nothing of this job was shipped yet.
"""

from __future__ import annotations

import json
import secrets
import shlex
import time
from typing import TYPE_CHECKING, Any

from providers.errors import RemoteError, StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.ssh.link import Link, Stream

_SECONDS = 60.0  # for an answer: a machine whose disk is busy loading a model takes its time
_END_SECONDS = 5.0  # between the end of what a command says and its own
_NOISE = 2**20  # bytes that a login shell may print before an answer
_LINE = 4096  # bytes

# Run by whatever login shell there is; the arguments are the word, the mark, the verb and its own.
_KNOCK = """
door="$HOME/.gpurun/jobs/$2/payload/door.py"
if [ -e "$door" ]; then exec python3 -I -S -B "$door" "$@"; fi
printf '\\n%s {"nothing": true}\\n' "$1"
"""
# The first question brings the guards, door.py as the last of them: where that is, all are. Any Python 3 reads it.
_FIRST = """
import json, os, sys
version = sys.version_info
if version < (3, 9):
    print('\\n%s {"old": "%d.%d.%d"}' % (sys.argv[1], version[0], version[1], version[2]))
    sys.exit(1)
files = json.loads(sys.stdin.buffer.readline().decode())
job = os.path.expanduser("~/.gpurun/jobs/" + sys.argv[2])
payload = job + "/payload"
mask = os.umask(0o077)
os.makedirs(payload, exist_ok=True)
os.umask(mask)
for name in files if not os.path.exists(job + "/job.json") else ():
    aside = "%s/.%s.%d" % (payload, name, os.getpid())
    with open(aside, "w", encoding="utf-8") as file:
        file.write(files[name])
    os.replace(aside, payload + "/" + name)
sys.path.insert(0, payload)
import door
sys.exit(door.main(sys.argv))
"""


class Door:
    """Where one job's questions are asked."""

    def __init__(self, link: Link, mark: str) -> None:
        self._link = link
        self._mark = mark

    def ask(
        self,
        verb: str,
        request: object = None,
        *,
        seconds: float = _SECONDS,
        limit: int = 2**20,
        repeatable: bool = False,
    ) -> dict[str, Any] | None:
        """Ask, and give the answer; `repeatable` = asking twice does no harm.

        Raises:
            UnreachableError: no connection, or it dropped: an order may have been taken.
            RemoteError: the machine says why not, or says nothing that makes sense.
        """
        word = _word()
        stdin = b"" if request is None else json.dumps(request).encode()
        command = self._command(word, verb)
        ran = self._link.run(command, stdin=stdin, timeout=seconds, limit=limit + _NOISE, repeatable=repeatable)
        head, _ = _framed(ran.out, word)
        if head is None:
            raise RemoteError(_unframed(ran.code, ran.err))
        return _judged(head)

    def first(self, files: Mapping[str, str], request: object, *, limit: int) -> dict[str, Any]:
        """Bring the guards, then seed.

        Raises:
            StartError: this machine can't run them.
        """
        word = _word()
        stdin = json.dumps(files).encode() + b"\n" + json.dumps(request).encode()
        command = "exec " + shlex.join(["python3", "-I", "-S", "-B", "-c", _FIRST, word, self._mark, "seed"])
        ran = self._link.run(command, stdin=stdin, timeout=2 * _SECONDS, limit=limit + _NOISE, repeatable=True)
        head, _ = _framed(ran.out, word)
        if head is None and ran.code == 127:
            message = "the machine has no python3: it is needed for the watchdog"
            raise StartError(message, hint="choose an image with Python 3.9 or later", permanent=True)
        if head is None:
            raise StartError(_unframed(ran.code, ran.err))
        if "old" in head:
            message = f"the machine's python3 is {plain(head['old'])}; 3.9 or later is needed"
            raise StartError(message, hint="choose a newer image", permanent=True)
        return _judged(head) or {}

    def open(self, verb: str, *rest: str) -> Answer | None:
        """Ask for bytes: the answer is read as it comes, and ends with whoever asked."""
        word = _word()
        answer = Answer(self._link.open(self._command(word, verb, *rest)))
        try:
            if answer.head(word) is None:
                answer.close()
                return None
        except BaseException:
            answer.close()
            raise
        return answer

    def _command(self, word: str, verb: str, *rest: str) -> str:
        return "exec " + shlex.join(["sh", "-c", _KNOCK, "door", word, self._mark, verb, *rest])


class Answer:
    """An answer that is still coming: its head, then bytes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._kept, self._at = b"", 0  # bytes read, and how many of them are used up
        self.said: dict[str, Any] = {}

    def head(self, word: str) -> dict[str, Any] | None:
        """Read up to the answer's line; None = nothing was shipped yet. Raises as `Door.ask`."""
        until = time.monotonic() + _SECONDS
        found = None
        while found is None:
            data = self._more(until)
            if not data:
                raise RemoteError(self._how_it_ended())
            self._kept += data
            found, end = _framed(self._kept, word)
            if found is None and len(self._kept) > _NOISE:
                raise RemoteError("the machine talks without end before it answers")
        self._at = end
        judged = _judged(found)
        self.said = judged or {}
        return judged

    def _how_it_ended(self) -> str:
        try:
            return _unframed(self._stream.code(_END_SECONDS), self._stream.read_error(_END_SECONDS, _LINE))
        except TimeoutError:
            return "the machine closes its mouth and does not end"

    def read(self, seconds: float, most: int) -> bytes:
        """Give some of the bytes; empty = they have ended. Raises `TimeoutError` when none come."""
        if self._at == len(self._kept):
            return self._stream.read(seconds, most)
        piece = self._kept[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _more(self, until: float) -> bytes:
        try:
            return self._stream.read(max(0.01, until - time.monotonic()))
        except TimeoutError as error:
            raise RemoteError(f"the machine did not answer within {_SECONDS:.0f} s") from error

    def close(self) -> None:
        """Let go: the process there ends by it."""
        self._stream.close()


def _word() -> str:
    return f"gpurun-{secrets.token_hex(8)}"


def _framed(said: bytes, word: str) -> tuple[dict[str, Any] | None, int]:
    """Find an answer among noise, and where it ends; None = there is none (yet)."""
    start = said.find(b"\n" + word.encode() + b" ")
    end = said.find(b"\n", start + 1)
    if start < 0 or end < 0:
        return None, 0
    try:
        found = json.loads(said[start + len(word) + 2 : end])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RemoteError("the machine's answer makes no sense")
    return found, end + 1


def _judged(head: dict[str, Any]) -> dict[str, Any] | None:
    if "error" in head:
        raise RemoteError(f"the machine says: {plain(head['error'])}")
    return None if head.get("nothing") is True else head


def _unframed(code: int, err: bytes) -> str:
    said = err.decode(errors="replace").strip().splitlines()
    words = plain(said[-1][-300:] if said else "not a word")  # of a traceback, the last line says what it was
    return f"the machine did not answer (exit code {code}): {words}"


def plain(value: object) -> str:
    """What a machine says, as one line that is safe to show."""
    text = str(value)[:300] if isinstance(value, str | int | float) else "?"
    return "".join(letter if letter.isprintable() else " " for letter in text)


def texts(value: object) -> list[str]:
    """Read a list of texts; what is none is passed over."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
