"""The entry point of the command line: finds the verb, and contains the only catch-all of the program.

Only click is imported here, so that ``flowrun --help`` is fast. A verb is one module of this package with a
``command``; the table below lists all verbs.
"""

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from flowrun.collector import collect_less

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS: Final[dict[str, str]] = {
    "init": "Make a project that runs and tests at once, without a model.",
    "run": "Run a flow: one conversation. The verb may be left out before a spec's path.",
    "batch": "Run a flow for each row of a file, thousands at once; safe to interrupt and to begin again.",
    "eval": "Run a flow on rows, score what comes of them, and compare two versions.",
    "results": "Count, list and select the results of a batch, or make a page of them.",
    "export": "Write the results of a batch in a form that trainers read.",
    "validate": "Check specs and report every issue; needs no vLLM and no GPU.",
    "test": "Run the tests of specs against scripted or recorded replies, without a model.",
    "runs": "List the durable runs.",
    "show": "Show what happened in a durable run, as text, JSON or one HTML page.",
    "ui": "Show durable runs in the browser, and answer what they ask.",
    "resume": "Resume durable runs after a crash.",
    "answer": "Answer a durable run that waits.",
    "cancel": "End a durable run.",
    "fork": "Begin a durable run from the events of another one up to a step.",
    "replay": "Feed a run's events to today's spec, and show where it would differ.",
    "journal": "Keep the file of durable runs small.",
    "lock": "Write down which model a spec runs: its commit or files, tokenizer, chat template and vLLM.",
    "mcp": "List the tools of a spec's MCP servers, and write them into its lock.",
    "serve": "Serve flows as models of the OpenAI chat API, as tools of an MCP server, and as pages.",
    "engine": "Keep an engine of vLLM warm for the next commands.",
    "graph": "Draw the state graph of a spec as mermaid, dot, svg or text.",
    "diff": "Say what changed between two versions of specs, and whether their version numbers say so.",
    "schema": "Print the JSON Schema, the reference made from it, or the codes of issues.",
    "doctor": "Say what this machine can run, and what is missing.",
}

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_BUG: Final = 3
EXIT_WAITING: Final = 4
EXIT_INTERRUPTED: Final = 130


class _Verbs(click.Group):
    """A group that imports a verb's module when the verb is used; a path as the first word means ``run``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        from flowrun.cli.terminal import make_logs_printable

        command: click.Command = import_module(f"flowrun.cli.{cmd_name}").command
        make_logs_printable()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and _looks_like_path(args[0]):
            args = ["run", *args]
        if args and args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from flowrun.spec.suggestions import did_you_mean

            remedy = did_you_mean(args[0], VERBS) or f"the verbs are: {', '.join(VERBS)}"
            ctx.fail(f"{args[0]!r} is neither a verb nor the path of a spec, such as FILE.yaml; {remedy}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete verbs, specs and options. No verb's module is imported."""
        from click.shell_completion import CompletionItem

        from flowrun.cli.completion import complete_specs

        verbs = [CompletionItem(verb, help=what) for verb, what in VERBS.items() if verb.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*verbs, *complete_specs(ctx, None, incomplete), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _looks_like_path(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or "/" in word or "\\" in word


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from flowrun.cli.terminal import echo
        from flowrun.version import __version__

        echo(f"flowrun {__version__}")
        ctx.exit()


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]}, subcommand_metavar="VERB|SPEC ...")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
@click.option("--debug", is_flag=True, help="Show the traceback of any error.")
@click.pass_context
def app(ctx: click.Context, debug: bool) -> None:
    """Git-versioned YAML flows of tool-calling LLMs, at vLLM's speed."""
    ctx.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Exit codes: 0 done, 1 the spec or the run failed, 2 wrong usage, 3 a bug, 4 the run waits for human input,
    130 interrupted.
    """
    collect_less()  # what is imported stays: to look through it for garbage takes a twentieth of a start
    given = list(sys.argv[1:] if arguments is None else arguments)
    run_guarded(lambda: app.main(args=given, prog_name="flowrun", standalone_mode=False), debug="--debug" in given)


def run_guarded(work: Callable[[], Any], *, debug: bool = False) -> NoReturn:
    """Do the work of the program, and exit with the code that it returns, or with that of its error, which is printed.

    This is the only catch-all of the program.
    """
    from flowrun.cli.exits import end_process, guard_exits

    guard_exits()
    with suppress(ValueError):  # not in the main thread
        # systemd, Slurm and Kubernetes end a program by SIGTERM: handle it like Ctrl-C, so that the verb can clean up.
        signal.signal(signal.SIGTERM, _interrupt)
    if sys.stdout is None:  # Python sets it to None if the descriptor is closed
        from flowrun.cli.streams import refuse_closed_stdout

        refuse_closed_stdout()
    try:
        code = work()
    except BaseException as exc:
        _let_signals_end()
        if debug:
            from flowrun.cli.terminal import echo_traceback

            echo_traceback(exc)
        code = _print_exception(exc, debug)
    _let_signals_end()
    end_process(code if isinstance(code, int) else EXIT_DONE)


def _let_signals_end() -> None:
    """Let SIGTERM and Ctrl-C end the program at once: the verb is over, and nothing is left to take an exception."""
    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(signal.getsignal(number)) and threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> None:
    """End the program as Ctrl-C does, even if it ignores Ctrl-C, as shells make jobs in the background do."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def _print_exception(exc: BaseException, debug: bool) -> int:
    """Print an error for the user on stderr, and return its exit code."""
    from flowrun import errors
    from flowrun.cli.streams import forget_output, is_of_click
    from flowrun.cli.terminal import echo, echo_traceback

    match exc:
        case click.exceptions.Exit():
            return exc.exit_code
        case click.ClickException():
            return _print_usage_error(exc)
        case errors.SpecError():
            from flowrun.cli.report import render_text

            echo(render_text(exc.issues), err=True)
            return EXIT_FAILED
        case errors.OutputError():
            forget_output()
            return _print_error(exc, EXIT_FAILED)
        case OSError() if is_of_click(exc):
            forget_output()
            return _print_error(f"stdout cannot be written: {exc.strerror}", EXIT_FAILED)
        case errors.UsageError():
            return _print_error(exc, EXIT_USAGE)
        case errors.FlowrunError() if not isinstance(exc, errors.Bug):
            return _print_error(exc, EXIT_FAILED)
        case click.Abort() | KeyboardInterrupt():
            return _print_error("interrupted", EXIT_INTERRUPTED)
        case BrokenPipeError():
            sys.stderr.close()  # the reader of our output has gone: a message would reach nobody
            return EXIT_FAILED
        case SystemExit():
            return exc.code if isinstance(exc.code, int) else EXIT_FAILED
        case _:
            if not debug:
                echo_traceback(exc)
            return _print_error("this is a bug in flowrun; please report it with the traceback above", EXIT_BUG)


def _print_usage_error(exc: click.ClickException) -> int:
    """Print an error of usage in the form that click uses."""
    from flowrun.cli.terminal import echo

    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        echo(exc.ctx.get_usage(), err=True)
        echo(f"Try '{exc.ctx.command_path} --help' for help.\n", err=True)
    echo(f"Error: {exc.format_message()}", err=True)
    return EXIT_USAGE


def _print_error(message: Any, code: int) -> int:
    from flowrun.cli.terminal import echo

    echo(f"flowrun: {message}", err=True)
    return code
