"""A real machine behind every instance: real sshd, verified at the first connection, gone with the terminate."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from boxes import until
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators_fixture import LambdaSim

NEVER = 255  # ssh's exit code for its own failures


def pair() -> tuple[str, str]:
    """Make a key pair: (private, public) as OpenSSH has them."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(), public.decode()


@dataclass
class Rented:
    """An instance, and what its owner knows of it."""

    sim: LambdaSim
    folder: Path
    id: str
    address: str

    def ssh(self, command: str, *, patience: float = 8) -> subprocess.CompletedProcess[str]:
        """Run a command there with the pinned host key, trying again while nobody answers."""
        options = {
            "UserKnownHostsFile": self.folder / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "IdentityFile": self.folder / "client",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "1",
            "Port": self.sim.exports["GPURUN_LAMBDA_SSH_PORT"],
            "User": self.sim.exports["GPURUN_LAMBDA_SSH_USER"],
        }
        line = ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items()), self.address, command]
        end = time.monotonic() + patience
        while True:
            done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
            if done.returncode != NEVER or "refused" not in done.stderr or time.monotonic() > end:
                return done
            time.sleep(0.05)

    def answers(self) -> bool:
        """Tell whether its sshd greets within a moment."""
        try:
            port = int(self.sim.exports["GPURUN_LAMBDA_SSH_PORT"])
            with socket.create_connection((self.address, port), timeout=0.2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def running(word: str) -> list[str]:
    """Name the processes with a word in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


@pytest.fixture
def rent(start_lambda: Callable[..., LambdaSim], tmp_path: Path) -> Iterator[Callable[..., Rented]]:
    """Rent one machine whose host key was made here; everything is terminated at the end."""
    rented: list[Rented] = []

    def begin(faults: object = (), **options: Any) -> Rented:
        sim = start_lambda(machines=True, faults=faults, **{"pace": 100, "boot_seconds": 5, **options})
        sim.may_hurry = True
        client, public = pair()
        host, host_public = pair()
        (tmp_path / "client").write_text(client)
        (tmp_path / "client").chmod(0o600)
        indented = "".join(f"    {line}\n" for line in host.splitlines())
        user_data = (
            "#cloud-config\nssh_deletekeys: true\nssh_keys:\n"
            f"  ed25519_private: |\n{indented}  ed25519_public: {host_public}\n"
        )
        one = sim.launched(key=public, user_data=user_data)
        address = ""
        while not address:
            sim.advance(1.5)
            row = sim.data("GET", f"/instances/{one}")
            address = row.get("ip", "") if row["status"] == "active" else ""
        port = sim.exports["GPURUN_LAMBDA_SSH_PORT"]
        (tmp_path / "known_hosts").write_text(f"[{address}]:{port} {host_public}\n")
        rented.append(Rented(sim, tmp_path, one, address))
        return rented[-1]

    yield begin
    for each in rented:
        each.sim.terminate(each.id)


def test_the_first_connection_is_verified_and_a_terminate_ends_every_process(rent) -> None:
    machine = rent()
    done = machine.ssh("nvidia-smi --query-gpu=name --format=csv,noheader; sleep 98765 >&- 2>&- & echo $HOME")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "NVIDIA A10"
    home = Path(done.stdout.splitlines()[1])
    assert home != Path.home()
    until(lambda: running("98765"), "its words")  # between fork and exec it has none
    assert running(machine.id)
    machine.sim.terminate(machine.id)
    until(lambda: not home.exists() and not running(machine.id), "its end")
    assert (running("98765"), running(machine.id), home.exists()) == ([], [], False)
    assert machine.ssh("true", patience=0).returncode == NEVER


def test_a_shutdown_inside_does_not_stop_the_meter_and_a_restart_brings_it_back(rent) -> None:
    machine = rent()
    assert machine.ssh("echo kept > note").returncode == 0
    machine.ssh("sudo shutdown -h now")
    until(lambda: machine.ssh("true", patience=0).returncode != 0, "its shutdown")
    machine.sim.advance(600)
    assert machine.sim.data("GET", f"/instances/{machine.id}")["status"] == "active"
    (row,) = machine.sim.meter()["allocations"]
    assert (row["ended"], row["minutes"] >= 10) == (None, True)
    machine.sim.data("POST", "/instance-operations/restart", {"instance_ids": [machine.id]})
    assert machine.ssh("cat note").stdout == "kept\n"


def test_another_host_key_than_the_one_made_here_is_refused(rent) -> None:
    done = rent(["wrong_host_key"]).ssh("true")
    assert done.returncode == NEVER
    assert "HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_sshd_can_come_late(rent) -> None:
    machine = rent({"sshd_late": {"seconds": 1000}})
    assert "refused" in machine.ssh("true", patience=0.3).stderr
    machine.sim.advance(1000)
    assert machine.ssh("true").returncode == 0


def test_sshd_can_stay_away_while_the_vendor_says_active(rent) -> None:
    machine = rent(["sshd_never"])
    machine.sim.advance(10_000)
    assert "refused" in machine.ssh("true", patience=0.3).stderr


def test_a_full_disk_is_full_for_real(rent) -> None:
    done = rent(["disk_full"]).ssh("sleep 0.3; head -c 1000000 /dev/zero > big")
    assert done.returncode not in {0, NEVER}
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("fault", ["cuda_broken", "driver_old"])
def test_a_machine_can_be_born_broken(rent, fault: str) -> None:
    machine = rent([fault])
    assert machine.sim.state()["instances"][0]["faults"] == [fault]
    assert machine.ssh("true").returncode == 0


def test_the_link_can_be_cut_after_so_many_bytes(rent) -> None:
    machine = rent({"link_cut": {"after": 0, "bytes": 3_000_000}})
    assert machine.ssh("head -c 20000000 /dev/zero").returncode == NEVER
    assert len(machine.ssh("head -c 5000000 /dev/zero").stdout) == 5_000_000
    assert machine.sim.state()["instances"][0]["passed_bytes"] > 5_000_000


def test_the_link_is_cut_at_the_controls_word(rent) -> None:
    machine = rent()
    while not machine.answers():
        pass
    assert machine.sim.tell("/link", {"instance": machine.id, "do": "cut", "after_bytes": 1_000_000}) == {"links": 1}
    assert machine.ssh("head -c 5000000 /dev/zero").returncode == NEVER
    assert machine.ssh("true").returncode == 0


@pytest.mark.parametrize("fault", ["link_blackhole", "link_freeze"])
def test_a_link_that_is_silent_heals_by_itself(rent, fault: str) -> None:
    machine = rent({fault: {"after": 10_000, "seconds": 20_000}})
    while not machine.answers():
        pass
    machine.sim.advance(100)
    assert not machine.answers()
    machine.sim.advance(200)
    until(machine.answers, "its greeting")


def test_two_machines_have_their_own_addresses_and_one_port(rent) -> None:
    machine = rent()
    machine.sim.advance(13)
    other = machine.sim.launched()
    machine.sim.advance(200)
    rows = {row["id"]: row["ip"] for row in machine.sim.data("GET", "/instances")}
    assert len(set(rows.values())) == 2
    machine.sim.terminate(other)
    assert machine.ssh("true").returncode == 0
