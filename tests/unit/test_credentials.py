"""Secrets: read by name, and in no log, whoever writes it."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest

from orchestrator.credentials import Redactor, guard_logs, resolve
from providers.base import Secret
from providers.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "hf_abcdefghijklmnop"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    redactor = Redactor()
    redactor.learn([Secret(KEY), Secret(KEY + "-longer"), Secret("short")])
    root.addHandler(handler)
    guard_logs(redactor)
    yield stream
    for one in root.handlers:
        one.removeFilter(redactor)
    root.removeHandler(handler)


def test_a_secret_is_read_by_its_name() -> None:
    assert resolve(["HF_TOKEN"], {"HF_TOKEN": f" {KEY}\n"})["HF_TOKEN"].reveal() == KEY


@pytest.mark.parametrize("environ", [{}, {"HF_TOKEN": ""}, {"HF_TOKEN": "  "}])
def test_a_secret_that_is_not_set_names_its_variable_and_page(environ: dict[str, str]) -> None:
    with pytest.raises(CredentialsError, match=r"HF_TOKEN is not set .*huggingface\.co") as caught:
        resolve(["HF_TOKEN"], environ)
    assert caught.value.hint == "export HF_TOKEN=…"


def test_no_secret_reaches_a_log_by_message_argument_child_logger_or_traceback(log: io.StringIO) -> None:
    logging.getLogger().warning("key %s", KEY)
    logging.getLogger("a.child").warning("url https://x/?k=%s", KEY + "-longer")
    try:
        int(f"bad {KEY}")
    except ValueError:
        logging.getLogger("b").exception("it failed with %r", {"key": KEY})
    text = log.getvalue()
    assert KEY not in text
    assert "key …mnop" in text
    assert "k=…nger" in text
    assert "'bad …mnop'" in text


def test_a_short_value_does_not_blot_out_every_line(log: io.StringIO) -> None:
    logging.getLogger().warning("a short line")
    assert "a short line" in log.getvalue()
