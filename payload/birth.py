"""How a watchdog comes to life, away from whoever started it or by a system that knows nothing; how an agent died.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path  # noqa: TC003 (Python 3.9 alone: nothing is gained)

import processes as ps

# What a training needs of the environment that it was started in, where systemd or cron start it again.
KEPT = ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV", "HF_HOME")
KEPT_PREFIXES = ("LD_", "LC_", "PIP_", "UV_", "CUDA_", "NVIDIA_", "SSL_CERT_", "REQUESTS_", "CURL_", "CONDA_")


def detach(folder: Path) -> int:
    """Fork away from whoever started us; in the child, give the handle on which to say that we are armed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        armed = os.read(reader, 16)
        os._exit(0 if armed else 1)
    os.close(reader)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, null), (1, null), (2, opened_log(folder / "watchdog.log"))):
        os.dup2(source, target)
    return writer


def opened_log(path: Path) -> int:
    """Open a log to append to; where the disk does not let us, nothing is kept."""
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def last_words(path: Path) -> str:
    """What somebody wrote into a log of errors last, to be put behind how they ended."""
    with contextlib.suppress(OSError):
        lines = path.read_bytes()[-2000:].decode("utf-8", "replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        return ": " + words[-1][:200] if words else ""
    return ""


def stand_by(folder: Path) -> None:
    """Wait until nobody holds the lock; one that waits carries no mark, and is of no job.

    Raises:
        OSError: the folder is not there (yet).
    """
    handle = os.open(folder / ".watchdog.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.close(handle)


def keep_environment(folder: Path) -> None:
    """Write down what the training is started with; once, for those who come after us."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    kept.update({name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")})
    path = folder / "environment.json"
    if not path.exists():
        with contextlib.suppress(OSError):
            ps.write_json(path, kept)
            path.chmod(0o600)  # a proxy's address may hold a password


def take_environment(folder: Path) -> None:
    """Go on with what the first of us was started with."""
    kept = ps.read_json(folder / "environment.json")
    os.environ.update({name: value for name, value in kept.items() if isinstance(value, str)})
