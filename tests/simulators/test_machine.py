"""A simulated machine as its tenant sees it, through the system's own ssh, and as its landlord ends it."""

from __future__ import annotations

import errno
import getpass
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from simulators.machine import FAULTS, Machine

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]
# A daemon as stubborn as can be: a session of its own, orphaned twice, an empty environment, deaf to SIGTERM.
DAEMON = """
import os, signal, sys, time
if len(sys.argv) == 2:
    os.execve(sys.executable, [sys.executable, "-I", "-S", *sys.argv, "bare"], {})
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.chdir("/")
null = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)
beat = sys.argv[1]
while True:
    open(beat, "w").write(str(time.time()))
    time.sleep(0.02)
"""


def make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@pytest.fixture
def order(tmp_path):
    """What a machine is made of, and a client's key for it."""
    public = make_key(tmp_path / "client")
    return {
        "root": tmp_path / "machines" / "m1",
        "name": "m1",
        "ip": f"127.{uuid.uuid4().int % 200 + 20}.{uuid.uuid4().int % 250 + 1}.2",
        "port": 2200,
        "user": getpass.getuser(),
        "authorized_keys": [public],
        "user_data": "",
        "gpus": 2,
        "gpu_name": "NVIDIA A10",
        "memory_mib": 23028,
        "faults": frozenset(),
    }


@pytest.fixture
def rent(order):
    """Boot a machine, with changes to the order; all are destroyed at the end."""
    made = []

    def boot(**changes) -> Machine:
        made.append(Machine(**{**order, **changes}))
        made[-1].boot()
        return made[-1]

    yield boot
    for machine in made:
        machine.destroy()


@pytest.fixture
def ssh(order, tmp_path):
    """Run a command there as a user would."""

    def run(command: str, *options: str, program: str = "ssh", **how) -> subprocess.CompletedProcess[str]:
        known = tmp_path / "known_hosts"
        argv = [program, "-F", "none", "-i", str(tmp_path / "client"), "-o", f"UserKnownHostsFile={known}"]
        argv += ["-o", "GlobalKnownHostsFile=none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", *options]
        argv += ["-o", "StrictHostKeyChecking=accept-new", "-o", f"Port={order['port']}", order["ip"]]
        argv += [command] if program == "ssh" else []
        env = {"PATH": os.environ["PATH"], "LEAKED": "yes"}
        return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env, **how)

    return run


def until(fact, what: str):
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < end, what
        time.sleep(0.01)
    return found


def beats(file: Path) -> bool:
    """Whether a daemon still writes the time."""
    before = file.read_text() if file.exists() else ""
    time.sleep(0.1)
    return file.exists() and file.read_text() != before


# ── as its tenant sees it ────────────────────────────────────────────────────────────────────────────────────────


def test_a_command_runs_through_a_shell_in_the_machines_own_home(rent, ssh, monkeypatch):
    monkeypatch.setenv("LEAKED", "yes")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    machine = rent()
    done = ssh('echo "$PWD|$HOME|$LEAKED|$PIP_INDEX_URL|$SSH_ORIGINAL_COMMAND|it\'s"; echo no >&2; exit 7')
    assert done.stdout == f"{machine.home}|{machine.home}||http://127.0.0.1:9/simple||it's\n"
    assert (done.stderr, done.returncode) == ("no\n", 7)


def test_standard_input_reaches_the_command_and_a_shell_without_one(rent, ssh):
    rent()
    assert ssh("cat", input="a\nb").stdout == "a\nb"
    assert ssh("", input="echo $((6 * 7))\n").stdout == "42\n"


def test_a_terminal_can_be_had(rent, ssh):
    rent()
    assert ssh("tty", "-tt").stdout.startswith("/dev/pts/")


def test_sftp_starts_at_home(rent, ssh, tmp_path):
    machine = rent()
    (tmp_path / "here").write_text("bytes")
    done = ssh("", "-b", "-", program="sftp", input=f"put {tmp_path}/here there\npwd\n")
    assert done.returncode == 0, done.stderr
    assert (machine.home / "there").read_text() == "bytes"


def test_only_its_own_keys_get_in(rent, ssh, tmp_path):
    stranger = make_key(tmp_path / "stranger")
    rent(authorized_keys=[stranger])
    assert "Permission denied" in ssh("true").stderr


@pytest.mark.parametrize(("faults", "same"), [(set(), True), ({"wrong_host_key"}, False)])
def test_the_host_key_is_the_one_in_user_data_unless_the_fault_says_otherwise(rent, ssh, tmp_path, faults, same):
    public = make_key(tmp_path / "host")
    private = (tmp_path / "host").read_text().replace("\n", "\n    ")
    data = "#cloud-config\nssh_deletekeys: true\nssh_keys:\n  ed25519_private: |\n    " + private
    rent(user_data=data + f"\n  ed25519_public: {public}\nruncmd: [[true]]\n", faults=frozenset(faults))
    assert ssh("true").returncode == 0
    assert (public.split()[1] in (tmp_path / "known_hosts").read_text()) is same


@pytest.mark.parametrize(
    "data", ["#!/bin/sh\ntrue", "#cloud-config\n{", "#cloud-config\nssh_keys: {ed25519_private: x}"]
)
def test_user_data_without_a_key_that_works_still_boots(rent, ssh, data):
    rent(user_data=data)
    assert ssh("echo up").stdout == "up\n"


def test_paths_with_quotes_and_spaces_work(rent, ssh, tmp_path):
    machine = rent(root=tmp_path / 'it\'s "a" $HOME %h')
    assert ssh('cd && pwd && python3 -c "print(6 * 7)"').stdout == f"{machine.home}\n42\n"


# ── the image ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("faults", [set(), {"cuda_broken"}, {"driver_old"}])
def test_nvidia_smi_knows_the_cards_whatever_is_wrong_with_cuda(rent, ssh, faults):
    rent(faults=frozenset(faults))
    query = "nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader"
    lines = ssh(f"{query} && {query},nounits -i 0 && nvidia-smi -L && nvidia-smi").stdout.splitlines()
    driver = "525.147.05" if "driver_old" in faults else "570.148.08"
    assert lines[:3] == [f"NVIDIA A10, 23028 MiB, {driver}"] * 2 + [f"NVIDIA A10, 23028, {driver}"]
    assert re.fullmatch(r"GPU 1: NVIDIA A10 \(UUID: GPU-[0-9a-f-]{36}\)", lines[4])
    assert f"Driver Version: {driver}" in "".join(lines[5:])


def test_sudo_runs_what_it_is_given_and_cloud_init_is_done(rent, ssh):
    rent()
    assert ssh("sudo -n -E X=1 sh -c 'echo $X' && cloud-init status --wait").stdout == "1\nstatus: done\n"


def test_package_managers_do_nothing_to_the_host(rent, ssh):
    machine = rent()
    places = ssh("command -v apt-get apt dpkg pip systemctl shutdown poweroff").stdout.split()
    assert len(places) == 7
    assert all(place.startswith(str(machine.root)) for place in places)
    assert ssh("sudo apt-get install -y nothing-of-that-name").returncode == 0


def test_login_shells_find_the_image_first_too(rent, ssh):
    machine = rent()
    assert ssh("bash -lc 'command -v python3'").stdout == f"{machine.root}/usr/bin/python3\n"


def test_environments_see_the_images_packages_where_they_are_made_to(rent, ssh):
    rent()
    look = "import importlib.util as u; print(u.find_spec('torch') is not None)"
    make = "python3 -m venv --without-pip --system-site-packages open && python3 -m venv --without-pip shut"
    done = ssh(f'{make} && for p in python3 open/bin/python shut/bin/python; do $p -I -c "{look}"; done')
    assert done.stdout.split() == ["True", "True", "False"], done.stderr


def test_a_python_without_torch_gives_a_bare_image(rent, ssh, monkeypatch):
    monkeypatch.setenv("GPURUN_PYTHON", sys._base_executable)
    if subprocess.run([sys._base_executable, "-Ic", "import torch"], capture_output=True, check=False).returncode == 0:
        monkeypatch.setenv("GPURUN_PYTHON", "/usr/bin/python3")
    rent()
    look = "import sys, importlib.util as u; print(sys.version_info[0], u.find_spec('torch'))"
    assert ssh(f'python3 -c "{look}"').stdout == "3 None\n"


def test_a_python_without_site_is_left_alone(rent, ssh):
    rent()
    assert ssh("python3 -I -S -c 'import sys; print(len(sys.meta_path))'").stdout == "3\n"


# ── its ends ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("isolated", [True, False])
def test_destroying_ends_every_process_and_removes_every_file(rent, ssh, tmp_path, isolated):
    machine = rent(isolated=isolated)
    (tmp_path / "daemon.py").write_text(DAEMON)
    assert (
        ssh(f"python3 {tmp_path}/daemon.py {tmp_path}/beat; mkdir locked; touch locked/x; chmod 0 locked").stderr == ""
    )
    until(lambda: beats(tmp_path / "beat"), "the daemon never lived")
    machine.destroy()
    assert not beats(tmp_path / "beat")
    assert not machine.root.exists()
    assert not machine.alive
    assert ssh("true").returncode == 255
    machine.destroy()


def words_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""  # ended meanwhile


def test_without_a_namespace_what_outlives_its_init_is_found_by_the_mark(rent, ssh, tmp_path):
    machine = rent(isolated=False)
    (tmp_path / "daemon.py").write_text(DAEMON.replace("if len(sys.argv) == 2:", "if False:"))
    ssh(f'python3 {tmp_path}/daemon.py {tmp_path}/beat; kill -9 "$(cat {machine.root}/run/init.pid)"')
    assert beats(tmp_path / "beat")
    machine.destroy()
    assert not beats(tmp_path / "beat")
    assert not [
        path
        for path in Path("/proc").glob("[0-9]*")
        if "sshd" in words_of(path) and f"{machine.root}/" in words_of(path)
    ]


def test_from_an_isolated_machine_nothing_outside_can_be_hit(rent, ssh):
    rent(isolated=True)
    if ssh("readlink /proc/self/ns/pid").stdout.strip() == str(Path("/proc/self/ns/pid").readlink()):
        pytest.skip("needs Linux to let this user make namespaces")
    assert ssh(f"kill -0 {os.getpid()}").returncode != 0
    assert ssh("ps -e | grep -c pytest").stdout == "0\n"


@pytest.mark.parametrize("isolated", [True, False])
def test_a_simulator_that_is_killed_leaves_nothing_running(order, ssh, tmp_path, isolated):
    (tmp_path / "daemon.py").write_text(DAEMON)
    order = {**order, "root": str(order["root"]), "faults": [], "isolated": isolated}
    code = f"""
import json, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from simulators.machine import Machine
order = json.loads(sys.argv[1])
Machine(**{{**order, "root": Path(order["root"]), "faults": frozenset()}}).boot()
print("up", flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(order)], stdout=subprocess.PIPE, text=True
    ) as simulator:
        assert simulator.stdout.readline() == "up\n"
        ssh(f"python3 {tmp_path}/daemon.py {tmp_path}/beat")
        until(lambda: beats(tmp_path / "beat"), "the daemon never lived")
        config = Path(order["root"], "etc", "sshd_config").read_text()
        address = (order["ip"], int(re.search(r"^Port (\d+)", config, re.MULTILINE)[1]))
        socket.create_connection(address).close()
        simulator.send_signal(signal.SIGKILL)

    def is_gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(address) != 0

    until(is_gone, "its sshd outlived it")
    until(lambda: not beats(tmp_path / "beat"), "a daemon outlived it")


@pytest.mark.parametrize("isolated", [True, False])
def test_a_reboot_ends_every_process_and_keeps_every_file(rent, ssh, tmp_path, isolated):
    machine = rent(isolated=isolated)
    (tmp_path / "daemon.py").write_text(DAEMON)
    ssh(f"echo kept > file; python3 {tmp_path}/daemon.py {tmp_path}/beat")
    until(lambda: beats(tmp_path / "beat"), "the daemon never lived")
    machine.reboot()
    assert not beats(tmp_path / "beat")
    assert ssh("cat file").stdout == "kept\n"


@pytest.mark.parametrize("command", ["sudo shutdown -h now", "poweroff", "sudo systemctl poweroff"])
def test_a_shutdown_from_inside_switches_it_off_until_it_is_rebooted(rent, ssh, command):
    machine = rent()
    ssh(f"touch file; {command}; sleep 60")
    until(lambda: not machine.alive, "it is still on")
    assert ssh("true").returncode == 255
    machine.reboot()
    assert machine.alive
    assert ssh("ls").stdout == "file\n"


def test_a_reboot_from_inside_brings_it_back(rent, ssh):
    rent()
    ssh("sudo shutdown -r now; sleep 60")
    until(lambda: ssh("echo up").stdout == "up\n", "it did not come back")


def test_an_sshd_that_dies_comes_back(rent, ssh):
    machine = rent()
    assert ssh(f'kill -9 "$(cat {machine.root}/run/sshd.pid)"').returncode in {0, 255}
    until(lambda: ssh("echo up").stdout == "up\n", "it did not come back")


def test_a_full_disk_takes_no_byte_more_until_something_is_deleted(rent, ssh):
    machine = rent(faults=frozenset({"disk_full"}))
    ssh("head -c 1000000 /dev/zero > big")
    machine.fill_disk()
    done = ssh("head -c 100000 /dev/zero > more")
    assert "No space left on device" in done.stderr
    assert done.returncode != 0
    assert ssh("rm big && head -c 100000 /dev/zero > more && wc -c < more").stdout == "100000\n"


def test_a_disk_that_was_not_made_to_fill_says_so(rent):
    machine = rent()
    with pytest.raises(RuntimeError, match="make it with the fault disk_full"):
        machine.fill_disk()


# ── how it starts ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_late_sshd_is_not_waited_for_and_comes(rent, ssh, order):
    machine = rent(faults=frozenset({"sshd_late"}), late_seconds=0.5)
    with socket.socket() as probe:
        assert probe.connect_ex((order["ip"], order["port"])) == errno.ECONNREFUSED
    assert machine.alive
    until(lambda: ssh("echo up").stdout == "up\n", "it never came")


def test_an_sshd_that_never_comes_does_not_hinder_the_end(rent, ssh):
    machine = rent(faults=frozenset({"sshd_never"}))
    assert ssh("true").returncode == 255
    machine.reboot()
    assert ssh("true").returncode == 255
    machine.destroy()
    assert not machine.root.exists()


def test_what_was_never_booted_can_be_destroyed(order):
    machine = Machine(**order)
    assert not machine.alive
    machine.destroy()
    machine.destroy()


def test_a_wish_that_no_machine_can_meet_is_refused(order):
    with pytest.raises(ValueError, match="unknown fault moody; known are cuda_broken"):
        Machine(**{**order, "faults": FAULTS | {"moody"}})
    with pytest.raises(ValueError, match=f"{getpass.getuser()}, not somebody-else"):
        Machine(**{**order, "user": "somebody-else"})


def test_where_no_sshd_is_installed_the_error_names_what_to_install(order, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    machine = Machine(**order)
    with pytest.raises(RuntimeError, match="apt-get install openssh-server"):
        machine.boot()
    machine.destroy()
