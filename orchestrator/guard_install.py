"""`gpurun guard install` from its first step to its proof: keys stored, timer started, one pass made as the timer will.

Nothing is undone in silence: where the proof fails the timer stays, and the error says so.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from orchestrator import guard_pulse, guard_timer, keys
from providers.errors import CredentialsError, GpurunError, ProviderError, StateError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.guard_pulse import Pulse
    from orchestrator.guard_timer import Timer
    from orchestrator.home import Home

_UNDER_WAY = "another pass is under way"  # as `gpurun guard once` says it
_PATIENCE_SECONDS = 600.0
_KEPT = "the timer stays installed; mend it, then again: gpurun guard install"


class Installed(NamedTuple):
    """What was installed, and what it saw."""

    timer: Timer
    pulse: Pulse


def install(home: Home, way: str, say: Callable[[str], None]) -> Installed:
    """Install the timer and prove it.

    Raises:
        CredentialsError: there is no key that a timer could read.
        ProviderError: the guard, run as the timer will, could not look at an account.
        StateError: a tool of this computer failed.
    """
    before = keys.stored(home.ensure())
    store(home, say)
    if not any(keys.stored(home).get(name) for name in keys.VARIABLES.values()):
        hint = "gpurun login lambda, then: gpurun guard install"
        raise CredentialsError("no provider's key is stored in this home, and a timer has no other", hint=hint)
    try:
        timer = guard_timer.install(home, way)
    except GpurunError:  # no timer needs them: no key stays behind
        for name in [name for name, value in keys.stored(home).items() if before.get(name) != value]:
            keys.keep(home, name, before[name]) if name in before else keys.forget(home, name)
        raise
    begun = time.time()
    code, words = guard_timer.try_once(home, timer.way)
    while _UNDER_WAY in words and time.time() < begun + _PATIENCE_SECONDS:  # the timer itself was quicker
        time.sleep(1.0)
        code, words = guard_timer.try_once(home, timer.way)
    pulse = guard_pulse.read(home)
    failure = _failure(pulse, begun, code, words)
    if failure is not None:
        raise failure
    if timer.note:
        say(f"NOT RUNNING YET: {timer.note}" if timer.way == "cron" else timer.note)
    assert pulse is not None  # noqa: S101 (or it had failed)
    return Installed(timer, pulse)


def store(home: Home, say: Callable[[str], None]) -> None:
    """Keep the providers' keys of this shell where a timer can read them."""
    kept = keys.stored(home)
    for name in keys.VARIABLES.values():
        value = os.environ.get(name, "").strip()
        if value and kept.get(name) != value:
            keys.keep(home, name, value)
            say(f"stored {name} in {keys.path_of(home)} (0600): a timer has nothing of this shell's environment")


def _failure(pulse: Pulse | None, begun: float, code: int, words: str) -> GpurunError | None:
    """Say why the first pass proves nothing; None = it does."""
    if pulse is None or pulse.when < begun - 1:
        last = words.strip().splitlines()[-1:] or [f"exit code {code}"]
        return StateError(f"run as the timer will, the guard did not get to its pulse: {last[0]}", hint=_KEPT)
    if not pulse.providers:
        return CredentialsError("run as the timer will, the guard finds no provider's key", hint=_KEPT)
    if pulse.blind:
        kind = CredentialsError if "the key was not taken" in pulse.blind[0] else UnreachableError
        error: ProviderError = kind(f"run as the timer will, the guard can't tell: {pulse.blind[0]}", hint=_KEPT)
        return error
    return None
