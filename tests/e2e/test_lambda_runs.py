"""A machine at Lambda from the first command to the vendor's own meter, with the simulator's exports and nothing else.

What is looked at is what a stranger could see: the commands' output, the home, the vendor's meter and its journal.
"""

from __future__ import annotations

import io
import json
import re
import signal
import stat
import tarfile
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import requests
from desk import Desk, simulated, wait_for
from openapi import validate_exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_USD = Decimal("1.29") / 60  # an A10's minute
TOKEN = "hf_made_up_0123456789abcdef"  # noqa: S105 - nobody's
# A chatty training. It leaves its log under a second name, since the machine is gone when it can be compared, and ends
# when it is told to, so that a test has its time in the middle.
SCRIPT = """
import hashlib, json, os, pathlib, random, sys, time
kept = pathlib.Path(sys.argv[1])
os.link("log.txt", kept / "machine.log")
noise = random.Random(7)
step = 0
while not (kept / "go").exists() or step < 3:
    step += 1
    sys.stdout.buffer.write(noise.randbytes(3000) + b"\\x1b[31m\\r\\n")
    sys.stdout.buffer.flush()
    print("::metrics " + json.dumps({"stage": "train", "step": step, "total_steps": 1000}), flush=True)
    time.sleep(0.05)
folder = pathlib.Path("artifacts")
(folder / "deep").mkdir(parents=True)
(folder / "model.bin").write_bytes(noise.randbytes(3_000_000))
(folder / "deep" / "card.txt").write_text(hashlib.sha256(os.environ["HF_TOKEN"].encode()).hexdigest())
sys.stdout.buffer.write(b"no line end \\xff")
"""


@pytest.fixture
def vendor(tmp_path: Path, home: Path) -> Iterator[Desk]:
    """A vendor that, at the end, was asked for nothing its document does not know, and bills nothing."""
    work = tmp_path / "work"
    work.mkdir()
    with simulated("lambda", "--boot", "10", "--pace", "20") as told:
        desk = Desk(told["exports"], work, home, told["control"], {"HF_TOKEN": TOKEN})
        desk.write("chatty", SCRIPT, secrets="HF_TOKEN")
        yield desk
        state, asked = desk.ask("/state"), desk.ask("/requests")
    assert (state["violations"], state["keys"]) == (0, [])
    assert len({validate_exchange(record) for record in asked["requests"]}) > 5


def settled(vendor: Desk, run_id: str) -> dict[str, Any]:
    """Hold ledger and vendor to one bill, and the home to what a run that is over leaves."""
    meter, shown = vendor.ask("/meter"), vendor.shown()
    assert (meter["billing_now"], len(meter["allocations"])) == (0, 1)
    assert shown["run_id"] == run_id
    low, high = (Decimal(str(shown[name])) for name in ("accrued_low_usd", "accrued_usd"))
    assert low <= Decimal(meter["usd"]) <= high
    assert high - low <= STEP_USD
    assert list(vendor.home.glob("runs/*/ssh")) == []
    return shown


def whole(folder: Path) -> list[str]:
    """Hold every artifact to the sum that the machine gave; gives their names."""
    artifacts = json.loads((folder / "result.json").read_text())["artifacts"]
    for one in artifacts:
        data = (folder / one["name"]).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (one["size"], one["sha256"])
    return [one["name"] for one in artifacts]


def secrets_of(vendor: Desk) -> set[bytes]:
    """What nobody may find: the key, every token that the vendor told, the user's own, private keys."""
    journal = requests.get(vendor.control + "/requests", timeout=30).text
    tokens = set(re.findall(r'"jupyter_token": ?"([^"]+)"', journal))
    private = [path.read_text().splitlines()[4] for path in vendor.home.glob("runs/*/ssh/*/*_ed25519")]
    assert tokens
    assert len(set(private)) == 2
    return {secret.encode() for secret in (vendor.environ["LAMBDA_API_KEY"], TOKEN, *tokens, *private)}


def betrayed(home: Path, secrets: set[bytes]) -> list[str]:
    """Name what holds a secret: files of the home but live keys, what is packed in them, everybody's command lines."""
    places = {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    places = {name: data for name, data in places.items() if "/ssh/" not in name}
    for name in [name for name in places if name.endswith(".tar.gz")]:
        with tarfile.open(fileobj=io.BytesIO(places[name])) as tar:
            files = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
            places.update({f"{name}/{inner}": file.read() for inner, file in files if file is not None})
    assert "ledger.sqlite" in places
    told = [name for name, data in places.items() if b"PRIVATE KEY" in data or b"lambdaspaces" in data]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            places[str(folder)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue
    return told + [f"{name}: {secret[:12]!r}" for name, data in places.items() for secret in secrets if secret in data]


def modes(folder: Path) -> set[str]:
    """The modes of a folder and of all in it, other than those of a private one."""
    found = [folder, *folder.rglob("*")]
    return {
        f"{path.name} {stat.S_IMODE(path.stat().st_mode):o}"
        for path in found
        if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
    }


def test_a_launch_brings_all_home_tells_no_secret_and_leaves_no_bill(vendor: Desk) -> None:
    launch = vendor.start(
        "launch", "chatty.yaml", "--provider", "lambda", "--gpu", "a10", "-y", "--accept-risk", "--json"
    )
    folder = vendor.running()
    run_id = folder.name
    live = secrets_of(vendor)
    assert modes(folder / "ssh") == set()
    assert betrayed(vendor.home, live) == []
    texts = [vendor.gpurun(*words).out for words in (("ps", "--json"), ("show", "--json"), ("show",), ("ps",))]
    vendor.go()
    code, out, err = launch.end()
    assert code == 0, err
    last = json.loads(out.splitlines()[-1])
    assert (last["run_id"], last["outcome"], last["state"]) == (run_id, "succeeded", "done")
    assert "→ terminated" in last["evidence"]

    assert whole(folder) == ["artifacts/deep/card.txt", "artifacts/model.bin"]
    assert (folder / "artifacts/deep/card.txt").read_text() == sha256(TOKEN.encode()).hexdigest()
    assert (folder / "log.txt").read_bytes() == (vendor.work / "machine.log").read_bytes()
    texts += [vendor.gpurun("logs", "--raw").out, json.dumps(settled(vendor, run_id)), out, err]
    assert betrayed(vendor.home, live) == []
    assert [text for text in texts for secret in live if secret.decode() in text] == []


def test_a_run_whose_every_local_process_is_killed_is_carried_on_by_the_next_command(vendor: Desk) -> None:
    launch = vendor.start("launch", "chatty.yaml", "--provider", "lambda", "--gpu", "a10", "-y", "--accept-risk")
    run_id = vendor.running().name
    launch.process.send_signal(signal.SIGINT)
    code, out, err = launch.end()
    assert (code, out) == (130, "")
    assert f"gpurun resume {run_id}" in err
    for words in (["ps"], ["resume"]):
        killed = vendor.holder()
        psutil.Process(killed).kill()
        later = vendor.start(*words)
        wait_for(lambda killed=killed: vendor.holder() not in {0, killed}, f"another holder by {words}")
        if words == ["ps"]:
            _, out, err = later.end()
            assert "running" in out
            assert f"nobody held {run_id}" in err
    vendor.go()
    code, out, err = later.end()
    assert code == 0, err
    assert "succeeded: completed" in out
    folder = vendor.home / "runs" / run_id
    assert len(whole(folder)) == 2
    assert (folder / "log.txt").read_bytes() == (vendor.work / "machine.log").read_bytes()
    steps = [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines() if '"step"' in line
    ]
    assert steps == list(range(1, len(steps) + 1))
    assert settled(vendor, run_id)["attempt"] == 1


def test_a_detached_training_is_looked_at_and_stopped_with_its_newest_checkpoint_home(vendor: Desk) -> None:
    job = ["loop", "--set", "epochs=100000", "--set", "checkpoint_every_steps=1000000", "--set", "log_every_steps=20"]
    launched = vendor.gpurun("launch", *job, "--provider", "lambda", "--gpu", "a10", "-y", "--accept-risk", "--detach")
    assert launched.code == 0, launched.err
    folder = vendor.running()
    run_id = folder.name
    assert list(folder.glob("checkpoints/*")) == []
    looked = vendor.gpurun("ssh", run_id, "--", "ls ~/.gpurun/jobs/*/; exit 7")
    assert (looked.code, "status.json" in looked.out) == (7, True)
    waiting = vendor.start("wait", "--json")
    stopped = vendor.gpurun("stop", run_id, "-y")
    assert stopped.code == 0
    assert "outcome     stopped\n" in stopped.out
    code, out, _ = waiting.end()
    assert (code, json.loads(out)["outcome"]) == (6, "stopped")
    (checkpoint,) = folder.glob("checkpoints/step-*")
    for name, entry in json.loads((checkpoint / "CHECKPOINT.json").read_text())["files"].items():
        assert sha256((checkpoint / name).read_bytes()).hexdigest() == entry["sha256"]
    settled(vendor, run_id)
    late = vendor.gpurun("ssh", run_id, "--", "true")
    assert (late.code, "is over" in late.err) == (2, True), (late.code, late.err)
