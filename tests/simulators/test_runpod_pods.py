"""A real container behind every pod: its own command, real sshd behind a mapped port, restarts, and the end of all."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from runpod_fixture import RTX_3090
from test_lambda_machines import NEVER, pair, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runpod_fixture import RunPodSim

PATIENCE = 30.0
SLEEPS = ["bash", "-c", "trap 'exit 7' TERM; echo up as $$; while sleep 0.1; do :; done"]


def until(fact: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


@dataclass
class Rented:
    """A pod, and what its owner knows of it."""

    sim: RunPodSim
    folder: Path
    id: str

    def direct(self) -> dict[str, Any]:
        return until(lambda: self.sim.pod(self.id)["ssh"]["direct"], "no direct SSH")

    def log(self) -> list[str]:
        """Read what the container said so far."""
        lines: list[str] = []
        params = {"source": "container", "tail": 5000}
        with self.sim.call("GET", f"/pods/{self.id}/logs", params=params, stream=True) as reply:
            for line in reply.iter_lines(decode_unicode=True):
                if line.startswith("data: "):
                    lines.append(re.search(r'"line": "(.*)"}', line)[1])
                if line.startswith(":"):
                    return lines
        return lines

    def pin(self) -> str:
        """Trust the key that the log names; gives its fingerprint."""
        told = until(lambda: [line for line in self.log() if line.endswith("(ED25519)")], "no fingerprint")
        direct = self.direct()
        scan = ["ssh-keyscan", "-t", "ed25519", "-p", str(direct["port"]), direct["host"]]
        found = until(lambda: subprocess.run(scan, capture_output=True, text=True, check=False).stdout, "no host key")
        blob = base64.b64decode(found.split()[2])
        shown = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        (self.folder / "known_hosts").write_text(found)
        assert any(shown in line for line in told), "another key than the log tells"
        return shown

    def ssh(self, command: str, *, checked: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there, trying again while nobody answers."""
        done = self.once(command)
        end = time.monotonic() + PATIENCE
        while done.returncode == NEVER and checked and time.monotonic() < end:
            time.sleep(0.1)
            done = self.once(command)
        return done

    def once(self, command: str) -> subprocess.CompletedProcess[str]:
        direct = self.direct()
        options = {
            "UserKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "LogLevel": "ERROR",
            "IdentityFile": self.folder / "client",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "2",
            "Port": direct["port"],
            "User": direct["username"],
        }
        line = ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items()), direct["host"], command]
        return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def answers(self) -> bool:
        return self.once("true").returncode == 0

    def greets(self, seconds: float) -> bool:
        """Tell whether its sshd says a word within so long."""
        direct = self.direct()
        try:
            with socket.create_connection((direct["host"], direct["port"]), timeout=seconds) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


@pytest.fixture
def rent(start_runpod: Callable[..., RunPodSim], tmp_path: Path) -> Iterator[Callable[..., Rented]]:
    """Rent one pod; everything is deleted at the end."""
    rented: list[Rented] = []

    def begin(faults: object = (), **body: Any) -> Rented:
        sim = start_runpod(machines=True, faults=faults, pace=100, start_seconds=5)
        client, public = pair()
        (tmp_path / "client").write_text(client)
        (tmp_path / "client").chmod(0o600)
        env = {"PUBLIC_KEY": public, **body.pop("env", {})}
        one = Rented(sim, tmp_path, sim.created(env=env, **body))
        rented.append(one)
        until(lambda: sim.pod(one.id)["status"] == "RUNNING", "it did not run")
        return one

    yield begin
    for each in rented:
        each.sim.delete(each.id)


def test_the_images_own_command_lets_in_whose_key_was_given_and_tells_its_host_key_in_the_log(rent) -> None:
    pod = rent(env={"MINE": "1"})
    pod.pin()
    done = pod.ssh("echo $HOME; hostname; nvidia-smi --query-gpu=name --format=csv,noheader; echo [$MINE]")
    assert done.stdout.splitlines() == ["/root", pod.id, RTX_3090, "[]"]
    # A command over SSH has none of the pod's environment: it is in a file, and with the first process.
    until(lambda: "ready to use" in " ".join(pod.log()), "its start script did not end")
    given = pod.ssh(
        ". /etc/rp_environment; echo $RUNPOD_POD_ID $RUNPOD_GPU_COUNT $MINE; ps -o args= -p 1"
    ).stdout.splitlines()
    assert given == [f"{pod.id} 1 1", "/bin/bash /start.sh"]
    names = pod.ssh("tr '\\0' '\\n' < /proc/1/environ | cut -d= -f1").stdout.split()
    assert {"RUNPOD_API_KEY", "RUNPOD_PUBLIC_IP", "RUNPOD_TCP_PORT_22", "RUNPOD_DC_ID", "GPURUN_RUNPOD_URL"} <= set(
        names
    )
    assert pod.ssh("command -v crontab systemctl sudo shutdown").stdout == ""


def test_a_pod_ends_itself_with_its_own_key_by_the_way_that_it_was_given(rent) -> None:
    pod = rent({"pod_key": {"may": "all"}})
    script = """
        export $(tr '\\0' '\\n' < /proc/1/environ | grep -E '^(RUNPOD|GPURUN_RUNPOD)')
        look() { python3 -c 'import os, sys, urllib.request as u
r = u.Request(os.environ["GPURUN_RUNPOD_URL"] + "/pods/" + os.environ["RUNPOD_POD_ID"],
              headers={"Authorization": "Bearer " + os.environ["RUNPOD_API_KEY"]})
print(u.urlopen(r).status)'; }
        look
        (exec -a x-$RUNPOD_POD_ID sleep 1000) >/dev/null 2>&1 &
        runpodctl remove pod $RUNPOD_POD_ID
    """
    assert pod.ssh("true").returncode == 0
    assert pod.once(script).stdout == "200\n"
    assert pod.sim.meter()["allocations"][0]["ended_by"] == "podTerminate"
    until(lambda: running(pod.id) == [], "something is left of it")


def test_a_container_whose_command_ends_is_started_again_and_bills(rent) -> None:
    name = f"x-{uuid.uuid4().hex}"
    last = f"exec -a {name} sleep 1000"
    pod = rent(cmd=["bash", "-c", f"echo again; [ -e /root/mark ] && {last}; touch /root/mark; exit 3"])
    assert until(lambda: pod.log()[1:], "it did not come back") == ["again"]
    until(lambda: running(name), "it does not run")
    assert pod.sim.pod(pod.id)["status"] == "RUNNING"
    assert pod.sim.meter()["billing_now"] == 1
    pod.sim.delete(pod.id)
    until(lambda: running(name) == [], "it outlived its pod")


def test_a_restart_ends_what_ssh_started_keeps_the_disk_and_maps_another_port(rent) -> None:
    pod = rent()
    shown = pod.pin()
    before = pod.direct()["port"]
    assert (
        pod.ssh(
            "echo kept > note; echo lost > /dev/shm/x; (exec -a x-$(hostname) sleep 1000) >/dev/null 2>&1 &"
        ).returncode
        == 0
    )
    until(lambda: running(f"x-{pod.id}"), "it does not run")
    pod.sim.data("POST", f"/pods/{pod.id}/action", {"action": "restart"})
    until(lambda: pod.direct()["port"] != before, "the port is the same")
    assert pod.ssh("cat note; cat /dev/shm/x").stdout == "kept\n"
    assert running(f"x-{pod.id}") == []
    assert pod.pin() == shown


def test_a_stop_wipes_the_disk_and_keeps_the_volume(rent) -> None:
    pod = rent(mounts={"persistent": {"size": 10, "path": "/workspace"}})
    shown = pod.pin()
    pod.ssh("echo a > note; echo b > /workspace/note")
    for action, status in (("stop", "EXITED"), ("start", "RUNNING")):
        pod.sim.data("POST", f"/pods/{pod.id}/action", {"action": action})
        until(lambda: pod.sim.pod(pod.id)["status"] == status, status)  # noqa: B023 - used at once
    assert pod.ssh("cat /workspace/note; ls").stdout == "b\n"
    assert pod.pin() != shown


def test_a_command_of_ones_own_starts_no_sshd_and_what_it_says_is_in_the_log(rent) -> None:
    pod = rent(args='{"entrypoint": ["/bin/bash", "-c"], "cmd": ["echo $0 $PWD as $$; exec sleep 1000"]}')
    assert until(pod.log, "it said nothing") == ["/bin/bash / as 1"]
    assert not pod.answers()


def test_a_command_that_is_not_there_is_tried_for_ever(rent) -> None:
    pod = rent(image="ubuntu:24.04", cmd=["/start.sh"])
    assert until(lambda: pod.log()[1:], "it was tried once")[0] == "exec: /start.sh: No such file or directory"


def test_nobody_may_listen_behind_a_mapped_port(rent) -> None:
    pod = rent(["sshd_never"])
    until(lambda: "ready to use" in " ".join(pod.log()), "its start script did not end")
    assert "refused" in pod.once("true").stderr


def test_a_pod_can_be_born_broken(rent) -> None:
    pod = rent({"wrong_host_key": 1, "driver_old": 1, "cuda_broken": 1, "disk_full": {"after": 0}})
    assert pod.sim.state()["instances"][0]["faults"] == ["cuda_broken", "disk_full", "driver_old", "wrong_host_key"]
    with pytest.raises(AssertionError, match="another key than the log tells"):
        pod.pin()
    said = pod.ssh("nvidia-smi --query-gpu=driver_version --format=csv,noheader; head -c 400000000 /dev/zero > big")
    assert (said.stdout, said.returncode != 0) == ("525.147.05\n", True)
    assert "No space left on device" in said.stderr


def test_the_link_is_cut_frozen_and_healed_at_the_controls_word(rent) -> None:
    pod = rent()
    assert pod.ssh("true").returncode == 0
    assert pod.sim.tell("/link", {"instance": pod.id, "do": "cut", "after_bytes": 1_000_000}) == {"links": 1}
    assert pod.once("head -c 5000000 /dev/zero").returncode == NEVER
    assert pod.answers()
    pod.sim.tell("/link", {"instance": pod.id, "do": "freeze"})
    assert not pod.greets(0.3)
    pod.sim.tell("/link", {"instance": None, "do": "heal"})
    assert pod.greets(PATIENCE)
    pod.sim.faults({"link_cut": {"instance": pod.id, "after": 0, "bytes": 1_000_000}})
    assert pod.once("head -c 5000000 /dev/zero").returncode == NEVER
    for fault in ("link_blackhole", "link_freeze"):
        pod.sim.faults({fault: {"instance": pod.id, "after": 0, "seconds": 10}})  # a tenth of a second of ours
        assert pod.ssh("true").returncode == 0


def test_a_pod_leaves_no_trace_outside_and_ends_alone(rent) -> None:
    pod = rent()
    other = pod.sim.created(cmd=SLEEPS)
    until(lambda: pod.sim.pod(other)["status"] == "RUNNING", "the other does not run")
    name = f"note-{pod.id}"
    places = [f"{folder}/{name}" for folder in ("/tmp", "/workspace", "/etc", "/root", "/var/lib", "")]
    assert pod.ssh(f"echo x | tee {' '.join(places)}; cat {' '.join(places)}").stdout == "x\n" * 7
    assert [path for path in places if Path(path).exists()] == []
    pod.sim.delete(other)
    assert pod.ssh("true").returncode == 0
