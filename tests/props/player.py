"""Play one seed, and judge it; or tell it again, line by line."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from oracle import judge
from story import draw
from world import World

FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk in memory


@dataclass
class Outcome:
    """One seed's end."""

    seed: int
    violations: list[str]
    counts: dict[str, int]
    worst_overrun: float = 0.0
    longest_past: float = 0.0
    false_kills: int = 0
    lost_minutes: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def play(seed: int) -> Outcome:
    """Draw a story, let it happen, judge what came of it."""
    outcome, _ = _play(seed, telling=False)
    return outcome


def retell(seed: int) -> list[str]:
    """Tell a seed's whole story: what was drawn, what happened, how it was judged."""
    outcome, world = _play(seed, telling=True)
    lines = world.story.told()
    lines += [f"{at:9.2f}  {who}: {text}" for at, who, text in world.lines or []]
    lines += [f"VIOLATION {words}" for words in outcome.violations] or ["all laws held"]
    return [*lines, f"again: python bench/faults.py 1 --from {seed} --story"]


class _Listener(logging.Handler):
    """Takes what the shipped code logs into the story."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        self._world.say("log", text)


def _play(seed: int, *, telling: bool) -> tuple[Outcome, World]:
    root = Path(tempfile.mkdtemp(prefix="gpurun-faults-", dir=FAST))
    logger, disabled = logging.getLogger("gpurun"), logging.root.manager.disable
    try:
        world = World(draw(seed), root, telling=telling)
        listener = _Listener(world)
        logging.disable(logging.NOTSET if telling else logging.CRITICAL)
        logger.addHandler(listener)
        try:
            history = world.play()
        finally:
            logger.removeHandler(listener)
            logging.disable(disabled)
        verdict = judge(history)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    counts = dict(world.counts + type(world.counts)(world.vendor.counts))
    reasons = [one.reason if one.state == "done" else f"({one.state})" for one in history.told]
    return Outcome(
        seed, verdict.violations, counts, verdict.worst_overrun, verdict.longest_past, verdict.false_kills,
        world.lost_minutes, reasons,
    ), world  # fmt: skip
