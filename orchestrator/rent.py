"""`gpurun rent`: a bare machine for some hours, under the same ceiling, holders and proof as a training.

It is a run like any other, whose command waits (`payload/idle.py`) and for which no environment is made on the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator import explain, settings_file, yaml12
from orchestrator.config import MOST_IDLE_MINUTES, Settings
from orchestrator.login import config_of
from orchestrator.templates import Template, command_for, payload_config
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.glance import Run
    from orchestrator.home import Home
    from orchestrator.wish import Wish
    from orchestrator.yaml12 import Key

NAME = "rent"
COMMAND = ("{python}", "payload/idle.py")
_FLAGS = {
    "max_hours": "--hours",
    "max_cost": "--max-cost",
    "extendable_to_hours": "--extendable-to",
    "max_attempts": "--max-attempts",
    "accept_risk": "--accept-risk",
}


def template(home: Home, wish: Wish, defaults: Mapping[Key, object]) -> Template:
    """Give the template of a rented machine.

    Raises:
        ConfigError: a limit is no number, or not one that can be.
        UsageError: `local` was meant, by name or by default.
    """
    _refuse_local(wish.provider or str(settings_file.load(home.root / settings_file.NAME).get("provider", "local")))
    limits: dict[str, Any] = {str(path[-1]): value for path, value in defaults.items() if path[0] == "limits"}
    for path, value in wish.flags().values():
        limits[str(path[-1])] = yaml12.scalar(value) if isinstance(value, str) else value
    raw = {
        "name": NAME,
        "training": {"method": "script", "command": list(COMMAND)},
        "limits": {**limits, "max_idle_minutes": MOST_IDLE_MINUTES},
    }
    try:
        settings = Settings.model_validate(raw, strict=True)
    except ValidationError as error:
        raise explain.to_config_error(error, raw, lambda path: _FLAGS.get(str(path[-1]), "gpurun rent")) from error
    return Template(
        settings=settings,
        source=Path(__file__),
        files=(),
        config=payload_config(settings, ()),
        command=command_for(settings),
        bare=True,
    )


def _refuse_local(provider: str) -> None:
    if provider == "local":
        raise UsageError(
            "local has nothing to rent: it is this computer",
            hint="name a provider: gpurun rent --provider lambda --gpu a10 --hours 3",
        )
    if provider == "colab":
        raise UsageError(
            "Colab's VMs are no machines to log in to: gpurun opens no shell there",
            hint="gpurun rent --provider lambda --gpu a10 --hours 3",
        )


class Invitation:
    """Says once, beside a viewer, how to log in and how to end it."""

    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self._home = home
        self._say = say
        self._said = 0  # the attempt it was said for

    def look(self, run: Run, _now: float) -> None:
        """Speak when the machine of the present attempt can be reached."""
        if run.state == "running" and run.attempt != self._said and config_of(self._home, run).is_file():
            self._said = run.attempt
            self._say(
                f"the machine is yours. In another terminal:\n  gpurun ssh {run.run_id}\n  gpurun stop {run.run_id}\n"
                "What is in ~/.gpurun/jobs/*/artifacts/ there comes home at the end; all else is lost."
            )
