"""`gpurun notebook`: a training as a notebook for Colab, for those who want no API: quoted here, run by a person there.

    wish ──> template ──> quote on Colab's cards ──> request.json + bundle + data ──> one archive in a cell ──> .ipynb
                                                                     cells that call payload/cells.py ──┘

The state of such a run is "manual": nothing here can start, watch or release it; the machine's own watchdog does that.
No secret is written into it, and nothing is asked of anybody: prices are the bundled ones, with their dates.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import bundle, launch, notebook_page, plan, push, quoting, settings_file, wish
from orchestrator.cost import Bounds
from orchestrator.estimate import catalogue
from orchestrator.estimate.compare import Known
from orchestrator.measuring import past
from providers.base import Offer
from providers.colab import ender
from providers.errors import BundleError, ConfigError, UsageError

if TYPE_CHECKING:
    from orchestrator.bundle import Bundle
    from orchestrator.estimate.catalogue import Listed
    from orchestrator.home import Home
    from orchestrator.plan import Quote, Times
    from orchestrator.templates import Template
    from orchestrator.wish import Wish

MOST_BYTES = 10 * 2**20  # of the whole file: Colab and GitHub still show it


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of Colab's machines: its words in a notebook's metadata, and what nvidia-smi calls its card."""

    type: str  # metadata.colab.gpuType
    card: tuple[str, ...]
    high_memory: bool = False

    def __str__(self) -> str:
        """Name it as Colab's dialog does."""
        return f"{self.type} GPU{', High-RAM' if self.high_memory else ''}"


MACHINES = {
    "T4": Machine("T4", ("T4",)),
    "L4": Machine("L4", ("L4",)),
    "A100": Machine("A100", ("A100",)),
    "A100+highmem": Machine("A100", ("A100", "80GB"), high_memory=True),
    "G4": Machine("G4", ("RTX PRO 6000",)),
    "H100": Machine("H100", ("H100",)),
}  # by the names in the bundled offers


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook and what is to be said about it."""

    name: str
    text: str
    machine: Machine
    listed: Listed
    quote: Quote
    times: Times
    seconds: int  # from its first cell to its deadline
    push: str
    secrets: tuple[str, ...]
    left_out: tuple[str, ...]
    remarks: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        return {
            "name": self.name,
            "state": "manual",
            "bytes": len(self.text.encode()),
            "machine": str(self.machine),
            "offer": self.listed.name,
            "usd_per_hour": str(self.listed.price),
            "units_per_hour": str(self.listed.units_hour),
            "price_as_of": self.listed.as_of.isoformat() if self.listed.as_of else None,
            "price_confidence": self.listed.confidence,
            "released_after_seconds": self.seconds,
            "quote": json.loads(json.dumps(asdict(self.quote), default=str)),
            "secrets": list(self.secrets),
        }


def make(home: Home, asked: Wish) -> Notebook:
    """Quote a training on Colab and write its notebook; nothing is rented, nothing is kept here.

    Raises:
        RefusedError: no card of Colab's holds it, or the limits leave no time.
        BundleError: it does not fit into a notebook.
        ConfigError, UsageError: as for `launch`.
    """
    defaults = settings_file.load(home.root / settings_file.NAME)
    template = wish.read_template(home, asked, wish.default_limits(defaults))
    if asked.push_public and not asked.push_to_hub:
        raise UsageError("--push-public says how --push-to-hub pushes", hint="--push-to-hub you/model --push-public")
    if asked.push_to_hub:
        template = push.unasked(template, asked.push_to_hub, private=not asked.push_public)
    template = _limited(template)
    limits, now = template.settings.limits, datetime.now(UTC)
    listed, quote = _quoted(home, template, asked, now)
    times = plan.times(limits, listed.price, now)
    seconds = int((times.deadline - now).total_seconds())
    request = _request(template, listed, times, now, asked.push_to_hub or "")
    archive, packed = _archive(home, template, request)
    made = Notebook(
        *(template.settings.name, "", MACHINES[listed.name], listed, quote, times, seconds),
        push=asked.push_to_hub or "",
        secrets=tuple(template.settings.secrets),
        left_out=packed.left_out,
        remarks=template.remarks,
    )
    text = json.dumps(notebook_page.content(made, archive, packed.sha256), indent=1, ensure_ascii=False) + "\n"
    if len(text.encode()) > MOST_BYTES:
        raise BundleError(
            f"the notebook would have {len(text) / 2**20:.1f} MiB, more than {MOST_BYTES >> 20}",
            hint="data or models by their name on the Hub: --set data.train=you/rows",
        )
    return replace(made, text=text)


def _limited(template: Template) -> Template:
    """One machine, since nothing here rents a second or moves an end."""
    limits = template.settings.limits.model_copy(update={"max_attempts": 1, "extendable_to_hours": None})
    return replace(template, settings=template.settings.model_copy(update={"limits": limits}))


def _quoted(home: Home, template: Template, asked: Wish, now: datetime) -> tuple[Listed, Quote]:
    """Choose among Colab's machines as `launch` does among offers, and quote that one alone."""
    rows = {one.name: one for one in catalogue.listed() if one.provider == "colab" and one.name in MACHINES}
    question, notes = quoting.question(template, force=asked.force)
    known = Known(Bounds.of(template.settings.limits), past(home))
    wanted = quoting.Wanted(question, notes, known, 1, now.date())
    choice = quoting.choose([_offer(one) for one in rows.values()], asked.gpu or "auto", wanted, force=asked.force)
    first = choice.offers[0]
    quote = quoting.choose([first], None, wanted, force=asked.force).quote
    return rows[first.name], quote


def _offer(one: Listed) -> Offer:
    return Offer(
        *(one.provider, one.name, one.card.name, one.count, one.price, one.card.memory_gib),
        vcpus=one.vcpus,
        memory_gib=one.host_gib,
        disk_gib=one.disk_gib,
        source=one.source,
    )


def _request(template: Template, listed: Listed, times: Times, now: datetime, pushed: str) -> dict[str, Any]:
    """Say what the machine is to do: payload/README.md, "A notebook of Colab's"."""
    machine, settings = MACHINES[listed.name], template.settings
    return {
        "name": settings.name,
        "job": {
            "command": list(template.command),
            "grace_seconds": times.grace_seconds,
            "max_idle_seconds": max(int(settings.limits.max_idle_minutes * 60), 1),
            "setup": list(template.setup or launch.SETUP),
        },
        "max_seconds": int((times.deadline - now).total_seconds()),
        "ceiling_seconds": int((times.ceiling - now).total_seconds()),
        "usd_per_hour": str(listed.price),
        "machine": str(machine),
        "gpu": list(machine.card),
        "secrets": list(settings.secrets),
        "push": pushed,
        "ender": ender.orders(),
    }


def _archive(home: Home, template: Template, request: dict[str, Any]) -> tuple[bytes, Bundle]:
    """Pack request, bundle and data; the same training gives the same bytes."""
    home.ensure()
    data = bundle.blobs([(file.path, file.name) for file in template.files], home.root / "hashes.json")
    if sum(blob.size for blob in data) > 20 * MOST_BYTES:
        raise BundleError(f"{len(data)} files of data are too large for a notebook", hint="--set data.train=you/rows")
    with tempfile.TemporaryDirectory(prefix="gpurun-") as folder:
        packed = bundle.pack(Path(folder) / "bundle.tar.gz", template.config, template.code)
        content = packed.path.read_bytes()
    members: dict[str, bytes | Path] = {f"blobs/{blob.sha256}": blob.path for blob in data}
    members[f"blobs/{packed.sha256}"] = content
    facts = {
        **request,
        "bundle": packed.sha256,
        "want": [[packed.sha256, packed.size], *([blob.sha256, blob.size] for blob in data)],
        "data": [[blob.name, blob.sha256] for blob in data],
    }
    members["request.json"] = json.dumps(facts, indent=1, sort_keys=True).encode()
    return bundle.tar_gz(members), packed


def write(made: Notebook, target: Path, *, force: bool = False) -> None:
    """Write the file; another's is not written over.

    Raises:
        ConfigError: there is a file that gpurun did not write, or the folder is none.
    """
    if target.exists() and not force and not _is_ours(target):
        raise ConfigError(f"{target} is there, and gpurun did not write it", hint="-o another.ipynb, or --force")
    aside = target.with_name(f".{target.name}.gpurun")
    try:
        aside.write_text(made.text, encoding="utf-8")
        aside.replace(target)
    except OSError as error:
        raise ConfigError(f"{target} can't be written: {error.strerror or error}", hint="-o FILE") from error


def link(target: Path) -> str:
    """Say where Colab finds a file that lies in a repository of GitHub's; "" = it lies in none."""

    def git(*words: str) -> str:
        argv = ["git", "-C", str(target.absolute().parent), *words]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    path = f"{git('rev-parse', '--show-prefix')}{target.name}"
    return notebook_page.github_link(git("remote", "get-url", "origin"), git("branch", "--show-current"), path)


def _is_ours(path: Path) -> bool:
    try:
        return "gpurun" in json.loads(path.read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
