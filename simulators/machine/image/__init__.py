"""The image of a simulated machine, after Lambda Stack: a python3 that has torch, nvidia-smi, sudo, cloud-init.

    <root>/usr/bin/        python3 and the commands of shims.py; first in PATH
    <root>/usr/lib/…       a Python installation of its own: the host's standard library, linked; the host's torch
    <root>/etc/gpu.json    what nvidia-smi and torch say of the GPUs

The python3 is a copy of the host's *base* interpreter in a prefix of its own, not a virtual environment: environments
made from it, with or without its packages, are what they would be on a real machine.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from simulators.machine.image import python, shims

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How packages are had on this computer; a real machine has the open network instead.
_KEPT = re.compile(
    r"(PIP|UV)_(INDEX|DEFAULT_INDEX|EXTRA_INDEX|FIND_LINKS|CERT|CONFIG_FILE|TRUSTED_HOST|DEFAULT_TIMEOUT|HTTP_TIMEOUT"
    r"|NATIVE_TLS|SYSTEM_CERTS)(_\w+)?|(HTTPS?|NO|ALL)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE",
    re.IGNORECASE,
)
# Compute capabilities (developer.nvidia.com/cuda-gpus), by what the name has in it; the first that fits.
_CAPABILITIES = {
    "GB300": (10, 3),
    "B300": (10, 3),
    "B200": (10, 0),
    "RTX PRO 6000": (12, 0),
    "RTX 50": (12, 0),
    "H100": (9, 0),
    "H200": (9, 0),
    "GH200": (9, 0),
    "L4": (8, 9),
    "Ada": (8, 9),
    "RTX 40": (8, 9),
    "A100": (8, 0),
    "A30": (8, 0),
    "T4": (7, 5),
    "RTX 6000": (7, 5),
    "V100": (7, 0),
}
_AMPERE = (8, 6)  # A10, A40, A6000, RTX 30
DRIVER, OLD_DRIVER = "570.148.08", "525.147.05"
CUDA, OLD_CUDA = "12.8", "12.0"  # what the driver supports, as nvidia-smi says it


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPUs of a machine, all alike, and what is wrong with them."""

    name: str  # as torch says it
    count: int
    memory_mib: int  # of each
    faults: frozenset[str]

    def facts(self) -> dict[str, object]:
        """Give what nvidia-smi and torch are to say."""
        old = "driver_old" in self.faults
        return {
            **{key: value for key, value in asdict(self).items() if key != "faults"},
            "capability": next((found for part, found in _CAPABILITIES.items() if part in self.name), _AMPERE),
            "driver": OLD_DRIVER if old else DRIVER,
            "cuda": OLD_CUDA if old else CUDA,
            "broken": "cuda_broken" in self.faults,
            "old": old,
        }


def make(root: Path, gpu: Gpu) -> str:
    """Make the image below `root`; gives the PATH that finds its commands first."""
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "etc" / "gpu.json").write_text(json.dumps(gpu.facts()))
    python.make(root / "usr")
    shims.make(root)
    return f"{root / 'usr' / 'bin'}:{_SYSTEM_PATH}"


def environment(host: Mapping[str, str]) -> dict[str, str]:
    """Choose what a session's environment holds beside HOME and PATH: nothing of the host's but how to get packages."""
    # Not items(): another thread may take a variable out of os.environ meanwhile, as pytest does after each phase.
    kept = {name: value for name in list(host) if _KEPT.fullmatch(name) and "\n" not in (value := host.get(name, "\n"))}
    return {"LANG": "C.UTF-8", **_package_settings(), **kept}


def _package_settings() -> dict[str, str]:
    """Name the user's own settings of pip and uv, which the machine's HOME does not have."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 (only joined)
    files = {"PIP_CONFIG_FILE": f"{config}/pip/pip.conf", "UV_CONFIG_FILE": f"{config}/uv/uv.toml"}
    return {name: path for name, path in files.items() if os.path.isfile(path)}  # noqa: PTH113 (as above)
