"""The person's side of a watched run: lines above, one live line below, and the question on Ctrl-C. All on stderr."""

from __future__ import annotations

import os
import shutil
import sys

from orchestrator.render import WIDTH, clean, paint, wants_colour

_CLEAR = "\r\x1b[K"


class Terminal:
    """stderr, and stdin for the question. `live` = both are a terminal that can redraw a line."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = wants_colour(terminal=sys.stderr.isatty(), environ=os.environ)
        self._shown = ""

    @property
    def width(self) -> int:
        """Columns to use; the last one stays free, since some terminals wrap on it."""
        return (shutil.get_terminal_size((WIDTH, 24)).columns if self.live else WIDTH) - 1

    def say(self, line: str) -> None:
        """Print a line above the live one; the caller has cleaned it."""
        print(f"{_CLEAR if self._shown else ''}{line}", file=sys.stderr, flush=True)  # noqa: T201 (stderr is ours here)
        if self._shown:
            shown, self._shown = self._shown, ""
            self.status(shown)

    def status(self, text: str) -> None:
        """Redraw the live line, if it changed."""
        if text != self._shown:
            sys.stderr.write(_CLEAR + paint(clean(text), "bold", colour=self.colour))
            sys.stderr.flush()
            self._shown = text

    def clear(self) -> None:
        """Take the live line away."""
        if self._shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._shown = ""

    def ask_detach_stop_go(self) -> str:
        """Ask what a Ctrl-C meant: `detach stop go`; "" = nobody to ask, or a second Ctrl-C."""
        self.clear()
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return ""
        try:
            while True:
                sys.stderr.write("\n[d]etach (it goes on), [s]top, or [c]arry on watching? ")
                sys.stderr.flush()
                answer = sys.stdin.readline()
                if not answer:
                    return ""
                word = answer.strip().lower()
                for choice, meaning in (("detach", "detach"), ("stop", "stop"), ("carry on", "go")):
                    if word and choice.startswith(word):
                        return meaning
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            return ""
