"""The environment of a user's own script: env/bin/python with the packages that it names, and the machine's torch.

    python payload/own_setup.py           # in a job's folder; on a rented machine setup.sh looks at the machine first
    … names | anew                        # what setup.sh asks: are packages named? the machine's torch is no use

    config.json: {"dependencies": ["trl>=1", …]}       PEP 723: an environment of its own
                 {"requirements": "requirements.txt"}  the same, from a file in code/
                 neither: what is there already (env/, else this Python), with "extras" over it
                 "python": ">=3.12", "extras": ["nbclient", …]

uv resolves with the machine's torch as a constraint; where that holds, torch is linked and not downloaded, else the
index's own is installed. Without uv, pip does it. Environments lie in ~/.gpurun/envs, or in GPURUN_HOME on the user's
own computer, and are used again. Exit 0: it is there. Other: the last line says why. Standard library only, Python 3.9.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The machine's own: built for its driver, and 3 GB.
KEPT = re.compile(r"(torch|torchvision|torchaudio|triton|pytorch-triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
BROUGHT = ("3.12", "3.11", "3.13", "3.14", "3.10")
CANDIDATES = ("python3", "/opt/conda/bin/python3", "/usr/local/bin/python3", "/usr/bin/python3")
ASK = (
    "import importlib.metadata as m, importlib.util as u, json, sys\n"
    "def version(name):\n"
    "    try: return m.version(name) if u.find_spec(name) else None\n"
    "    except m.PackageNotFoundError: return None\n"
    "print(json.dumps({'python': list(sys.version_info[:3]), 'prefix': sys.prefix, 'path': sys.path[1:],\n"
    "    'torch': {name: version(name) for name in ('torch', 'torchvision', 'torchaudio')},\n"
    "    'modules': [name for name in sys.argv[1:] if u.find_spec(name)]}))\n"
)
SETTINGS = (  # uv reads none of pip's
    ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
    ("UV_INDEX", "PIP_EXTRA_INDEX_URL"),
    ("UV_FIND_LINKS", "PIP_FIND_LINKS"),
    ("UV_CONSTRAINT", "PIP_CONSTRAINT"),
    ("SSL_CERT_FILE", "PIP_CERT"),
    ("UV_INSECURE_HOST", "PIP_TRUSTED_HOST"),
)


class SetupError(Exception):
    """It can't be made; the message is the last line."""


def say(text):
    """Tell what is done."""
    print(f"setup: {text}", flush=True)


def main(argv):
    """Make it, and link env/ to it."""
    job, anew, called = Path.cwd(), "anew" in argv[1:], os.environ.get("GPURUN_SETUP_HOME")
    config = json.loads((job / "config.json").read_text(encoding="utf-8"))
    if argv[1:] == ["names"]:
        return 0 if names(config) else 1
    if not called and job.parent == Path.home() / ".gpurun" / "jobs":  # door.py put it there: this is a machine
        sys.stdout.flush()
        os.execvp("bash", ["bash", str(HERE / "setup.sh"), "own"])  # noqa: S606 (as the agent would)
    home = Path(called or os.environ.get("GPURUN_HOME") or Path.home() / ".gpurun")
    carry_settings(home)
    try:
        with alone(home):
            made = make(job, config, home, keeps=not anew)
        if made is not None:
            aside = job / f".env.{os.getpid()}"
            aside.symlink_to(made)
            aside.replace(job / "env")
    except (SetupError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def names(config):
    """Whether packages are named; a list of none is one."""
    return config.get("dependencies") is not None or bool(config.get("requirements"))


def carry_settings(home):
    """Give uv what pip was told, and a cache beside the environments: on one file system it links."""
    env = os.environ
    for theirs, ours in SETTINGS:
        if env.get(ours) and not env.get(theirs):
            env[theirs] = env[ours]
    if env.get("PIP_NO_INDEX", "0") not in {"0", "", "false"}:
        env["UV_NO_INDEX"] = "1"
    env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    env.setdefault("UV_CACHE_DIR", str(home / "cache" / "uv"))
    env.update(UV_NO_PROGRESS="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")


@contextlib.contextmanager
def alone(home):
    """One setup at a time; setup.sh, which may have called us, holds the lock already."""
    home.mkdir(parents=True, exist_ok=True)
    if os.environ.get("GPURUN_SETUP_HOME"):
        yield
        return
    with (home / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(job, config, home, *, keeps):
    """Give the folder of the environment; None = what is there will do."""
    if not names(config):
        return layered(job, config, home)
    wanted = job / "wanted.txt"
    text = "".join(f"{line}\n" for line in [*(config.get("dependencies") or []), *config.get("extras", [])])
    file = job / "code" / config["requirements"] if config.get("requirements") else None
    wanted.write_text(text if file is None else f"-r code/{file.name}\n{text}", encoding="utf-8")
    spec = config.get("python") or ""
    python, facts = choose(spec)
    kept = {name: version for name, version in (facts or {}).get("torch", {}).items() if version and keeps}
    read = text if file is None else file.read_text(encoding="utf-8") + text
    env = home / "envs" / f"own-{digest(read, python, facts, kept, spec)}"
    if re.search(r"^\s*[-./]|://|@ ", read, re.MULTILINE):  # it names files, and they may change
        env = job / (".env" if keeps else ".env-anew")
    if not (env / ".ready").exists():
        shutil.rmtree(env, ignore_errors=True)
        env.parent.mkdir(parents=True, exist_ok=True)
        build(Maker(home, env, python or brought(spec), job / "code"), wanted, kept)
        (env / ".ready").touch()
    return env


def layered(job, config, home):
    """Lay what a notebook needs over what is there; None = it has it all."""
    base = (job / "env").resolve() / "bin" / "python"  # by its own name: env/ will be another
    base = str(base) if base.exists() else sys.executable
    extras = config.get("extras", [])
    modules = [re.match(r"\w+", name)[0] for name in extras]
    facts = ask(base, *modules)
    if facts is None:
        raise SetupError(f"{base} does not run")
    if len(facts["modules"]) == len(modules):
        return None
    env = home / "envs" / f"over-{digest(extras, facts, base)}"
    if not (env / ".ready").exists():
        shutil.rmtree(env, ignore_errors=True)
        env.parent.mkdir(parents=True, exist_ok=True)
        maker = Maker(home, env, base, job)
        maker.venv()
        sites = [path for path in facts["path"] if path.endswith(("site-packages", "dist-packages"))]
        lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in sites)
        (maker.site() / "gpurun_base.pth").write_text(lines, encoding="utf-8")
        maker.install(extras)
        (env / ".ready").touch()
    return env


def choose(spec):
    """Find the machine's Python for it, one with torch first; ("", None) = it has none, uv brings one."""
    first, seen = ("", None), set()
    for name in (sys.executable, *CANDIDATES):
        path = shutil.which(name)
        facts = ask(path) if path and path not in seen else None
        seen.add(path)
        if facts and allows(spec, facts["python"]):
            if facts["torch"]["torch"]:
                return path, facts
            first = first if first[1] else (path, facts)
    return first


def brought(spec):
    """Name the Python that uv is to bring: not the newest, for which few packages are built yet."""
    return next((version for version in BROUGHT if allows(spec, [*map(int, version.split(".")), 0])), spec)


def ask(python, *modules):
    """Ask a Python what it is and has; None = it does not run."""
    try:
        done = subprocess.run([python, "-c", ASK, *modules], capture_output=True, text=True, timeout=60, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def allows(spec, version):
    """Whether a requires-python (">=3.11,<3.13") allows a version; what it does not understand forbids."""
    for part in filter(None, (part.strip() for part in spec.split(","))):
        found = re.fullmatch(r"(>=|<=|==|!=|~=|>|<)\s*(\d+(?:\.\d+)*)(\.\*)?", part)
        if not found:
            return False
        bound = tuple(map(int, found[2].split(".")))
        have = tuple(version[: len(bound)]) if found[3] or len(bound) < 3 else tuple(version)
        holds = {
            ">=": have >= bound,
            "<=": have <= bound,
            "==": have == bound,
            "!=": have != bound,
            "~=": have >= bound and have[: len(bound) - 1] == bound[:-1],
            ">": have > bound,
            "<": have < bound,
        }
        if not holds[found[1]]:
            return False
    return True


def digest(*facts):
    """Name an environment after all that decides what is in it."""
    return hashlib.sha256(json.dumps([str(fact) for fact in facts]).encode()).hexdigest()[:12]


def build(maker, wanted, kept):
    """Resolve and install, with the machine's torch where it serves."""
    maker.venv()
    lock = maker.lock(wanted, kept) if kept and maker.uv else None
    if lock is None:
        if kept and not maker.uv:  # pip sees what a .pth file adds, and replaces nothing of it
            maker.keep()
        maker.install(["-r", str(wanted)], torch=True)
        if kept and not maker.uv and "torch" not in wanted.read_text(encoding="utf-8"):
            maker.let_go()
        return
    lines = lock.read_text(encoding="utf-8").splitlines()
    if any(line.startswith("torch==") for line in lines):
        maker.keep()
        say(f"keeping {', '.join(f'{name} {version}' for name, version in kept.items())}")
        lock.write_text("".join(f"{line}\n" for line in lines if not KEPT.match(line)), encoding="utf-8")
    maker.install(["--no-deps", "-r", str(lock)])


class Maker:
    """One environment in the making."""

    def __init__(self, home, env, python, cwd):
        self.env, self.cwd = env, cwd
        self.base = python
        self.python = str(env / "bin" / "python")
        self.pip = []  # what installs
        self.uv = installer(home)
        self.own_index = any(os.environ.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX"))

    def venv(self):
        """Make it, empty."""
        argv = [self.uv, "venv", "-q", "--python", self.base] if self.uv else [self.base, "-m", "venv", "--without-pip"]
        self.run([*argv, str(self.env)], "no environment can be made")
        if self.uv:
            self.pip = [self.uv, "pip", "install", "-q", "--python", self.python]
            return
        self.pip = [self.base, "-m", "pip", "--python", self.python]  # pip from 22.3 on; to unpack one takes its time
        if subprocess.run([*self.pip, "--version"], capture_output=True, check=False).returncode:
            self.run([self.python, "-m", "ensurepip"], "no pip can be had")
            self.pip = [self.python, "-m", "pip"]
        self.pip += ["install", "-q"]

    def site(self):
        """Its folder of packages."""
        return next((self.env / "lib").glob("python*/site-packages"))

    def keep(self):
        """Let it see the machine's torch, and nothing else of the machine's."""
        self.run([self.base, str(HERE / "packages.py"), "keep", str(self.env / "kept")], "torch can't be linked")
        (self.site() / "gpurun_kept.pth").write_text(f"{self.env / 'kept'}\n", encoding="utf-8")

    def let_go(self):
        """Do not show the machine's torch where it does not even import: nothing brought what it needs."""
        if subprocess.run([self.python, "-c", "import torch"], capture_output=True, check=False).returncode:
            (self.site() / "gpurun_kept.pth").unlink()

    def lock(self, wanted, kept):
        """Resolve with the machine's torch as it is; None = they do not go together."""
        pins, lock = self.env / "pins.txt", self.env / "lock.txt"
        public = {name: version.partition("+")[0] for name, version in kept.items()}
        pins.write_text("".join(f"{name}=={version}\n" for name, version in public.items()), encoding="utf-8")
        argv = [
            self.uv,
            "pip",
            "compile",
            "-q",
            "--python",
            self.python,
            "--no-header",
            "--no-annotate",
            "--emit-index-url",
        ]
        argv += ["--emit-find-links", "-c", str(pins), "-o", str(lock), str(wanted)]
        done = subprocess.run(
            argv, cwd=self.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            say(f"not with the machine's torch: {story(done.stderr)}")
            return None
        return lock

    def install(self, what, *, torch=False):
        """Install; with `torch`, in the build that the driver can serve."""
        argv = [*self.pip]
        if torch and self.uv and not self.own_index:
            argv += ["--torch-backend", os.environ.get("UV_TORCH_BACKEND", "auto")]
        self.run([*argv, *what], "the dependencies can't be installed")

    def run(self, argv, failed):
        """Run, its words into the log.

        Raises:
            SetupError: it failed; with the most telling of its words.
        """
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(argv, cwd=self.cwd, text=True, check=False, **both)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            raise SetupError(f"{failed}: {story(done.stdout)}")


def story(words):
    """Give the most telling line of an installer's words, and what follows it of the same sentence."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    telling = [at for at, line in enumerate(lines) if re.match(r"(error|cause|ERROR)|×|╰", line) or "o space" in line]
    said = " ".join(lines[telling[-1] :]) if telling else (lines or ["without a word"])[-1]
    return re.sub(r"^(error|cause|ERROR|×|╰─▶)[: ]*", "", said)[:280]


def installer(home):
    """Find uv, or fetch it; "" = it can't be had."""
    beside = Path(sys.executable).with_name("uv")
    for found in (shutil.which("uv"), str(beside) if beside.exists() else None):
        if found and "--torch-backend" in output([found, "pip", "install", "--help"]):
            return found
    lock = HERE / "installer.lock"
    version = re.search(r"^uv==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)[1]
    uv = home / "bin" / f"uv-{version}"
    if not uv.exists():
        words = output([sys.executable, str(HERE / "packages.py"), "fetch", str(lock), str(uv)])
        if not uv.exists():
            say(words.strip() or "uv can't be had")
            return ""
    return str(uv)


def output(argv):
    """Give what a command says."""
    try:
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
