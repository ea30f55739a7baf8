"""Two kernels on the VM: one that is asked, one that waits, so that the VM is never idle. See inside.py for their side.

    Kernel("ask").ask("log", …)     question and answer, each done once, however often the connection breaks off
    Waiting().keep_busy(mark)       a cell that ends with the job's folder, seen to now and then

Which kernel is whose stands in a file on the VM, so that whoever comes next finds them. One that is gone, or does not
answer in time, is replaced: nothing is kept in a kernel that a question needs.
"""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import json
import logging
import secrets
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers.colab.channel import Channel, CutError, DeadKernelError, ShutError
from providers.errors import RemoteError, UnreachableError
from providers.http import printable

if TYPE_CHECKING:
    from providers.colab.jupyter import Jupyter

FOLDER = "content/gpurun"  # ours, below the contents' root; inside.py makes it

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 20.0  # without any connection
_PAUSE_SECONDS = 0.2
_MOST_PAUSE_SECONDS = 2.0
_TEACH_SECONDS = 60.0  # for a kernel that starts
_LESSONS = 3
_SILENT_SECONDS, _MOST_SILENT_SECONDS = 3.0, 15.0  # without an answer: then it is asked whether the kernel is there
_LEAST_SILENT_SECONDS = 0.5
_LATE_SECONDS = 15.0  # past a question's own limit, which its kernel keeps
_LOOK_SECONDS = 60.0  # between two looks at whether the waiting kernel waits
_SOURCE = (Path(__file__).parent / "inside.py").read_text(encoding="utf-8")
_NAME = f"gpurun_{hashlib.sha256(_SOURCE.encode()).hexdigest()[:12]}"
_LESSON = f"{_SOURCE}\n{_NAME} = answer\n"
_MOST = 256 * 2**20  # characters of an answer, unpacked


class _UntaughtError(Exception):
    """The kernel knows nothing of us yet."""


class Kernel:
    """One kernel by its part in the play. One thread at a time."""

    def __init__(self, jupyter: Jupyter, role: str) -> None:
        self._jupyter = jupyter
        self._role = role
        self.id = ""  # as far as it is known
        self._channel: Channel | None = None

    def ask(self, verb: str, *arguments: object, seconds: float = 60.0) -> dict[str, Any]:
        """Ask; however often the connection breaks off, the question is done once at most.

        Raises:
            UnreachableError: no connection, or no answer in time: it may have been done.
            RemoteError: the VM says why not, or says nothing that makes sense.
        """
        self._jupyter.door.keep_alive()
        expression = f"{_NAME}({secrets.token_hex(8)!r}, {verb!r}, {json.dumps(arguments)!r})"
        until = time.monotonic() + seconds + _LATE_SECONDS
        text = self._insist(expression, until)
        try:
            packed = text.startswith("z")
            said = json.loads(_unpacked(text) if packed else text)
        except (ValueError, RecursionError, zlib.error, binascii.Error):
            said = None
        if not isinstance(said, dict):
            raise RemoteError("the machine's answer makes no sense")
        if "error" in said:
            raise RemoteError(f"the machine says: {printable(said['error'])}")
        return said

    def _insist(self, expression: str, until: float) -> str:
        lessons, pause, cut_since = 0, _PAUSE_SECONDS, 0.0
        while True:
            try:
                channel = self.open()
                cut_since = 0.0
                return self._value(channel, expression, until)
            except _UntaughtError:
                lessons += 1
                if lessons > _LESSONS:
                    raise RemoteError("the kernel on the VM forgets what it is told") from None
                self._teach(min(until, time.monotonic() + _TEACH_SECONDS))
            except TimeoutError:
                self.replace()
                words = f"the kernel on the VM did not answer in time ({self._role})"
                raise UnreachableError(words, allocation_id=self._jupyter.door.endpoint) from None
            except (CutError, DeadKernelError, ShutError) as error:
                self.close()
                now = time.monotonic()
                cut_since = cut_since or now
                if now > until or now - cut_since > _PATIENCE_SECONDS:
                    raise
                _log.debug("%s: asking again", error)
                time.sleep(pause / self._jupyter.door.pace)
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    def open(self) -> Channel:
        """Give the channel, opened where it is not; the kernel found or started."""
        if self._channel is not None:
            return self._channel
        kernel = self.find()
        proxy = self._jupyter.proxy()
        agent = self._jupyter.door.agent
        try:
            self._channel = Channel(proxy, kernel, agent)
        except ShutError:
            try:
                self._channel = Channel(self._jupyter.after(proxy), kernel, agent)
            except ShutError:  # by a token that was minted just now: this kernel is gone
                self.id = ""
                raise
        return self._channel

    def find(self) -> str:
        """Give the kernel's id; it is started where it is not there."""
        if not self.id:
            self.id = self._found() or self._jupyter.new_kernel()
        return self.id

    def _found(self) -> str:
        """Find the kernel that had this part before; "" = none."""
        kept = self._jupyter.get(f"{FOLDER}/{self._role}.kernel")
        name = (kept or b"").decode(errors="replace").strip()
        return name if name and self._jupyter.kernels().get(name, "dead") != "dead" else ""

    def _teach(self, until: float) -> None:
        """Send our side of it, and have the kernel note what it is."""
        try:
            channel = self.open()
            hello = f"{_NAME}({secrets.token_hex(8)!r}, 'hello', {json.dumps([self._role, self.find()])!r})"
            said = _unpacked_once(self._reply(channel, channel.send(_LESSON, hello), until))
        except TimeoutError:
            self.replace()
            words = f"a kernel on the VM did not start in time ({self._role})"
            raise UnreachableError(words, allocation_id=self._jupyter.door.endpoint) from None
        except (CutError, DeadKernelError, ShutError):
            self.close()  # told again by whoever asks on
            return
        if said is None or "error" in said:
            raise RemoteError(f"the kernel on the VM can't be told what to do: {printable(said)}")

    def _value(self, channel: Channel, expression: str, until: float) -> str:
        content = self._reply(channel, channel.send("", expression), until)
        values = content.get("user_expressions")
        value = values.get("gpurun") if isinstance(values, dict) else None
        if isinstance(value, dict) and value.get("status") == "error" and value.get("ename") == "NameError":
            raise _UntaughtError
        return _text(value, content)

    def _reply(self, channel: Channel, question: str, until: float) -> dict[str, Any]:
        """Wait for an answer as long as there is a kernel: a server keeps the channel of one that was ended open."""
        look = max(_SILENT_SECONDS / self._jupyter.door.pace, _LEAST_SILENT_SECONDS)
        while True:
            try:
                return channel.reply(question, min(until, time.monotonic() + look))
            except TimeoutError:
                if time.monotonic() > until:
                    raise
                if self._jupyter.kernels().get(self.id, "dead") == "dead":
                    self.id = ""
                    raise DeadKernelError(f"the kernel on the VM is gone ({self._role})") from None
                look = min(2 * look, _MOST_SILENT_SECONDS)

    def replace(self) -> None:
        """End a kernel that does not answer: the next question gets another."""
        gone, self.id = self.id, ""
        self.close()
        try:
            self._jupyter.end_kernel(gone)
        except UnreachableError as error:
            _log.debug("%s", error)

    def close(self) -> None:
        """Let go of the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


class Waiting:
    """The kernel that is busy as long as the VM is wanted, with a connection as a notebook would have."""

    def __init__(self, jupyter: Jupyter) -> None:
        self._jupyter = jupyter
        self._kernel = Kernel(jupyter, "wait")
        self._looked = 0.0

    def keep_busy(self, mark: str) -> None:
        """See to it that the kernel waits; most calls only tend the connection.

        Raises:
            UnreachableError, RemoteError: it may not.
        """
        now = time.monotonic()
        try:
            if self._looked and now - self._looked < _LOOK_SECONDS / self._jupyter.door.pace:
                self._kernel.open().tend()
                return
        except (CutError, ShutError, DeadKernelError):
            self._kernel.close()
        self._looked = 0.0
        self._look(mark)
        self._looked = now

    def _look(self, mark: str) -> None:
        if self._jupyter.kernels().get(self._kernel.find()) != "busy":
            self._kernel.ask("have", [])  # whoever asks teaches, where that is needed
            question = f"{_NAME}({secrets.token_hex(8)!r}, 'wait', {json.dumps([mark])!r})"
            try:
                self._kernel.open().send("", question)
            except CutError:
                self._kernel.close()
                raise

    def close(self) -> None:
        """Let go of the connection; the kernel waits on."""
        self._kernel.close()


def _text(value: object, content: dict[str, Any]) -> str:
    """Read the text out of an expression's value."""
    data = value.get("data") if isinstance(value, dict) else None
    plain = data.get("text/plain") if isinstance(data, dict) else None
    if isinstance(plain, str) and len(plain) < _MOST:
        try:
            text = ast.literal_eval(plain)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            text = None
        if isinstance(text, str):
            return text
    trouble = value if isinstance(value, dict) else content
    words = f"{trouble.get('ename') or trouble.get('status')}: {trouble.get('evalue') or 'no value'}"
    raise RemoteError(f"the kernel on the VM gives no answer: {printable(words)}")


def _unpacked(text: str) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(text[1:]), _MOST)
    if unpacker.unconsumed_tail:
        raise ValueError("too long")
    return data


def _unpacked_once(content: dict[str, Any]) -> dict[str, Any] | None:
    """Read a short answer; None = it makes no sense."""
    values = content.get("user_expressions")
    try:
        said = json.loads(_text(values.get("gpurun") if isinstance(values, dict) else None, content))
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
