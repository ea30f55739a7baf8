"""Runs at the start of the image's python3 and of every environment made from it; not with -S.

Adds the packages that the image has (last, as system packages are; not in an environment that shuts them out), and
sees to it that torch, once imported, has the machine's GPUs. Costs next to nothing where torch is not imported.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing is not worth its milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_ETC = sys.base_prefix + "/../etc/"  # <root>/usr is the prefix


def _has_system_packages() -> bool:
    """Whether this is the image's python3, or an environment with `include-system-site-packages = true`."""
    if sys.prefix == sys.base_prefix:
        return True
    try:
        with open(sys.prefix + "/pyvenv.cfg", encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs a start 8 ms)
            return any(line.lower().replace(" ", "").strip() == "include-system-site-packages=true" for line in file)
    except OSError:
        return False


class _Torch:
    """Finds torch as the others do, and gives it the machine's GPUs once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find torch, also for those who only ask whether it is there."""
        if name != "torch":
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not _Torch)
        spec = next((one for one in found if one is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_simulate(module: ModuleType) -> None:
            load(module)
            import importlib

            importlib.import_module("simulated_cuda").install(module, _ETC + "gpu.json")

        vars(spec.loader)["exec_module"] = load_and_simulate
        return spec


if _has_system_packages():
    with open(_ETC + "packages", encoding="utf-8") as _file:  # noqa: PTH123 (as above)
        sys.path += _file.read().splitlines()
sys.meta_path.insert(0, _Torch)
