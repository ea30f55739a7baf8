"""The pod's own command: the watchdog first, then the image's start script, and a sleep that never ends.

    entrypoint /bin/bash -c: guard; /start.sh &; while sleep 60; do guard; done      guard = payload/container.py

RunPod restarts a container whose command exits, and bills on (runpodctl 149): so it never does. A restart kills what
SSH had started and runs this again: the watchdog re-arms by the files on the container's disk, which a restart keeps,
and by the absolute limits in here. Nothing in it is secret: the pod's own key is named, `{env:RUNPOD_API_KEY}`.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from providers import wire

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from providers.base import Job

_FIRST = ("watchdog", "ender")  # the rest comes over SSH: a request's body may have 102,400 bytes
_IMPORT = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)
_UNPACK = (
    "import base64,json,sys,zlib;"
    "d=json.loads(zlib.decompress(base64.b64decode(sys.argv[1])));"
    "exec(compile(d['program'],'container.py','exec'),{'__name__':'__main__','REQUEST':d})"
)
_SCRIPT = """\
guard() {{ python3 -I -S -B -c "{unpack}" {data}; }}
guard || echo "gpurun: no watchdog yet"
if [ -x /start.sh ]; then /start.sh & fi
while sleep 60; do guard; done
"""


def args(job: Job, orders: dict[str, Any]) -> str:
    """Spell `args` of a new pod: JSON, since a bare string would be split by rules that nobody has written down."""
    request = {
        "program": _read("container"),
        "mark": str(job.mark),
        "files": needed(),
        "arm": {**wire.arm_json(job), "rearm": "the container's command"},
        "ender": orders,
    }
    data = base64.b64encode(zlib.compress(json.dumps(request).encode(), 9)).decode()
    script = _SCRIPT.format(unpack=_UNPACK, data=data)
    return json.dumps({"entrypoint": ["/bin/bash", "-c"], "cmd": [script]})


def needed() -> dict[str, str]:
    """Gather what a watchdog needs before a job is there: itself, the ender, and all that they import of ours."""
    found: dict[str, str] = {}
    fresh = set(_FIRST)
    while fresh:
        found |= {f"{name}.py": _read(name) for name in fresh}
        imported = {name for text in found.values() for name in _IMPORT.findall(text)}
        fresh = {name for name in imported if f"{name}.py" not in found and _path(name).is_file()}
    return found


def _read(name: str) -> str:
    return _path(name).read_text(encoding="utf-8")


def _path(name: str) -> Traversable:
    return files("payload").joinpath(f"{name}.py")
