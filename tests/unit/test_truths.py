"""Truth afterwards: what simulated runs paid, against what the shipped plan quoted them. All 200: bench/truth.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from truths import Study

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(8))
def test_no_run_pays_more_than_its_worst_case(seed: int, fast_path: Path) -> None:
    found = Study(fast_path).run(seed)
    assert not found.exceeded, found
    assert found.paid > 0
    assert 0 < found.low < found.likely <= found.worst


def test_what_a_run_measured_is_in_the_ledger_once_it_is_done_and_quoted_the_next_time(fast_path: Path) -> None:
    study = Study(fast_path, learns=True)
    first, second = study.run(1), study.run(1)
    assert not first.basis.startswith("measured")
    assert second.basis.startswith("measured on your run of qlora-sft-")
    assert abs(second.paid - second.likely) < abs(first.paid - first.likely) or second.paid == second.likely
    assert second.inside
