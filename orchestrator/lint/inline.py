"""The packages that a script names: PEP 723's block in its comments, or a requirements.txt. Pure.

    # /// script
    # requires-python = ">=3.11"
    # dependencies = ["trl>=1", "datasets"]
    # ///

https://packaging.python.org/en/latest/specifications/inline-script-metadata/
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_OPENS = re.compile(r"(?m)^#\s*///\s*script\s*$")
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[^\]]*\])?\s*(.*)", re.DOTALL)
_RANGE = re.compile(
    r"\(?\s*(?:===|~=|==|!=|<=|>=|<|>)\s*[\w.*+!-]+(?:\s*,\s*(?:===|~=|==|!=|<=|>=|<|>)\s*[\w.*+!-]+)*\s*\)?"
)
_PYTHON = re.compile(r"\s*(?:~=|==|!=|<=|>=|<|>)\s*\d+(?:\.\d+)*(?:\.\*)?\s*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One requirement: a package by name; `ranges` is what is said of its version."""

    name: str  # in its plain spelling: lower case, single hyphens
    ranges: str
    line: int
    cell: int = 0
    elsewhere: bool = False  # at an address, in no index


@dataclass(frozen=True, slots=True)
class Packages:
    """What a script asks for. `dependencies` None = it names nothing, which is not a list of none."""

    dependencies: tuple[str, ...] | None = None
    python: str = ""
    wanted: tuple[Wanted, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()  # line, what is wrong
    more: bool = False  # it names others that are not known here: -r, -e, a path

    def of(self, name: str) -> Wanted | None:
        """Find what is asked of a package."""
        return next((one for one in self.wanted if one.name == name), None)


def plain(name: str) -> str:
    """Spell a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(text: str) -> Packages:
    """Read the block of a script; malformed ones are told as problems."""
    blocks = [found for found in _BLOCK.finditer(text) if found["type"] == "script"]
    opened = [text.count("\n", 0, found.start()) + 1 for found in _OPENS.finditer(text)]
    if len(blocks) > 1:
        return Packages(problems=((opened[1], "a second block # /// script: there may be one"),))
    if not blocks:
        said = "the block # /// script is never closed by a line # ///, or holds a line that is no comment"
        return Packages(problems=((opened[0], said),)) if opened else Packages()
    line = text.count("\n", 0, blocks[0].start()) + 1
    content = "".join(
        part[2:] if part.startswith("# ") else part[1:] for part in blocks[0]["content"].splitlines(keepends=True)
    )
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        return Packages((), problems=((line + int(at[1]) if at else line, f"the block # /// script: {error}"),))
    return _checked(values, line, text.splitlines())


def _checked(values: dict[str, object], line: int, lines: list[str]) -> Packages:
    problems: list[tuple[int, str]] = []
    given, python = values.get("dependencies", []), values.get("requires-python", "")
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        problems.append((line, "dependencies is no list of texts"))
        given = []
    if not isinstance(python, str) or (python and not all(map(_PYTHON.fullmatch, python.split(",")))):
        problems.append((line, f'requires-python is {python!r}: a range like ">=3.11" is needed'))
        python = ""
    wanted = []
    for text in given:
        at = next((number for number in range(line, len(lines) + 1) if text in lines[number - 1]), line)
        found = requirement(text, at)
        if isinstance(found, str):
            problems.append((at, found))
        else:
            wanted.append(found)
    return Packages(tuple(given), python, tuple(wanted), tuple(problems))


def requirements(text: str) -> Packages:
    """Read a requirements.txt; what only an installer understands is passed over, and said to be there."""
    wanted, problems, more = [], [], False
    for number, raw in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not line or line.startswith("--hash"):
            continue
        if line.startswith(("-", ".", "/")) or re.match(r"[a-z+]+://|[\w./-]+\.(whl|zip|gz)$", line):
            more = more or not line.startswith(("-i", "-f", "--"))
            continue
        found = requirement(re.split(r"\s--", line)[0], number)
        if isinstance(found, str):
            problems.append((number, found))
        else:
            wanted.append(found)
    return Packages(None, "", tuple(wanted), tuple(problems), more)


def requirement(text: str, line: int) -> Wanted | str:
    """Read one requirement (PEP 508); a text = what is wrong with it."""
    found = _NAME.fullmatch(text.partition(";")[0].strip())
    if not found:
        return f'"{text}" is no package'
    rest = found[3].strip()
    if rest.startswith("@"):
        return Wanted(plain(found[1]), "", line, elsewhere=True)
    if rest and not _RANGE.fullmatch(rest):
        single = re.match(r"=\s*[\w.]", rest)
        return f'"{text}" is no package and version{": == is needed" if single else ""}'
    return Wanted(plain(found[1]), rest.strip("() "), line)
