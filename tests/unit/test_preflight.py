"""preflight.py: balance and spend limit against the worst case; data_files.py: rows that lie here."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from orchestrator import preflight, templates
from providers.base import Traits
from providers.errors import ConfigError, CredentialsError, RefusedError, UnreachableError
from providers.optional import Funds

if TYPE_CHECKING:
    from pathlib import Path

SFT = "name: a\ntraining: {method: sft, model: some/model, data: {train: %s}}\n"


@dataclass
class Vendor:
    """A vendor that tells what is left on the account, or fails to."""

    told: Funds | Exception | None
    name: str = "runpod"
    traits: Traits = field(default_factory=lambda: Traits(1, 1, 1, 1, 1, console_url="https://console.example"))

    def funds(self) -> Funds | None:
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def asked(told: Funds | Exception | None, worst: str = "3.00", per_hour: str = "1.00") -> tuple[str, ...]:
    template = templates.load("demo")
    return preflight.check(Vendor(told), template, Decimal(worst), Decimal(per_hour))


def test_a_balance_that_carries_the_worst_case_is_told() -> None:
    assert asked(Funds(Decimal("3.00"))) == ("balance $3.00 carries the worst case",)
    assert asked(None) == asked(Funds()) == ()


def test_a_balance_below_the_worst_case_is_a_refusal_that_names_the_page() -> None:
    with pytest.raises(RefusedError, match=r"holds \$2.99, and this run may cost \$3.00") as caught:
        asked(Funds(Decimal("2.99")))
    assert "https://console.example" in caught.value.hint
    assert "--max-cost" in caught.value.hint
    assert caught.value.exit_code == 4


def test_what_runs_already_counts_against_a_spend_limit() -> None:
    funds = Funds(Decimal(100), Decimal("79.50"), Decimal(80))
    assert len(asked(funds, per_hour="0.50")) == 1
    with pytest.raises(RefusedError, match=r"lets this account spend \$80.00/h: \$79.50/h runs already"):
        asked(funds, per_hour="0.51")


def test_a_balance_that_cant_be_asked_for_is_told_and_refuses_nothing() -> None:
    assert asked(UnreachableError("no answer")) == ("not checked: the balance at runpod (no answer)",)
    with pytest.raises(CredentialsError):
        asked(CredentialsError("a wrong key"))


def test_nobody_asks_for_a_balance_where_nothing_bills() -> None:
    assert asked(Funds(Decimal(0)), worst="0.00", per_hour="0") == ()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.json", b"[]", "has no rows"),
        ("rows.json", b'{"data": []}', "must be a list of objects"),
        ("rows.json", b'{"text": "a"}\n{"text": "b"}\n', "is not JSON"),
        ("rows.json", b'[{"text": "a"}, {"body": "b"}]', 'row 2 has no "text" or '),
        ("rows.json", b'[{"text": "\xff"}]', "is not UTF-8 text"),
        ("rows.parquet", b"PAR1 and no more", "is no Parquet file"),
    ],
)
def test_rows_that_lie_here_are_looked_into_whatever_their_form(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "a.yaml").write_text(SFT % name)
    with pytest.raises(ConfigError) as caught:
        templates.load(str(tmp_path / "a.yaml"))
    assert words in str(caught.value)


@pytest.mark.parametrize(("columns", "words"), [({"text": []}, "has no rows"), ({"body": ["a"]}, 'has no "text"')])
def test_a_parquet_file_is_looked_into_too(columns: dict[str, list[str]], words: str, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    (tmp_path / "a.yaml").write_text(SFT % "rows.parquet")
    with pytest.raises(ConfigError) as caught:
        templates.load(str(tmp_path / "a.yaml"))
    assert words in str(caught.value)


def test_a_data_set_of_the_hub_may_name_its_revision(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SFT % "stanfordnlp/imdb@e628166")
    assert templates.load(str(tmp_path / "a.yaml")).files == ()
