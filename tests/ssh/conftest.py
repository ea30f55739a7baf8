"""Machines for the tests of the byte plane over SSH; one on which something lives on fails its test."""

from __future__ import annotations

import pytest
from machines import Machine


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    machine.close()
