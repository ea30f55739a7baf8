"""A bare Debian in a folder, entered by chroot: Debian's own python3, no pip, no venv module, no compiler.

    box = Debian(tmp_path / "root", tree, index)    # of hard links: files are replaced, never written into
    box.setup()                                     # payload/setup.sh in /job, as the agent runs it

debootstrap makes it once; the tarball is kept in the user's cache. Its processes live in a PID namespace of their own
and die with it. Packages come from a loopback index of tiny wheels: of torch there is a stub, which imports, and
"computes" or fails as etc/gpu says; uv is the real one.
"""

from __future__ import annotations

import base64
import ensurepip
import fcntl
import hashlib
import http.server
import os
import shutil
import subprocess
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv

PAYLOAD = Path(__file__).parents[2] / "payload"
SUITE, PACKAGES = "bookworm", "python3"
_OUTSIDE = dict(os.environ)  # before a test's own: debootstrap alone goes to Debian's mirror
_LEFT_OUT = ("usr/share/doc/*", "usr/share/locale/*", "var/cache/*", "var/lib/apt/lists/*", "usr/lib/*/gconv/*")
_NOBODY = "http://127.0.0.1:9"
_LOOPBACK = {"http_proxy": _NOBODY, "https_proxy": _NOBODY, "no_proxy": "127.0.0.1"}  # Debian's mirror included
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unpack(tree: Path) -> Path:
    """Unpack the tarball; made on the first call on this computer: half a minute to a minute."""
    tool = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if os.geteuid() != 0 or tool is None:
        pytest.skip("needs root and debootstrap (apt-get install debootstrap)")
    cache = Path.home() / ".cache" / "gpurun-tests"
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"debian-{SUITE}-{PACKAGES.replace(',', '-')}-2.tar"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _bootstrap(tool, cache / f"root.{os.getpid()}", path)
    tree.mkdir()
    subprocess.run(["tar", "-C", tree, "-xf", path], check=True)
    return tree


def _bootstrap(tool: str, root: Path, path: Path) -> None:
    argv = [tool, "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
    done = subprocess.run(argv, env=_OUTSIDE, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    aside = path.with_suffix(".partial")
    excluded = [f"--exclude=./{pattern}" for pattern in _LEFT_OUT]
    subprocess.run(["tar", *excluded, "-C", root, "-cf", aside, "."], check=True)
    aside.rename(path)
    shutil.rmtree(root)


@dataclass(frozen=True)
class Ended:
    """How one setup ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on standard error."""
        return (self.err.splitlines() or [""])[-1]


class Debian:
    """One box: `root` is its file system, /job the job's folder."""

    def __init__(self, root: Path, tree: Path, index: Index) -> None:
        self.root = root
        self.index = index
        subprocess.run(["cp", "-al", tree, root], check=True)
        payload = root / "job" / "payload"
        payload.mkdir(parents=True)
        for name in ("setup.sh", "packages.py", "gpu_check.py", "own_setup.py"):
            shutil.copy(PAYLOAD / name, payload)
        self.write("job/payload/requirements.txt", "# two packages\ntorch>=2.6,<3\ntinydep>=1.2,<2\n")
        self.write("job/payload/requirements.lock", "tinydep==1.2\ntorch==2.13.0 ; python_full_version >= '3.11'\n")
        self.write("job/payload/installer.lock", f"uv=={uv_version()} \\\n    --hash=sha256:{index.uv_sha256}\n")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def gpu(self, *, count: int = 1, driver: str = "580.95.05", error: str = "") -> None:
        """Give the box GPUs: nvidia-smi lists them, the stub of torch computes on them, or fails with an error."""
        rows = f"${{name}}{driver}\\n" * count
        script = f'#!/bin/sh\n[ "${{1#*=}}" = driver_version ] || name="NVIDIA A10, "\nprintf "{rows}"\n'
        self.write("usr/local/bin/nvidia-smi", script, 0o755)
        self.write("etc/gpu", error)

    def driver(self, code: str) -> None:
        """Give the box a libcuda.so.1 whose cuInit is this C code."""
        text = f"int cuInit(unsigned flags) {{ {code} }}\n"
        text += (
            'int cuGetErrorString(int error, const char **text) { *text = "system not yet initialized"; return 0; }\n'
        )
        compiler = shutil.which("cc") or pytest.skip("needs a C compiler, to make a driver library")
        library = self.root / "usr/local/lib/libcuda.so.1"
        argv = [compiler, "-w", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
        subprocess.run(argv, input=text, text=True, check=True)

    def install(self, wheel: str) -> None:
        """Unpack a wheel where the image's own python3 finds it."""
        with zipfile.ZipFile(self.index.folder / wheel) as file:
            file.extractall(self.root / "usr/local/lib/python3.11/dist-packages")

    def offer_venv(self) -> None:
        """Let apt-get give the package that Debian splits off python3 (from this Python's own library: no mirror)."""
        shutil.copytree(Path(ensurepip.__file__).parent, self.root / "opt/ensurepip")
        script = '#!/bin/sh\ncase "$*" in *install*python3.11-venv) mv /opt/ensurepip /usr/lib/python3.11/ ;; esac\n'
        self.write("usr/local/bin/apt-get", script, 0o755)

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start the setup: a session of its own, nothing in the environment but what a login gives."""
        mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$@"'
        login = {"HOME": "/root", "PATH": _PATH, "UV_DEFAULT_INDEX": self.index.url, **_LOOPBACK, **env}
        login["LD_LIBRARY_PATH"] = "/usr/local/lib"  # for libcuda.so.1: ldconfig did not run
        inside = ["env", "-i", "-C", "/job", *(f"{key}={value}" for key, value in login.items())]
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", mounts, self.root, self.root]
        pipe = subprocess.PIPE
        command = [*argv, *inside, "bash", "payload/setup.sh", *words]
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def setup(self, *words: str, **env: str) -> Ended:
        with self.start(*words, **env) as process:
            out, err = process.communicate(timeout=120)
        return Ended(process.returncode, out, err)

    def python(self, code: str) -> str:
        """Run code in the environment that the setup left."""
        argv = ["chroot", self.root, "env", "-i", "-C", "/job", f"PATH={_PATH}", "env/bin/python", "-c", code]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


# ── packages ─────────────────────────────────────────────────────────────────────────────────────────────────────

TORCH = """
import types
__version__ = "{version}"
version = types.SimpleNamespace(cuda={cuda!r})
class Matrix:
    def __init__(self, side, each):
        self.side, self.each = side, each
    def __matmul__(self, other):
        return Matrix(self.side, self.side * self.each * other.each)
    def sum(self):
        return self
    def item(self):
        return self.side ** 2 * self.each
def ones(rows, columns, device):
    error = open("/etc/gpu").read()
    if version.cuda is None:
        raise AssertionError("Torch not compiled with CUDA enabled")
    if error:
        raise RuntimeError(error)
    return Matrix(rows, 1)
cuda = types.SimpleNamespace(get_device_name=lambda index: "NVIDIA A10")
"""


def uv_version() -> str:
    """Give the version of the uv that the tests have."""
    return subprocess.run([uv.find_uv_bin(), "--version"], capture_output=True, text=True, check=True).stdout.split()[1]


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str], tag: str = "py3-none-any") -> str:
    """Write a wheel; gives its file name."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = []
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(text)}")
        wheel.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return f"{name}-{version}-{tag}.whl"


class Index:
    """A package index on loopback: `asked` gathers the paths, a path in `held` is answered once it is taken out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.held: set[str] = set()
        make_wheel(folder, "torch", "2.13.0", {"torch/__init__.py": TORCH.format(version="2.13.0", cuda="13.0")})
        make_wheel(folder, "torch", "2.8.0", {"torch/__init__.py": TORCH.format(version="2.8.0", cuda="12.8")})
        make_wheel(folder, "torch", "2.7.0", {"torch/__init__.py": TORCH.format(version="2.7.0", cuda=None)})
        make_wheel(folder, "torch", "2.1.0", {"torch/__init__.py": TORCH.format(version="2.1.0", cuda="11.8")})
        make_wheel(folder, "tinydep", "1.2", {"tinydep.py": "where = 'lock'\n"})
        make_wheel(folder, "tinydep", "1.1", {"tinydep.py": "where = 'image'\n"})
        make_wheel(folder, "oldscipy", "1.0", {"oldscipy.py": ""})
        self.uv_sha256 = self._make_uv()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _make_uv(self) -> str:
        """Pack the uv that the tests have into a wheel again."""
        path = self.folder / f"uv-{uv_version()}-py3-none-manylinux_2_17_{os.uname().machine}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.write(uv.find_uv_bin(), f"uv-{uv_version()}.data/scripts/uv")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.head(index.answer(self.path))

            def do_GET(self) -> None:
                index.asked.append(self.path)
                while self.path in index.held:
                    time.sleep(0.02)
                body = index.answer(self.path)
                self.head(body)
                self.wfile.write(body)

            def head(self, body: bytes) -> None:
                self.send_response(200 if body else 404)
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/zip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        return Handler

    def answer(self, path: str) -> bytes:
        """Give a page of links, or a file."""
        folder, _, name = path.strip("/").rpartition("/")
        if folder == "simple":
            names = sorted(each.name for each in self.folder.glob(f"{name}-*.whl"))
            return "".join(f'<a href="/files/{each}">{each}</a>\n' for each in names).encode()
        file = self.folder / name
        return file.read_bytes() if folder == "files" and file.is_file() else b""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
