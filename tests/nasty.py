"""Inputs that have broken other programs."""

from __future__ import annotations

# Names and values that have broken other people's quoting.
NASTY = {
    "spaces": " two  words ",
    "quotes": 'it\'s "so"',
    "newline": "a\n0",
    "injection": "a'; echo foo #",
    "substitution": "$(echo foo)`id`$HOME",
    "glob": "*?[a]{b}",
    "unicode": "mødel-模型-🚂",
    "dashes": "--help",
}
