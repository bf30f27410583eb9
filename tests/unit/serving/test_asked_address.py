"""The address by which a client asked, which texts of the server link to."""

from typing import Any

import pytest
from starlette.requests import Request

from flowrun.serving.asked_address import asked_address, is_secure


@pytest.mark.parametrize(
    ("scheme", "headers", "address"),
    [
        pytest.param("http", {}, "http://flows.example:81", id="no proxy"),
        pytest.param("https", {}, "https://flows.example:81", id="a server with TLS"),
        pytest.param("http", {"x-forwarded-proto": "https"}, "https://flows.example:81", id="a proxy with TLS"),
        pytest.param("http", {"x-forwarded-proto": "HTTPS, http"}, "https://flows.example:81", id="two proxies"),
        pytest.param("http", {"x-forwarded-proto": "javascript"}, "http://flows.example:81", id="nonsense"),
    ],
)
def test_the_address_that_was_asked(scheme: str, headers: dict[str, str], address: str) -> None:
    given = {"host": "flows.example:81", **headers}
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": scheme,
        "server": ("127.0.0.1", 8765),
        "path": "/v1/chat/completions",
        "query_string": b"a=b",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    request = Request(scope)
    assert (asked_address(request), is_secure(request)) == (address, address.startswith("https"))
