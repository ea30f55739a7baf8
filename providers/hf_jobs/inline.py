"""A tiny script without a bucket: where hf_xet is not installed, nothing can be uploaded, but a job can still be sent.

    code, config ──base64 in the job's environment (60 KiB)──> payload/inline.py ──lines of the log (4 MB)──> files

For scripts only, and said in the plan: the environment is shown to whoever may see the account's jobs, no order can
reach such a job, and nothing watches it on the machine but itself. The Hub's own limit ends it as it does all.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from providers import wire
from providers.base import Entry, Manifest, Phase, RemoteStatus
from providers.errors import IntegrityError, UsageError
from providers.hf_jobs import images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from providers.base import Job

VARIABLE = "GPURUN_INLINE"
LABEL = "gpurun-inline"
MOST = 60 * 1024  # characters: Linux takes 128 KiB in one string, the Hub's own limit is not documented
HOME_BYTES = 4 * 10**6
REMARK = (
    f"hf_xet is not installed here, so its code goes in the job's environment (at most {MOST // 1024} KiB; who may see"
    f" the account's jobs can read it) and results come home through the log, {HOME_BYTES // 10**6} MB at most;"
    " better: pip install hf_xet"
)
_BOOT = (
    "import base64,io,os,runpy,tarfile,tempfile;d=tempfile.mkdtemp();"
    f"tarfile.open(fileobj=io.BytesIO(base64.b64decode(os.environ.pop('{VARIABLE}')))).extractall(d);"
    "os.chdir(d);runpy.run_path('payload/inline.py',run_name='__main__')"
)
COMMAND = ["python3", "-B", "-W", "ignore", "-c", _BOOT]


def is_needed() -> bool:
    """Whether nothing can be uploaded from here."""
    try:
        return find_spec("hf_xet") is None
    except ValueError:  # a stand-in without a spec
        return True


def packed(job: Job, deadline: float) -> str:
    """Pack a script's job into one string; `deadline` is epoch seconds.

    Raises:
        UsageError: it is no script, or too large.
    """
    needs = UsageError(
        "without hf_xet only a small script can be sent to Hugging Face", hint="pip install hf_xet, then launch again"
    )
    own = images.is_own(job.command)
    if (images.trains(job.command) and not own) or job.checkpoint is not None:
        raise needs
    members = _members(job, own=own)
    request = {
        "mark": str(job.mark),
        "command": list(job.command),
        "setup": list(job.setup),
        "deadline": deadline,
        "grace_seconds": job.grace_seconds,
        "max_bytes": HOME_BYTES,
    }
    members["request.json"] = json.dumps(request).encode()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:xz") as tar:
        for name, data in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    text = base64.b64encode(raw.getvalue()).decode()
    if len(text) > MOST:
        raise UsageError(f"{needs}; this one is {len(text) // 1024} KiB, and {MOST // 1024} fit", hint=needs.hint)
    return text


def _members(job: Job, *, own: bool) -> dict[str, bytes]:
    """Give what it needs of the bundle: its own code, and of the payload what its command names."""
    named = {part for part in (*job.command, *job.setup) if part.startswith("payload/")}
    beside = "payload/own_" if own else "code/"
    payload = Path(str(files("payload").joinpath("inline.py")))
    found = {"payload/inline.py": payload.read_bytes()}
    with tarfile.open(job.bundle) as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isreg() else None
            needed = not member.name.startswith("payload/") or member.name in named or member.name.startswith(beside)
            if source is not None and needed:
                found[member.name] = source.read()
    return found | {blob.name: blob.path.read_bytes() for blob in job.blobs}


@dataclass
class Said:
    """What such a job has said in its log, beside what it printed."""

    entries: tuple[Entry, ...] = ()
    end: dict[str, object] | None = None
    _parts: dict[str, bytearray] = field(default_factory=dict)

    def anew(self) -> Said:
        """Forget what was read: the log is read again from its first line."""
        self.entries, self.end = (), None
        self._parts.clear()
        return self

    @staticmethod
    def running(last: bytes) -> RemoteStatus:
        """Say how far it is, by its last metrics line."""
        try:
            told = json.loads(last or b"{}")
        except ValueError:
            told = {}
        told = told if isinstance(told, dict) else {}
        step, total = (int(wire.number(told.get(name)) or 0) for name in ("step", "total_steps"))
        return RemoteStatus(Phase.RUNNING, stage=str(told.get("stage", "")), step=step, total_steps=total)

    def take(self, line: str) -> bool:
        """Take a line that is meant for us; False = it is the script's own."""
        if not line.startswith("::gpurun {"):
            return False
        try:
            told = json.loads(line[9:])
            if "file" in told:
                self._parts.setdefault(str(told["file"]), bytearray()).extend(base64.b64decode(told["data"]))
            if "end" in told:
                self.entries = wire.manifest_of(told["files"], final=True).entries
                self.end = dict(told["end"])
        except (ValueError, KeyError, TypeError):
            return False
        return True

    def status(self) -> RemoteStatus | None:
        """Say how it ended; None = it has not said so."""
        if self.end is None:
            return None
        code = wire.number(self.end.get("exit_code"))
        return RemoteStatus(
            Phase.EXITED,
            reason=str(self.end.get("reason", "")),
            detail=str(self.end.get("detail", ""))[:500],
            exit_code=None if code is None else int(code),
        )

    def manifest(self) -> Manifest:
        """Name the files that came whole."""
        return Manifest(self.entries, final=self.end is not None)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        """Write files out of the log, each verified.

        Raises:
            IntegrityError: what came is not what its checksum says.
        """
        known = {entry.name: entry for entry in self.entries}
        looked_at: set[str] = set()
        for name in names:
            target, data = wire.inside(dest, name, looked_at), bytes(self._parts.get(name, b""))
            if name not in known or sha256(data).hexdigest() != known[name].sha256:
                raise IntegrityError(f"{name!r} did not come whole through the log")
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name[:100]}.part")
            aside.write_bytes(data)
            aside.replace(target)
