"""Pages in a real browser, without a network or of a server of the test: playwright-core clicks, types and taps.

Chromium is that of the system, such as Debian's package; node drives it, and npm installs playwright-core. Without one
of them the tests are skipped, and say what is missing.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.npm import install_packages

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NODE = shutil.which("node")
DRIVER = Path(__file__).parent / "browser"
DESK, PHONE = (1280, 900), (390, 844)

needs_browser = [
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the PATH"),
    pytest.mark.skipif(NODE is None, reason="there is no node on the PATH"),
]


def work_on(
    page: Path | str, body: str, *, screen: tuple[int, int] = DESK, scheme: str = "light", scripts: bool = True
) -> Any:
    """Open a page, run JavaScript with it, and return its value; nothing may go wrong or be loaded meanwhile.

    Args:
        page: a file, or the address of a page whose server may be asked for more.
        body: of an async function of ``page``, which playwright-core has opened.
        scripts: whether those of the page run.
    """
    packages = install_packages(DRIVER)
    done = subprocess.run(
        [
            str(NODE),
            str(DRIVER / "drive.mjs"),
            str(BROWSER),
            str(packages),
            str(page),
            *map(str, screen),
            scheme,
            "on" if scripts else "off",
        ],
        input=f"async (page) => {{ {body} }}",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["errors"], found["loaded"]) == ([], []), found
    return found["value"]
