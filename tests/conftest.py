"""What holds for every test: a home of its own, a clean environment, no network but loopback, nothing left running.

A skip outside `ALLOWED_SKIPS` fails the session, and so does a process of ours that outlives it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from colab_fixture import colab_sim, start_colab  # noqa: F401 - fixtures for all
from hf_ground import start_hf  # noqa: F401 - a fixture for all
from hypothesis import settings
from nasty import NASTY
from runpod_fixture import runpod_sim, start_runpod  # noqa: F401 - fixtures for all
from seaweed import bucket, seaweed  # noqa: F401 - fixtures for all
from simulators_fixture import lambda_sim, start_lambda  # noqa: F401 - fixtures for all

if TYPE_CHECKING:
    from collections.abc import Iterator

# Reason of a skip (regex) -> why it may be skipped. Everything else that is skipped fails the session.
ALLOWED_SKIPS = {
    r"^needs a GPU\b": "most machines have none, and CI's has none",
    r"^needs Linux\b": "subreaper and /proc are Linux's; macOS has other means, tested there",
    r"^needs a C compiler\b": "a broken driver library is made for one test; CI has one",
    r"^needs root and debootstrap\b": "a bare Debian is entered by chroot; CI has both",
    r"^needs root and cron\b": "the user's own crontab is put back, but a person's is not ours to try; CI has both",
    r"^needs systemd-analyze\b": "macOS has none; CI has it",
    r"^needs root for a container with a root of its own\b": "RunPod's pods are containers; CI is root",
    r"^needs root for a machine with boots of its own\b": "a boot's name is mounted over the kernel's; CI is root",
    r"^root reads everything\b": "file modes don't bind root, and CI is root",
}

# Inherited by every process that a test starts, so that those left over can be told from a user's own runs.
os.environ.setdefault("GPURUN_TEST_SESSION", uuid.uuid4().hex)
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch loads: many small trainings share two cores
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive our forks
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: no command would see a Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("gpurun", deadline=None)  # a loaded machine is no bug
settings.load_profile("gpurun")


# ── the network ends at loopback ─────────────────────────────────────────────────────────────────────────────────


def _is_loopback(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(str(name).split("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(event: str, args: tuple[object, ...]) -> None:
    """Fail a test that reaches out. `pytest.fail` is no `Exception`, so no handler of ours can swallow it."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = args[1]
        host = address[0] if isinstance(address, tuple) and address else None  # a str is a Unix socket
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if not isinstance(host, (str, bytes, type(None))) or not _is_loopback(host):
        pytest.fail(f"a test reached out to {host!r}: loopback only", pytrace=True)


sys.addaudithook(_guard)


# ── each test: its own home, nobody's keys ───────────────────────────────────────────────────────────────────────

_FOREIGN = re.compile(
    r"^(GPURUN_(?!TEST_SESSION$)|HF_|HUGGING|LAMBDA|RUNPOD|AWS_|WANDB|TRACKIO|COLAB|GOOGLE|XDG_|NO_COLOR$|FORCE_COLOR$"
    r"|CLICOLOR|COLUMNS$|LINES$|CUDA_VISIBLE_DEVICES$|[A-Z]+_PROXY$|[a-z]+_proxy$|_GPURUN_COMPLETE$)",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in [name for name in os.environ if _FOREIGN.match(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "hf-home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    # The guard above sees only this process; children are sent to a port where nobody listens.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


@pytest.fixture(autouse=True)
def home(_clean_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh GPURUN_HOME, not made yet. A test that leaves a process of it running fails."""
    path = tmp_path / "home"
    monkeypatch.setenv("GPURUN_HOME", str(path))
    yield path
    left = _settle(lambda: _processes(home=path, below=tmp_path))
    if left:
        pytest.fail("left running: " + "; ".join(left))


@pytest.fixture(params=list(NASTY.values()), ids=list(NASTY))
def nasty(request: pytest.FixtureRequest) -> str:
    """Each nasty name in turn, for paths, names and values."""
    return str(request.param)


@pytest.fixture
def nasty_folder(nasty: str, tmp_path: Path) -> Path:
    """A folder under each nasty name in turn."""
    folder = tmp_path / nasty
    folder.mkdir()
    return folder


# ── nothing is left running ──────────────────────────────────────────────────────────────────────────────────────


def _processes(*, home: Path | None = None, below: Path | None = None) -> list[tuple[int, str]]:
    """Find this session's processes by their environment: of one home, or all that carry a mark.

    Only where /proc tells (Linux). The pytest processes themselves have neither in the environment they started with.
    """
    found = []
    session = f"GPURUN_TEST_SESSION={os.environ['GPURUN_TEST_SESSION']}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            names = (folder / "environ").read_bytes().split(b"\0")
            cwd = (folder / "cwd").readlink()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended meanwhile, or not ours to see
        marked = any(name.startswith(b"GPURUN_MARK=") for name in names)
        if below is None:
            ours = marked and session in names
        else:
            ours = f"GPURUN_HOME={home}".encode() in names or (marked and cwd.is_relative_to(below))
        # A zombie has no command line; Python's own resource tracker ends with the process that started it.
        if ours and command and ".resource_tracker" not in command:
            found.append((int(folder.name), command[:200]))
    return found


def _settle(look, seconds: float = 3.0) -> list[str]:
    """Give processes a moment to end; kill and name those that do not."""
    until = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < until:
        time.sleep(0.05)
    for pid, _ in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [f"{pid} {command}" for pid, command in left]


# ── the session's verdict ────────────────────────────────────────────────────────────────────────────────────────

_unlisted: list[str] = []
_leftover: list[str] = []


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    if not any(re.search(pattern, reason) for pattern in ALLOWED_SKIPS):
        _unlisted.append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # a worker of xdist: the one that started them judges
    _leftover.extend(_settle(_processes))
    if (_unlisted or _leftover) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, lines in (("skipped outside ALLOWED_SKIPS", _unlisted), ("left running, killed", _leftover)):
        if lines:
            terminalreporter.section(title, red=True)
            for line in lines:
                terminalreporter.line(line)
