"""Which assignment is whose: Colab gives them no names, so this home keeps what it ordered, and each VM bears a file.

    <home>/colab/<nbh>.json   mark, what was wanted, endpoint, live rate      written before the order, 0600
    /content/gpurun-mark      the mark, on the VM itself: for a guard on another computer

`nbh`, the notebook's hash, is derived of home, run and attempt: whoever orders twice gets the same VM.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from providers.base import Mark
from providers.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RATES = "rates.json"
_RATES_SECONDS = 30 * 86400.0  # for which a live rate is taken for the next quote


def nbh_of(mark: Mark) -> str:
    """Derive the idempotency key of an attempt: 44 characters, as Colab's own clients make theirs."""
    text = f"gpurun {mark.home} {mark.run_id} {mark.attempt} {mark.node}"
    return str(UUID(bytes=sha256(text.encode()).digest()[:16], version=4)).replace("-", "_") + "." * 8


@dataclass(frozen=True, slots=True)
class Kept:
    """What this home knows of one order."""

    mark: str
    offer: str  # its name: "T4", "T4@free"
    substitute: bool = False  # another GPU will do
    endpoint: str = ""  # "" = not known to be given
    units: str = ""  # an hour, live; "" = not known
    told: float = 0.0  # when its end was taken by Colab, epoch seconds by its clock; 0 = not

    @property
    def parsed(self) -> Mark | None:
        """The mark."""
        return Mark.parse(self.mark)

    @property
    def rate(self) -> Decimal | None:
        """Units an hour as Colab drew them; None = not known."""
        return _decimal(self.units)


class Shelf:
    """This home's orders at Colab. A file an order: several controllers write at once."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "colab"

    def keep(self, kept: Kept) -> None:
        """Write one down.

        Raises:
            StateError: the home can't be written: nothing may be ordered that nobody would know again.
        """
        mark = kept.parsed
        if mark is None:
            raise StateError(f"{kept.mark!r} is no mark")
        self._write(self._path(mark), asdict(kept))

    def of(self, mark: Mark) -> Kept | None:
        """What is known of an attempt."""
        return self._read(self._path(mark))

    def all(self) -> Iterator[Kept]:
        """Everything that is known; what is damaged is passed over: the VM's own file tells then."""
        for path in sorted(self._folder.glob("*.json")):
            if path.name != _RATES and (kept := self._read(path)) is not None:
                yield kept

    def by_endpoint(self, endpoint: str) -> Kept | None:
        """Whose an assignment is."""
        return next((one for one in self.all() if one.endpoint == endpoint), None)

    def change(self, mark: Mark, **fields: Any) -> None:
        """Add to what is known; a full disk only forgets it."""
        kept = self.of(mark)
        if kept is not None:
            try:
                self.keep(replace(kept, **fields))
            except StateError:
                return

    def drop(self, mark: Mark) -> None:
        """Forget an order that is over."""
        self._path(mark).unlink(missing_ok=True)

    # ── live rates ───────────────────────────────────────────────────────────────────────────────────────────────

    def rates(self) -> dict[str, Decimal]:
        """Units an hour that this home saw drawn lately, by offer."""
        found = {}
        for offer, row in self._rates().items():
            units = _decimal(row[0]) if isinstance(row, list) and len(row) == 2 else None
            if units and isinstance(row[1], int | float) and time.time() - row[1] < _RATES_SECONDS:
                found[offer] = units
        return found

    def tier(self) -> int | None:
        """The subscription as Colab last told it."""
        value = self._rates().get("tier")
        return value if isinstance(value, int) else None

    def saw(self, offer: str = "", units: Decimal | None = None, *, tier: int | None = None) -> None:
        """Remember a live rate, or the subscription."""
        known = self._rates()
        if units is not None:
            known[offer] = [str(units), time.time()]
        if tier is not None:
            known["tier"] = tier
        try:
            self._write(self._folder / _RATES, known)
        except StateError:
            return  # the table stands

    def _rates(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / _RATES).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _path(self, mark: Mark) -> Path:
        return self._folder / f"{nbh_of(mark).rstrip('.')}.json"

    def _read(self, path: Path) -> Kept | None:
        try:
            return Kept(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, path: Path, content: object) -> None:
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside.touch(mode=0o600)
            aside.write_text(json.dumps(content), encoding="utf-8")
            aside.replace(path)
        except OSError as error:
            raise StateError(f"{path} can't be written: {error.strerror}", hint="gpurun doctor") from error


def _decimal(text: object) -> Decimal | None:
    try:
        found = Decimal(str(text))
    except InvalidOperation:
        return None
    return found if found.is_finite() and found > 0 else None
