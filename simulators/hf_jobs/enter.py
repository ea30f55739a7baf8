"""Steps into a container: a root of its own, this computer's folders in it, and the buckets mounted at their paths.

    python -I -S enter.py '{"root": <empty folder>, "cwd": …, "mounts": {"/data": <folder>}, "argv": […]}'

Needs mount namespaces (root, or users who may make them); leaves with 3 where there are none, with 127 where there is
no such program. Everything mounted goes with the last process. Standard library only; Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "machine"))

import init  # type: ignore[import-not-found]  # simulators/machine/init.py: its calls into the kernel

NOT_ISOLATED, NO_PROGRAM = 3, 127
_MS_BIND = 4096
_MS_REC, _MS_PRIVATE = 16384, 1 << 18
_NEW_NS, _NEW_USER = 0x00020000, 0x10000000


def unshare() -> None:
    """Leave the host's mounts: what is mounted from here on is seen by nobody else."""
    user, group = os.getuid(), os.getgid()
    init.check(ctypes.CDLL(None, use_errno=True).unshare(_NEW_NS | (_NEW_USER if user else 0)))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    init.mount("none", "/", "none", _MS_REC | _MS_PRIVATE)


def furnish(root: Path, mounts: dict[str, str]) -> None:
    """Make a root that holds this computer's folders, and the mounts in their places, which the host needs not have."""
    init.mount("tmpfs", str(root), "tmpfs", 0, "mode=0755")
    for entry in Path("/").iterdir():
        target = root / entry.name
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
        elif entry.is_dir():
            target.mkdir()
            init.mount(str(entry), str(target), "none", _MS_BIND | _MS_REC)
    for path, folder in mounts.items():
        target = root / path.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        init.mount(folder, str(target), "none", _MS_BIND)


def main() -> None:
    """Step in, and become the program."""
    order = json.loads(sys.argv[1])
    try:
        unshare()
        furnish(Path(order["root"]), order["mounts"])
        os.chroot(order["root"])
        os.chdir(order["cwd"])
    except OSError as error:
        print(f"no container: {error}", file=sys.stderr)  # noqa: T201 - as below
        sys.exit(NOT_ISOLATED)
    try:
        os.execvp(order["argv"][0], order["argv"])  # noqa: S606 - to become it is the point
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the container's own words
        sys.exit(NO_PROGRAM)


if __name__ == "__main__":
    main()
