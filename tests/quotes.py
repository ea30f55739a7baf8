"""Plans of launches on a fake vendor with four cards, for tests of what is quoted."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fakes import OFFER, START, Clock, FakeCloud

from orchestrator import launch, templates
from orchestrator.launch import Leave

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.home import Home
    from orchestrator.ledger import Ledger
    from orchestrator.plan import Plan
    from orchestrator.records import RunRow
    from providers.base import Offer

LONG = ("max_hours=6", "epochs=45")  # few rows, many times: training is most of it
A10 = replace(OFFER, price=Decimal("1.29"))
STOCK = [
    A10,
    replace(OFFER, name="gpu_1x_a100", gpu="a100-40gb", vram_gib=40.0, price=Decimal("1.99")),
    replace(OFFER, name="gpu_1x_h100", gpu="h100-sxm", vram_gib=79.6, price=Decimal("4.29")),
    replace(OFFER, name="gpu_1x_t4", gpu="t4", vram_gib=15.0, price=Decimal("0.50")),
]


def rows_in(folder: Path) -> str:
    """Write rows; gives the setting that names them."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "some words of a row " * 40}) + "\n" for _ in range(200)))
    return f"data.train={path}"


def plan(
    home: Home,
    ledger: Ledger,
    *sets: str,
    gpu: str | tuple[str, ...] | None = "a10",
    name: str = "qlora-sft",
    stock: list[Offer] = STOCK,
    **leave: Any,
) -> Plan:
    """Plan a launch."""
    return prepared(home, ledger, *sets, gpu=gpu, name=name, stock=stock, **leave).plan


def prepared(
    home: Home,
    ledger: Ledger,
    *sets: str,
    gpu: str | tuple[str, ...] | None = "a10",
    name: str = "qlora-sft",
    stock: list[Offer] = STOCK,
    **leave: Any,
) -> launch.Prepared:
    template = templates.load(name, (*LONG, *sets) if name == "qlora-sft" else sets)
    cloud = FakeCloud(Clock(), stock=stock)
    return launch.prepare(home, ledger, cloud, template, gpu, START, Leave(**leave))


def launched(home: Home, ledger: Ledger, *sets: str, name: str = "qlora-sft") -> RunRow:
    """Enter a run into the ledger."""
    return ledger.run(launch.commit(prepared(home, ledger, *sets, name=name), ledger, START))
