"""How long rows are, and what padding wastes: from a sample of the user's lengths, or from a stated assumption.

Packed rows waste nothing to speak of; padded ones are as long as the longest of their micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# English prose: 100 tokens are about 75 words, 400 characters (OpenAI's rule of thumb for byte-level BPE); code and
# other scripts take more. Used where the model's own tokenizer is not on this computer.
CHARACTERS_A_TOKEN = 4.0
PACKED_WASTE = 1.02  # ends of blocks that nothing fits into: best-fit packing leaves 1 to 3 %


@dataclass(frozen=True, slots=True)
class Lengths:
    """Token counts of sampled rows, shortest first, and how they were counted."""

    sampled: tuple[int, ...]
    rows: int  # of the whole data
    basis: str

    def mean(self, limit: int) -> float:
        """Mean length of a row that is cut at the limit."""
        return sum(min(one, limit) for one in self.sampled) / len(self.sampled)

    def longest(self, limit: int) -> int:
        """Longest row, cut at the limit."""
        return min(self.sampled[-1], limit)

    def padding(self, limit: int, micro_batch: int, *, packed: bool) -> float:
        """Tokens computed for one that is real.

        The expected longest of a random micro-batch, by order statistics of the sample: P(max <= x) = F(x)^n.
        """
        if packed:
            return PACKED_WASTE
        if micro_batch == 1:
            return 1.0
        cut, count = [min(one, limit) for one in self.sampled], len(self.sampled)
        longest = sum(
            length * (((place + 1) / count) ** micro_batch - (place / count) ** micro_batch)
            for place, length in enumerate(cut)
        )
        return max(1.0, longest / self.mean(limit))


def of_counts(counts: Sequence[int], rows: int, basis: str) -> Lengths:
    """Make lengths of sampled token counts.

    Raises:
        UsageError: there are no rows, or none has any text.
    """
    if not counts or rows < 1:
        raise UsageError("the data have no rows", hint="gpurun estimate needs rows, --rows N or --tokens N")
    if not any(counts):
        raise UsageError("the data's rows have no text", hint="--set training.data.text_field=NAME")
    return Lengths(tuple(sorted(max(1, count) for count in counts)), rows, basis)


def of_texts(texts: Sequence[str], rows: int) -> Lengths:
    """Guess token counts of sampled texts by their characters."""
    counts = [round(len(text.encode()) / CHARACTERS_A_TOKEN) for text in texts]
    return of_counts(counts, rows, f"{len(texts)} rows at {CHARACTERS_A_TOKEN:g} bytes a token")
