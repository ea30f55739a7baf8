"""`--json` is one way for all: numbers for money, Z for times, and the fields that docs/json.md names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ledgers import two_months
from past import output

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `gpurun (\w+) --json`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
JOB = ("--model", "Qwen/Qwen2.5-7B", "--method", "qlora", "--rows", "500", "--gpu", "a10")


def documented(command: str) -> set[str]:
    cells = re.findall(r"^\| (`.*?) \|", SECTIONS[command], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    code, out, err = output(capsys, *args, "--json")
    assert code in {0, 5}, err  # 5: the run under way there is long past its ceiling
    return json.loads(out)


@pytest.mark.parametrize("command", SECTIONS)
def test_a_command_prints_the_fields_that_are_documented(
    capsys: pytest.CaptureFixture[str], home: Path, command: str
) -> None:
    two_months(home).ledger.close()
    told = printed(capsys, command, *(JOB if command == "compare" else ()))
    fields = set((told[0] if isinstance(told, list) else told).keys())
    assert fields == documented(command) | (documented("ps") if command == "show" else set())


def walked(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from walked(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from walked(one, key)
    else:
        yield key, value


@pytest.mark.parametrize(
    "args",
    [
        ("show",),
        ("receipt",),
        ("costs",),
        ("offers",),
        ("compare", *JOB),
        ("estimate", *JOB),
        ("launch", "demo", "--dry-run"),
    ],
)
def test_money_is_a_number_and_a_time_ends_in_z(
    capsys: pytest.CaptureFixture[str], home: Path, args: tuple[str, ...]
) -> None:
    two_months(home).ledger.close()
    for key, value in walked(printed(capsys, *args)):
        if key in {"price", "worst", "low", "likely"} or "usd" in key:
            assert value is None or isinstance(value, int | float), (key, value)
        if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value), (key, value)
