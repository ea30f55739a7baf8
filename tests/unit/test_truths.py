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
