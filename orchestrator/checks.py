"""What `gpurun doctor` looks at: one function a fact, each with the next command where the fact is bad."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator import data_remote, glance, settings_file
from orchestrator.ledger import Ledger
from orchestrator.render import clean, price, size
from orchestrator.words import EXIT_MAY_BILL
from providers.errors import CredentialsError, GpurunError
from providers.table import CONSOLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.home import Home

LITTLE_BYTES = 10 * 10**9  # a base model, its checkpoints and the artifacts
TOO_LITTLE_BYTES = 10**9
UNPROVEN = "unproven"  # the check's name where a run's end is not proven
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
_VERSIONS = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: found[name] = None
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One fact about this computer."""

    name: str
    verdict: Literal["ok", "note", "bad"]
    text: str
    next: str = ""  # what to type


def all_checks(home: Home) -> Iterator[Check]:
    """Look at everything; a check that fails does not hide the others."""
    yield Check("gpurun", "ok", f"{own_version()} on Python {platform.python_version()}, {platform.system()}")
    writable = _home(home)
    yield writable
    if writable.verdict == "ok":
        yield _disk(home)
        yield _ledger(home)
        yield _config(home)
    yield _payload(home)
    yield Check("provider local", "ok", "needs no account and no key")
    yield from vendors(home)
    if writable.verdict == "ok":
        yield _guard(home)
        yield from _unfinished(home)
        yield from _unknown(home)


def own_version() -> str:
    """Give gpurun's own version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gpurun")
    except PackageNotFoundError:
        return "from a source folder, not installed"


def _home(home: Home) -> Check:
    try:
        home.ensure()
    except GpurunError as error:
        return Check("home", "bad", str(error), error.hint)
    return Check("home", "ok", f"{home.root} can be written")


def _disk(home: Home) -> Check:
    free = shutil.disk_usage(home.root).free
    text = f"{size(free)} free at {home.root}"
    brought = data_remote.kept_bytes(home)
    if brought:
        text += f"; {size(brought)} brought from addresses lie in {home.root / 'data'}: delete what no run goes on with"
    if free < TOO_LITTLE_BYTES:
        return Check("disk", "bad", text, "free some space, or move the home: export GPURUN_HOME=/bigger/disk/gpurun")
    return Check("disk", "note" if free < LITTLE_BYTES else "ok", text)


def _ledger(home: Home) -> Check:
    try:
        ledger = Ledger(home.ledger)
        try:
            ledger.check()
            count = len(ledger.runs())
        finally:
            ledger.close()
    except GpurunError as error:
        return Check("ledger", "bad", str(error), error.hint)
    return Check("ledger", "ok", f"whole, {count} run{'' if count == 1 else 's'}")


def _config(home: Home) -> Check:
    path = home.root / settings_file.NAME
    try:
        values = settings_file.load(path)
    except GpurunError as error:
        return Check("config", "bad", str(error), error.hint or "gpurun config list")
    return Check(
        "config", "ok", " ".join(f"{key}={settings_file.shown(key, one)}" for key, one in values.items()) or "defaults"
    )


def _payload(home: Home) -> Check:
    """The interpreter that trains on local, and the packages it has."""
    from providers.local import payload_python

    name = "payload"
    try:
        settings_file.export_python(home.root / settings_file.NAME)
        python = payload_python(home.root)
        done = subprocess.run(
            [python, "-c", _VERSIONS, *PACKAGES], capture_output=True, text=True, timeout=60, check=True
        )
        versions: dict[str, str | None] = json.loads(done.stdout)
    except GpurunError as error:
        return Check(name, "bad", f"{error}; trainings on local need it", error.hint)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Check(name, "bad", f"the Python for trainings does not answer: {error}", "pip install 'gpurun[payload]'")
    missing = [package for package, version in versions.items() if version is None]
    if missing:
        return Check(name, "bad", f"{python} lacks {' '.join(missing)}", f"{python} -m pip install 'gpurun[payload]'")
    return Check(name, "ok", f"{python}: " + ", ".join(f"{package} {found}" for package, found in versions.items()))


def vendors(home: Home) -> Iterator[Check]:
    """Each vendor with an account: is there a key, and does it open the account now."""
    from orchestrator import keys
    from providers.table import looked_at

    asked = looked_at(home.root)
    # A token may lie here for downloads only: it is tried all the same, since somebody wants to know.
    at_hand = [name for name, variable in keys.VARIABLES.items() if name not in asked and os.environ.get(variable)]
    for name in (*asked, *at_hand):
        if name != "local":
            yield _vendor(home, name)


def _vendor(home: Home, name: str) -> Check:
    from providers.table import open_provider

    title = f"provider {name}"
    try:
        provider = open_provider(name, home.root)
    except CredentialsError as error:  # not everyone rents there
        return Check(title, "note", clean(str(error)), error.hint or f"practise without one: gpurun rehearse {name}")
    try:
        offers = [offer for offer in provider.offers() if offer.available]
        provider.allocations()  # what is on offer is told to everybody at some: the list of what bills is not
    except GpurunError as error:
        return Check(title, "bad", clean(str(error)), error.hint)
    least = min((offer.price for offer in offers), default=None)
    free = f"{len(offers)} offers free now, from {price(least)}" if least is not None else "nothing free now"
    return Check(title, "ok", f"the key opens the account; {free}")


def _guard(home: Home) -> Check:
    """Whether a guard looks at what bills, and what it saw."""
    from orchestrator import guard_pulse, keys

    text = guard_pulse.line(home, time.time()).removeprefix("guard: ")
    wanted = "gpurun guard install" if any(map(os.environ.get, keys.VARIABLES.values())) else ""
    if guard_pulse.owes(home):
        return Check(UNPROVEN, "bad", text.partition(": gpurun")[0], "gpurun guard once")
    if not guard_pulse.is_installed(home):
        return Check("guard", "note", text.partition(": gpurun")[0], wanted)
    well = text.endswith(", all well") or "has not run yet" in text
    return Check("guard", "ok" if well else "bad", text, "" if well else "gpurun guard status")


def exit_code(found: Sequence[Check]) -> int:
    """Give 5 where a run's end is not proven, 3 where something is bad, else 0."""
    if any(check.name == UNPROVEN for check in found):
        return EXIT_MAY_BILL
    return 3 if any(check.verdict == "bad" for check in found) else 0


def _unfinished(home: Home) -> Iterator[Check]:
    now = time.time()
    try:
        runs = glance.runs(home, now, last=0)
    except GpurunError:
        return  # the ledger's own check has said it
    if not runs:
        yield Check("unfinished", "ok", "this ledger has no run under way; what bills: gpurun sweep")
    for run in runs:
        held = "a controller holds it" if run.held(now) else "nobody holds it"
        if run.unproven:
            late = "its end is under way" if run.state == "terminating" else f"it is {run.state}, past its ceiling"
            why = clean(run.detail or run.evidence) or late
            words = f"{run.run_id} may still bill, {held}: {why}"
            console = CONSOLES.get(run.provider, "")
            yield Check(UNPROVEN, "bad", words, f"gpurun ps{f', and look at {console}' if console else ''}")
        else:
            yield Check("unfinished", "note", f"{run.run_id} is {run.state}, {held}", "gpurun ps")


def _unknown(home: Home) -> Iterator[Check]:
    """What still runs out of this home though the ledger has it as over, or not at all: one was lost, or moved away."""
    from providers.table import open_provider

    try:
        known = {run.run_id for run in glance.runs(home, time.time(), last=0)}
        living = open_provider("local", home.root).allocations()
    except GpurunError:
        return  # said by the checks above
    for one in living:
        if one.mark is None or one.mark.run_id in known or not home.run(one.mark.run_id).path.is_dir():
            continue
        text = f"{one.mark.run_id} still runs, and the ledger does not know it; it ends at {one.mark.ceiling:%H:%M} UTC"
        end = home.run(one.mark.run_id).path / "attempts" / str(one.mark.attempt) / "end.json"
        yield Check("unknown", "bad", text, f"touch {shlex.quote(str(end))}")
