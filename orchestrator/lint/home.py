"""What would not come home, what waits for an answer, what lacks a token: warnings for the plan. Pure."""

from __future__ import annotations

import ast
import posixpath
from typing import TYPE_CHECKING

from orchestrator.lint import rows
from orchestrator.lint.calls import places_of
from orchestrator.lint.modules import STACK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from orchestrator.lint.findings import Finding, Piece
    from orchestrator.lint.names import Names

FOLDERS = ("artifacts", "outputs")
_SAVES = {"save_pretrained": 0, "save_model": 0, "save_file": 1}  # which argument is the path
_TRAINS = frozenset(
    {"torch", "transformers", "trl", "peft", "unsloth", "keras", "tensorflow", "jax", "lightning", "sklearn"}
)
_TOKENS = {"wandb": "WANDB_API_KEY", "comet_ml": "COMET_API_KEY"}
# transformers' Trainer raises RuntimeError at once where the package of a reporter is missing (5.23).
_REPORTERS = {
    "tensorboard": ("tensorboard", "tensorboardx", "tensorflow"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "comet_ml": ("comet-ml",),
    "trackio": ("trackio",),
    "clearml": ("clearml",),
    "swanlab": ("swanlab",),
    "dvclive": ("dvclive",),
    "codecarbon": ("codecarbon",),
    "neptune": ("neptune",),
}


def check(pieces: Sequence[Piece], names: Names, secrets: Collection[str], given: Collection[str]) -> Iterator[Finding]:
    """Find them; `secrets` = names of the variables that go along, `given` = the packages that are named."""
    told: set[str] = set()
    for piece in pieces:
        for node in ast.walk(piece.tree):
            if isinstance(node, ast.Call):
                for finding in (*_saves(piece, node, names), *_call(piece, node, names, secrets, given)):
                    if finding.text not in told:
                        told.add(finding.text)
                        yield finding
    text = "\n".join(piece.text for piece in pieces)
    trains = {meant.partition(".")[0] for meant in names.known.values()} & _TRAINS
    if trains and not told and not any(folder in text for folder in (*FOLDERS, "push_to_hub")):
        last = pieces[-1]
        yield last.at(last.tree, "nothing is written to artifacts/ or outputs/: only the log comes home", error=False)


def _saves(piece: Piece, call: ast.Call, names: Names) -> Iterator[Finding]:
    places, _ = places_of(call, names)
    node: ast.expr | None = None
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if rows.ARGUMENTS in places:
        named = [value for key, _, value in names.keywords(call) if key == "output_dir"]
        node, called = (named or call.args[:1] or [None])[0], "output_dir"
    elif called in _SAVES or names.meant(call.func) == "torch.save":
        at = _SAVES.get(called, 1)
        called = called if called in _SAVES else "torch.save"
        node = call.args[at] if len(call.args) > at else None
    text = names.text(node)
    if node is not None and text and not _comes_home(text):
        yield piece.at(node, f'{called} "{text}" does not come home', "save below outputs/ or artifacts/", error=False)


def _comes_home(path: str) -> bool:
    return posixpath.normpath(path).split("/")[0] in FOLDERS


def _call(
    piece: Piece, call: ast.Call, names: Names, secrets: Collection[str], given: Collection[str]
) -> Iterator[Finding]:
    if isinstance(call.func, ast.Name) and call.func.id == "input" and "input" not in names.known:
        yield piece.at(call, "input() finds nobody there: it fails", "take it from an argument", error=False)
    called = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    for key, node, value in names.keywords(call):
        text = names.text(value)
        if key == "attn_implementation" and (text or "").startswith("flash_attention") and not _flash(given):
            yield piece.at(node, f"{text} is not installed there", '"sdpa" is, and packs as well', error=False)
        if key == "push_to_hub" and isinstance(value, ast.Constant) and value.value is True:
            yield from _needs(piece, node, "HF_TOKEN", secrets)
        if key == "report_to":
            for reporter in _texts(value, text):
                yield from _reports(piece, node, reporter, secrets, given)
    if called == "push_to_hub":
        yield from _needs(piece, call, "HF_TOKEN", secrets)


def _texts(value: ast.expr | None, text: str | None) -> list[str]:
    """Give what is written out: one text, or those of a list."""
    if isinstance(value, ast.List | ast.Tuple):
        return [each.value for each in value.elts if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return [text] if text else []


def _reports(
    piece: Piece, node: ast.AST, reporter: str, secrets: Collection[str], given: Collection[str]
) -> Iterator[Finding]:
    packages = _REPORTERS.get(reporter, ())
    if packages and given and not set(packages) & set(given):
        fix = f'dependencies = ["{packages[0]}", …], or report_to="none"'
        named = bool(set(STACK) - set(given))  # else the image may have it, beside what we promise
        yield piece.at(node, f'report_to="{reporter}" needs the package {packages[0]}', fix, error=named)
    if reporter in _TOKENS:
        yield from _needs(piece, node, _TOKENS[reporter], secrets)


def _flash(given: Collection[str]) -> bool:
    return bool({"flash-attn", "kernels", "flash-attn-3"} & set(given))


def _needs(piece: Piece, node: ast.AST, name: str, secrets: Collection[str]) -> Iterator[Finding]:
    if name not in secrets:
        yield piece.at(node, f"it needs {name} there", f"--secret {name}", error=False)
