"""The judge's seventh law: nothing whole in the store is ever lost, and who has all there waits for nobody.

Reads the store's own log of changes, byte by byte, by itself: imports nothing of gpurun.

    <prefix>runs/<run>/<attempt>/   CHECKPOINT.json -> parts · files.json, result.json (last) -> artifacts

- What a seal there names is whole at every moment at which the seal is there.
- The newest whole state of a run there, its completed result above all, never gives way to an older one or to nothing.
- Nothing is rented for a run whose completed result is whole there.
- What a script left is named there until a result, or a later attempt, makes up for it.
- No machine ends itself "since all is in the store" while a file that its training left is not named there, whole.
- A machine that can end itself ends soon after all of its attempt is whole there and it has heard so.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weather import PATIENCE, good

if TYPE_CHECKING:
    from oracle import Fact, History, Told

_KEY = re.compile(r"(?:.*/)?runs/([a-z0-9-]+)/(\d+)/(.+)")
_MODEL = re.compile(r"checkpoints/step-(\d+)/model\.bin")

_TRIED, _TRIES = 900.0, 2  # seconds before the end, failures: each look at a slow store takes minutes

Worth = tuple[bool, int]  # a completed result; the newest step


def judge(history: History) -> list[str]:
    """Name every breach."""
    shelf = Shelf()
    broken = shelf.replay(history)
    for thing in history.things:
        mark = thing.mark
        since = None if mark is None else shelf.completed.get(mark[1])
        if since is not None and thing.made > since:
            broken.append(f"(7) {thing.id} was rented for {mark[1]}, whose completed result was in the store")
    return [*broken, *_left(history), *_waits(history, shelf)]


class Shelf:
    """The store, as its log tells it."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[int, dict[str, bytes]]] = {}  # run, attempt, name below its prefix
        self.best: dict[str, Worth] = {}
        self.completed: dict[str, float] = {}  # run -> since when its completed result is whole there
        self.whole: dict[tuple[str, int], float] = {}  # run and attempt -> since when its result is whole there

    def replay(self, history: History) -> list[str]:
        """Carry out change after change, and look after each request."""
        broken: list[str] = []
        changes = history.objects
        for place, (at, request, key, content) in enumerate(changes):
            match = _KEY.fullmatch(key)
            if match is None:
                continue
            run, attempt, name = match[1], int(match[2]), match[3]
            objects = self.runs.setdefault(run, {}).setdefault(attempt, {})
            before = objects.get(name)
            if content is None:
                objects.pop(name, None)
            else:
                objects[name] = content
            if name == "SOFAR.json" and content is None and before:
                broken += self._forgotten(run, attempt, at)
            last = place + 1 == len(changes) or changes[place + 1][1] != request
            if last and content != before and name not in {"log.txt", "metrics.jsonl"}:
                broken += self._look(run, attempt, at)
        return broken

    def _forgotten(self, run: str, attempt: int, at: float) -> list[str]:
        later = [objects for number, objects in self.runs[run].items() if number > attempt]
        made_up = any(result_of(one).get("reason") == "completed" or "SOFAR.json" in one for one in later)
        if made_up or result_of(self.runs[run][attempt]):
            return []
        return [f"(7) {run} at {at:.0f}: what a script left in attempt {attempt} was forgotten"]

    def _look(self, run: str, attempt: int, at: float) -> list[str]:
        broken = [
            f"(7) {run} at {at:.0f}: the seal of attempt {number} names {words}"
            for number, objects in self.runs[run].items()
            for words in wrongs(objects)
        ]
        worth = max(worth_of(objects) for objects in self.runs[run].values())
        if worth < self.best.get(run, (False, -1)):
            broken.append(f"(7) {run} at {at:.0f}: the store had {self.best[run]} of it, and has {worth} left")
        self.best[run] = worth
        if worth[0]:
            self.completed.setdefault(run, at)
        if result_of(self.runs[run][attempt]):
            self.whole.setdefault((run, attempt), at)
        return broken


def wrongs(objects: dict[str, bytes]) -> list[str]:
    """What the newest seal of checkpoints names and is not whole."""
    found = []
    for one in _read(objects, "CHECKPOINT.json").get("checkpoints", ()):
        for file in one["files"]:
            content = joined(objects, file)
            model = _MODEL.fullmatch(file["name"])
            if content is None:
                found.append(f"{file['name']}, which is not whole")
            elif model and not content.endswith(f" after {model[1]}".encode()):
                found.append(f"{file['name']}, which is {content!r}")
    left = _read(objects, "SOFAR.json").get("files", ())
    return [*found, *(f"{file['name']}, which is not whole" for file in left if joined(objects, file) is None)]


def worth_of(objects: dict[str, bytes]) -> Worth:
    """What an attempt has there, whole."""
    result = result_of(objects)
    steps = [one["step"] for one in _read(objects, "CHECKPOINT.json").get("checkpoints", ())]
    return result.get("reason") == "completed", max([int(result.get("step", -1)), *steps])


def result_of(objects: dict[str, bytes]) -> dict[str, Any]:
    """Give a result that is there with every file that it names; {} = there is none."""
    result, listed = _read(objects, "result.json"), _read(objects, "files.json").get("files", ())
    files = {file["name"]: joined(objects, file) for file in listed}
    if not result or files.get("result.json") != objects["result.json"] or None in files.values():
        return {}
    for one in result["artifacts"]:
        content = files.get(one["name"])
        if content is None or hashlib.sha256(content).hexdigest() != one["sha256"]:
            return {}
    return result


def joined(objects: dict[str, bytes], file: dict[str, Any]) -> bytes | None:
    """Put a file together; None = a part is missing, or it is not what its seal says."""
    parts = [objects.get(part[0]) for part in file["parts"]]
    if None in parts:
        return None
    content = b"".join(part for part in parts if part is not None)
    right = len(content) == file["size"] and hashlib.sha256(content).hexdigest() == file["sha256"]
    return content if right else None


def _read(objects: dict[str, bytes], name: str) -> dict[str, Any]:
    return dict(json.loads(objects.get(name, b"{}")))


def was_tried(history: History, told: Told) -> bool:
    """Say whether a completed result lay whole in the store, which denied it again and again when its run ended."""
    shelf = Shelf()
    shelf.replay(history)
    if told.run not in shelf.completed:
        return False
    ends = [one.at for one in history.claims if (one.home, one.run, one.id) == (told.home, told.run, "")]
    return any(
        sum(home == told.home and end - _TRIED < at <= end for at, home in history.silent) >= _TRIES for end in ends
    )


def _left(history: History) -> list[str]:
    """Name the machines that went with a file that is nowhere else."""
    broken, marks = [], {thing.id: thing.mark for thing in history.things}
    for at, one, files in history.leaving:
        mark = marks[one]
        if mark is None:
            continue
        shelf = Shelf()
        shelf.replay(replace(history, objects=[one for one in history.objects if one[0] <= at]))
        objects = shelf.runs.get(mark[1], {}).get(mark[2], {})
        named = [*_read(objects, "files.json").get("files", ()), *_read(objects, "SOFAR.json").get("files", ())]
        there = {file["name"]: joined(objects, file) for file in named}
        broken += [f"(7) {one} went, and {name} was there alone" for name in files if there.get(name) != files[name]]
    return broken


def _waits(history: History, shelf: Shelf) -> list[str]:
    """Name the machines that stayed though nothing on them was worth it."""
    heard: dict[str, float] = {}
    for at, one in history.sealed:
        heard.setdefault(one, at)
    broken = []
    for thing in history.things:
        since = _since(thing, heard, shelf)
        if since is None:
            continue
        end = history.now if thing.ended is None else thing.ended
        longest = max((b - a for a, b in good(history, thing, since, end, itself=True)), default=0.0)
        if longest > PATIENCE:
            broken.append(
                f"(7) {thing.name} ({thing.id}) waited {longest:.0f} s of good weather, with all in the store"
            )
    return broken


def _since(thing: Fact, heard: dict[str, float], shelf: Shelf) -> float | None:
    mark = thing.mark
    there = None if mark is None else shelf.whole.get((mark[1], mark[2]))
    return None if there is None or thing.id not in heard else max(there, heard[thing.id])
