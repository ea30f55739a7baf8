"""The controller's side of payload/door.py, through a kernel: one question, one answer.

    ask("begin", request) ──> the request as a file, 0600, in a folder of ours ──> the kernel ──> door.py

A request may hold secrets: it stands in no cell, no argv, no history and no log, and its file goes once it is read.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from providers.colab.kernels import FOLDER
from providers.errors import RemoteError, StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.colab.jupyter import Jupyter
    from providers.colab.kernels import Kernel

_SECONDS = 60.0  # for an answer: a VM whose disk is busy loading a model takes its time
_BODIES = 3  # times that a request may get lost with its kernel


class Desk:
    """Where one job's questions are asked."""

    def __init__(self, jupyter: Jupyter, kernel: Kernel, mark: str) -> None:
        self._jupyter = jupyter
        self._kernel = kernel
        self._mark = mark

    def ask(self, verb: str, request: object = None, *, seconds: float = _SECONDS) -> dict[str, Any] | None:
        """Ask; None = nothing of this job was shipped yet.

        Raises:
            UnreachableError: no connection, or no answer in time: an order may have been taken.
            RemoteError: the VM says why not, or says nothing that makes sense.
        """
        if request is None:
            said = self._kernel.ask("ask", self._mark, verb, "", seconds, seconds=seconds)
        else:
            said = self._with("ask", request, (verb,), seconds)
        return None if said.get("nothing") is True else said

    def first(self, files: Mapping[str, str], request: object) -> dict[str, Any]:
        """Bring the guards, then seed.

        Raises:
            StartError: this VM can't run them.
        """
        said = self._with("first", {"files": dict(files), "seed": request}, (), 2 * _SECONDS)
        if said.get("nothing") is True:
            raise StartError("what was shipped is gone from the VM")
        return said

    def _with(self, question: str, request: object, words: tuple[str, ...], seconds: float) -> dict[str, Any]:
        content = json.dumps(request).encode()
        for _ in range(_BODIES):
            name = f"{secrets.token_hex(8)}.json"
            self._kernel.ask("room", name)
            self._jupyter.put(f"{FOLDER}/in/{name}", content)
            said = self._kernel.ask(question, self._mark, *words, name, seconds, seconds=seconds)
            if said.get("missing") is not True:
                return said
        raise RemoteError("what is uploaded to the VM is not where its kernel looks for it")
