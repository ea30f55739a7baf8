"""The sshd of a simulated machine: host key, configuration and login, all below the machine's own folder.

It runs as whoever runs the simulator, and only that user can log in. Nothing in /etc is read or changed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",  # Debian, Ubuntu
    "/usr/libexec/openssh/sftp-server",  # Fedora
    "/usr/lib/ssh/sftp-server",  # Arch, Alpine, SUSE
    "/usr/libexec/sftp-server",
)
_CONFIG = """\
ListenAddress {ip}
Port {port}
AddressFamily inet
{host_keys}
PidFile {pid_file}
AuthorizedKeysFile {authorized_keys}
AllowUsers {user}
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
PermitUserEnvironment no
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
X11Forwarding no
AllowAgentForwarding no
AllowTcpForwarding yes
MaxStartups 100:30:200
MaxSessions 64
LoginGraceTime 20
ClientAliveInterval 0
LogLevel VERBOSE
AcceptEnv LANG LC_*
SetEnv {environment}
Subsystem sftp {sftp}
ForceCommand {login}
"""
# What the user asked for, as a machine without a forced command runs it.
_LOGIN = """\
#!/bin/bash
cd || exit 255
unset OLDPWD
[ -n "${SSH_ORIGINAL_COMMAND+x}" ] || exec /bin/bash
command=$SSH_ORIGINAL_COMMAND
unset SSH_ORIGINAL_COMMAND
exec /bin/bash -c "$command"
"""


def find_sshd() -> str:
    """Find the server's program.

    Raises:
        RuntimeError: it is not installed.
    """
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise RuntimeError("no sshd here, and a simulated machine is reached by SSH: apt-get install openssh-server")
    return found


def find_sftp_server() -> str:
    """Find the program that serves files.

    Raises:
        RuntimeError: it is not installed.
    """
    for path in _SFTP_SERVERS:
        if Path(path).exists():
            return path
    raise RuntimeError("no sftp-server here: apt-get install openssh-sftp-server")


def write(
    root: Path,
    *,
    ip: str,
    port: int,
    user: str,
    environment: Mapping[str, str],
    host_keys: Sequence[str] = (),
    home: str = "",
    run: str = "",
) -> list[str]:
    """Write what sshd needs below `root`; gives the command that starts it in the foreground.

    Host keys, home and the folder of its pid file lie below `root` too, unless they are named.
    """
    sshd, sftp = find_sshd(), find_sftp_server()
    home = home or str(root / "home")
    keys = host_keys or [str(root / "etc" / "host_ed25519")]
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(
            mode=0o755, exist_ok=True
        )  # where root's sshd locks itself in before it knows who calls
    login = root / "etc" / "login"
    login.write_text(_LOGIN)
    login.chmod(0o700)
    config = root / "etc" / "sshd_config"
    config.write_text(
        _CONFIG.format(
            ip=ip,
            port=port,
            user=user,
            host_keys="\n".join(f"HostKey {_quoted(key)}" for key in keys),
            pid_file=_quoted(f"{run or root / 'run'}/sshd.pid"),
            authorized_keys=_quoted(f"{home}/.ssh/authorized_keys".replace("%", "%%")),
            environment=" ".join(_quoted(f"{name}={value}") for name, value in environment.items()),
            sftp=f"{sftp} -d {shlex.quote(home)}",
            login=shlex.quote(str(login)),
        )
    )
    config.chmod(0o600)
    return [sshd, "-D", "-e", "-f", str(config)]


def _quoted(value: object) -> str:
    """Quote a word for sshd_config.

    Raises:
        ValueError: sshd_config has no way to say it.
    """
    text = str(value)
    if "\n" in text:
        raise ValueError("a line break can't stand in sshd_config")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_host_key(path: Path, user_data: str) -> None:
    """Install the ed25519 host key that user data brings, as cloud-init does; else, or where it is none, make one."""
    injected = host_key_of(user_data)
    if injected:
        _write_private(path, injected)
        if _public_key(path):
            return
        path.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "machine", "-f", str(path)], check=True)


def host_key_of(user_data: str) -> str:
    """Give the private ed25519 key in `ssh_keys` of a #cloud-config; "" where there is none."""
    if not user_data.startswith("#cloud-config"):
        return ""
    try:
        content = yaml.safe_load(user_data)
    except yaml.YAMLError:
        return ""  # cloud-init logs a warning and boots all the same
    keys = content.get("ssh_keys") if isinstance(content, dict) else None
    key = keys.get("ed25519_private") if isinstance(keys, dict) else None
    return key if isinstance(key, str) else ""


def _write_private(path: Path, key: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(key.rstrip("\n") + "\n")


def _public_key(path: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", str(path)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def write_home(skel: Path, authorized_keys: Sequence[str], path: str) -> None:
    """Write what a fresh home holds: the keys that may log in, and PATH for login shells (/etc/profile resets it)."""
    (skel / ".ssh").mkdir(parents=True, mode=0o700)
    keys = skel / ".ssh" / "authorized_keys"
    keys.write_text("".join(key.rstrip("\n") + "\n" for key in authorized_keys))
    keys.chmod(0o600)
    (skel / ".bash_profile").write_text(f"export PATH={shlex.quote(path)}\n")
