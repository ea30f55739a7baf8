"""`run.json` in a store: what a run is, written from home at its launch (stored.py), read where another home is.

Whoever may write to the store may have written it: what becomes a path or a mark is held to its shape.
"""

from __future__ import annotations

from decimal import Decimal  # noqa: TC003 - pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from providers.errors import IntegrityError

if TYPE_CHECKING:
    from orchestrator.store import Store

# what a plan of a run with a store can't lack
_PLANNED = {"offer": dict, "quote": dict, "store": dict, "times": dict, "launched": str}
_ORIGIN: dict[str, Any] = {"home": str, "provider": str, "account": str, "ceiling": (int, float)}  # origins.Origin
_Epoch = Annotated[float, Field(ge=0, lt=2**37)]  # a year that a date can have


class JobFacts(BaseModel):
    """What the run ships."""

    command: tuple[str, ...]
    blobs: tuple[tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")], int, str], ...]
    max_idle_seconds: int
    secrets: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    gpus: int = 0


class RunFile(BaseModel):
    """A run as its home knew it at the launch. Times are epoch seconds; `plan` is what the user was shown."""

    home: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$")]
    template: str
    provider: str
    created: _Epoch
    deadline: _Epoch
    ceiling: _Epoch
    grace_seconds: int
    max_cost: Decimal | None = None
    plan: dict[str, Any]
    job: JobFacts

    @model_validator(mode="after")
    def _is_planned(self) -> RunFile:
        missing = [name for name, kind in _PLANNED.items() if not isinstance(self.plan.get(name), kind)]
        if missing:
            raise ValueError(f"its plan lacks {', '.join(missing)}")
        others = self.plan.get("origins") or []
        if not isinstance(others, list) or not all(map(_is_origin, others)):
            raise ValueError("who else launched it can't be read")
        return self


def _is_origin(value: Any) -> bool:
    shaped = isinstance(value, dict) and value.keys() == _ORIGIN.keys()
    return (
        shaped
        and all(isinstance(value[name], kind) for name, kind in _ORIGIN.items())
        and 0 <= value["ceiling"] < 2**37
    )


def read(store: Store, run_id: str) -> RunFile | None:
    """Read it; None = there is none.

    Raises:
        IntegrityError: it makes no sense.
        ProviderError: the store can't be read.
    """
    content = store.get(store.address.run(run_id, "run.json"))
    if content is None:
        return None
    try:
        return RunFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        words = f"run.json of {run_id} in {store.address} makes no sense: {where}: {first['msg']}".replace(": :", ":")
        raise IntegrityError(words, hint=f"gpurun store rm {run_id}") from error
