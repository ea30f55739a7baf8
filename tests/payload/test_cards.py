"""cards.py: of several cards a recipe sees the first; what torch would see is asked of a torch that only tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness import Job
from tiny import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

TELLING = "import os; print('seen:', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); os._exit(0)"
GLOSSES = [{"text": "a small dog", "label": "animal"}, {"text": "a large oak", "label": "plant"}] * 4


@pytest.mark.parametrize("method", ["classify", "sft"])  # the two that transformers' Trainer trains
def test_a_trainer_is_shown_one_card_of_several(method: str, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GLOSSES)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "torch.py").write_text(TELLING)
    config = {"method": method, "model": str(tmp_path), "data": {"train": "../rows.jsonl", "eval_fraction": 0.5}}
    job = Job(tmp_path / "job", f"train_{method}.py", config)
    ended = job.run(env={"CUDA_VISIBLE_DEVICES": "3,1", "PYTHONPATH": str(tmp_path / "away")})
    assert "seen: 3\n" in ended.output
    assert "device: the first of 2 cards" in ended.output


@pytest.mark.parametrize(
    ("wish", "there", "seen", "told"),
    [
        (None, 8, "0", "the first of 8 cards"),
        (None, 1, "0", ""),
        (None, 0, "0", ""),
        ("2, 3", 8, "2", "the first of 2 cards"),
        ("GPU-8f2a", 8, "GPU-8f2a", ""),
        ("", 8, "", ""),  # no card at all, as the user says
        ("-1", 8, "-1", ""),
    ],
)
def test_the_first_card_that_may_be_seen_is_kept(
    wish: str | None,
    there: int,
    seen: str,
    told: str,
    tmp_path: Path,
    payload: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cards = payload("cards")
    monkeypatch.setenv(cards.VARIABLE, wish or "")
    if wish is None:
        monkeypatch.delenv(cards.VARIABLE)
    for number in range(there):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    cards.keep_one(tmp_path)
    said = capsys.readouterr().out
    assert cards.os.environ[cards.VARIABLE] == seen
    assert (told in said) if told else not said
