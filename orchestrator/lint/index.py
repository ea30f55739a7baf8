"""What the package index knows of what a script names: the one part of lint that asks anybody.

Only pip's and uv's own settings are asked, a name at a time; who can't be reached says nothing, and nothing is made
of it. PEP 691: https://packaging.python.org/en/latest/specifications/simple-repository-api/
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.lint.calls import release
from orchestrator.lint.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.lint import Report
    from orchestrator.lint.inline import Wanted

_PYPI = "https://pypi.org/simple"
_JSON = "application/vnd.pypi.simple.v1+json"
_SECONDS = 5.0
_AT_ONCE = 8
_MOST = 60  # packages that are asked for
_ELSEWHERE = ("UV_FIND_LINKS", "PIP_FIND_LINKS", "UV_NO_INDEX", "PIP_NO_INDEX")


def asked(report: Report, environ: Mapping[str, str] = os.environ) -> Report:
    """Add what no index knows to a report."""
    places = indexes(environ)
    wanted = [one for one in report.packages.wanted if not one.elsewhere][:_MOST]
    if not wanted or not places:
        return report
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [one for one in pool.map(lambda each: _judge(each, places, beside=report.beside), wanted) if one]
    return replace(report, findings=tuple(sorted({*report.findings, *found})))


def indexes(environ: Mapping[str, str]) -> list[str]:
    """Give the indexes that would be asked there; none where some place can't be asked in this way."""
    if any(environ.get(name, "") not in {"", "0", "false"} for name in _ELSEWHERE):
        return []
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    first = next((environ[name] for name in names if environ.get(name)), _PYPI)
    more = " ".join(environ.get(name, "") for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"))
    return [each.rpartition("=")[2] if "://" not in each.partition("=")[0] else each for each in (first, *more.split())]


def _judge(wanted: Wanted, places: Sequence[str], *, beside: bool) -> Finding | None:
    """Say what is wrong with one; None = nothing, or nobody could say."""
    answers = [_ask(place, wanted.name) for place in places]
    if any(answer is None for answer in answers):
        return None
    where = "requirements.txt: " if beside else ""
    line = 0 if beside else wanted.line
    versions = [version for answer in answers for version in answer or ()]
    if not versions:
        return Finding(wanted.cell, line, f"{where}no package is called {wanted.name}")
    if not _some(versions, wanted.ranges):
        newest = max(versions, key=release)
        return Finding(wanted.cell, line, f"{where}no {wanted.name} is {wanted.ranges}", f"the newest is {newest}")
    return None


def _some(versions: Sequence[str], ranges: str) -> bool:
    """Whether any version is in range; what can't be judged is."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        allowed = SpecifierSet(ranges)
    except InvalidSpecifier:
        return True
    for text in versions:
        try:
            if allowed.contains(Version(text), prereleases=True):
                return True
        except InvalidVersion:
            continue
    return False


def _ask(place: str, name: str) -> list[str] | None:
    """Give the versions that an index has; [] = it knows no such package, None = it did not say."""
    import requests

    try:
        with requests.get(f"{place.rstrip('/')}/{name}/", headers={"Accept": _JSON}, timeout=_SECONDS) as reply:
            if reply.status_code == 404:
                return []
            if reply.status_code != 200 or _JSON not in reply.headers.get("Content-Type", ""):
                return None
            found = reply.json().get("versions")
    except (requests.RequestException, ValueError):
        return None
    return [str(version) for version in found] if isinstance(found, list) else None
