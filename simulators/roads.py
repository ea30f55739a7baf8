"""What the faults `link_cut`, `link_blackhole` and `link_freeze` do to the link of a machine, and when.

{"link_cut": {"after": 20, "count": 3, "every": 20}}        after so long, three times
{"link_freeze": {"after": 20, "seconds": 30, "bytes": 9}}   after so long and so many bytes more, for so long
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from simulators.clock import Clock
    from simulators.faults import Hit


def deeds(hit: Hit, since: float, clock: Clock) -> Iterator[tuple[float, str, dict[str, float]]]:
    """Give (moment, what, options) of all that a fault does to a link."""
    what, first = hit.name.removeprefix("link_"), since + hit.number("after")
    if hit.given("bytes"):
        span = {"times": hit.number("count")} if what == "cut" else {"seconds": hit.number("seconds")}
        yield first, what, for_link({"after_bytes": hit.number("bytes"), **span}, clock)
    elif what == "cut":
        for index in range(int(hit.number("count"))):
            yield first + index * hit.number("every"), what, {}
    else:
        yield first, what, {}
        yield first + hit.number("seconds"), "heal", {}


def for_link(options: Mapping[str, float], clock: Clock) -> dict[str, float]:
    """Turn the options of a fault into those of a link, which knows our seconds only."""
    turned: dict[str, float] = {name: int(options[name]) for name in ("after_bytes", "times") if name in options}
    if "seconds" in options:
        turned["for_seconds"] = options["seconds"] / clock.rate
    return turned
