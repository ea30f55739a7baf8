r"""What transformers' Trainer prints by itself, read as metrics: a user's own script says nothing in our form.

    b"\r 25%|██▌       | 2/8 [00:01<00:03]"          its progress bar, on standard error
    b"{'loss': '1.083', 'learning_rate': '4e-05', 'epoch': '0.5'}\n" + b"\r 25%|██▌       | 2/8 ["     -> step 2 of 8

The line has no step; the bar, which is drawn anew right after it, does. Without bars a line is told without a step:
what is not known is not guessed. Seen with transformers 5.23; before 5.0 the numbers stood without quotes.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterator, Optional

LONGEST = 4096  # bytes of a line or a bar that are looked at
_ENDS = re.compile(rb"[\r\n]")
_ESCAPE = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(rb"\s*\d+%\|[^|]*\|\s*(\d+)/(\d+) \[")
_LINE = re.compile(rb"\{'(?:loss|eval_loss)': .*\}\s*")
_PAIR = re.compile(rb"'([A-Za-z_][\w/.-]*)': '?([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))'?(?=[,}])")
_NAMES = {"learning_rate": "lr", "eval_accuracy": "accuracy", "num_tokens": "tokens"}


class Spoken:
    """One stream of output, cut anywhere."""

    def __init__(self) -> None:
        self._piece = b""  # what came since the last line end or carriage return
        self._said: Optional[Dict[str, Any]] = None  # a line that waits for its step
        self._bars = False  # bars are drawn: a step will come

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]:
        """Give the metrics that these bytes complete."""
        *whole, rest = _ENDS.split(chunk)
        for part in whole:
            piece, self._piece = (self._piece + part)[:LONGEST], b""
            yield from self._hear(piece, whole=True)
        self._piece = (self._piece + rest)[:LONGEST]
        if self._said is not None:  # a bar has no line end: the next one may be hours away
            yield from self._hear(self._piece, whole=False)

    def finish(self) -> Iterator[Dict[str, Any]]:
        """Give what still waits."""
        yield from self._hear(self._piece, whole=True)
        self._piece = b""
        yield from self._give({})

    def _hear(self, piece: bytes, *, whole: bool) -> Iterator[Dict[str, Any]]:
        text = _ESCAPE.sub(b"", piece)
        bar = _BAR.match(text)
        if bar:
            self._bars = True
            yield from self._give({"step": int(bar[1]), "total_steps": int(bar[2])})
        elif whole and _LINE.fullmatch(text):
            yield from self._give({})
            self._said = {_NAMES.get(key.decode(), key.decode()): _number(value) for key, value in _PAIR.findall(text)}
            lost = isinstance(self._said.get("loss"), str)  # not a moment is to be lost
            if lost or not self._bars:
                yield from self._give({})

    def _give(self, more: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
        if self._said is not None:
            said, self._said = self._said, None
            yield {"stage": "train", **more, **said} if "loss" in said else {**more, **said}


def _number(text: bytes) -> Any:
    """Read a number; what is not finite is a word, as in all metrics."""
    word = text.decode().lstrip("+")
    try:
        return int(word) if word.lstrip("-").isdigit() else word if word.lstrip("-") in ("nan", "inf") else float(word)
    except ValueError:
        return word
