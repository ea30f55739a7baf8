"""The commands of the image that must not be the host's: they answer for the simulated machine, or act on it alone.

`sudo` runs what it is given; `shutdown` and its kin stop the machine and leave its meter running, as on a real one;
package managers of the system install nothing, since they would do it on the host. `crontab` and `cron` are the
machine's own: who logs in has one crontab, and its lines run as a real cron runs them.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUDO = """\
# the options that scripts use; whoever logs in is as good as root here
while [ $# -gt 0 ]; do
    case $1 in
        -u | -g | -C | -p) shift 2 ;;
        -*) shift ;;
        *=*) export "$1" && shift ;;
        *) break ;;
    esac
done
[ $# -eq 0 ] || exec "$@"
"""
_CLOUD_INIT = """\
case $1 in
    status) echo "status: done" ;;
    --version) echo "/usr/bin/cloud-init 25.1.4" ;;
    *) echo "cloud-init: not simulated: $*" >&2 && exit 2 ;;
esac
"""
_APT = """\
echo "${0##*/}: a simulated machine has the packages of its host and gets no others: $*" >&2
"""
_SYSTEMCTL = """\
case $1 in
    poweroff | halt) exec shutdown ;;
    reboot) exec reboot ;;
    is-system-running) echo running ;;
    *) echo "systemctl: not simulated: $*" >&2 && exit 1 ;;
esac
"""
_CRONTAB = """\
tab={tab}
case $1 in
    -l) [ -e "$tab" ] || {{ echo "no crontab for $(id -un)" >&2; exit 1; }}; exec cat "$tab" ;;
    -) cat > "$tab.new" && mv "$tab.new" "$tab" ;;
    *) echo "crontab: not simulated: $*" >&2 && exit 2 ;;
esac
"""
_CRON = """\
tab={tab}
each() {{ # run the lines that begin with this, in the environment that a cron gives: next to none
    [ -e "$tab" ] || return 0
    sed -n "s/^$1 //p" "$tab" | sed 's/\\\\%/%/g' | while IFS= read -r line; do
        env -i HOME={home} LOGNAME="$(id -un)" SHELL=/bin/sh PATH=/usr/bin:/bin /bin/sh -c "$line" </dev/null &
    done
}}
cd {home} || exit 1
each @reboot
while sleep 60; do each '\\* \\* \\* \\* \\*'; done
"""


def _commands(root: Path) -> Iterator[tuple[str, str]]:
    """Give name and script of each."""
    init = shlex.quote(str(root / "run" / "init.pid"))
    python = shlex.quote(str(root / "usr" / "bin" / "python3"))
    smi = shlex.quote(str(root / "usr" / "share" / "nvidia_smi.py"))
    yield "nvidia-smi", f'exec {python} -I -S {smi} "$@"\n'
    yield "sudo", _SUDO
    yield "cloud-init", _CLOUD_INIT
    yield "systemctl", _SYSTEMCTL
    own = {"tab": shlex.quote(str(root / "etc" / "crontab")), "home": shlex.quote(str(root / "home"))}
    yield "crontab", _CRONTAB.format(**own)
    yield "cron", _CRON.format(**own)
    yield "reboot", f'kill -INT "$(cat {init})"\n'
    for name in ("shutdown", "poweroff", "halt"):
        # `shutdown -r` is a reboot; times are not kept, all is at once
        yield name, f'case " $* " in *" -r "*) exec reboot ;; *) kill -TERM "$(cat {init})" ;; esac\n'
    for name in ("apt-get", "apt", "dpkg"):
        yield name, _APT
    for name in ("pip", "pip3"):
        yield name, f'exec {python} -m pip "$@"\n'


def make(root: Path) -> None:
    """Write them all below `root`."""
    (root / "usr" / "share").mkdir()
    shutil.copyfile(Path(__file__).with_name("nvidia_smi.py"), root / "usr" / "share" / "nvidia_smi.py")
    for name, script in _commands(root):
        path = root / "usr" / "bin" / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
