"""A notebook's cells and metadata (nbformat 4.5), and what is printed beside it. Pure: values in, text out."""

from __future__ import annotations

import base64
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from orchestrator.plan_screen import quote_facts
from orchestrator.render import duration, facts, money, price, size

if TYPE_CHECKING:
    from orchestrator.notebook import Notebook

_COLAB = "https://colab.research.google.com"
_UNPACK = '''\
#@title 1 · Unpack, and arm the end {{display-mode: "form"}}
# Everything that runs is in here: gpurun's payload, the settings and the data. No key, no password.
import base64, hashlib, io, sys, tarfile
from pathlib import Path

SHA256 = "{digest}"
ARCHIVE = """
{archive}"""
data = base64.b64decode(ARCHIVE)
if hashlib.sha256(data).hexdigest() != SHA256:
    raise ValueError("this notebook is damaged: its archive is not what gpurun wrote. Write it anew.")
here = Path.home() / ".gpurun" / "notebooks" / SHA256[:16]


def unpack(content, below=""):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if member.isreg() and member.name.startswith(below):
                path = here / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
                path.chmod(member.mode)


unpack(data)
unpack((here / "blobs" / "{bundle}").read_bytes(), "payload/")
sys.path.insert(0, str(here / "payload"))
import cells

run = cells.Run(here)
run.arm()'''
_CODE = (
    ("start", "2 · Start the training", "run.start()"),
    ("follow", "3 · Watch it (■ ends the watching, not the training)", "run.follow()"),
    ("save", "4 · Keep what it made", "run.save()"),
    ("release", "5 · Release this machine", "run.release()"),
)


def content(made: Notebook, archive: bytes, bundle: str) -> dict[str, Any]:
    """Give the notebook as JSON values."""
    text, digest = base64.encodebytes(archive).decode(), sha256(archive).hexdigest()
    cells = [
        _cell("markdown", "about", _about(made)),
        _cell("code", "unpack", _UNPACK.format(archive=text, digest=digest, bundle=bundle)),
        *(_cell("code", name, f"#@title {title}\n{code}") for name, title, code in _CODE),
        _cell("markdown", "besides", _besides(made)),
    ]
    colab: dict[str, Any] = {"provenance": [], "gpuType": made.machine.type}
    if made.machine.high_memory:
        colab["machine_shape"] = "hm"
    metadata = {
        "accelerator": "GPU",
        "colab": colab,
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
        "gpurun": {"template": made.name, "archive": digest},
    }
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}


def _cell(kind: str, name: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": name, "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _about(made: Notebook) -> str:
    """Say what it is, what it costs, whether it fits, and what a person has to do."""
    told = [f"- **{name}**: {words}" for name, words in _quoted(made) if words]
    return "\n".join(
        [
            f"# {made.name} on a Colab {made.machine.type}",
            "",
            "Written by `gpurun notebook`. **Runtime → Run all** does everything; then leave this page open.",
            "",
            *told,
            f"- **ends**: {_ends(made)}",
            "- **watched by**: you. gpurun on your computer can neither see nor release this machine.",
            f"- **results**: {_results(made)}",
            *([f"- **secrets**: {', '.join(made.secrets)}; {_SECRETS}"] if made.secrets else []),
        ]
    )


_SECRETS = "add each under the key in the left margin, and allow this notebook to read it"


def _quoted(made: Notebook) -> list[tuple[str, str]]:
    """The quote's lines, and what an hour costs on whose word."""
    listed = made.listed
    seen = f"seen {listed.as_of}" if listed.as_of else "undated"
    units = f"{listed.units_hour} compute units an hour, " if listed.units_hour else ""
    hour = f"{made.machine}, {units}{price(listed.price)} ({seen}, confidence {listed.confidence}; {_UNITS})"
    return [("machine", hour), *quote_facts(asdict(made.quote), listed.price)]


_UNITS = "$9.99 for 100 units; nothing where Colab gives it free"


def _ends(made: Notebook) -> str:
    most = money(made.quote.worst)
    return (
        f"the machine releases itself {duration(made.seconds)} after its first cell at the latest ({most}): a watchdog"
        " on it posts to Colab's own release address, not yet tried live; if that fails, only you can: Runtime →"
        " Disconnect and delete runtime. Colab may also take it away earlier"
    )


def _results(made: Notebook) -> str:
    if made.push:
        return f"pushed to {made.push} on the Hub when it has ended well, and in a zip on the machine; then released"
    return (
        f"`{made.name}-artifacts.zip`, downloaded by this page, and the machine released minutes later. With the page"
        " closed it waits for you, and bills, until it releases itself"
    )


def _besides(made: Notebook) -> str:
    return (
        "**In a new cell:** `run.stop()` saves and stops the training (then run cells 3 to 5); `run.keep(30)` keeps the"
        " machine for 30 minutes from now, within its limit; `run.unassign()` releases it now, with all that is on it."
        "\n\nA kernel that was restarted loses nothing: run all again. Everything lies in `~/.gpurun/jobs/` on the"
        f" machine, and in `{made.name}-artifacts.zip` with SHA256SUMS."
    )


# ── what is printed ──────────────────────────────────────────────────────────────────────────────────────────────────


def page(made: Notebook, target: str, links: list[str]) -> str:
    """Say what was written, what it will cost, and what a person has to do now."""
    return facts(
        [
            ("notebook", f"{target}, {size(len(made.text.encode()))}"),
            *_quoted(made),
            *made.remarks,
            ("left out", ", ".join(made.left_out)),
            ("ends", _ends(made)),
            ("results", _results(made).replace("`", "")),
            ("secrets", f"{', '.join(made.secrets)}: {_SECRETS}" if made.secrets else ""),
            ("state", "manual: nothing runs yet, and gpurun can neither start, watch nor release it"),
            ("open", "\n".join(links)),
            ("then", "Runtime → Run all, and leave the page open until its last cell is done"),
        ]
    )


def ways(target: str, found: str = "") -> list[str]:
    """Name the ways to open it in Colab; `found` is its own link on GitHub, where it has one."""
    name = target.rpartition("/")[2]
    return [
        f"{_COLAB}/#upload=true, and choose {target}",
        found or f"or push it to GitHub: {_COLAB}/github/<you>/<repository>/blob/<branch>/{name}",
        f"or gh gist create {name}: {_COLAB}/gist/<you>/<id>",
    ]


def github_link(remote: str, branch: str, path: str) -> str:
    """Give the link of a file that lies in a repository of GitHub's; "" = it is another's."""
    from urllib.parse import quote

    for start in ("https://github.com/", "git@github.com:", "ssh://git@github.com/"):
        if remote.startswith(start) and branch:
            where = remote.removeprefix(start).removesuffix("/").removesuffix(".git")
            return f"once pushed: {_COLAB}/github/{where}/blob/{quote(branch)}/{quote(path)}"
    return ""
