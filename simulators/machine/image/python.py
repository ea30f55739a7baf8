"""The image's python3: the host's base interpreter in a prefix of its own, with the host's torch as a system package.

$GPURUN_PYTHON, or the interpreter that runs the simulator, lends its packages when torch is among them; else the
image's python3 is bare. A virtual environment's packages would not be seen by environments made from it, hence a
prefix: the binary is copied (a link would lead home), the standard library linked, sitecustomize.py is the image's own.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ASK = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps({
    "binary": os.path.realpath(sys._base_executable),
    "prefix": sys.base_prefix,
    "stdlib": sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}),
    "platstdlib": sysconfig.get_path(
        "platstdlib", vars={"platbase": sys.base_exec_prefix, "installed_platbase": sys.base_exec_prefix}
    ),
    "version": "%d.%d" % sys.version_info[:2],
    "packages": [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))],
    "has_torch": importlib.util.find_spec("torch") is not None,
}))
"""
_HERE = Path(__file__).parent
_OWN = (
    "sitecustomize.py",
    "simulated_cuda.py",
    "simulated_devices.py",
)  # into the standard library's folder: every environment sees it


@dataclass(frozen=True, slots=True)
class _Host:
    """An interpreter of the host, as it describes itself."""

    binary: Path
    prefix: Path
    folders: tuple[Path, ...]  # the standard library
    version: str
    packages: tuple[str, ...]  # none where torch is not among them


def make(usr: Path) -> None:
    """Make bin/python3 and its library below `usr`."""
    host = _ask(os.environ.get("GPURUN_PYTHON") or sys.executable)
    binary = usr / "bin" / f"python{host.version}"
    shutil.copy2(host.binary, binary)
    for name in ("python3", "python"):
        (usr / "bin" / name).symlink_to(binary.name)
    for folder in host.folders:
        _link_library(folder, usr / folder.relative_to(host.prefix))
    _link_rest(host, usr)
    stdlib = usr / host.folders[0].relative_to(host.prefix)
    for name in _OWN:
        (stdlib / name).unlink(missing_ok=True)
        shutil.copyfile(_HERE / name, stdlib / name)
    (usr.parent / "etc" / "packages").write_text("".join(f"{path}\n" for path in host.packages))


@functools.cache
def _ask(executable: str) -> _Host:
    done = subprocess.run([executable, "-I", "-c", _ASK], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    folders = tuple(dict.fromkeys(Path(told[key]) for key in ("stdlib", "platstdlib")))
    packages = tuple(told["packages"]) if told["has_torch"] else ()
    return _Host(Path(told["binary"]), Path(told["prefix"]), folders, told["version"], packages)


def _link_library(folder: Path, target: Path) -> None:
    """Make a standard library of links; its packages are left out, and the image has its own place for some."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.name not in {"site-packages", "dist-packages", "__pycache__", "EXTERNALLY-MANAGED"}:
            (target / entry.name).symlink_to(entry.path)
    (target / "site-packages").mkdir(exist_ok=True)


def _link_rest(host: _Host, usr: Path) -> None:
    """Link what lies beside the library: libpython, for a binary that looks for it from where it stands; headers."""
    for folder in ("lib", "include"):
        (usr / folder).mkdir(exist_ok=True)
        for pattern in ("libpython*", f"python{host.version}"):
            for path in (host.prefix / folder).glob(pattern):
                target = usr / folder / path.name
                if not target.exists():
                    target.symlink_to(path)
