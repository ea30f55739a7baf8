"""Faults that strike what is there already: which of them can, and whom they mean. The world's lock is held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from simulators.faults import FaultError, Faults, Hit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Struck(Protocol):
    """An instance, a pod, a VM."""

    faults: dict[str, Hit]

    @property
    def alive(self) -> bool:
        """Whether it is there yet."""


T = TypeVar("T", bound=Struck)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a vendor calls such a thing, by which verb it comes to be, and what can strike it afterwards."""

    name: str
    begins: str
    later: frozenset[str]


def arm(
    faults: Faults, hits: Iterable[Hit], things: Mapping[str, T], kind: Kind, *, pace: float
) -> Iterator[tuple[T, Hit]]:
    """Arm what waits for the next; give what strikes now, and whom.

    Raises:
        FaultError: it can't strike what is there already; nothing was armed.
        LookupError: there is none of that id.
    """
    hits = [hit.hurried(pace) for hit in hits]
    for hit in hits:
        if hit.options.get("instance") is not None and hit.name not in kind.later:
            article = "an" if kind.name[0] in "aeiou" else "a"
            raise FaultError(
                f"{hit.name} strikes at {kind.begins} only: {article} {kind.name} that is there can't have it"
            )
    faults.arm(hit for hit in hits if hit.options.get("instance") is None)
    for hit in hits:
        for thing in named(things, hit.options.get("instance"), kind):
            thing.faults[hit.name] = hit
            yield thing, hit


def named(things: Mapping[str, T], wish: object, kind: Kind) -> list[T]:
    """Give the living that a wish names: by id, `*` for all, None for none.

    Raises:
        LookupError: there is none of that id.
    """
    if wish is None:
        return []
    found = [each for name, each in things.items() if wish in {"*", name} and each.alive]
    if not found and wish != "*":
        raise LookupError(f"no {kind.name} {wish!r}")
    return found
