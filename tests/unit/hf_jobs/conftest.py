"""Hugging Face's API on loopback, with a clock that stands nearly still."""

from __future__ import annotations

import pytest


@pytest.fixture
def hf(start_hf):
    """Nothing is scheduled until its clock is advanced."""
    return start_hf(rate=0.001, pace=1, schedule_seconds=20)
