"""The guard that is shipped to a scheduled job: what it needs there, and what is said where it can't begin."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from orchestrator import guard_afar
from orchestrator.settings_file import is_address

ROOT = Path(__file__).resolve().parents[2]
AFAR = ROOT / "payload" / "afar.py"
# A Python with the standard library, what is shipped, and these packages: whatever else is imported is an error.
ALONE = """
import sys
allowed = set(sys.argv[1].split()) | set(sys.stdlib_module_names) | {"orchestrator", "providers"}
class Alone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and not name.startswith("_"):
            raise ModuleNotFoundError(f"{name} is not shipped", name=name)
sys.meta_path.insert(0, Alone())
from orchestrator.cli import run
sys.exit(run(["guard", "once", "--quiet"]))
"""


def test_the_packages_that_are_named_are_all_that_a_pass_imports(tmp_path):
    with tarfile.open(fileobj=io.BytesIO(guard_afar.archive())) as tar:
        tar.extractall(tmp_path / "code", filter="data")
    names = " ".join(name.replace("-", "_") for name in guard_afar._NEEDS)
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(tmp_path / "code"),
        "GPURUN_HOME": str(tmp_path / "home"),
        "LAMBDA_API_KEY": "secret_made_up_0123456789",
        "GPURUN_LAMBDA_URL": "http://127.0.0.1:9",  # nobody is there
        "GPURUN_LAMBDA_PACE": "1000",
    }
    argv = [sys.executable, "-P", "-c", ALONE, names]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "is not shipped" not in done.stdout + done.stderr
    assert done.returncode == 5, done.stderr  # it could not look
    assert json.loads((tmp_path / "home" / "guard.json").read_text())["providers"]["lambda"]["counts"] is None


def test_what_keeps_it_from_its_passes_lies_where_its_owner_looks(tmp_path):
    (tmp_path / "in").mkdir()
    archive = guard_afar.bundle.tar_gz({"../outside": b"x"})
    (tmp_path / "in" / "gpurun.tar.gz").write_bytes(archive)
    request = {"post": "abcd", "sha256": guard_afar.bundle.hashlib.sha256(archive).hexdigest(), "seconds": 1}
    (tmp_path / "in" / "request.json").write_text(json.dumps(request))
    argv = [sys.executable, "-S", str(AFAR), str(tmp_path)]
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 1
    told = json.loads((tmp_path / "out" / "trouble.json").read_text())
    assert (told["post"], "no plain file" in told["error"]) == ("abcd", True)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("hf://alice/beef", True),
        ("hf://Alice-2/0a1b", True),
        ("hf://alice/beef/more", False),
        ("hf://alice", False),
        ("hf://al@ice/beef", False),
        ("hf://alice/BEEF", False),
    ],
)
def test_an_address_of_such_a_guard_names_an_account_and_a_home(text, good):
    assert is_address(text) is good


def test_what_the_last_job_left_is_gone_on_from_and_is_no_proof_of_this_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(AFAR.parent))
    import afar

    out, root = tmp_path / "out" / "guard.json", tmp_path / "root"
    out.parent.mkdir()
    root.mkdir()
    out.write_text(json.dumps({"when": 1.0, "alerted": ["told already"], "post": "old"}))
    guard = afar.Guard(root, tmp_path, {"post": "new"})
    guard.send()
    assert json.loads(out.read_text())["post"] == "old"
    home = root / "home" / "guard.json"
    assert json.loads(home.read_text())["alerted"] == ["told already"]
    home.write_text(json.dumps({"when": 2.0}))
    guard.send()
    assert json.loads(out.read_text()) == {"when": 2.0, "post": "new"}
