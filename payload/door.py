"""The door: what the controller asks of a machine over SSH, one question a process. It decides nothing.

    python3 -I -S -B payload/door.py <word> <mark> <verb> [offset]    # a request, where there is one, on standard input

    seed begin        before the training: see place.py        fetch   bring data from where they lie: fetch.py
    status            what lives, and what the files say       order   leave an order for the agent
    manifest          name the whole files                     ender   keep what the machine ends itself by: lever.py
    log               the log from an offset, as it grows: for ten minutes, or until the asker is gone

The answer is one line, "<word> <JSON>", so that what a login shell prints before it can't be taken for one; the bytes
of `log` come after it.
Standard library only, Python 3.9. The wire contract is README.md beside this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterator, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fetch
import lever
import place
import processes as ps
from place import DoorError, digest_of, size_of, write_aside

LIFE = 600.0  # seconds that one reader of the log lives: a peer that vanished without a word is not served for ever
QUICK, LAZY = 0.01, 0.1  # seconds between two looks at a log that just grew, and at one that rests
PIECE = 1 << 16  # bytes
MOST = 100000  # files that one manifest may name
COMES = 20.0  # seconds that a restarted machine's watchdog may take
ENDER = ("ender", "ender_evidence", "ender_at", "ender_failures", "ender_user")
STORE = ("store", "store_error", "store_failing", "store_step", "store_until")
LONGEST = 2000  # characters of a text that are passed on


# ---- while it runs ---------------------------------------------------------------------------------------------------


def status(folder: Path) -> Dict[str, Any]:
    """Say who lives, by the locks, and what the files say; the lock is asked before the result: see watchdog.py."""
    began = (folder / ".agent.lock").exists()  # before its lock: one that comes now is no dead one
    agent = ps.held(folder / ".agent.lock")
    if began and not agent:  # it may be on its way to the lock
        time.sleep(0.05)
        agent = ps.held(folder / ".agent.lock")
    proof = ps.read_json(folder / "watchdog.json")
    restarting = began and not agent and comes_back(folder, proof)
    return {
        "time": time.time(),
        "agent": agent,
        "watchdog": ps.held(folder / ".watchdog.lock"),
        "looked": looked(folder),
        "restarting": restarting,
        "began": began,
        "begun": (folder / "job.json").exists(),
        "result": pick(ps.read_json(folder / "result.json"), "reason", "detail", "exit_code"),
        "status": pick(
            ps.read_json(folder / "status.json"), "time", "stage", "step", "total_steps", "detail", "deadline"
        ),
        "proof": pick(proof, "time", "pid", "ended", "fired", "deadline", "ceiling", "rearm", *ENDER, *STORE),
        "log": size_of(folder / "log.txt") or 0,
    }


def comes_back(folder: Path, proof: Dict[str, Any]) -> bool:
    """Whether a watchdog is about to start the agent again: the machine was restarted under it, in the midst of things.

    A machine that answers again may have its sshd before its watchdog: then it gets a moment.
    """
    over = proof.get("ended") or (folder / "result.json").exists()
    if over or not ps.of_earlier_life(folder / ".agent.lock"):
        return False
    until = time.monotonic() + (COMES if proof.get("rearm") else 0.0)
    while not ps.held(folder / ".watchdog.lock") and time.monotonic() < until:
        time.sleep(0.1)
    return ps.held(folder / ".watchdog.lock")


def looked(folder: Path) -> float:
    """When the watchdog looked last: a time costs no room on a disk that is full."""
    try:
        return (folder / ".watchdog.lock").stat().st_mtime
    except OSError:
        return 0.0


def pick(facts: Dict[str, Any], *keys: str) -> Dict[str, Any]:
    """Keep plain values of these keys; {} = there is no such file."""
    kept: Dict[str, Any] = {"there": True} if facts else {}
    for key in keys:
        value = facts.get(key)
        if isinstance(value, str):
            kept[key] = value[:LONGEST]
        elif isinstance(value, (int, float)):
            kept[key] = value
    return kept


def order(folder: Path, request: Dict[str, Any]) -> Dict[str, Any]:
    """Leave an order; the agent looks for one twenty times a second. A fresh leave to write is the uploader's alone."""
    if request.get("kind") == "store":
        write_aside(folder / "store.json", json.dumps(request["store"]).encode())
        return {}
    write_aside(folder / "order.json", json.dumps(request).encode())
    return {}


def ender(folder: Path, request: Dict[str, Any]) -> Dict[str, Any]:
    """Keep what this machine ends itself by; it lies outside the job's folder, for root's eyes where there is one."""
    return {"user": lever.put(folder.name, json.dumps(request).encode())}


def manifest(folder: Path) -> Dict[str, Any]:
    """Name whole checkpoints while it runs; the artifacts too once result.json says that they are whole."""
    result = ps.read_json(folder / "result.json")
    entries = list(checkpoints(folder))
    if result:
        listed = result.get("artifacts")
        entries += listed if isinstance(listed, list) else []
        for name in ("metrics.jsonl", "summary.json", "result.json"):
            entries += small(folder, name)
    if len(entries) > MOST:
        raise DoorError(f"{len(entries)} files are more than the {MOST} that can be brought home")
    return {"final": bool(result), "entries": entries, "folder": str(folder)}


def checkpoints(folder: Path) -> Iterator[Dict[str, Any]]:
    """Give the files of every checkpoint whose seal names nothing that is missing."""
    for seal in sorted(folder.glob("checkpoints/step-*/CHECKPOINT.json")):
        base = seal.parent.relative_to(folder).as_posix()
        listed = ps.read_json(seal).get("files")
        files = listed if isinstance(listed, dict) else {}
        entries = [{**facts, "name": f"{base}/{name}"} for name, facts in files.items() if isinstance(facts, dict)]
        if entries and all(size_of(folder / entry["name"]) == entry.get("size") for entry in entries):
            yield from entries
            yield from small(folder, f"{base}/CHECKPOINT.json")


def small(folder: Path, name: str) -> List[Dict[str, Any]]:
    """Name a file by what is in it now; [] = it is not there."""
    try:
        return [{"name": name, "size": (folder / name).stat().st_size, "sha256": digest_of(folder / name)}]
    except OSError:
        return []


# ---- the log ---------------------------------------------------------------------------------------------------------


def log(folder: Path, offset: int) -> None:
    """Write the log from an offset, as it grows; ends with the asker's standard input, and in any case after `LIFE`."""
    until, grew, pending = time.monotonic() + LIFE, 0.0, b""
    file: Optional[int] = None
    os.set_blocking(1, False)  # a peer that takes nothing must not keep us from seeing that it is gone
    while time.monotonic() < until:
        if file is None:
            with contextlib.suppress(FileNotFoundError):
                file = os.open(folder / "log.txt", os.O_RDONLY | os.O_CLOEXEC)
        if file is not None and not pending:
            pending = os.pread(file, PIECE, offset)
            offset += len(pending)
            grew = time.monotonic() if pending else grew
        wait = 1.0 if pending else QUICK if time.monotonic() - grew < 1.0 else LAZY
        gone, takes, _ = select.select([0], [1] if pending else [], [], wait)
        if gone and not os.read(0, PIECE):
            return
        if takes:
            pending = pending[os.write(1, pending) :]


def fetch_data(_folder: Path, request: Dict[str, Any]) -> Dict[str, Any]:
    """Bring data for a while."""
    place.BLOBS.mkdir(mode=0o700, exist_ok=True)
    return fetch.fetch(place.BLOBS, request)


# ---- the question ----------------------------------------------------------------------------------------------------


def say(word: str, answer: Dict[str, Any]) -> None:
    """Answer in one line that noise before it can't hide."""
    sys.stdout.buffer.write(b"\n" + word.encode() + b" " + json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def answer(folder: Path, verb: str, rest: List[str], word: str) -> None:
    """Do one thing and say how it went."""
    stdin = sys.stdin.buffer
    if verb == "log":
        say(word, {"size": size_of(folder / "log.txt") or 0})
        log(folder, int(rest[0]))
    elif verb in ("status", "manifest"):
        say(word, {"status": status, "manifest": manifest}[verb](folder))
    else:
        say(
            word,
            {"seed": place.seed, "begin": place.begin, "order": order, "ender": ender, "fetch": fetch_data}[verb](
                folder, json.load(stdin)
            ),
        )


def main(argv: List[str]) -> int:
    """Read the question; whatever goes wrong is an answer too."""
    word, mark, verb = argv[1:4]
    folder = place.HOME / "jobs" / PurePosixPath(mark).name
    try:
        answer(folder, verb, argv[4:], word)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the asker is gone: nobody is left to tell
        return 1
    except (DoorError, OSError, EOFError, tarfile.TarError, ValueError, KeyError, subprocess.SubprocessError) as error:
        known = isinstance(error, (DoorError, OSError))
        say(word, {"error": str(error)[:LONGEST] if known else f"{type(error).__name__}: {error}"[:LONGEST]})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
