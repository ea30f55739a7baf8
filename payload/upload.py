"""The uploader: brings what is whole on this machine into the store, while the training goes on and after it.

    python3 -S -B payload/upload.py <folder>     # the watchdog starts it where store.json is, and hears it

    log.txt metrics.jsonl      whole, now and then      parts/0000 …    files of checkpoints, large files in pieces
    CHECKPOINT.json            names the two newest     artifacts/…     once result.json is there
    files.json result.json     last of all: the attempt is whole there

What names others is written after them, and no part that a seal in the store names is written over: a reader finds a
whole state at any moment. What it knows of the store lies in upload.json: killed and started again, it goes on.
Standard library only, Python 3.9. The wire contract is README.md beside this file.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, NoReturn, Optional, Set, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import processes as ps
from cargo import File, as_object, file_of, newest, opened, read_bytes, size_of
from courier import SEALS, ChangedError, Courier, FailedError, NoRoomError, RefusedError, StuckError
from loose import Loose, stamp_at

KEPT = 2  # checkpoints in the store
LEAST, MOST = 1.0, 60.0  # seconds between two tries
REFUSED = 20.0  # seconds after a refusal: the store's clock may differ, its keys be changed
LOG_EVERY = 20.0  # seconds between two copies of the log, and more the longer it is:
LOG_RATE = 256e3  # bytes a second that copying it again and again may cost
PULSE = 0.5  # seconds between two words to the watchdog
LOOK = 0.5  # seconds between two looks at the folder


class GoneError(Exception):
    """What was to be brought is no longer there, or another: the next look finds what is there now."""


class Uploader:
    """One attempt's. All that it remembers over a death is in `upload.json`."""

    def __init__(self, folder: Path, courier: Courier) -> None:
        self.folder = folder
        self.courier = courier
        self.courier.tick = self.breathe
        memory = ps.read_json(folder / "upload.json")
        self.checkpoints: List[Dict[str, Any]] = list(memory.get("checkpoints") or [])  # as the store's seal names them
        self.files: Dict[str, Dict[str, Any]] = dict(memory.get("files") or {})  # not named by a seal yet
        self.so_far: Dict[str, Dict[str, Any]] = dict(
            memory.get("so_far") or {}
        )  # of a script: as SOFAR.json names them
        self.loose = Loose(folder, known=bool(self.so_far))
        self.spoiled: Set[str] = set()  # seals whose files are not those that they name
        self.copied: Dict[str, int] = {}  # how much of the log, of the metrics is there
        self.log_at = -1e9  # steady seconds
        self.said: Dict[str, Any] = {"state": "busy", "error": "", "until": courier.until}
        self.said["failing"] = float(memory.get("failing") or 0.0)
        self.said.update(sent=0, rate=0.0, seconds=0.0)
        self.said["step"] = self.checkpoints[0]["step"] if self.checkpoints else -1
        self.tries = 0  # in a row, in vain
        self.short, self.short_step = "", -1  # the newest checkpoint that found no room there
        self.lacking = ""  # which of the files that no result names are not there, once all is over
        self.is_brought = False  # the result, and all that it names
        self.leave = stamp_at(folder / "store.json")

    # -- the whole life --

    def run(self) -> None:
        """Bring what comes; ends once all is over and there."""
        while True:
            over = self.is_over()
            self.renew()
            try:
                self.bring(over=over)
            except (GoneError, NoRoomError) as error:
                self.failed(str(error), LEAST if isinstance(error, GoneError) else MOST)
                continue
            if over and (self.short or self.lacking):  # it is here alone: whoever ends this machine must know
                self.failed(self.short or self.lacking, MOST)
            elif over:
                self.said["state"] = "whole" if self.courier.checksums else "sent"
                return
            else:
                time.sleep(LOOK)

    def is_over(self) -> bool:
        """Whether no more will come: there is a result, or the watchdog has ended all."""
        return (self.folder / "result.json").exists() or bool(ps.read_json(self.folder / "watchdog.json").get("ended"))

    def bring(self, *, over: bool) -> None:
        """Bring what is not there yet, in the order of its worth."""
        result = read_bytes(self.folder / "result.json") if over else b""
        completed = as_object(result).get("reason") == "completed"
        if not completed:  # else the artifacts are what it was for
            self.bring_checkpoint()
        if not result:
            self.copy_logs(last=over)
            if over:
                self.bring_small("summary.json")
            self.lacking = self.loose.bring(self, time.monotonic, over=over)
        elif not self.is_brought:
            self.lacking = ""
            try:
                self.bring_result(result)
                self.is_brought = True
            except NoRoomError:
                self.make_room(0 if completed else 1)
                raise

    # -- checkpoints --

    def bring_checkpoint(self) -> None:
        """Bring the newest whole one, unless it is there; the seal that names it comes last."""
        found = newest(self.folder, self.said["step"], self.spoiled)
        if found is None:
            return
        began, before, facts = time.monotonic(), self.courier.sent, []
        try:
            with opened(self.folder, found.files) as handles:
                for file in found.files:
                    if as_object(read_bytes(self.folder / "result.json")).get("reason") == "completed":
                        return
                    facts.append(self.bring_file(file, handles[file.name]))
        except (ChangedError, OSError) as error:
            self.spoiled.add(found.seal)
            raise GoneError(f"checkpoint {found.step} can't be read: {error}") from error
        except NoRoomError as error:  # a later one, with fewer files, may fit; the log and the artifacts do not wait
            self.spoiled.add(found.seal)
            self.files = {}
            if found.step > self.short_step:
                self.short, self.short_step = f"checkpoint {found.step} is not there: {error}", found.step
            self.said["error"] = self.short
            return
        if found.step > self.short_step:
            self.short = ""
        checkpoints = [{"step": found.step, "files": facts}, *self.checkpoints][:KEPT]
        self.seal("CHECKPOINT.json", {"checkpoints": checkpoints})
        self.checkpoints, self.files = checkpoints, {}
        self.remember()
        seconds = max(time.monotonic() - began, 1e-3)
        self.said.update(step=found.step, rate=(self.courier.sent - before) / seconds, seconds=seconds)

    # -- a script's own files --

    def name_so_far(self, facts: Dict[str, Dict[str, Any]]) -> None:
        """Name what no result names yet, by SOFAR.json."""
        self.seal("SOFAR.json", {"files": list(facts.values())})
        self.so_far = facts
        self.files = {name: fact for name, fact in self.files.items() if name not in facts}
        self.remember()

    # -- the end --

    def bring_result(self, result: bytes) -> None:
        """Bring what the training made, then what says that it is whole: files.json, and result.json last."""
        listed = as_object(result).get("artifacts")
        wanted = [file for file in map(file_of, listed if isinstance(listed, list) else []) if file]
        facts = []
        for file in sorted(wanted, key=lambda one: one.size):  # an adapter is small, and worth most
            try:
                with (self.folder / file.name).open("rb") as handle:
                    facts.append(self.bring_file(file, handle))
            except (ChangedError, OSError) as error:
                raise GoneError(f"{file.name} can't be read: {error}") from error
        for name in ("summary.json", "metrics.jsonl", "log.txt"):
            facts += self.bring_small(name)
        facts.append(self.write("result.json", result, now=False))
        self.seal("files.json", {"files": facts})
        self.write("result.json", result)

    def bring_small(self, name: str) -> List[Dict[str, Any]]:
        """Bring a file of ours as it is now; [] = there is none."""
        content = read_bytes(self.folder / name)
        return [self.write(name, content)] if content or (self.folder / name).exists() else []

    def copy_logs(self, *, last: bool = False) -> None:
        """Bring log and metrics as they are, now and then."""
        now = time.monotonic()
        size = size_of(self.folder / "log.txt")
        if not last and now - self.log_at < max(LOG_EVERY, size / LOG_RATE):
            return
        self.log_at = now
        for name in ("metrics.jsonl", "log.txt"):
            if size_of(self.folder / name) != self.copied.get(name, 0):
                content = read_bytes(self.folder / name)
                self.write(name, content)
                self.copied[name] = len(content)

    # -- files --

    def bring_file(self, file: File, handle: BinaryIO) -> Dict[str, Any]:
        """Bring one file, unless its very bytes are there already; gives what a seal says of it.

        Raises:
            ChangedError: its bytes are not those that were named.
        """
        there = self.known(file)
        if there is not None:
            return {**there, "name": file.name}
        whole = self.courier.part_bytes >= file.size
        digest, parts, taken = hashlib.sha256(), [], self.taken()
        plain = (
            file.name.startswith("artifacts/") and whole and self.courier.takes(file.name) and file.name not in taken
        )
        for start in range(0, max(file.size, 1), self.courier.part_bytes):
            name = file.name if plain else self.free(taken)
            taken.add(name)
            size = min(self.courier.part_bytes, file.size - start)
            seen, digest = self.send(name, handle, start, size, digest)
            parts.append([name, size, seen])
        if digest.hexdigest() != (file.sha256 or digest.hexdigest()):  # of a script's own file nobody named any
            raise ChangedError(f"{file.name} has not the bytes that were named")
        facts = {"name": file.name, "size": file.size, "sha256": digest.hexdigest(), "parts": parts}
        self.files[file.name] = facts
        self.remember()
        return facts

    def named(self) -> List[Dict[str, Any]]:
        """Give all that the present seals name."""
        return [*self.so_far.values(), *(fact for one in self.checkpoints for fact in one["files"])]

    def known(self, file: File) -> Optional[Dict[str, Any]]:
        """Find the same bytes in what the present seal names, or what was brought for the next."""
        named = self.named()
        fact: Dict[str, Any]
        for fact in [*self.files.values(), *named]:
            if (fact["size"], fact["sha256"]) == (file.size, file.sha256):
                return fact
        return None

    def taken(self) -> Set[str]:
        """Names not to be written over: the present seal's, whose older half may be read just now, and the next's."""
        named = self.named()
        return {part[0] for fact in [*self.files.values(), *named] for part in fact["parts"]}

    def free(self, taken: Set[str]) -> str:
        """Name a part that nobody needs.

        Raises:
            NoRoomError: there is none.
        """
        for number in range(100000):
            name = f"parts/{number:04d}"
            if name not in taken and self.courier.takes(name):
                return name
            if self.courier.post is None and number >= len(self.courier.put):
                break
        raise NoRoomError(f"no slot is left of {len(self.courier.put)}: the store has no policies, and files are many")

    def make_room(self, keep: int) -> None:
        """Let go of a checkpoint there, never of the last `keep`: its slots serve at the next try."""
        if len(self.checkpoints) > keep:
            self.seal("CHECKPOINT.json", {"checkpoints": self.checkpoints[:-1]})
            self.checkpoints = self.checkpoints[:-1]
            self.remember()
            raise GoneError("an older checkpoint made room there")

    def seal(self, name: str, content: Dict[str, Any]) -> None:
        """Write what names others."""
        self.write(name, json.dumps({"written": time.time(), **content}).encode())

    def write(self, name: str, content: bytes, *, now: bool = True) -> Dict[str, Any]:
        """Write bytes under a name of their own; gives what a seal says of them.

        Raises:
            NoRoomError: there is no leave to write that name, and it is one that readers look for.
        """
        if name in SEALS and not self.courier.takes(name):
            raise NoRoomError(f"the store's leave has no slot for {name}")
        seen = hashlib.new("md5", content, usedforsecurity=False).hexdigest()
        key = name if self.courier.takes(name) or not now else self.free(self.taken())
        if now:
            self.send(key, io.BytesIO(content), 0, len(content), hashlib.sha256())
        fact = {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return {**fact, "parts": [[key, len(content), seen]]}

    def send(self, name: str, handle: BinaryIO, start: int, size: int, digest: Any) -> Tuple[str, Any]:
        """Send until it is there, however often that takes; gives its MD5, and `digest` fed with each byte once."""
        while True:
            trial = digest.copy()
            try:
                seen = self.courier.send(name, handle, start, size, trial)
            except StuckError as error:
                self.leave_off(str(error))
            except FailedError as error:
                self.failed(str(error), REFUSED if isinstance(error, RefusedError) else LEAST * 2**self.tries)
                continue
            self.tries, self.said["error"], self.said["failing"] = 0, self.short or self.lacking, 0.0
            return seen, trial

    # -- words --

    def failed(self, words: str, wait: float) -> None:
        """Say what went wrong, and wait a while, longer each time."""
        self.tries = min(self.tries + 1, 10)
        self.said["error"] = words[:200]
        self.said["failing"] = self.said["failing"] or time.time()
        self.doze(min(wait, MOST) * random.uniform(0.7, 1.0))  # noqa: S311 (no secret: many machines must not knock at once)

    def leave_off(self, words: str) -> NoReturn:
        """End this process, so that what has not ended never happens later; the watchdog starts it anew."""
        self.said.update(error=words[:200], failing=self.said["failing"] or time.time())
        self.remember()
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(self.said).encode() + b"\n")
        os._exit(1)

    def doze(self, seconds: float) -> None:
        """Wait; a fresh leave to write ends it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.renew():
            time.sleep(min(LOOK, seconds))

    def renew(self) -> bool:
        """Take up the leave that the controller has sent since; True = there was one."""
        stamp = stamp_at(self.folder / "store.json")
        if stamp == self.leave:
            return False
        try:
            self.courier.take(ps.read_json(self.folder / "store.json"))
        except (KeyError, TypeError, ValueError):
            return False
        self.leave, self.said["until"], self.tries = stamp, self.courier.until, 0
        return True

    def breathe(self) -> None:
        """Called for each block that left."""
        self.said["sent"] = self.courier.sent

    def remember(self) -> None:
        """Keep what is there; on a full disk it would be brought again."""
        memory: Dict[str, Any] = {"checkpoints": self.checkpoints, "files": self.files}
        memory.update(so_far=self.so_far, failing=self.said["failing"])
        with contextlib.suppress(OSError):
            ps.write_json(self.folder / "upload.json", memory)


def courier_of(grant: Dict[str, Any], folder: Path) -> Courier:
    """Give who carries by a leave; what a bucket of the Hub's takes is more than Python, and loaded for it alone."""
    if "hub" in grant or "mount" in grant:
        found: Courier = importlib.import_module("hub_courier").of(grant, folder)
        return found
    return Courier(grant)


# ---- the program ----------------------------------------------------------------------------------------------------


def tell(said: Dict[str, Any]) -> None:
    """Say how it stands, again and again; leave when nobody listens: another watchdog has its own uploader."""
    while True:
        try:
            os.write(1, json.dumps(said).encode() + b"\n")
        except BlockingIOError:
            pass
        except OSError:
            os._exit(0)
        time.sleep(PULSE)


def main(argv: List[str]) -> int:
    """Read the command line and the leave."""
    if len(argv) != 2 or not Path(argv[1]).is_dir():
        print("usage: upload.py <folder>", file=sys.stderr)
        return 2
    folder = Path(argv[1]).resolve()
    with contextlib.suppress(OSError):
        os.nice(19)  # the training comes first
    try:
        uploader = Uploader(folder, courier_of(ps.read_json(folder / "store.json"), folder))
    except (KeyError, TypeError, ValueError) as error:
        print(f"upload: store.json is wrong: {error!r}", file=sys.stderr)
        return 2
    threading.Thread(target=tell, args=(uploader.said,), daemon=True).start()
    lock = ps.hold(folder / ".upload.lock")
    while lock is None:  # the last watchdog's uploader leaves once it sees that
        time.sleep(PULSE)
        lock = ps.hold(folder / ".upload.lock")
    uploader.run()
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(uploader.said).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
