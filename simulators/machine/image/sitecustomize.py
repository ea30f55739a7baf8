"""Runs at the start of the image's python3 and of every environment made from it; not with -S.

Adds the packages that the image has (last, as system packages are; not in an environment that shuts them out), and
sees to it that torch, once imported, has the machine's GPUs. Costs next to nothing where torch is not imported.
"""

from __future__ import annotations

import sys

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
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        """Find torch, once."""
        if name != "torch":
            return None
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _Torch]
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next((one for one in found if one is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_simulate(module: object) -> None:
            load(module)
            import simulated_cuda

            simulated_cuda.install(module, _ETC + "gpu.json")

        spec.loader.exec_module = load_and_simulate
        return spec


if _has_system_packages():
    with open(_ETC + "packages", encoding="utf-8") as _file:  # noqa: PTH123 (as above)
        sys.path += _file.read().splitlines()
sys.meta_path.insert(0, _Torch)
