"""Known bugs in what keeps results in a store, and in what a controller concludes from one."""

from __future__ import annotations

from mutant import Mutant

_UPLOAD = "payload/upload.py"
_STORED = "orchestrator/stored.py"
_COMING = "orchestrator/homecoming.py"

DECIDE = ("tests/unit/test_decide_stored.py",)
CLAIMS = ("tests/unit/test_claims.py",)


def world(seed: int) -> tuple[str, ...]:
    """Play one world in which the bug shows."""
    return (f"tests/props/test_store_law.py::test_every_law_holds_in_a_world_that_told_of_a_bug[{seed}]",)


MUTANTS = (
    Mutant(
        "store: a machine with all there waits on",
        "payload/limits.py",
        'facts.ender and facts.store == "whole"',
        'facts.ender and facts.store == "never"',
        world(42),
    ),
    Mutant(
        "store: a part that a seal names is written over",
        _UPLOAD,
        "            if name not in taken and self.courier.takes(name):\n",
        "            if self.courier.takes(name):\n",
        world(24),
    ),
    Mutant(
        "store: started again, the uploader forgets what its seal names",
        _UPLOAD,
        'list(memory.get("checkpoints") or [])',
        "[]",
        world(325),
    ),
    Mutant(
        "store: any answer is taken for stored",
        "payload/courier.py",
        "        if answer.status not in (200, 201, 204):\n",
        "        if answer.status == 418:\n",
        world(157),
    ),
    Mutant(
        "store: the only checkpoint is tidied away",
        _STORED,
        "        completed, later = over, ",
        "        completed, later = True, ",
        world(174),
    ),
    Mutant(
        "store: parts that a seal names are tidied away",
        _STORED,
        "there.named(results_only=stale)",
        "there.named(results_only=True)",
        world(62),
    ),
    Mutant(
        "store: what a dead training left in artifacts/ stays behind",
        "payload/loose.py",
        '"artifacts", self.miss) if over else ()',
        '"artifacts", self.miss) if False else ()',
        world(2095),
    ),
    Mutant(
        "store: a script's last files stay behind",
        "payload/loose.py",
        " if over or now - self.since",
        " if now - self.since",
        world(1711),
    ),
    Mutant(
        "store: what is there is fetched once, and left",
        _COMING,
        "_PATIENCE_SECONDS = 300.0",
        "_PATIENCE_SECONDS = 0.0",
        world(418),
    ),
    Mutant(
        "store: bought again before the store has answered",
        _COMING,
        "    bound = now < rules.deadline and memory.reroll and not memory.stop_requested\n",
        "    bound = False\n",
        DECIDE,
    ),
    Mutant(
        "store: a result there does not overrule lost",
        _COMING,
        "        memory = overruled(memory, seen.remote, rules)\n    slept",
        "        pass\n    slept",
        DECIDE,
    ),
    Mutant(
        "an unclear launch is looked for in one list only",
        "orchestrator/looks.py",
        "                found = found or tuple(one for one in listed if one.mark and one.mark.attempt == memory.attempt)\n",
        "                listed = [one for one in listed if one.mark and one.mark.attempt != memory.attempt]\n",
        CLAIMS,
    ),
    Mutant(
        "store: a ledger that was put back writes an attempt over another",
        "orchestrator/lifecycle.py",
        "    if seen.last_attempt >= memory.attempt:",
        "    if seen.last_attempt > memory.attempt:",
        ("tests/unit/test_decide_strays.py",),
    ),
)
