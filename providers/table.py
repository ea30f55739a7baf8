"""The table of providers: a line each. Modules load only when their provider is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from providers.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from providers.base import Provider
    from providers.hf_jobs.outpost import HfOutpost

PROVIDERS = {
    "local": ("providers.local", "LocalProvider"),
    "lambda": ("providers.lambdalabs", "LambdaProvider"),
    "hf": ("providers.hf_jobs", "HfProvider"),
    "runpod": ("providers.runpod", "RunpodProvider"),
    "colab": ("providers.colab", "ColabProvider"),
}
TITLES = {"lambda": "Lambda", "hf": "Hugging Face", "runpod": "RunPod", "colab": "Colab"}  # as they spell themselves
# Where a person sees with their own eyes what bills; here too, so that `ps` need not load an adapter to say it.
CONSOLES = {
    "lambda": "https://cloud.lambda.ai/instances",
    "hf": "https://huggingface.co/settings/jobs",
    "runpod": "https://console.runpod.io/pods",
    "colab": "https://colab.research.google.com/",
}

# Its key alone says nothing: HF_TOKEN lies in many environments for downloads, a login at Google for much else. The one
# variable, or the one file of the home (made by the first launch there), says that this user rents there.
SIGNS = {"hf": ("GPURUN_HF_NAMESPACE", "hf.rented"), "colab": ("GPURUN_COLAB_URL", "colab.rented")}


# Where a guard can be kept that a vendor starts by its own clock.
OUTPOSTS = {"hf": ("providers.hf_jobs.outpost", "HfOutpost")}


def open_outpost(name: str, home: Path) -> HfOutpost:
    """Open a vendor that keeps guards.

    Raises:
        CredentialsError: its key is missing.
    """
    from importlib import import_module

    module, attribute = OUTPOSTS[name]
    return cast("HfOutpost", getattr(import_module(module), attribute).from_home(home))


def looked_at(home: Path) -> list[str]:
    """Name the vendors that are looked at unasked; those with a sign only once it is there."""
    return [
        name
        for name in PROVIDERS
        if name not in SIGNS or os.environ.get(SIGNS[name][0]) or (home / SIGNS[name][1]).exists()
    ]


def open_provider(name: str, home: Path) -> Provider:
    """Open a provider by the name people type; `home` is GPURUN_HOME.

    Raises:
        UsageError: no such provider.
        CredentialsError: its key is missing.
    """
    if name not in PROVIDERS:
        from difflib import get_close_matches

        close = get_close_matches(name, PROVIDERS, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(PROVIDERS)}"
        raise UsageError(f"no provider is called {name!r}", hint=hint)
    from importlib import import_module

    module, attribute = PROVIDERS[name]
    return cast("Provider", getattr(import_module(module), attribute).from_home(home))
