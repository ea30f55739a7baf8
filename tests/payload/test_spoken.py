"""What transformers' Trainer prints by itself, as metrics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

# As it stood on a pipe: transformers 5.23, two epochs of four steps, logging_steps=2, an evaluation after each.
SEEN = (
    "\r  0%|          | 0/8 [00:00<?, ?it/s]\r        \r{'loss': '1.083', 'grad_norm': '1.249',"
    " 'learning_rate': '4.375e-05', 'epoch': '0.5'}\n\r 25%|██▌       | 2/8 [00:00<00:00, 182.81it/s]\r     "
    "  \r{'loss': '1.414', 'grad_norm': '2.979', 'learning_rate': '3.125e-05', 'epoch': '1'}\n"
    "\r 50%|█████     | 4/8 [00:00<00:00, 236.00it/s]\n\r  0%|          | 0/4 [00:00<?, ?it/s]\x1b[A\r       \n"
    "\r          \r\x1b[A{'eval_loss': '1.248', 'eval_runtime': '0.002', 'epoch': '1'}\n"
    "\r 50%|█████     | 4/8 [00:00<00:00, 206.64it/s]\n\r100%|██████████| 4/4 [00:00<00:00, 3354.10it/s]\x1b[A\n"
    "\r         \x1b[A\r       \r{'train_runtime': '0.0462', 'train_loss': '1.248', 'epoch': '2'}\n"
).encode()
SAID = [
    {"stage": "train", "step": 2, "total_steps": 8, "loss": 1.083, "grad_norm": 1.249, "lr": 4.375e-05, "epoch": 0.5},
    {"stage": "train", "step": 4, "total_steps": 8, "loss": 1.414, "grad_norm": 2.979, "lr": 3.125e-05, "epoch": 1},
    {"step": 4, "total_steps": 8, "eval_loss": 1.248, "eval_runtime": 0.002, "epoch": 1},
]


@pytest.fixture(scope="module")
def hear(payload):
    """Give what is heard in pieces of output."""

    def heard(*pieces: bytes) -> list[dict]:
        spoken = payload("spoken").Spoken()
        return [*(found for piece in pieces for found in spoken.feed(piece)), *spoken.finish()]

    return heard


def test_each_line_gets_the_step_of_the_bar_that_is_drawn_after_it(hear):
    assert hear(SEEN) == SAID


@given(st.lists(st.integers(1, 60), max_size=60))
def test_any_cutting_tells_the_same(hear, cuts):
    pieces, at = [], 0
    for cut in [*cuts, len(SEEN)]:
        pieces.append(SEEN[at : at + cut])
        at += cut
    assert hear(*pieces) == SAID


def test_a_line_is_told_as_soon_as_its_bar_begins_though_no_line_end_comes(payload):
    spoken = payload("spoken").Spoken()
    until = SEEN.index(b"00:00<00:00, 182")
    assert list(spoken.feed(SEEN[:until])) == SAID[:1]


def test_without_bars_a_line_has_no_step_and_is_told_at_once(payload):
    spoken = payload("spoken").Spoken()
    assert list(spoken.feed(b"{'loss': 2.5, 'learning_rate': 1e-05, 'epoch': 0.1}\n")) == [
        {"stage": "train", "loss": 2.5, "lr": 1e-05, "epoch": 0.1}
    ]


@pytest.mark.parametrize("word", ["nan", "'nan'", "inf", "-inf"])
def test_a_loss_that_is_no_number_stays_a_word(hear, word):
    assert hear(f"{{'loss': {word}}}\n".encode()) == [{"stage": "train", "loss": word.strip("'")}]


@pytest.mark.parametrize(
    "text", ["{'loss'", "{'a': 1, 'loss': 2}", "say {'loss': 1}", "{'loss': 1} more", "Map: 100%|##| 5/5 [00:01<00:00]"]
)
def test_what_only_looks_like_it_says_nothing(hear, text):
    assert hear(text.encode() + b"\n") == []


@given(st.binary(max_size=300))
def test_any_bytes_are_heard_and_break_nothing(hear, data):
    for found in hear(data, b"{'loss': " + data + b"}\n"):
        assert all(isinstance(key, str) for key in found)
