"""A notebook's code cells as Python: magics are left out, what `%pip install` names is kept. Pure."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass

_PIP = re.compile(r"^\s*[!%]+\s*(?:python3? -m )?(?:uv )?pip3? install (.*)")
_ASSIGNED = re.compile(r"^(\s*)([\w.,\s\[\]]+?)\s*=\s*[!%].*")
_KEEPS_CODE = ("%%time", "%%timeit", "%%capture", "%%prun")  # the rest of the cell is Python


@dataclass(frozen=True, slots=True)
class Notebook:
    """What lint and the run must know of one."""

    cells: tuple[str, ...]  # sources of the code cells
    language: str
    problem: str = ""  # why it is none


def read(text: str) -> Notebook:
    """Read a notebook's file."""
    try:
        whole = json.loads(text)
        if not isinstance(whole, dict) or not isinstance(whole.get("cells"), list):
            return Notebook((), "", "it is no notebook of format 4: open it in Jupyter and save it anew")
        cells = [cell for cell in whole["cells"] if isinstance(cell, dict) and cell.get("cell_type") == "code"]
        kernel = (whole.get("metadata") or {}).get("kernelspec") or {}
        language = kernel.get("language") or ((whole.get("metadata") or {}).get("language_info") or {}).get("name")
        return Notebook(tuple(_source(cell) for cell in cells), str(language or "python").lower())
    except (ValueError, AttributeError) as error:
        return Notebook((), "", f"it is no notebook: {error}")


def _source(cell: dict[str, object]) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def installs(cells: tuple[str, ...]) -> list[str]:
    """Name what the cells install by themselves."""
    found = []
    for line in "\n".join(cells).splitlines():
        match = _PIP.match(line)
        for word in match[1].split() if match else ():
            name = re.match(r"[\"']?([A-Za-z0-9][\w.-]*)", word)
            if name and not word.startswith("-"):
                found.append(name[1])
    return found


def as_python(source: str) -> str:
    """Take the magics out of a cell; lines stay where they are."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return _without_magics(source)
    return source


def _without_magics(source: str) -> str:
    lines = source.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%") and not lines[first].startswith(_KEEPS_CODE):
        return "\n" * (len(lines) - 1)
    continued, indent, made = False, "", []
    for line in lines:
        stripped = line.strip()
        indent = indent if continued else line[: len(line) - len(line.lstrip())]
        magic = continued or stripped.startswith(("%", "!", "?")) or (stripped.endswith("?") and " " not in stripped)
        continued = magic and stripped.endswith("\\")
        assigned = _ASSIGNED.match(line)
        made.append(f"{indent}pass" if magic else f"{assigned[1]}{assigned[2]} = None" if assigned else line)
    return "\n".join(made)
