"""How every vendor of machines begins to serve: a folder of its own, the clock's agenda, its servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from simulators.folders import working_folder

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from simulators.clock import Agenda
    from simulators.server import Server


class World(Protocol):
    """What is simulated."""

    agenda: Agenda

    def close(self) -> None:
        """End every machine, and wait until it is done."""


def begin(ending: ExitStack, name: str, world: World, *servers: Server) -> Path:
    """Begin; `ending` ends it in the opposite order, servers first. Gives the folder for the machines."""
    folder = ending.enter_context(working_folder(name))
    ending.callback(world.close)
    world.agenda.start()
    ending.callback(world.agenda.stop)
    for server in servers:
        server.listen()
        ending.callback(server.close)
    return folder
