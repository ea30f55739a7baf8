"""Every template as a notebook for Colab, executed from its first cell to its last by a real kernel, on this computer.

    python bench/notebooks.py [TEMPLATE …]

Models and rows from the Hub are stood in for by tiny ones, as in tests/payload/test_recipes.py, and the trainings are
cut to a few steps; the machine is released at a small HTTP server. Prints a row a template, writes
bench/results/local/notebooks.json, and exits 1 where one does not train, keep its weights and release its machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "payload")]

import tiny  # noqa: E402
from notebooks import execute, runtime  # noqa: E402
from test_recipes import STAND_INS  # noqa: E402

RESULT = ROOT / "bench" / "results" / "local" / "notebooks.json"


def main() -> int:
    wanted = sys.argv[1:] or list(STAND_INS)
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="2", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory(prefix="gpurun-bench-") as folder:
        os.environ["GPURUN_HOME"] = f"{folder}/home"
        models = Path(folder) / "models"
        stand_ins(models)
        rows = [measured(name, Path(folder), models) for name in wanted]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["ok"] for row in rows) else 1


def stand_ins(models: Path) -> None:
    tiny.make_models(models)
    train = tiny.rows("train.jsonl", 54)
    known = {row["label"] for row in train}
    tiny.write(models / "train.jsonl", train)
    tiny.write(models / "eval.jsonl", [row for row in tiny.rows("eval.jsonl", 100) if row["label"] in known][:24])
    glosses = tiny.rows("glosses.jsonl", 54)
    tiny.write(models / "glosses.jsonl", glosses)
    said = [(("user", row["prompt"]), ("assistant", row["completion"])) for row in glosses[:12]]
    chats = [{"messages": [{"role": role, "content": text} for role, text in pair]} for pair in said]
    tiny.write(models / "chats.jsonl", chats)


def measured(name: str, folder: Path, models: Path) -> dict[str, object]:
    """Write, execute, look at what came out."""
    work = folder / name
    work.mkdir()
    sets = [word for text in STAND_INS[name] for word in ("--set", text.format(models))]
    argv = [sys.executable, "-m", "orchestrator.cli", "notebook", name, *sets, "--gpu", "t4", "--force"]
    # a template's secrets stand in the environment; here nobody asks for them
    env = {**os.environ, "HF_TOKEN": "hf_not_needed", "PYTHONPATH": str(ROOT)}
    subprocess.run([*argv, "-o", str(work / "a.ipynb")], env=env, check=True, stdout=subprocess.DEVNULL)
    os.environ["HF_TOKEN"] = env["HF_TOKEN"]
    begun = time.monotonic()
    with runtime() as released:
        ended = execute(work / "a.ipynb", folder / "machine", released.address)
    row: dict[str, object] = {
        "template": name,
        "seconds": round(time.monotonic() - begun, 1),
        "bytes": (work / "a.ipynb").stat().st_size,
        "exit": ended.code,
        "released": len(released.posted),
        "weights": weights(next(work.glob("*-artifacts.zip"), None)),
    }
    row["ok"] = ended.code == 0 and row["released"] == 1 and row["weights"] != 0
    print(
        f"{name:20} {'ok' if row['ok'] else 'FAILED':7}", *(f"{key}={row[key]}" for key in list(row)[1:-1]), flush=True
    )
    if not row["ok"]:
        print(ended.printed[-2000:], ended.words[-2000:], sep="\n")
    return row


def weights(kept: Path | None) -> int:
    """Bytes of model weights in a zip."""
    if kept is None:
        return 0
    with zipfile.ZipFile(kept) as archive:
        return sum(one.file_size for one in archive.infolist() if one.filename.endswith(".safetensors"))


if __name__ == "__main__":
    sys.exit(main())
