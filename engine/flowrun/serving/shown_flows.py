"""The flows of a journal, compiled once each, for all that shows runs: pages and records."""

import threading
from collections.abc import Callable, Mapping
from typing import Final

from flowrun.journal import History, RunRow
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.stored_flow import load_stored_flow

_MAX_FLOWS: Final = 64
"""The flows that are kept compiled."""


class ShownFlows:
    """The flows of a journal whose runs were shown. Threads may share them.

    Args:
        environ: the variables of flows, some of which are secrets.
        hide: called with the secrets of each flow, so that logs do not show them either.
    """

    def __init__(
        self, environ: Mapping[str, str], hide: Callable[[Mapping[str, str]], object] = lambda secrets: None
    ) -> None:
        self._environ = environ
        self._hide = hide
        self._known: dict[str, CompiledFlow] = {}
        self._storing = threading.Lock()

    def flow_of(self, history: History, row: RunRow) -> CompiledFlow:
        """Return the flow that a run started with, without its functions.

        Raises:
            RunDamaged: the journal does not hold it.
        """
        flow = self._known.get(row.spec)
        if flow is None:
            flow = load_stored_flow(history, row).prepare_to_show(self._environ)
            self._hide(flow.secrets)
            with self._storing:
                while len(self._known) >= _MAX_FLOWS:
                    del self._known[next(iter(self._known))]
                self._known[row.spec] = flow
        return flow
