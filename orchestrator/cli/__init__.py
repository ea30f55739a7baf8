"""The command line: parse, call one function, render.

`gpurun --help` and `gpurun ps` must stay quick, so every command lives in a module of its own group that is imported
when the command is called, and their one-line helps stand here. Errors are formatted once, in `main`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from providers.errors import GpurunError

if TYPE_CHECKING:
    from collections.abc import Sequence

# name -> (module, first line of its docstring); in the order of a run's life. A test holds the lines to the docstrings.
COMMANDS = {
    "launch": ("launch", "Show the plan and the price, ask, run, bring the results home."),
    "rent": ("launch", "Rent a bare machine for some hours, and end it in time."),
    "adopt": ("adopt", "Put an instance under the meter, or know a store's runs again."),
    "compare": ("compare", "Quote this job on every offer, by likely cost."),
    "offers": ("compare", "List what can be rented, cheapest first."),
    "estimate": ("estimate", "Estimate fit, time and cost of a job on a GPU."),
    "ps": ("look", "List runs: what may still bill first."),
    "show": ("look", "Show one run: plan beside truth, history, files."),
    "logs": ("watch", "Print a run's log."),
    "wait": ("watch", "Wait for a run to end and leave with its exit code."),
    "resume": ("watch", "Carry on with a run and watch it."),
    "ssh": ("ssh", "Log in to a run's machine, or run one command there."),
    "pull": ("results", "Copy a run's artifacts to a folder, checked."),
    "stop": ("results", "Stop a run: save, bring home, end the billing."),
    "extend": ("extend", "Move a run's deadline: a later end, dearer, said and asked before it is done."),
    "costs": ("costs", "Say what was paid, what bills now and what the vendors charged."),
    "store": ("store", "List and delete what runs left in a store."),
    "receipt": ("costs", "Show what a run was quoted, what was paid, and each read-back of its end."),
    "sweep": ("sweep", "Show all that bills on each account, and end what is overdue or orphaned."),
    "guard": ("guard", "End rented machines that are past their ceiling, from any computer."),
    "notebook": ("notebook", "Write a notebook that trains on Google Colab, for no API and no key."),
    "templates": ("about", "List the ready templates, or show one."),
    "lint": ("lint", "Look a script or a notebook through for what will fail on a rented machine."),
    "doctor": ("doctor", "Check this computer, and say what to type where it fails."),
    "login": ("login", "Store a key for timers and background commands, once it was tried."),
    "rehearse": ("rehearse", "Practise on a simulated vendor: real commands, no account, no bill."),
    "config": ("settings", "Read and change your defaults."),
    "completion": ("about", "Print the completion script for your shell."),
}
_WITHOUT_KEYS = frozenset({"rehearse", "login", "guard", "config", "templates", "lint", "completion"})
INTERRUPTED = 130  # as shells count SIGINT
EXIT_MAY_BILL = 5  # as words.py has it, which `gpurun --help` does not load
BROKEN_PIPE = 141  # as shells count SIGPIPE


class _PipeClosedError(Exception):
    """The reader went away. click would turn a BrokenPipeError into exit code 1, which here means a failed training."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse; `--help` and `--version` print in here."""
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError as error:
            raise _PipeClosedError from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosedError from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Name the commands in the order of a run's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the one module that holds the command."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"orchestrator.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the command that was meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0].lower(), COMMANDS, n=1)
            guess = f"; did you mean {close[0]}?" if close else "."
            raise click.UsageError(f"no command is called {args[0]!r}{guess} Commands: {' '.join(COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 (click's signature)
    if value and not ctx.resilient_parsing:
        from orchestrator.checks import own_version

        click.echo(f"gpurun {own_version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run one fine-tune and never leave a bill: the price first, the log as it runs, the proof that nothing bills.

    \b
    Examples:
      gpurun launch demo --provider local
      gpurun ps
    """
    if ctx.invoked_subcommand not in _WITHOUT_KEYS:
        from orchestrator import keys
        from orchestrator.home import Home

        keys.take_up(Home.default())


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line: every error is told once, here, and becomes an exit code."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code."""
    try:
        code = cli.main(args=args, prog_name="gpurun", standalone_mode=False)
        sys.stdout.flush()
    except GpurunError as error:
        may_bill = f"may still bill: allocation {error.allocation_id}" if error.allocation_id else ""
        _tell(str(error), hint=error.hint, more=may_bill)
        return EXIT_MAY_BILL if error.allocation_id else error.exit_code
    except click.Abort:
        _tell("interrupted")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _tell(_words(error), hint=_help_hint(error))
        return error.exit_code
    except (_PipeClosedError, BrokenPipeError):
        return _pipe_closed()
    except OSError as error:
        _tell(f"{error.filename or 'the system'}: {error.strerror or error}", hint="gpurun doctor")
        return GpurunError.exit_code
    except Exception as error:  # noqa: BLE001 (a bug of ours must not look like a failed training: that is exit code 1)
        return _bug(error)
    return code if isinstance(code, int) else 0


def _words(error: click.ClickException) -> str:
    """Say what click says; of options only what is close without the hyphens, which all share, may have been meant."""
    if not isinstance(error, click.NoSuchOption) or not error.possibilities:
        return error.format_message()
    from difflib import get_close_matches

    names = {name.lstrip("-"): name for name in error.possibilities}
    close = [names[name] for name in get_close_matches(error.option_name.lstrip("-"), names)]
    return click.NoSuchOption(error.option_name, possibilities=close).format_message()


def _bug(error: Exception) -> int:
    """Tell a bug of ours: what it was, that runs go on without this command, and where the whole story is."""
    if os.environ.get("GPURUN_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    _tell(
        f"a bug of gpurun's: {type(error).__name__}: {error}",
        more="a run that is under way goes on without this command: gpurun ps",
        hint="the same command after: export GPURUN_TRACEBACK=1",
    )
    return GpurunError.exit_code


def _help_hint(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    return f"{ctx.command_path} -h" if ctx is not None else ""


def _pipe_closed() -> int:
    # Python flushes once more at exit; without this that flush would fail aloud.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _tell(message: str, *, hint: str = "", more: str = "") -> None:
    """Print one error: what happened, what may bill, the next thing to type."""
    from shutil import get_terminal_size

    from orchestrator.render import clean, fold, paint, wants_colour

    terminal = sys.stderr.isatty()
    colour = wants_colour(terminal=terminal, environ=os.environ)
    lines = [clean(line) for line in message.split("\n")]
    lines[0] = f"gpurun: {lines[0]}"
    lines += [f"  {clean(line)}" for line in (more, f"next: {hint}" if hint else "") if line]
    for number, line in enumerate(lines):
        folded = fold(line, get_terminal_size().columns, indent="  ") if terminal else line
        print(paint(folded, "bad", colour=colour) if number == 0 else folded, file=sys.stderr)  # noqa: T201 (stderr)
