"""What setup.sh asks Python: which packages an interpreter has, its torch made visible elsewhere, the installer.

    python packages.py lacks requirements.txt         # one line for each that is missing or out of range; exit 1
    python packages.py shows requirements.txt         # "torch 2.13.0, transformers 5.23.0, …"
    python packages.py torch requirements.txt         # "2.13.0 /usr/lib/…" where it is in range; exit 1
    python packages.py keep <folder>                  # links to this interpreter's torch and what belongs to it
    python packages.py fetch installer.lock <file>    # uv from the configured package index, checked by sha256

Nothing here imports torch: that takes seconds. Standard library only, Python 3.9: it runs before anything is there.
"""

import base64
import contextlib
import hashlib
import html
import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

# What is built for one torch and its CUDA. Nothing else of the image is let in: its numpy, scipy, scikit-learn … were
# built for each other, and transformers imports whatever it finds.
BELONGS = re.compile(
    r"(torch|torchgen|functorch|torchvision|torchaudio|triton|pytorch_triton)([.-].*)?|(nvidia|cuda)([._-].*)?"
)
TRIES = 3


# --- which packages are here


def wanted(file):
    """Give (name, [(operator, version)]) of each line of a requirements.txt that knows only >=, < and ==."""
    lines = (line.partition("#")[0].strip() for line in Path(file).read_text(encoding="utf-8").splitlines())
    for line in filter(None, lines):
        name, ranges = re.fullmatch(r"([\w.-]+)\s*(.*)", line).groups()
        yield name, re.findall(r"(>=|<|==)\s*([\w.+!]+)", ranges)


def fits(version, ranges):
    """Whether a version lies in all ranges, by its numbers alone: 2.8.0a0+34c.nv25 is 2.8.0."""
    have = numbers(version)
    compare = {">=": have.__ge__, "<": have.__lt__, "==": have.__eq__}
    return all(compare[operator](numbers(bound)) for operator, bound in ranges)


def numbers(version):
    """Give the release numbers of a version, without trailing zeros: 2.0 is 2."""
    found = [int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split(".")]
    while len(found) > 1 and found[-1] == 0:
        found.pop()
    return tuple(found)


def version_of(name):
    """Give an installed package's version; "" = it is not here, or its metadata are broken."""
    try:
        found = importlib.metadata.version(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""
    return found if re.match(r"\d", found) else ""


def lacks(file):
    """Name what is missing or out of range."""
    lines = []
    for name, ranges in wanted(file):
        version = version_of(name)
        if not version or not fits(version, ranges):
            lines.append(f"{name}{','.join(map(''.join, ranges))} ({version or 'none'})")
    print("\n".join(lines))
    return 1 if lines else 0


def shows(file):
    """Name the versions."""
    print(", ".join(f"{name} {version_of(name)}" for name, _ in wanted(file)))
    return 0


def torch(file):
    """Tell version and place of a torch that is in range."""
    version = version_of("torch")
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin or not version or not fits(version, dict(wanted(file))["torch"]):
        return 1
    print(version, Path(spec.origin).parent)
    return 0


# --- the image's torch, seen from another environment


def keep(folder):
    """Link to torch and what belongs to it; the first on the path wins, as with an import."""
    Path(folder).mkdir(parents=True)
    for place in filter(Path.is_dir, map(Path, sys.path[1:])):  # [0] is this script's own folder
        for entry in sorted(place.iterdir()):
            link = Path(folder, entry.name)
            if BELONGS.fullmatch(entry.name) and not link.is_symlink():
                link.symlink_to(entry)
    return 0


# --- the installer


def fetch(lock, target):
    """Get uv as a wheel, as pip would, and put its program into place."""
    text = Path(lock).read_text(encoding="utf-8")
    version, hashes = re.search(r"^uv==(\S+)", text, re.MULTILINE)[1], set(re.findall(r"sha256:([0-9a-f]{64})", text))
    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    wheel = re.compile(rf"uv-{re.escape(version)}-py3-none-[\w.]*manylinux[\w.]*_{machine}[\w.]*\.whl")
    said = [f"no place has uv {version} for {machine}"]
    for place in places():
        try:
            for url in filter(lambda url: wheel.fullmatch(file_name(url)), listed(place)):
                data = read(url)
                if hashlib.sha256(data).hexdigest() in hashes:
                    unpack(data, Path(target))
                    print(f"uv {version}")
                    return 0
                said.append(f"{file_name(url)} is not the file whose sha256 is in {Path(lock).name}")
        except (OSError, ValueError, zipfile.BadZipFile) as error:  # urllib's errors are OSErrors
            said.append(f"{shown(place)}: {error}")
    print(f"uv can't be had: {said[-1]}", file=sys.stderr)
    return 1


def places():
    """Give every place that pip or uv would look at, by the environment's own settings."""
    env = os.environ
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS"):
        yield from filter(None, re.split(r"[,\s]+", env.get(name, "")))
    if env.get("PIP_NO_INDEX", "0") not in {"0", "", "false"}:
        return
    chosen = next((env[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL") if env.get(name)), "")
    extra = f"{env.get('UV_INDEX', '')} {env.get('UV_EXTRA_INDEX_URL', '')} {env.get('PIP_EXTRA_INDEX_URL', '')}"
    for index in [chosen or "https://pypi.org/simple", *extra.split()]:
        yield (
            index.partition("=")[2].rstrip("/") + "/uv/" if re.match(r"[\w-]+=", index) else index.rstrip("/") + "/uv/"
        )


def listed(place):
    """Give the URLs of the files at a place: links of a page, or files of a folder."""
    if "://" not in place or place.startswith("file://"):
        folder = Path(urllib.request.url2pathname(urllib.parse.urlsplit(place).path) if "://" in place else place)
        if folder.is_dir() and not (folder / "index.html").exists():
            return [path.resolve().as_uri() for path in sorted(folder.iterdir())]
        place = (folder / "index.html").resolve().as_uri()
    page = read(place).decode("utf-8", "replace")
    return [urllib.parse.urljoin(place, html.unescape(link)) for link in re.findall(r'href="([^"#]+)', page)]


def read(url):
    """Read a URL whole, three times at most; a name and password in it go into the header."""
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(  # noqa: S310 (the index that the user chose, or PyPI)
        urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])),
        headers={"User-Agent": "gpurun"},
    )
    if parts.username:
        both = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(both.encode()).decode())
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 (as above)
                return answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 or attempt == TRIES - 1:
                raise
        except OSError:
            if attempt == TRIES - 1:
                raise
        time.sleep(2**attempt)
    raise AssertionError  # never comes: the last attempt returns or raises


def unpack(data, target):
    """Take the program out of the wheel, aside first."""
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".data/scripts/uv"))
        program = wheel.read(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    aside.write_bytes(program)
    aside.chmod(0o755)
    aside.replace(target)


def file_name(url):
    """Give the last part of a URL."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])


def shown(place):
    """Name a place without a password."""
    return re.sub(r"//[^/@]*@", "//…@", place)


if __name__ == "__main__":
    commands = {"lacks": lacks, "shows": shows, "torch": torch, "keep": keep, "fetch": fetch}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
