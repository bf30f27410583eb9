"""Where the packages of servers are not installed, none of these tests is collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("uvicorn") is not None else ["test_*.py"]
