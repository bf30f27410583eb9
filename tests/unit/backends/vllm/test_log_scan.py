"""One line of a log names the fault."""

import pytest

from flowrun.backends.vllm.log_scan import error_line, raised_line

TRACEBACK = """\
(EngineCore pid=12) ERROR 11-23 02:00:00 [core.py:1510] EngineCore failed to start.
Traceback (most recent call last):
  File "core.py", line 1482, in run_engine_core
    raise ValueError("no memory")
ValueError: no memory
"""


@pytest.mark.parametrize(
    ("output", "telling", "raised"),
    [
        pytest.param("", "", "", id="nothing"),
        pytest.param("loading\n 100% done \n\n", "100% done", "", id="no exception"),
        pytest.param(TRACEBACK, "ValueError: no memory", "ValueError: no memory", id="a traceback"),
        pytest.param(
            TRACEBACK + "RuntimeError: Engine core initialization failed. See root cause above.\nbye\n",
            "ValueError: no memory",
            "ValueError: no memory",
            id="an exception that points to another",
        ),
        pytest.param(
            "(Worker pid=3) ERROR 11-23 [a.py:1] torch.OutOfMemoryError: 3 GiB\n",
            "torch.OutOfMemoryError: 3 GiB",
            "torch.OutOfMemoryError: 3 GiB",
            id="logged, with a module's name",
        ),
        pytest.param("SystemExit: 2\n", "SystemExit: 2", "SystemExit: 2", id="an exit"),
    ],
)
def test_finds_the_telling_line(output: str, telling: str, raised: str) -> None:
    assert (error_line(output), raised_line(output)) == (telling, raised)
