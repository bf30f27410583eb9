"""A client of a language server that speaks over stdio: one request at a time, as an editor with one document."""

import json
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self


class LanguageServer:
    """A language server in a process of its own. Positions are (line, character), from 0."""

    def __init__(self, command: Sequence[str], *, settings: dict[str, Any]) -> None:
        """Start the server.

        Args:
            settings: by section, what the server asks its editor for.
        """
        self._settings = settings
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._id = 0
        self._published: dict[str, list[dict[str, Any]]] = {}
        capabilities = {"workspace": {"configuration": True}, "textDocument": {"completion": {}}}
        self._request("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
        self._notify("initialized", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._request("shutdown", None)
                self._notify("exit", None)
                self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.communicate()

    def open(self, uri: str, text: str) -> None:
        """Open a document."""
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._notify("textDocument/didOpen", {"textDocument": document})

    def diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """Return the diagnostics of an open document; wait until there are some, or it is said that there are none."""
        while uri not in self._published:
            self._read()
        return self._published[uri]

    def complete(self, uri: str, at: tuple[int, int]) -> list[dict[str, Any]]:
        """Return the items that are offered at a position of an open document."""
        result = self._request("textDocument/completion", _place(uri, at))
        items: list[dict[str, Any]] = result["items"] if isinstance(result, dict) else result
        return items

    def hover(self, uri: str, at: tuple[int, int]) -> str:
        """Return what is shown at a position of an open document; nothing is an empty text."""
        result = self._request("textDocument/hover", _place(uri, at))
        return str(result["contents"]["value"]) if result else ""

    def close(self, uri: str) -> None:
        """Close a document."""
        self._notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def _request(self, method: str, params: Any) -> Any:
        self._id += 1
        self._write({"id": self._id, "method": method, "params": params})
        while (message := self._read()).get("id") != self._id:
            pass
        assert "error" not in message, message["error"]
        return message["result"]

    def _notify(self, method: str, params: Any) -> None:
        self._write({"method": method, "params": params})

    def _write(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        """Return the server's next answer or note. Its own requests are answered, and diagnostics are stored."""
        stdout = self._process.stdout
        assert stdout is not None
        while True:
            size = 0
            while (line := stdout.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            assert size, "the language server has ended"
            message: dict[str, Any] = json.loads(stdout.read(size))
            if message.get("method") == "textDocument/publishDiagnostics":
                self._published[message["params"]["uri"]] = message["params"]["diagnostics"]
            if "method" not in message or "id" not in message:
                return message
            answer = None
            if message["method"] == "workspace/configuration":
                answer = [self._settings.get(item.get("section", ""), {}) for item in message["params"]["items"]]
            self._write({"id": message["id"], "result": answer})


def _place(uri: str, at: tuple[int, int]) -> dict[str, Any]:
    return {"textDocument": {"uri": uri}, "position": {"line": at[0], "character": at[1]}}
