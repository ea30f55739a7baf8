"""A job whose only door is a mounted folder: brings the job in, brings out what it makes, and ends with it.

    python3 <mount>/in/payload/mounted.py <mount> [<the store's mount>]

    <mount>/in/   request.json blobs/<sha256> payload/   put there before this starts; order.json comes at any time
    <mount>/out/  said.json manifest.json files/<name>   what the door would answer, and the whole files

The mount is a network's: slow, late, and without locks. So everything runs on the local disk, and only whole files are
copied, each written once from beginning to end; what says "whole" comes after all that it speaks of, result.json and
then said.json last. The log goes to standard output, a line at a time, and the number of its lines into said.json.
Standard library only, Python 3.9. The wire contract is README.md beside this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import door
import place
import processes as ps

ARRIVAL = 120.0  # seconds that the mount may take to show what was put there before the start
FAILED = 3  # exit code of a job that never began
LAST_WORDS = 10.0  # seconds for the last lines of a log whose job is over


class Log(threading.Thread):
    """Passes log.txt on to standard output in whole lines, and counts them."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.lines = 0
        self.over = threading.Event()
        self.rest = b""

    def run(self) -> None:
        """Read on until all was read after the end."""
        file: Optional[int] = None
        while True:
            over = self.over.is_set()  # asked before the last read
            if file is None:
                with contextlib.suppress(FileNotFoundError):
                    file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            grew = file is not None and self.pass_on(os.read(file, 1 << 16))
            if over and not grew:
                break
            if not grew:
                time.sleep(0.05)
        self.flush_rest()
        if file is not None:
            os.close(file)

    def pass_on(self, piece: bytes) -> bool:
        """Write the whole lines of what was read; False = there was nothing."""
        whole, mark, self.rest = (self.rest + piece).rpartition(b"\n")
        if mark:
            self.lines += whole.count(b"\n") + 1
            self.write(whole + mark)
        return bool(piece)

    def flush_rest(self) -> None:
        """Give a last line without an end its end."""
        if self.rest:
            self.pass_on(b"\n")

    def write(self, data: bytes) -> None:
        """Write to standard output; where nobody takes it, the files matter more."""
        with contextlib.suppress(OSError):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


class Mirror:
    """Copies to the mount what is whole and new."""

    def __init__(self, folder: Path, out: Path, spare: float, log: Log) -> None:
        self.folder = folder
        self.out = out
        self.spare = spare  # seconds of the deadline that are kept for the last files
        self.log = log
        self.there: Dict[str, Tuple[Any, Any]] = {}

    def once(self) -> Dict[str, Any]:
        """Bring the mount up to date; gives what was said.

        Raises:
            OSError: the mount or the disk does not take it: the next time may be better.
        """
        said = door.status(self.folder)
        listed = door.manifest(self.folder)
        names = set()
        for entry in sorted(listed["entries"], key=rank):
            self.copy(entry)
            names.add(entry["name"])
        self.prune(names)
        write(self.out / "manifest.json", json.dumps(listed).encode())
        if "deadline" in said["status"]:
            said["status"]["deadline"] += self.spare
        if said["result"]:
            self.log.over.set()
            self.log.join(LAST_WORDS)
            said["lines"] = self.log.lines
        write(self.out / "said.json", json.dumps(said).encode())
        return said

    def copy(self, entry: Dict[str, Any]) -> None:
        """Copy one file, unless it is there as it is."""
        name, facts = str(entry["name"]), (entry.get("size"), entry.get("sha256"))
        if self.there.get(name) == facts:
            return
        target = place.inside(self.out / "files", name)
        with contextlib.suppress(FileNotFoundError):  # a checkpoint that was pruned meanwhile
            with (self.folder / name).open("rb") as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            self.there[name] = facts

    def prune(self, names: Set[str]) -> None:
        """Take away the checkpoints that are no more."""
        for name in set(self.there) - names:
            del self.there[name]
            with contextlib.suppress(OSError):
                (self.out / "files" / name).unlink()


def rank(entry: Dict[str, Any]) -> Tuple[int, str]:
    """Order of copying: what says that others are whole comes after them."""
    name = str(entry["name"])
    return (2 if name == "result.json" else 1 if name.endswith("/CHECKPOINT.json") else 0, name)


def write(path: Path, data: bytes) -> None:
    """Write a file of the mount in one go: there is no rename on it that can be trusted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# ---- bringing it in --------------------------------------------------------------------------------------------------


def read_request(mount: Path) -> Dict[str, Any]:
    """Read what is to be done, as soon as the mount shows it."""
    until = time.monotonic() + ARRIVAL
    while True:
        request = ps.read_json(mount / "in" / "request.json")
        if request:
            return request
        if time.monotonic() > until:
            raise place.DoorError("the mounted folder never showed request.json")
        time.sleep(0.5)


def begin(mount: Path, request: Dict[str, Any], store: str = "") -> Path:
    """Put everything into its place on the local disk, the watchdog armed first; gives the job's folder."""
    folder = place.HOME / "jobs" / str(request["mark"])
    place.BLOBS.mkdir(parents=True, mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    shutil.copytree(mount / "in" / "payload", folder / "payload", dirs_exist_ok=True)
    place.seed(folder, {"arm": request["arm"], "want": []})
    until = time.monotonic() + ARRIVAL
    while True:
        bring(mount / "in" / "blobs", request["want"])
        secrets = {name: os.environ[name] for name in request["secrets"] if name in os.environ}
        leave = {**request["store"], "mount": store} if store else None
        broken = place.begin(folder, {**request, "secrets": secrets, "store": leave}).get("broken")
        if not broken:
            return folder
        if time.monotonic() > until:
            raise place.DoorError(f"{len(broken)} files of the job did not arrive whole: {broken[0][:12]}…")
        time.sleep(1.0)


def bring(blobs: Path, want: List[Any]) -> None:
    """Copy what is not here yet."""
    for digest, size in want:
        target = place.BLOBS / digest
        if place.size_of(target) != size:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(blobs / digest, target)


# ---- the whole life --------------------------------------------------------------------------------------------------


def take_order(mount: Path, folder: Path, spare: float, last: int) -> int:
    """Pass a new order on to the agent; gives its number."""
    order = ps.read_json(mount / "in" / "order.json")
    number = order.get("id")
    if not isinstance(number, int) or number <= last:
        return last
    if isinstance(order.get("deadline"), (int, float)):
        order["deadline"] -= spare
    with contextlib.suppress(OSError):
        place.write_aside(folder / "order.json", json.dumps(order).encode())
        return number
    return last


def ask_to_stop(folder: Path) -> None:
    """The container is being ended: let the training save while there is time."""
    agent = ps.holder(folder / ".agent.lock")
    if agent is not None:
        ps.send(agent, signal.SIGTERM)


def follow(mount: Path, folder: Path, request: Dict[str, Any], ended: threading.Event) -> int:
    """Mirror until the job is over and everything is out; gives the exit code."""
    spare, pause = float(request["spare_seconds"]), float(request["mirror_seconds"])
    log = Log(folder / "log.txt")
    mirror = Mirror(folder, mount / "out", spare, log)
    log.start()
    order, told = 0, False
    while True:
        order = take_order(mount, folder, spare, order)
        if ended.is_set() and not told:
            told = True
            ask_to_stop(folder)
        try:
            said = mirror.once()
        except (OSError, place.DoorError) as error:
            print(f"gpurun: the mounted folder does not take it: {error}", file=sys.stderr)
        else:
            if said["result"] and not (is_storing(said) and not ended.is_set()):
                break
            if said["result"]:
                time.sleep(pause)
            if said["began"] and not (said["agent"] or said["watchdog"]):
                return FAILED  # gone without a result, and said so
        doze(folder, pause, ended, told=told)
    ended.wait(float(request["settle_seconds"]))  # until the mount has brought it all away
    result = ps.read_json(folder / "result.json")
    return 0 if result.get("reason") == "completed" else int(result.get("exit_code") or 1) & 0xFF


def is_storing(said: Dict[str, Any]) -> bool:
    """Whether the results are on their way into the store, and somebody carries them."""
    return bool(said["watchdog"]) and (said.get("proof") or {}).get("store") == "busy"


def doze(folder: Path, pause: float, ended: threading.Event, *, told: bool) -> None:
    """Wait for the next look; the end of the job, or of the container, wakes us at once."""
    until = time.monotonic() + pause
    while time.monotonic() < until and not (folder / "result.json").exists() and (told or not ended.is_set()):
        time.sleep(min(0.05, pause))


def main(argv: List[str]) -> int:
    """Read the command line; what keeps the job from beginning is said where the controller looks."""
    if len(argv) not in (2, 3) or not Path(argv[1]).is_dir():
        print("usage: mounted.py <mount> [<the store's mount>]", file=sys.stderr)
        return 2
    mount, ended = Path(argv[1]), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        request = read_request(mount)
        folder = begin(mount, request, *argv[2:])
    except (
        *(place.DoorError, OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError),
        subprocess.SubprocessError,
    ) as error:
        print(f"gpurun: the job can't begin: {error!r}", file=sys.stderr)
        write(mount / "out" / "said.json", json.dumps({"time": time.time(), "error": str(error)[:500]}).encode())
        return FAILED
    return follow(mount, folder, request, ended)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
