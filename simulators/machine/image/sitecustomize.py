"""Runs at the start of the image's python3 and of every environment made from it; not with -S.

Adds the packages that the image has (last, as system packages are; not in an environment that shuts them out), and
sees to it that torch, once imported, has the machine's GPUs. Costs next to nothing where torch is not imported.
"""

import importlib.abc
import json
import sys
from pathlib import Path

_ROOT = Path(sys.base_prefix).parent  # <root>/usr is the prefix


def _has_system_packages():
    if sys.prefix == sys.base_prefix:
        return True
    try:
        lines = (Path(sys.prefix) / "pyvenv.cfg").read_text(encoding="utf-8").lower().splitlines()
    except OSError:
        return False
    return any(line.replace(" ", "") == "include-system-site-packages=true" for line in lines)


class _Torch(importlib.abc.MetaPathFinder):
    """Finds torch as the others do, and gives it the machine's GPUs once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        """Find torch once."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        load = spec.loader.exec_module

        def load_and_simulate(module):
            load(module)
            import simulated_cuda

            simulated_cuda.install(module, json.loads((_ROOT / "etc" / "gpu.json").read_text(encoding="utf-8")))

        spec.loader.exec_module = load_and_simulate
        return spec


if _has_system_packages():
    sys.path += json.loads((_ROOT / "etc" / "packages.json").read_text(encoding="utf-8"))
sys.meta_path.insert(0, _Torch())
