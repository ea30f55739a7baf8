"""Guards as holders: the timer on this computer, and one on another machine, each by its pulse of the last minutes.

    <home>/guard.json ───────────────────────> "the guard" (here): helps when the controller dies, not when this sleeps
    ssh://user@box  -> gpurun guard status ──> "the guard at box" (elsewhere): counts as another holder
    https://…       -> the same JSON, or a check of healthchecks.io
    hf://namespace/home -> the pulse that a guard in a scheduled job of Hugging Face's leaves in its bucket

A pulse counts when it is fresh, saw the very account that is to be billed, and could do there what a guard does.
Everything else, a silence too, is an absence with its reason: a plan never counts on what was not read.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator import guard_pulse, guard_timer
from orchestrator.cost import OVERRUN_SECONDS
from orchestrator.home import read_json
from orchestrator.plan import GUARD_HERE
from orchestrator.render import clean, duration, fit
from providers.base import Holder, Place, Proof, utc
from providers.errors import GpurunError, StateError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from orchestrator.home import Home
    from providers.base import Provider

FRESH_SECONDS = 180.0  # three beats of a guard
_AHEAD_SECONDS = 60.0  # by which another computer's clock may be ahead of ours
_PATIENCE_SECONDS = 10.0
_MOST_BYTES = 2**20
_LAST_SECOND = 2.0**36  # no moment that a clock tells; nan is none either
_HEALTHCHECKS_KEY = "HEALTHCHECKS_API_KEY"  # a read-only one will do: healthchecks.io/docs/api
# pipx and uv put gpurun where a login that is no terminal does not look; quoted so that any shell takes it.
_COMMAND = "sh -c 'PATH=\"$HOME/.local/bin:$PATH\" exec gpurun guard status --json'"


def holders(home: Home, address: str, provider: Provider, now: datetime) -> list[Holder]:
    """Give the guards that could stop the meter of a run at this vendor; `address` is "" where none is set up."""
    found = [_here(home, provider, now)]
    if address:
        found.insert(0, look(address, provider.name, provider.account(), now))
    return found


def look(
    address: str, provider: str, account: str, now: datetime, ask: Callable[[str], Mapping[str, Any]] | None = None
) -> Holder:
    """Ask the guard at an address for its pulse, for ten seconds at most, and judge it."""
    name = f"the guard at {urlsplit(address).hostname}"
    try:
        told = (ask or pulse_at)(address)
    except UnreachableError as error:
        return _holder(name, Place.ELSEWHERE, str(error), None)
    trouble, beat = judge(told, provider, account, now)
    return _holder(name, Place.ELSEWHERE, trouble, beat, account)


def _here(home: Home, provider: Provider, now: datetime) -> Holder:
    try:
        told = read_json(guard_pulse.path_of(home))
    except StateError as error:
        return _holder(GUARD_HERE, Place.HERE, str(error), None)
    timer, told = guard_timer.find(home), told or {}
    if timer is None and not told.get("watched"):
        return _holder(GUARD_HERE, Place.HERE, "not installed: gpurun guard install", None)
    runs = {"installed": timer.way, "note": timer.note} if timer else {}
    trouble, beat = judge({**told, **runs}, provider.name, provider.account(), now)
    return _holder(GUARD_HERE, Place.HERE, trouble, beat, provider.account())


def _holder(name: str, place: Place, trouble: str, beat: float | None, account: str = "") -> Holder:
    return Holder(
        name,
        place,
        Proof.ABSENT if trouble or beat is None else Proof.PROVEN,
        extendable=True,  # it goes by the mark
        worst_overrun_seconds=OVERRUN_SECONDS,
        evidence=fit(clean(trouble), 200) or f"it saw {account}",
        proven_at=None if trouble or beat is None else utc(beat),
    )


# ── judging a pulse ──────────────────────────────────────────────────────────────────────────────────────────────────


def judge(told: Mapping[str, Any], provider: str, account: str, now: datetime) -> tuple[str, float | None]:
    """Say what keeps a pulse from counting ("" = nothing), and when it was, epoch seconds. Pure."""
    if "last_ping" in told:
        return _judge_check(told, account, now)
    beat = told.get("when", told.get("time"))
    if isinstance(beat, bool) or not isinstance(beat, int | float) or not 0 < beat < _LAST_SECOND:
        silent = beat is None and (not told or "installed" in told)
        return "it has never run" if silent else "what it says is no pulse of a guard", None
    late = _staleness(beat, now)
    if late:
        return late, beat
    if "installed" in told and not told.get("watched") and (not told["installed"] or told.get("note")):
        return f"nobody runs it again: {told.get('note') or 'no timer is installed there: gpurun guard install'}", beat
    providers = told.get("providers")
    seen = providers.get(provider) if isinstance(providers, dict) else None
    if not isinstance(seen, dict):
        return f"it does not look at {provider}: it has no key there", beat
    troubles = [seen.get("trouble"), *_listed(seen.get("troubles"))]
    if any(troubles):
        return f"it has trouble: {next(filter(None, troubles))}", beat
    if seen.get("account") != account:
        return f"it looks at {seen.get('account') or 'no account'}, and this is {account}", beat
    if "counts" in seen and seen["counts"] is None:
        return f"it could not look at {provider}", beat
    return "", beat


def _staleness(beat: float, now: datetime) -> str:
    age = now.timestamp() - beat
    if age > FRESH_SECONDS:
        return f"its last pulse was {duration(age)} ago"
    return f"its clock is {duration(-age)} ahead of this one" if age < -_AHEAD_SECONDS else ""


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _judge_check(told: Mapping[str, Any], account: str, now: datetime) -> tuple[str, float | None]:
    """Judge a check of healthchecks.io: a guard pings it only when all was well; which account, its owner says."""
    from datetime import datetime as times

    try:
        beat = times.fromisoformat(str(told["last_ping"])).timestamp()
    except ValueError:
        return "its check was never pinged", None
    if told.get("status") != "up":
        return f"its check is {told.get('status')!s}", beat
    if account not in " ".join(str(told.get(key, "")) for key in ("tags", "name", "desc")).replace(",", " ").split():
        return f"its check does not name the account: give it the tag {account}", beat
    return _staleness(beat, now), beat


# ── asking for one ───────────────────────────────────────────────────────────────────────────────────────────────────


def pulse_at(address: str) -> Mapping[str, Any]:
    """Ask an address for a guard's pulse.

    Raises:
        UnreachableError: no answer in ten seconds, or one that is no JSON object; the message says what came.
    """
    text, words = _ASK.get(urlsplit(address).scheme, _by_http)(address)
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise UnreachableError(f"no pulse there: {words or 'the answer is no JSON object'}")
    return told


def _by_ssh(address: str) -> tuple[bytes, str]:
    """Give what the guard there says, whatever its exit code: it leaves with 5 where it can't tell."""
    url = urlsplit(address)
    who = f"{url.username}@{url.hostname}" if url.username else str(url.hostname)
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_PATIENCE_SECONDS:.0f}"]
    port = ["-p", str(url.port)] if url.port else []
    try:
        done = subprocess.run(
            ["ssh", *options, *port, "--", who, _COMMAND],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"no answer over ssh in {_PATIENCE_SECONDS:.0f} s") from None
    except OSError as error:
        raise UnreachableError(f"ssh can't be started: {error.strerror}") from error
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return done.stdout, f"ssh left with {done.returncode}{': ' if lines else ''}{lines[-1] if lines else ''}"


def _by_hf(address: str) -> tuple[bytes, str]:
    """Read what the guard in a scheduled job left, see guard_afar.py; who looks needs a token of that account."""
    from orchestrator import keys
    from orchestrator.home import Home
    from providers.table import open_outpost

    home, url = Home.default(), urlsplit(address)
    try:
        keys.take_up(home)
        outpost = open_outpost("hf", home.root)
        opened = outpost.namespace
        data = outpost.pulse(url.path.strip("/")) if opened == url.netloc else None
    except GpurunError as error:
        raise UnreachableError(f"no answer: {error}", hint=error.hint) from error
    if opened != url.netloc:
        raise UnreachableError(f"no answer: the token opens {opened}, and not {url.netloc}")
    return data or b"{}", ""


def _by_http(address: str) -> tuple[bytes, str]:
    import requests

    key = os.environ.get(_HEALTHCHECKS_KEY, "")
    try:
        with requests.get(
            address,
            headers={"Accept": "application/json", **({"X-Api-Key": key} if key else {})},
            auth=lambda request: request,  # or ~/.netrc would put one in
            timeout=_PATIENCE_SECONDS / 2,
            allow_redirects=False,
            stream=True,
        ) as reply:
            if reply.status_code != requests.codes.ok:
                raise UnreachableError(f"no pulse there: HTTP {reply.status_code}")
            return b"".join(_pieces(reply)), ""
    except (requests.RequestException, UnicodeError) as error:
        raise UnreachableError(f"no answer: {type(error).__name__}") from error  # its own words may hold the address


_ASK = {"ssh": _by_ssh, "hf": _by_hf}


def _pieces(reply: Any) -> Iterator[bytes]:
    """Read a body, in good time and of a sane size."""
    until, size = time.monotonic() + _PATIENCE_SECONDS, 0
    for piece in reply.iter_content(2**14):
        size += len(piece)
        if size > _MOST_BYTES or time.monotonic() > until:
            raise UnreachableError("no answer: its body has no end")
        yield piece
