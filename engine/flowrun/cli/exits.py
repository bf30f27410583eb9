"""How the process ends: functions do not end it, and nothing that they left behind keeps it from ending.

Functions in threads share this process. What would end it with an exit code of its own, so that a missing answer looks
like success, is refused; ``isolation: process`` keeps all else from it.
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

_exit: Final = os._exit

_FAILED: Final = 1


class ExitRefused(SystemExit):
    """A function tried to end the whole process."""


def guard_exits() -> None:
    """Refuse calls of ``os._exit`` and ``os.exec*`` in this process; its children may make them.

    A thread that belongs to no call gets its ``os._exit``, but never with exit code 0.
    """
    pid, main_thread = os.getpid(), threading.main_thread()

    def refuse(what: str) -> None:
        if os.getpid() != pid:
            return
        if threading.current_thread() is main_thread or what != "os._exit" or _in_a_call():
            raise ExitRefused(f"{what} would end all of flowrun: raise an exception, or set `isolation: process`")

    def exit(code: int) -> NoReturn:
        refuse("os._exit")
        _exit(code or _FAILED if os.getpid() == pid else code)

    def guarded(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def execute(*args: Any, **kwargs: Any) -> Any:
            refuse(f"os.{name}")
            return original(*args, **kwargs)

        return execute

    setattr(os, "_exit", exit)  # noqa: B010 - mypy takes it for a constant
    for name in ("execv", "execve"):  # the others call these
        setattr(os, name, guarded(name))


def _in_a_call() -> bool:
    from flowrun.core.tool_context import CURRENT_CALL

    return CURRENT_CALL.get(None) is not None


def end_process(code: int) -> NoReturn:
    """End the process, and the children that functions have left behind; wait for no thread of theirs."""
    main_thread = threading.main_thread()
    if not _has_children() and all(thread.daemon or thread is main_thread for thread in threading.enumerate()):
        sys.exit(code)
    atexit._run_exitfuncs()
    from flowrun.functions.process_tree import kill_all

    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    kept = getattr(tracker, "_pid", None)  # it removes what others leave, once we have ended
    kill_all(os.getpid(), besides=frozenset() if kept is None else frozenset({kept}))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            code = code or _FAILED
    _exit(code)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
