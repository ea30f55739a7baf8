"""What runs on a rented machine or in a job: the training and its agent, as seconds passed and files whole.

The agent is told in closed form (it is not what is tested here): a step a second, a checkpoint every so often, a stop
when it is ordered or when its own deadline comes by its own clock. The watchdog's decisions are the shipped ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field

LATE_CHECKPOINTS = 3  # that the machine keeps


@dataclass
class Rig:
    """One machine's or job's software."""

    thing: str  # id of what it runs on
    steps: int  # of the whole training: one a second
    every: int  # steps between two checkpoints
    began: float | None = None
    first: int = 0
    deadline: float = math.inf
    ceiling: float = math.inf
    grace: float = 0.0
    told_stop: float | None = None
    died: float | None = None  # the agent and all below it
    clock_ahead: list[tuple[float, float]] = field(
        default_factory=list
    )  # jumps of the machine's clock: moment, seconds
    ordered: tuple[int, float, float | None] | None = None  # the newest order: number, deadline, ceiling
    told: bytes = b""  # the log up to the last start
    leaves: str = ""  # "script": files as it goes, in a user's own way; "early": an artifact well before its end

    def is_alive(self, now: float) -> bool:
        """Whether the agent runs: begun, neither dead nor done."""
        return self.began is not None and not self.is_dead(now) and now < self.end()[0]

    def restart(self, now: float) -> None:
        """Go on from the newest whole checkpoint, as the agent does after a reboot."""
        self.told, step = self.log(now), self.progress(now)[0]
        self.first, self.began, self.died = step // self.every * self.every, now, None

    def start(self, now: float, first: int, limits: tuple[float, float, float]) -> None:
        if self.began is None:
            self.began, self.first = now, first
            self.deadline, self.ceiling, self.grace = limits

    def reached(self, wanted: float) -> float:
        """When the machine's clock shows a time, or as much has passed since the start by the steady one."""
        ahead, earliest = 0.0, wanted
        for moment, jump in self.clock_ahead:
            if moment >= earliest:
                break
            ahead += jump
            earliest = min(earliest, max(moment, wanted - ahead))
        return earliest

    def end(self) -> tuple[float, str]:
        """When the training ends, and with which word."""
        assert self.began is not None
        ends = [
            (self.began + self.steps - self.first, "completed"),
            (max(self.reached(self.deadline - self.grace), self.began), "deadline"),
        ]
        if self.told_stop is not None:
            ends.append((self.told_stop + 2, "stopped"))
        return min(ends)

    def progress(self, now: float) -> tuple[int, str]:
        """Steps done, and the agent's word once it has left one."""
        if self.began is None:
            return 0, ""
        over, word = self.end()
        until = min(now, over, math.inf if self.died is None else self.died)
        step = self.first + max(int(until - self.began), 0)
        said = now >= over and (self.died is None or self.died > over)
        return step, word if said else ""

    def is_dead(self, now: float) -> bool:
        return self.died is not None and self.died <= now

    # ── files ───────────────────────────────────────────────────────────────────────────────────

    def files(self, now: float) -> dict[str, bytes]:
        """What is whole right now; every byte tells which attempt made it."""
        step, word = self.progress(now)
        found: dict[str, bytes] = {}
        newest = step // self.every
        for number in range(max(self.first // self.every + 1, newest - LATE_CHECKPOINTS + 1), newest + 1):
            whole = number * self.every
            model = b"%s after %d" % (self.thing.encode(), whole)
            fact = {"size": len(model), "sha256": digest(model)}
            seal = {"step": whole, "thing": self.thing, "files": {"model.bin": fact}}
            found[f"checkpoints/step-{whole}/model.bin"] = model
            found[f"checkpoints/step-{whole}/CHECKPOINT.json"] = json.dumps(seal).encode()
        if word:
            artifacts = {
                f"artifacts/{name}": f"{name} of {self.thing} at {step}".encode() for name in ("a.bin", "b.bin")
            }
            artifacts |= {f"artifacts/{name}": data for name, data in self.left(step).items()}
            found |= artifacts
            listed = [{"name": name, "size": len(data), "sha256": digest(data)} for name, data in artifacts.items()]
            told = {"reason": word, "step": step, "thing": self.thing, "artifacts": listed}
            found["result.json"] = json.dumps(told).encode()
        else:
            place = "code" if self.leaves == "script" else "artifacts"
            found |= {f"{place}/{name}": data for name, data in self.left(step).items()}
        return found

    def left(self, step: int) -> dict[str, bytes]:
        """What lies there though nothing seals it: the two newest of a script's, or one file of a training's."""
        if self.leaves == "script":
            newest = step // self.every
            numbers = range(max(self.first // self.every + 1, newest - 1), newest + 1)
            return {f"outputs/{one}.bin": f"{one} left by {self.thing}".encode() for one in numbers}
        early = self.leaves == "early" and step >= self.steps // 2
        return {"early.bin": f"early by {self.thing}".encode()} if early else {}

    def log(self, now: float) -> bytes:
        step, _ = self.progress(now)
        marks = range(self.first + 30, step + 1, 30)
        return self.told + "".join(f'::metrics {{"step": {at}, "loss": {1 / at:.4f}}}\n' for at in marks).encode()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
