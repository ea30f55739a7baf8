"""Simulated runs whose boot, link and speed are drawn: the shipped quote and life cycle, in simulated time.

    template ──> launch.prepare (the quote) ──> Controller on the fake cloud ──> what its meter says

The world knows nothing of the estimate but the work itself: seconds of boot and setup, bytes a second from the Hub and
to this computer, and how far the true pace is from what is published, are drawn as they were seen to vary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING

from fakes import START, Clock, FakeCloud, FakeRemote

from orchestrator import launch, templates
from orchestrator.controller import Controller
from orchestrator.estimate import answer, ask, catalogue, disk, hours
from orchestrator.estimate.quote import _pace
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from providers.base import Offer, Traits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from providers.base import Access, Job

# As Lambda's adapter has them, but for a look every 15 s and not every 5: only the test gets longer by those.
TRAITS = Traits(60.0, 1200.0, 3600.0, 15.0, 60)
_MISS = 0.75  # of the quoted pace, for the work that is run over and over
CARDS = (("a10", 22.5, "1.29"), ("a100-40gb", 40.0, "1.99"), ("rtx-a6000", 48.0, "1.09"), ("h100-pcie", 79.6, "3.29"))


@dataclass(frozen=True)
class Nature:
    """How one run really goes. Seconds, bytes a second; `pace` is of the middle of what is quoted."""

    boot: float
    setup: float
    hub: float
    home: float
    pace: float
    load: float  # times what disks usually take
    step: float  # of the first one, seconds


def drawn(chance: Random) -> Nature:
    """Draw a run: boot and setup as users report them; the pace misses by 16 % on average (bench/estimate.py: 20)."""
    return Nature(
        boot=min(chance.lognormvariate(5.3, 0.45), 1100.0),  # 200 s, 80 to 500 s for nine in ten
        setup=chance.lognormvariate(4.2, 0.5),  # 67 s, 30 to 150 s
        hub=chance.lognormvariate(19.0, 0.5),  # 180 MB/s
        home=chance.lognormvariate(16.1, 0.7),  # 10 MB/s
        pace=chance.lognormvariate(0.0, 0.2),
        load=chance.lognormvariate(0.0, 0.5),
        step=chance.lognormvariate(2.3, 0.5),
    )


@dataclass
class Slow(FakeCloud):
    """A cloud whose links take time; `weight` is what comes home, bytes."""

    link: float = 1e9
    weight: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)  # seconds, as the payload tells them
    setup: float = 0.0
    number: int = 0  # of the run: a vendor gives no id twice

    def launch(self, job: Job, offer: Offer) -> str:
        machine = self.machines.pop(super().launch(job, offer))
        machine.id = f"{machine.id}-{self.number}"
        self.machines[machine.id] = machine
        return machine.id

    def remote(self, allocation_id: str, access: Access) -> FakeRemote:  # noqa: ARG002 (the contract's shape)
        return SlowRemote(self, allocation_id)


class SlowRemote(FakeRemote):
    """Ships and fetches in simulated time."""

    _cloud: Slow

    def start(self, job: Job) -> None:
        fresh = self._machine().job is None
        super().start(job)
        if fresh:
            self._cloud.clock.advance(2 + 400_000 / self._cloud.link)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        if any(name.startswith("artifacts/") for name in names):
            self._cloud.clock.advance(self._cloud.weight / self._cloud.link)
        super().fetch(names, dest)

    def _files(self) -> dict[str, bytes]:
        files = super()._files()
        if "result.json" in files:
            started = self._machine().started
            assert started is not None
            begun, stages = started.timestamp(), self._cloud.stages
            told = {
                "started": begun,
                "ended": begun + self._cloud.setup + sum(stages.values()),
                "stage_seconds": stages,
            }
            files["result.json"] = json.dumps({**json.loads(files["result.json"]), **told}).encode()
        return files

    def logs(self, offset: int) -> bytes:  # noqa: ARG002 (the contract's shape)
        return b""  # 10,000 lines of a training say nothing of money


@dataclass(frozen=True)
class Outcome:
    """What was quoted and what was paid, USD."""

    seed: int
    low: Decimal
    likely: Decimal
    worst: Decimal
    paid: Decimal
    reason: str
    attempts: int
    basis: str

    @property
    def exceeded(self) -> bool:
        return self.paid > self.worst

    @property
    def inside(self) -> bool:
        return self.low <= self.paid <= self.likely * Decimal("1.5")


@dataclass
class Study:
    """Runs one after another: where it `learns`, the same work in one home; else each in a home of its own."""

    root: Path
    learns: bool = False
    rows: dict[int, Path] = field(default_factory=dict)

    def run(self, seed: int) -> Outcome:
        chance = Random(seed)
        number = 0 if self.learns else seed
        home = Home(self.root / f"home{number}").ensure()
        ledger = Ledger(home.ledger)
        try:
            return _run(seed, chance, home, ledger, self._data(chance.choice((150, 400, 900))), learns=self.learns)
        finally:
            ledger.close()

    def _data(self, count: int) -> Path:
        path = self.root / f"rows{count}.jsonl"
        if not path.exists():
            lengths = Random(count)
            texts = ("word " * max(20, int(lengths.lognormvariate(5.5, 0.7))) for _ in range(count))
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return path


def _run(seed: int, chance: Random, home: Home, ledger: Ledger, rows: Path, *, learns: bool) -> Outcome:
    nature = drawn(chance)
    if learns:  # one card and one work: the same miss each time, to some percent
        nature = replace(nature, pace=_MISS * chance.lognormvariate(0.0, 0.05))
    card, vram, price = CARDS[0] if learns else chance.choice(CARDS)
    epochs = 8 if learns else chance.choice((4, 8, 16))
    sets = [f"data.train={rows}", f"epochs={epochs}", "packing=false", "max_length=512", "max_hours=12"]
    if chance.random() < 0.15 and not learns:
        sets.append(f"max_cost={chance.choice(('0.60', '1.00', '2.00'))}")  # some end by their budget
    template = templates.load(chance.choice(("qlora-sft", "lora-8bit")) if not learns else "qlora-sft", sets)
    template = replace(template, settings=template.settings.model_copy(update={"secrets": []}))
    offer = Offer("lambda", f"gpu_1x_{card}", card, 1, Decimal(price), vram_gib=vram)
    clock = Clock()
    cloud = Slow(clock, TRAITS, "lambda", boot_seconds=nature.boot, stock=[offer], link=nature.home, number=seed)
    cloud.stages, cloud.weight = _truth(template, offer, nature)
    cloud.setup, cloud.total_steps = nature.setup, int(nature.setup + sum(cloud.stages.values()))
    cloud.checkpoint_every = 10**9
    prepared = launch.prepare(home, ledger, cloud, template, None, START, launch.Leave(force=True))
    quote = prepared.plan.quote
    run_id = launch.commit(prepared, ledger, clock())
    lease = ledger.acquire(run_id, "host:1:1", clock(), lambda _holder: False)
    assert lease is not None
    memory = Controller(home, ledger, cloud, lease, clock=clock).run(clock.advance)
    clock.advance(timedelta(minutes=5).total_seconds())
    assert quote.low is not None
    assert quote.likely is not None
    reason = memory.reason or ""
    return Outcome(seed, quote.low, quote.likely, quote.worst, cloud.dollars(), reason, memory.attempt, quote.basis)


def _truth(template: templates.Template, offer: Offer, nature: Nature) -> tuple[dict[str, float], float]:
    """Seconds of the payload's stages, and bytes that come home: of the work itself, as it was drawn."""
    asked, _ = answer.question(answer.Flags(gpu=""), template)
    listed = catalogue.of_offer(offer, START.date(), 60)
    assert listed is not None
    assert asked.amount is not None
    work = ask.for_card(asked.work, listed.card, 1)
    tokens = hours.computed_tokens(work, asked.amount, 1, packed=asked.packed)
    pace = _pace(work, listed.card, 1)[0].likely * nature.pace
    weights = disk.download_bytes(work)
    stages = {
        "load": weights / nature.hub + nature.load * (weights / 1e9 + 5),
        "train": nature.step + tokens / pace,
        "save": nature.load * disk.checkpoint_bytes(work) / 0.7e9,
    }
    return stages, disk.artifact_bytes(work)
