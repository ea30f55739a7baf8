"""Cost against time of quoted offers as an SVG, the frontier drawn: what nothing beats in both."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from orchestrator.estimate.compare import frontier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.estimate.compare import Quoted

WIDTH, HEIGHT, EDGE = 800, 500, 60


def svg(quoted: Sequence[Quoted], title: str) -> str:
    """Draw every offer that fits and has a quote."""
    fit = [one for one in quoted if one.fits and one.dollars and one.found.stages]
    points = {id(one): _point(one) for one in fit}
    most_hours = max((hours for hours, _ in points.values()), default=1.0) * 1.05
    most_usd = max((usd for _, usd in points.values()), default=1.0) * 1.05

    def at(hours: float, usd: float) -> tuple[float, float]:
        across = EDGE + hours / most_hours * (WIDTH - 2 * EDGE)
        return across, HEIGHT - EDGE - usd / most_usd * (HEIGHT - 2 * EDGE)

    edge = frontier(fit)
    line = " ".join(f"{across:.1f},{up:.1f}" for across, up in (at(*points[id(one)]) for one in edge))
    named = {id(one) for one in edge}
    dots = "".join(_dot(one, at(*points[id(one)]), named=id(one) in named) for one in fit)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/><text x="{EDGE}" y="30" font-size="15">{escape(title)}</text>'
        f"{_axes(most_hours, most_usd)}"
        f'<polyline points="{line}" fill="none" stroke="#888" stroke-dasharray="4 3"/>{dots}</svg>\n'
    )


def _point(one: Quoted) -> tuple[float, float]:
    assert one.found.stages is not None  # noqa: S101 (only quoted offers come here)
    assert one.dollars is not None  # noqa: S101
    return one.found.stages.total.likely / 3600, float(one.dollars.likely)


def _dot(one: Quoted, where: tuple[float, float], *, named: bool) -> str:
    across, up = where
    cards = f"{one.offer.count} × {one.offer.card.name}" if one.offer.count > 1 else one.offer.card.name
    hours, usd = _point(one)
    tip = f"{one.offer.provider} {one.offer.name}: {hours:.2f} h, ${usd:.2f}"
    text = (
        f'<text x="{across + 7:.1f}" y="{up - 5:.1f}">{escape(f"{one.offer.provider} {cards}")}</text>' if named else ""
    )
    colour = "#c22" if named else "#47a"
    return f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4" fill="{colour}"><title>{escape(tip)}</title></circle>{text}'


def _axes(most_hours: float, most_usd: float) -> str:
    low, right = HEIGHT - EDGE, WIDTH - EDGE
    lines = f'<path d="M{EDGE},{EDGE} V{low} H{right}" fill="none" stroke="black"/>'
    marks = ""
    for share in (0.25, 0.5, 0.75, 1.0):
        across, up = EDGE + share * (right - EDGE), low - share * (low - EDGE) + 4
        marks += f'<text x="{across:.0f}" y="{low + 18}" text-anchor="middle">{share * most_hours:.1f}</text>'
        marks += f'<text x="{EDGE - 8}" y="{up:.0f}" text-anchor="end">{share * most_usd:.2f}</text>'
    return (
        f'{lines}{marks}<text x="{right}" y="{low + 38}" text-anchor="end">hours, likely</text>'
        f'<text x="{EDGE - 45}" y="{EDGE - 12}">USD, likely</text>'
    )
