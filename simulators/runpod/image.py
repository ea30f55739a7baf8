"""The image of a pod, after runpod/pytorch: `/start.sh` that starts sshd, python3 with torch, and no cron, no systemd.

disk/          the container's disk: /, /root, /tmp, /etc/ssh, /start.sh; kept by a restart, wiped by a stop
image/         what the image brings: python3, nvidia-smi, `service`, sshd's configuration
volume/        the persistent mount, where the pod has one
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.machine import image, sshd

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

HOST_KEYS = ("rsa", "ecdsa", "ed25519")
# At the top of the root, in place of this computer's own; the rest is shown as it is.
OWN = ("root", "tmp", "run", "etc", "workspace", "start.sh", "srv", "media", "lost+found")
_OWN_VAR = ("lib", "log", "spool", "tmp", "cache")
# What a machine has and a container has not.
_ABSENT = ("cloud-init", "systemctl", "crontab", "cron", "reboot", "shutdown", "poweroff", "halt", "sudo")
_PROGRAMS = ("/usr/sbin", "/usr/bin")  # shown as links, so that what no container has can be left out

# After start.sh of runpod/containers (2026): without nginx and Jupyter, which nobody here asks for; the RSA key is the
# smallest that OpenSSH takes, for speed.
_START = """\
#!/bin/bash
set -e
execute_script() { if [[ -f $1 ]]; then echo "$2"; bash "$1"; fi; }
setup_ssh() {
    if [[ $PUBLIC_KEY ]]; then
        echo "Setting up SSH..."
        mkdir -p ~/.ssh
        echo "$PUBLIC_KEY" >> ~/.ssh/authorized_keys
        chmod 700 -R ~/.ssh
        for kind in rsa:1024 ecdsa:256 ed25519:256; do
            if [ ! -f /etc/ssh/ssh_host_${kind%:*}_key ]; then
                ssh-keygen -t ${kind%:*} -b ${kind#*:} -f /etc/ssh/ssh_host_${kind%:*}_key -q -N ''
                name=${kind%:*}; echo "${name^^} key fingerprint:"
                ssh-keygen -lf /etc/ssh/ssh_host_${kind%:*}_key.pub
            fi
        done
        service ssh start
        echo "SSH host keys:"
        for key in /etc/ssh/*.pub; do
            echo "Key: $key"
            ssh-keygen -lf "$key"
        done
    fi
}
export_env_vars() {
    echo "Exporting environment variables..."
    printenv | grep -E '^[A-Z_][A-Z0-9_]*=' | grep -v '^PUBLIC_KEY' \\
        | awk -F = '{ val = $0; sub(/^[^=]*=/, "", val); print "export " $1 "=\\"" val "\\"" }' > /etc/rp_environment
    grep -q rp_environment ~/.bashrc || echo 'source /etc/rp_environment' >> ~/.bashrc
}
execute_script "/pre_start.sh" "Running pre-start script..."
echo "Pod Started"
setup_ssh
export_env_vars
execute_script "/post_start.sh" "Running post-start script..."
echo "Start script(s) finished, Pod is ready to use."
sleep infinity
"""
_SERVICE = """\
[ "$1" = ssh ] || { echo "$1: unrecognized service" >&2; exit 1; }
stop() { [ ! -e /run/sshd.pid ] || kill "$(cat /run/sshd.pid)" 2>/dev/null; }
start() { echo " * Starting OpenBSD Secure Shell server sshd"; @SSHD@ -E /var/log/sshd.log; }
case $2 in
    start) start ;;
    stop) stop ;;
    restart | reload | force-reload) stop; start ;;
    status) kill -0 "$(cat /run/sshd.pid)" 2>/dev/null && echo " * sshd is running" ;;
esac
"""
# The official image has it (README of runpodctl); the way to the API is the simulator's.
_RUNPODCTL = """\
case "$1 $2" in
    "remove pod" | "pod delete") id=$3 ;;
    *) echo "runpodctl: not simulated: $*" >&2; exit 2 ;;
esac
exec python3 -I -S -c '
import json, os, sys, urllib.error, urllib.request
query = "mutation { podTerminate(input: {podId: %s}) }" % json.dumps(sys.argv[1])
body = json.dumps({"query": query}).encode()
key = {"Authorization": "Bearer " + os.environ["RUNPOD_API_KEY"], "Content-Type": "application/json"}
try:
    with urllib.request.urlopen(urllib.request.Request(os.environ["GPURUN_RUNPOD_GRAPHQL_URL"], body, key)) as answer:
        errors = json.load(answer).get("errors")
except (OSError, KeyError) as error:
    errors = [{"message": str(error)}]
sys.exit("Error: " + errors[0]["message"] if errors else 0)
' "$id"
"""
# As in the image: without a terminal nothing below is read, so a command over SSH has none of the pod's environment.
_BASHRC = '[ -z "$PS1" ] && return\n'


def make(folder: Path, gpu: image.Gpu, *, is_official: bool) -> str:
    """Make disk and image below `folder`; gives the PATH that finds the image's commands first."""
    inside = folder / "image"
    for name in ("etc", "run"):
        (inside / name).mkdir(parents=True)
    path = image.make(inside, gpu)
    script = inside / "usr" / "bin" / "runpodctl"
    script.write_text("#!/bin/sh\n" + _RUNPODCTL)
    script.chmod(0o755)
    for name in _ABSENT:
        (inside / "usr" / "bin" / name).unlink(missing_ok=True)
    make_disk(folder / "disk", is_official=is_official)
    return path


def make_disk(disk: Path, *, is_official: bool) -> None:
    """Make a fresh container disk."""
    for name in ("root", "tmp", "run/sshd", "etc/ssh", "workspace", ".host-etc", "srv", "media"):
        (disk / name).mkdir(parents=True, mode=0o755)
    (disk / "tmp").chmod(0o1777)
    (disk / "root").chmod(0o700)
    (disk / "root" / ".bashrc").write_text(_BASHRC)
    for name in _OWN_VAR:
        (disk / ".var" / name).mkdir(parents=True)
    _link(Path("/etc"), disk / "etc", "/.host-etc", {"ssh", "rp_environment"})
    for folder in _PROGRAMS:
        (disk / ".programs" / folder[5:]).mkdir(parents=True)
        _link(Path(folder), disk / ".programs" / folder[5:], f"/.host-usr/{folder[5:]}", _ABSENT)
    if is_official:
        (disk / "start.sh").write_text(_START)
        (disk / "start.sh").chmod(0o755)


def _link(folder: Path, to: Path, as_seen: str, but: Container[str]) -> None:
    for entry in folder.iterdir():
        if entry.name not in but:
            (to / entry.name).symlink_to(f"{as_seen}/{entry.name}")


def write_sshd(inside: Path, *, ip: str, port: int, user: str, environment: Mapping[str, str], stranger: bool) -> None:
    """Write sshd's configuration and the `service` that starts it. `stranger`: it shows a key that no log tells."""
    keys = [f"/etc/ssh/ssh_host_{kind}_key" for kind in HOST_KEYS]
    if stranger:
        other = inside / "etc" / "host_ed25519"
        if not other.exists():
            sshd.write_host_key(other, "")
        keys = [str(other)]
    argv = sshd.write(
        inside, ip=ip, port=port, user=user, environment=environment, host_keys=keys, home="/root", run="/run"
    )
    line = shlex.join(word for word in argv if word not in {"-D", "-e"})
    service = inside / "usr" / "bin" / "service"
    service.write_text("#!/bin/sh\n" + _SERVICE.replace("@SSHD@", line))
    service.chmod(0o755)


def binds(folder: Path, mounts: Mapping[str, Path], environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Say what is shown where in the root: (outside, inside), in this order."""
    inside = folder / "image"
    shown = [("/etc", "/.host-etc"), ("/usr", "/.host-usr")]
    shown += [
        (str(folder / "disk" / ".programs" / path[5:]), path) for path in _PROGRAMS if not Path(path).is_symlink()
    ]
    shown += [
        (str(folder / "disk" / ".var" / name), f"/var/{name}") for name in _OWN_VAR if Path("/var", name).is_dir()
    ]
    shown += [(str(outside), where) for where, outside in mounts.items()]
    return shown + [(path, path) for path in _lent(inside, environment) if _is_covered(path)]


def _lent(inside: Path, environment: Mapping[str, str]) -> list[str]:
    """Name what of this computer the image needs: Python's own, its packages, settings of pip, the resolvers."""
    packages = (inside / "etc" / "packages").read_text().splitlines()
    binary = Path(os.path.realpath(inside / "usr" / "bin" / "python3"))
    stdlib = inside / "usr" / "lib" / binary.name / "os.py"
    prefix = [str(Path(os.path.realpath(stdlib)).parents[2])] if stdlib.exists() else []
    settings = [value for value in environment.values() if value.startswith("/") and Path(value).is_file()]
    resolvers = [os.path.realpath("/etc/resolv.conf")]
    return [str(inside), *prefix, *packages, *settings, *resolvers]


def _is_covered(path: str) -> bool:
    """Whether the pod's own folders hide it. The entries of /etc are shown as links."""
    top, sub = (*Path(path).parts[1:3], "")[:2]
    own = (top in OWN and top != "etc") or (top == "var" and sub in _OWN_VAR) or (top, sub) == ("dev", "shm")
    return own and Path(path).exists()
