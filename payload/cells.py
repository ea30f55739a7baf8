"""What the cells of a notebook by `gpurun notebook` call: it trains, keeps what it made, releases its machine.

    run = cells.Run(here)        # here: request.json bundle.tar.gz blobs/<sha256> payload/, out of the notebook itself
    run.arm()                    # the watchdog first: at the deadline it posts to $TBE_RUNTIME_ADDR/unassign
    run.start() run.follow() run.save() run.release()        # besides: run.stop() run.keep(minutes)

From there on it is a job like any other, with agent, watchdog and ender; nobody but the person at the browser looks at
it. A cell may be run again, after a restart of the kernel too: it goes on with what is there. What asks the browser
gives up after some seconds, since there may be none. Standard library only, Python 3.9; google.colab where it is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import browser
import door
import ender
import lever
import parcel
import place
import processes as ps
from browser import NoAnswerError, RefusedError, on_colab

ADDRESS = "TBE_RUNTIME_ADDR"  # Colab gives it to the kernel
REFUSED_MINUTES = 15.0  # that a machine is kept on which the training was refused
TAKES_SECONDS = 300.0  # for a download, and its size at the pace below
PACE = 1 << 20  # bytes a second: a slow line to the browser
SAYS_EVERY = 10.0  # seconds between two lines of progress
TRIES = 6  # of a release that is not taken; after that the watchdog goes on
SECOND = 1.0


class TrainingError(Exception):
    """The training did not end well: said last, so that its files are safe and its machine is released."""


class Run:
    """One training out of one notebook."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.request = ps.read_json(here / "request.json")
        self.memory = here / "run.json"
        self.offset = 0  # of the log: what was shown
        self.rest = b""
        self.said = 0.0
        self.known = ps.read_json(self.memory)
        if not self.known:
            ceiling = time.time() + self.request["ceiling_seconds"]
            self.known = {
                "mark": mark_of(self.request["name"], ceiling),
                "armed": time.time(),
                "deadline": time.time() + self.request["max_seconds"],  # as it stands now
                "limit": time.time() + self.request["max_seconds"],
                "ceiling": ceiling,
            }
            self.remember()

    @property
    def folder(self) -> Path:
        """The job's folder."""
        return place.HOME / "jobs" / str(self.known["mark"])

    def remember(self, **facts: Any) -> None:
        """Keep what a restarted kernel must know."""
        self.known.update(facts)
        place.write_aside(self.memory, json.dumps(self.known).encode())

    # -- cell 1: the end before the beginning --

    def arm(self) -> None:
        """Start the watchdog, and say by when this machine is released."""
        if sys.prefix != sys.base_prefix:  # setup.sh asks PATH for a python3 whose torch serves: ours first
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        place.BLOBS.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        shutil.copytree(self.here / "payload", self.folder / "payload", dirs_exist_ok=True)
        if os.environ.get(ADDRESS) and lever.folder_of(self.folder.name) is None and not self.is_over():
            lever.put(self.folder.name, json.dumps(self.request["ender"]).encode())
        limits = {"mark": self.known["mark"], "deadline": self.known["deadline"], "ceiling": self.known["ceiling"]}
        orders = {**limits, "max_seconds": self.request["ceiling_seconds"], "end": ["processes"]}
        orders["rearm"] = "nobody: a machine of Colab's that stops does not come back"
        place.seed(self.folder, {"arm": orders, "want": []})
        print(f"The watchdog is armed: {self.end_in_words()}")

    def end_in_words(self) -> str:
        """Say who releases this machine, and when."""
        latest = f"{self.end()} at the latest"
        if not os.environ.get(ADDRESS):
            return f"training ends by {latest}. This machine names no {ADDRESS}: it is not Colab's to release."
        said = ender.look(self.request["ender"])
        proof = "its release address answers; that it releases is unproven until then"
        proof = (
            proof if said["said"] in ("there", "alive") else f"ITS RELEASE ADDRESS DOES NOT ANSWER ({said['evidence']})"
        )
        return f"this machine releases itself by {latest}; {proof}."

    def end(self) -> str:
        """Say when that is, and what it has cost then: `14:32 UTC ($0.05)`."""
        moment = float(self.known["deadline"])
        return f"{time.strftime('%H:%M UTC', time.gmtime(moment))} (${self.cost(moment):.2f})"

    def cost(self, until: float) -> float:
        """USD from the arming to a moment, at the price that the notebook was written with."""
        return max(until - float(self.known["armed"]), 0.0) / 3600 * float(self.request["usd_per_hour"])

    # -- cell 2: the training --

    def start(self) -> None:
        """Start the training, unless it was started before.

        Raises:
            RefusedError: the wrong GPU, or a secret is missing; the machine is kept for some minutes.
        """
        if (self.folder / "job.json").exists():
            print("It was started before: run the next cell.")
            return
        try:
            gpus = self.see_gpu()
            values = {name: browser.secret(name) for name in self.request["secrets"]}
        except RefusedError:
            if on_colab():  # somebody may mend it
                self.move(time.time() + REFUSED_MINUTES * 60)
            else:
                self.unassign()
            raise
        if self.known["deadline"] < self.known["limit"]:
            self.move(self.known["limit"])
        for digest, _ in self.request["want"]:
            shutil.copyfile(self.here / "blobs" / digest, place.BLOBS / digest)
        limits = {"mark": self.known["mark"], "deadline": self.known["deadline"], "ceiling": self.known["ceiling"]}
        job = {**self.request["job"], **limits, "max_seconds": self.request["ceiling_seconds"], "gpus": gpus}
        asked = {key: self.request[key] for key in ("want", "bundle", "data")}
        broken = place.begin(self.folder, {**asked, "job": job, "secrets": values, "step": "", "seed": []}).get(
            "broken"
        )
        if broken:
            raise RefusedError(f"{len(broken)} files did not come out of the notebook whole: write it anew")
        print("Started. It goes on without this page, as long as the machine lives.")

    def see_gpu(self) -> int:
        """Say what there is to compute on; gives the number of GPUs.

        Raises:
            RefusedError: on Colab, another than was quoted.
        """
        names, wanted = browser.gpu_names(), [str(word) for word in self.request["gpu"]]
        print(f"GPU: {', '.join(names) or 'none'}")
        fits = [name for name in names if all(re.search(rf"\b{re.escape(word)}\b", name) for word in wanted)]
        if not wanted or fits or self.request.get("any_gpu"):
            return len(names)
        words = f"the quote is for {' '.join(wanted)}, this machine has {', '.join(names) or 'no GPU'}"
        if on_colab():
            raise RefusedError(
                f"{words}. Runtime → Change runtime type → {self.request['machine']}, then Runtime → Run all;"
                f" or take it as it is: run.request['any_gpu'] = True, and this cell again"
            )
        print(f"WARNING: {words}: time and price are not those of the quote")
        return len(names)

    # -- cell 3: its log --

    def follow(self) -> None:
        """Show the log until it is over. ■ ends the showing, not the training."""
        try:
            while not self.is_over():
                self.show()
                time.sleep(0.5)
            self.show()
        except KeyboardInterrupt:
            print("\nIt trains on. To look on: this cell again. To save and stop: run.stop() in a new cell.")
            raise
        reason, detail = self.outcome()
        print(f"\n{reason}{f': {detail}' if detail else ''}  (${self.cost(time.time()):.2f} so far)")

    def is_over(self) -> bool:
        """Whether there is a result, or nobody left who could write one."""
        if not (self.folder / "job.json").exists():
            return (self.folder / "end.json").exists()
        said = door.status(self.folder)
        return bool(said["result"]) or not (said["agent"] or said["watchdog"]) or self.ended_early(said)

    def ended_early(self, said: Dict[str, Any]) -> bool:
        """Whether the watchdog ended all, without a result."""
        return bool(said["proof"].get("ended")) and not said["agent"]

    def outcome(self) -> Tuple[str, str]:
        """Reason and detail, in the agent's words; `lost` without a result."""
        result = ps.read_json(self.folder / "result.json")
        if result:
            return str(result.get("reason")), str(result.get("detail") or "")
        ended = ps.read_json(self.folder / "watchdog.json").get("ended")
        return "lost", str(ended or "agent and watchdog are gone")

    def show(self) -> None:
        """Print what is new in the log: words as they are, metrics as a line now and then."""
        with contextlib.suppress(FileNotFoundError), (self.folder / "log.txt").open("rb") as file:
            file.seek(self.offset)
            new = file.read()
            self.offset += len(new)
            *lines, self.rest = (self.rest + new).split(b"\n")
            for line in lines:
                self.show_line(line.decode("utf-8", "replace").rpartition("\r")[2])

    def show_line(self, line: str) -> None:
        """Print a line."""
        if not line.startswith("::metrics "):
            print(line, flush=True)
            return
        with contextlib.suppress(ValueError, TypeError):
            said = json.loads(line.partition(" ")[2])
            told = told_of(said)
            last = said.get("step") == said.get("total_steps")
            if told and (last or time.monotonic() - self.said > SAYS_EVERY):
                self.said = time.monotonic()
                passed = (time.time() - self.known["armed"]) / 60
                print(f"{told} · {passed:.0f} min · ${self.cost(time.time()):.2f}", flush=True)

    # -- cell 4: what it made --

    def save(self) -> None:
        """Put what it made into one checked file, and offer that to the browser where there is one."""
        if not self.is_over():
            print("It is not over yet: run the cell above.")
            return
        target = Path.cwd() / f"{self.request['name']}-artifacts.zip"
        files = list(parcel.contents(self.folder, completed=self.outcome()[0] == "completed"))
        if not files:
            print("It left nothing to keep.")
        try:
            size = parcel.pack(target, self.folder, files)
        except OSError as error:
            print(f"NOT PACKED ({error}): the files lie in {self.folder}")
            self.remember(offered=False, only_here=True, size=0)
            return
        pushed = (ps.read_json(self.folder / "result.json").get("metrics") or {}).get("push_commit")
        print(f"{target}: {len(files)} checked files, {size / 2**20:.1f} MiB")
        if pushed:
            print(f"On the Hub: {self.request['push']}, commit {pushed}")
        offered = bool(on_colab() and not pushed and files and browser.answers())
        if offered:
            importlib.import_module("google.colab.files").download(str(target))
        self.remember(offered=offered, only_here=bool(files) and not pushed, size=size)

    # -- cell 5: the end --

    def release(self) -> None:
        """Release this machine, as soon as what it made is safe.

        Raises:
            TrainingError: the training did not end well.
        """
        if not self.is_over():
            print("It is not over yet: run the cells above. To save and stop: run.stop()")
            return
        if on_colab() and self.known.get("only_here", True):
            self.wait_for_the_download()
        else:
            self.unassign()
        reason, detail = self.outcome()
        if reason != "completed":
            raise TrainingError(f"{reason}{f': {detail}' if detail else ''}")

    def wait_for_the_download(self) -> None:
        """Leave the release to the watchdog: a download needs this kernel idle, and nobody else has the files."""
        if self.known.get("offered"):
            self.move(time.time() + TAKES_SECONDS + self.known["size"] / PACE)
            print(f"The download runs. This machine is released at {self.end()}; longer: run.keep(30)")
            return
        print(
            f"NOT RELEASED: what it made is only here, and no browser takes it. Released at {self.end()},"
            " or at once: run.unassign()"
        )

    def unassign(self) -> None:
        """Release this machine now: as the vendor's own function does, again and again if it must be."""
        address = os.environ.get(ADDRESS)
        if not address:
            print("This is no machine of Colab's: there is nothing to release.")
            self.tidy()
            return
        if not on_colab():
            self.post(address)
            self.tidy()
            return
        place.write_aside(self.folder / "end.json", b"{}")  # the watchdog posts too, until the machine is gone
        runtime = importlib.import_module("google.colab.runtime")
        troubles = (importlib.import_module("google.colab.errors").Error, OSError)
        try:
            with browser.within(browser.ANSWERS):
                runtime.unassign()
            print("Released.")
        except (NoAnswerError, *troubles) as error:
            print(f"google.colab.runtime.unassign: {error or type(error).__name__}")
            self.post(address)

    def post(self, address: str) -> None:
        """Ask the machine's own address to release it.

        Raises:
            RuntimeError: it does not take it; the watchdog goes on asking.
        """
        for count in range(TRIES):
            answer = ender.ask({"method": "POST", "url": f"http://{address}/unassign"})
            print(f"POST http://{address}/unassign → {answer.status or answer.body}", flush=True)
            if answer.status == 200:
                print("Released.")
                return
            time.sleep(min(2.0**count, 15.0) * SECOND / 2)
        place.write_aside(self.folder / "end.json", b"{}")
        raise RuntimeError(
            "NOT RELEASED: the watchdog goes on asking. By hand: Runtime → Disconnect and delete runtime"
        )

    def tidy(self) -> None:
        """End what is left of the job here; the next run of this notebook is a new one."""
        orders = lever.folder_of(self.folder.name)
        if orders is not None:
            subprocess.run(lever.argv_of(orders, "drop"), capture_output=True, check=False)
        place.write_aside(self.folder / "end.json", b"{}")
        until = time.monotonic() + 30.0
        while ps.held(self.folder / ".watchdog.lock") and time.monotonic() < until:
            time.sleep(0.05)
        self.memory.unlink()

    # -- by hand --

    def stop(self) -> None:
        """Save and stop the training; then cells 3, 4 and 5 again."""
        self.order({"kind": "stop"})
        print("It saves and stops. Then run the cells from 3 on.")

    def keep(self, minutes: float) -> None:
        """Keep this machine for so many minutes from now, at most to the ceiling."""
        self.move(time.time() + minutes * 60)
        print(f"Released at {self.end()}.")

    def move(self, deadline: float) -> None:
        """Have the watchdog release this machine then."""
        self.remember(deadline=min(deadline, float(self.known["ceiling"])))
        self.order({"kind": "deadline", "deadline": self.known["deadline"]})

    def order(self, order: Dict[str, Any]) -> None:
        """Leave an order for agent and watchdog."""
        last = ps.read_json(self.folder / "order.json").get("id") or 0
        place.write_aside(self.folder / "order.json", json.dumps({"id": last + 1, **order}).encode())


# ---- words -----------------------------------------------------------------------------------------------------------


def mark_of(name: str, ceiling: float) -> str:
    """Make the attempt's mark; no home holds it, which 0000 says."""
    digits, number = "", int(ceiling)
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    day = time.strftime("%y%m%d", time.gmtime())
    return f"gpurun-0000-{name[:24].strip('-')}-{day}-{secrets.token_hex(3)}-1-t{digits}"


def told_of(said: Dict[str, Any]) -> str:
    """A line of metrics in words; "" = nothing to tell."""
    if "step" not in said:
        return f"stage {said['stage']}" if said.get("stage") else ""
    of = f"/{said['total_steps']}" if said.get("total_steps") else ""
    names = ("loss", "eval_loss", "accuracy")
    values = [f"{name} {said[name]:.4g}" for name in names if isinstance(said.get(name), (int, float))]
    return " · ".join([f"step {said['step']}{of}", *values])
