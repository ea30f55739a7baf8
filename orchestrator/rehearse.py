"""`gpurun rehearse`: a simulated vendor on loopback, a home of its own, and a shell in which gpurun works against them.

simulator (child) ── exports ──> the environment of a shell or of CMD ── meter, read once more ──> what would still bill

Real keys are taken out of that environment, so that nothing in a rehearsal can cost money. What it started is ended
with it: the simulator with its machines, and every process of the rehearsal's home, though it be killed.

    python -m orchestrator.rehearse HOME    # waits for the end of its standard input, then ends what runs in HOME
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

from orchestrator.render import clean, facts, price
from providers.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

# Who is simulated -> what a first launch there takes, and a fault to try.
PROVIDERS = {
    "lambda": ("--gpu a10 --accept-risk", '{"launch_capacity": 2}'),
    "runpod": ("--gpu 3090 --accept-risk", '{"capacity": 3}'),
    "hf": ("--gpu a10g", '{"slow_scheduling": 1, "logs_cut": 3}'),
    "colab": ("--gpu t4 --accept-risk", '{"substituted": 1, "token_ttl": 1}'),
}
# Real keys, and the files in which libraries look for one.
KEYS = (
    *("LAMBDA_API_KEY", "RUNPOD_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"),
)
_MARKER = ".rehearsal"
_START_SECONDS = 30.0
_END_SECONDS = 300.0  # an environment of 8 GB goes at the speed of the disk; whoever is killed leaves it lying there
_NEEDED = (("ssh", "openssh-client"), ("sshd", "openssh-server"))
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"  # not on everyone's PATH, and there sshd lies


@dataclass(frozen=True, slots=True)
class Vendor:
    """What a simulator says of itself in its first line."""

    provider: str
    control: str  # where its meter, faults, clock and journal are
    exports: dict[str, str]


@dataclass(frozen=True, slots=True)
class Meter:
    """The vendor's own account of what it was asked to bill."""

    billing_now: int
    usd: Decimal
    allocations: tuple[dict[str, Any], ...]


def rehearse(
    provider: str,
    options: Sequence[str],
    command: Sequence[str],
    folder: Path | None,
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None],
    keep: bool = False,
) -> int:
    """Rehearse: a shell, or one command, against a simulated vendor; gives its exit code.

    Raises:
        UsageError: no such provider, option, folder or program.
        StateError: the simulator did not start, or did not live to the end.
    """
    _refuse_incomplete(provider)
    with tidied(), stage(folder, keep=keep) as home:
        with simulator(provider, options, home / "simulator.log", clean_environment(environ)) as vendor:
            made = inside(vendor, home, environ)
            if not command:
                say(banner(vendor, home))
            code = run(argv_of(command, made), made)
            say(verdict(read_meter(vendor)))
            end_processes(home)  # before the vendor: they would only complain
        if folder is not None or keep:
            say(f"kept: {home}")
    return code


@contextmanager
def simulator(provider: str, options: Sequence[str], log: Path, environ: Mapping[str, str]) -> Iterator[Vendor]:
    """Start a simulator and end it again, its machines with it.

    Raises:
        UsageError: no such simulator, or it does not take the options.
        StateError: it did not start.
    """
    # -P: the folder we are in is no code
    argv = [sys.executable, "-P", "-m", "simulators", provider, "--with-stdin", *options]
    with log.open("wb") as errors:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,  # ends with us, however we end
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environ,
            start_new_session=True,  # Ctrl-C is for the command
        )
    with child:
        try:
            yield _introduce(child, provider, log)
        finally:
            _end(child)


def list_faults(provider: str) -> str:
    """Give what can go wrong there, a line each, as the simulator says it.

    Raises:
        UsageError: no such provider.
        StateError: the simulator does not start.
    """
    _refuse_unknown(provider)
    argv = [sys.executable, "-P", "-m", "simulators", provider, "--list-faults"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_START_SECONDS, check=False)
    if done.returncode:
        raise StateError(f"the simulator of {provider} did not start: {clean(done.stderr)}", hint="gpurun doctor")
    return done.stdout.rstrip()


def _refuse_unknown(provider: str) -> None:
    if provider not in PROVIDERS:
        raise UsageError(
            f"there is no rehearsal of {provider!r}; there are: {' '.join(PROVIDERS)}",
            hint=f"gpurun rehearse {next(iter(PROVIDERS))}",
        )


def _refuse_incomplete(provider: str) -> None:
    _refuse_unknown(provider)
    if provider in {"hf", "colab"}:  # no machine there is reached over SSH
        return
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM_FOLDERS))
    for program, package in _NEEDED:
        if shutil.which(program, path=path) is None:
            raise StateError(
                f"a rehearsal needs {program}: its machines are reached over real SSH",
                hint=f"on Debian and Ubuntu: apt-get install {package}",
            )


def _introduce(child: subprocess.Popen[bytes], provider: str, log: Path) -> Vendor:
    out = cast("IO[bytes]", child.stdout)
    told = out.readline() if select.select([out], [], [], _START_SECONDS)[0] else b""
    try:
        values = json.loads(told)
        return Vendor(values["provider"], values["control"].rstrip("/"), dict(values["exports"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _end(child)
        words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        why = clean(words[-1]) if words else "it said nothing"
        if child.returncode == UsageError.exit_code:
            raise UsageError(
                f"the simulator of {provider} says: {why.rpartition('error: ')[2]}",
                hint=f"gpurun rehearse {provider} --list-faults",
            ) from error
        raise StateError(f"the simulator of {provider} did not start: {why}", hint="gpurun doctor") from error


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def read_meter(vendor: Vendor) -> Meter:
    """Ask the vendor what bills.

    Raises:
        StateError: it does not answer.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    try:
        with opener.open(f"{vendor.control}/meter", timeout=10) as answer:
            values = json.load(answer)
        return Meter(int(values["billing_now"]), Decimal(str(values["usd"])), tuple(values["allocations"]))
    except (OSError, ValueError, KeyError, ArithmeticError) as error:
        raise StateError(f"the simulator does not answer any more: {error}") from error


# ── the rehearsal's home and environment ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def stage(folder: Path | None, *, keep: bool) -> Iterator[Path]:
    """Give the rehearsal a home of its own, for it alone; a temporary one goes with it unless it is kept.

    Raises:
        UsageError: the folder is something else's, or another rehearsal's.
    """
    path = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="gpurun-rehearsal-"))
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (path / _MARKER).exists() and any(path.iterdir()):
        raise UsageError(
            f"{path} is in use and was not made by a rehearsal: its runs may be real", hint="name an empty folder"
        )
    with (path / _MARKER).open("a") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another rehearsal is on in {path}", hint="name another folder") from error
        try:
            with _survivor(path, marker):
                yield path
        finally:
            end_processes(path)
            if folder is None and not keep:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _survivor(home: Path, marker: IO[str]) -> Iterator[None]:
    """Keep a process that ends the home's others when this one is killed, and holds the home's lock until then."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "orchestrator.rehearse", str(home)],
        stdin=subprocess.PIPE,  # ends with us, however we end
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(os.environ),
        pass_fds=[marker.fileno()],
        start_new_session=True,
    ):
        yield


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out real keys and what points gpurun elsewhere."""
    return {name: value for name, value in environ.items() if name not in KEYS and not name.startswith("GPURUN_")}


def inside(vendor: Vendor, home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of the command: the simulator's exports over a cleaned one."""
    made = {**clean_environment(environ), **vendor.exports, "GPURUN_HOME": str(home), "CONTROL": vendor.control}
    made["HF_TOKEN_PATH"] = str(home / "no-token")
    for name in ("NO_PROXY", "no_proxy"):
        made[name] = ",".join(filter(None, ("127.0.0.1,localhost", environ.get(name, ""))))
    made["PATH"] = environ.get("PATH", os.defpath)
    if shutil.which("gpurun", path=made["PATH"]) is None:
        made["PATH"] = os.pathsep.join((made["PATH"], str(Path(sys.executable).parent)))
    return made


def end_processes(home: Path, seconds: float = 3.0) -> None:
    """End every process of a home but this one: controllers that would go on against a vendor that is gone.

    What has not obeyed after `seconds` is killed.
    """
    import psutil

    wanted = str(home)
    ours = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("GPURUN_HOME") == wanted:
                process.terminate()
                ours.append(process)
        except psutil.Error:
            continue  # ended meanwhile, or not ours to see
    _, left = psutil.wait_procs(ours, timeout=seconds)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=seconds)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def argv_of(command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Give what is run: the user's shell, a line for it, or a program with its arguments as they were typed."""
    shell = environ.get("SHELL") or "/bin/sh"
    if not command:
        return [shell]
    return [shell, "-c", command[0]] if len(command) == 1 else list(command)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run it on this terminal; gives its exit code as a shell would.

    Ctrl-C is the command's own; an end of this process is passed on to it.

    Raises:
        UsageError: there is no such program.
    """
    found = shutil.which(argv[0], path=environ["PATH"])
    if found is None:
        raise UsageError(f"there is no program {shlex.quote(argv[0])}", hint="gpurun rehearse -h")
    before = signal.signal(signal.SIGINT, lambda *_: None)  # a handler, not SIG_IGN: the child would inherit that
    try:
        with subprocess.Popen([found, *argv[1:]], env=dict(environ)) as child:
            try:
                code = child.wait()
            except SystemExit:
                child.terminate()
                raise
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


@contextmanager
def tidied() -> Iterator[None]:
    """Let a SIGTERM or a closed terminal unwind this process, so that what it started is ended with it."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


def banner(vendor: Vendor, home: Path) -> str:
    """Say, before a shell, where one is and what there is to try."""
    flags, fault = PROVIDERS[vendor.provider]
    return facts(
        [
            ("rehearsal", f"{vendor.provider}, simulated on this computer: nothing here costs money"),
            ("home", str(home)),
            ("try", f"gpurun launch demo --provider {vendor.provider} {flags}"),
            ("the bill", "curl $CONTROL/meter"),
            ("break it", f"curl $CONTROL/faults -d '{fault}'"),
            ("leave", "exit: the simulator ends, and says what would still bill"),
        ]
    )


def verdict(meter: Meter) -> str:
    """Say, at the end, what a real vendor would go on billing."""
    spent = f"${meter.usd} in all" if meter.usd else "$0.00 in all"
    if not meter.billing_now:
        return f"the rehearsal's meter: nothing bills any more, {spent}"
    left = [one for one in meter.allocations if not one.get("ended")]
    rate = sum((Decimal(str(one.get("price", 0))) for one in left), Decimal(0))
    many = f"{len(left)} STILL BILL{'S' if len(left) == 1 else ''}"
    head = f"the rehearsal's meter: {many} at {price(rate)}, {spent}.\nA real vendor would go on until somebody ends:"
    return "\n".join([head, *(f"  {clean(_line(one))}" for one in left)])


def _line(allocation: Mapping[str, Any]) -> str:
    name = allocation.get("name") or allocation.get("id")
    return f"{name} ({allocation.get('status')}, ${allocation.get('price')}/h)"


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_processes(Path(sys.argv[1]))
