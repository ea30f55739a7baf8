"""`python -m simulators lambda|runpod|hf|colab`: start a vendor, tell in a line where it is, serve until a signal.

The line is JSON on stdout: {"provider", "url", "control", "exports": {VAR: VALUE, …}}.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from typing import Any, NoReturn

from simulators.clock import FASTEST
from simulators.colab import ColabSimulator
from simulators.colab import faults as colab_faults
from simulators.faults import FaultError, Hit
from simulators.hf_jobs import SCHEDULE_SECONDS, HfSimulator
from simulators.hf_jobs import faults as hf_faults
from simulators.lambda_cloud import BOOT_SECONDS, LINGER_SECONDS, LambdaSimulator
from simulators.lambda_cloud import faults as lambda_faults
from simulators.runpod import START_SECONDS, RunPodSimulator
from simulators.runpod import faults as runpod_faults

_BOOKS = {
    "lambda": lambda_faults.BOOK,
    "runpod": runpod_faults.BOOK,
    "hf": hf_faults.BOOK,
    "colab": colab_faults.BOOK,
}
_Simulator = LambdaSimulator | RunPodSimulator | HfSimulator | ColabSimulator


class _ListFaults(argparse.Action):
    """Print the table as it stands: argparse's own `version` would fold its lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print("\n\n".join(f"{vendor}\n{book.listing()}" for vendor, book in _BOOKS.items()))  # noqa: T201 - asked for
        parser.exit()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulators", description="Cloud vendors on this computer.")
    parser.add_argument("vendor", choices=list(_BOOKS))
    parser.add_argument("--seed", type=int, help="ids, and a draw of faults when --faults is not given")
    parser.add_argument("--faults", metavar="JSON", help="such as '{\"launch_capacity\": 2}'; see --list-faults")
    parser.add_argument("--pace", type=float, default=1.0, help="all that it takes time for takes so much less")
    parser.add_argument("--boot", type=float, metavar="SECONDS", help="launch to active or running, at pace 1")
    parser.add_argument(
        "--linger", type=float, default=LINGER_SECONDS, metavar="SECONDS", help="shown after the end, at pace 1"
    )
    parser.add_argument("--list-faults", action=_ListFaults, help="every fault and its options")
    parser.add_argument("--with-stdin", action="store_true", help="end when standard input does, as its owner may")
    parser.add_argument("--no-machines", action="store_true", help="the API alone, nothing answers SSH")
    return parser


def _faults(options: argparse.Namespace) -> list[Hit]:
    book = _BOOKS[options.vendor]
    if options.faults is not None:
        return book.parse(json.loads(options.faults))
    return [] if options.seed is None else book.drawn(options.seed)


def _watch_stdin(ended: threading.Event) -> None:
    """Set `ended` when whoever holds the other end of standard input is gone, however it went."""

    def read() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter ends
            continue
        ended.set()

    threading.Thread(target=read, name="stdin", daemon=True).start()


def _vendor(options: argparse.Namespace, faults: list[Hit]) -> _Simulator:
    how: dict[str, Any] = {"pace": options.pace, "faults": faults, "seed": options.seed}
    if options.vendor == "hf":
        return HfSimulator(**how, schedule_seconds=SCHEDULE_SECONDS if options.boot is None else options.boot)
    if options.vendor == "colab":
        return ColabSimulator(**how, machines=not options.no_machines)
    if options.vendor == "runpod":
        start = START_SECONDS if options.boot is None else options.boot
        return RunPodSimulator(**how, start_seconds=start, machines=not options.no_machines)
    boot = BOOT_SECONDS if options.boot is None else options.boot
    return LambdaSimulator(**how, boot_seconds=boot, linger_seconds=options.linger, machines=not options.no_machines)


def _check_machines(vendor: str) -> None:
    """See whether a vendor's machines can be had on this computer.

    Raises:
        RuntimeError: they can't.
    """
    if vendor == "lambda":
        from simulators.machine.sshd import find_sshd

        find_sshd()
    if vendor == "runpod":
        from simulators.runpod.container import check

        check()
    if vendor == "colab":
        from simulators.colab.machine import check as check_colab

        check_colab()


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    parser = _options()
    options = parser.parse_args(arguments)
    try:
        faults = _faults(options)
    except (FaultError, json.JSONDecodeError) as error:
        parser.error(f"--faults: {error}")
    if not 0 < options.pace <= FASTEST:
        parser.error(f"--pace lies above 0 and is at most {FASTEST:g}")
    if (options.boot or 0) < 0 or options.linger < 0:
        parser.error("--boot and --linger are 0 seconds or more")
    if not options.no_machines:
        try:
            _check_machines(options.vendor)
        except RuntimeError as error:
            parser.exit(1, f"{error}; or --no-machines\n")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    if options.with_stdin:
        _watch_stdin(ended)
    simulator = _vendor(options, faults)
    with simulator:
        print(json.dumps(simulator.announcement()), flush=True)  # noqa: T201 - the line is the interface
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
