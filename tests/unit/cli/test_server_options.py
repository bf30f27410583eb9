"""Who may ask a server, by its options."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from flowrun.cli.server_options import read_access
from flowrun.errors import UsageError
from flowrun.serving.gate import Access

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def access_of(host: str = "127.0.0.1", **options: Any) -> Access:
    given: dict[str, Any] = {"api_key_file": None, "allow_host": (), "allow_origin": (), "environ": {}}
    return read_access(host=host, **{**given, **options})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1", "[::1]"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    assert access_of(host) == Access(hosts=LOOPBACK | {host.strip("[]")})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "flows.example.com", ""])
def test_others_need_one(host: str) -> None:
    with pytest.raises(UsageError, match="set a key in FLOWRUN_API_KEY or by --api-key-file"):
        access_of(host)


@pytest.mark.parametrize(
    ("host", "allowed", "hosts"),
    [
        pytest.param("0.0.0.0", (), None, id="any name reaches any address"),
        pytest.param("::", ("Flows.example.com",), LOOPBACK | {"::", "flows.example.com"}, id="but these, if named"),
        pytest.param("10.0.0.5", (), LOOPBACK | {"10.0.0.5"}, id="an address is a name too"),
    ],
)
def test_the_names_of_a_server(host: str, allowed: tuple[str, ...], hosts: frozenset[str] | None) -> None:
    environ = {"FLOWRUN_API_KEY": " k1 "}
    assert access_of(host, allow_host=allowed, environ=environ) == Access(keys=("k1",), hosts=hosts)


def test_keys_are_in_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("k1\n\n  k2\r\nk1\n")
    environ = {"FLOWRUN_API_KEY": "k1"}
    assert access_of(api_key_file=file, environ=environ).keys == ("k1", "k2")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param(" \n", "it holds no key", id="empty"),
        pytest.param("a key\n", "printable ASCII characters without spaces", id="with a space"),
        pytest.param("clé\n", "printable ASCII characters without spaces", id="no ASCII"),
        pytest.param(None, "No such file", id="no file"),
    ],
)
def test_what_is_no_key(tmp_path: Path, text: str | None, wrong: str) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=wrong):
        access_of(api_key_file=file)


def test_other_sites() -> None:
    given = ("https://Chat.example.com/", "http://[::1]:3000")
    assert access_of(allow_origin=given).origins == {"https://chat.example.com", "http://[::1]:3000"}


@pytest.mark.parametrize(
    "text", ["*", "chat.example.com", "https://", "https://a.example/b", "https://u@a.example", "http://["]
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(UsageError, match="write it as https://NAME"):
        access_of(allow_origin=(text,))


def test_the_size_of_requests() -> None:
    assert (access_of().max_body, access_of(max_body=10).max_body) == (4_000_000, 10)
