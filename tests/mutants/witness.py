"""A pytest plugin that writes down the kind of each failure, so that a mutant's catch can be judged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FAILURES: list[str] = []


def pytest_runtest_makereport(item: Any, call: Any) -> None:  # noqa: ARG001 (the hook's shape)
    """Keep the type of what a test raised."""
    if call.excinfo is None:
        return
    error = call.excinfo.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if type(error).__name__ != "Skipped":
        FAILURES.append(type(error).__name__)


def pytest_sessionfinish(session: Any) -> None:
    """Leave the list for the judge, if any test ran at all."""
    if session.testscollected:
        Path(os.environ["WITNESS"]).write_text(json.dumps(FAILURES))
