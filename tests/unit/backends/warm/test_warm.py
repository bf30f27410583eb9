"""A warm engine answers as the backend that it holds does, whatever becomes of its other clients."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowrun.backends.warm import wire
from flowrun.backends.warm.client import WarmBackend, end, look_at
from flowrun.backends.warm.find import connect_to_warm
from flowrun.backends.warm.host import Host
from flowrun.backends.warm.records import EngineRecord, HeldModel, held_model, write_record
from flowrun.backends.warm.wire import Ask, Health, WireRequest, as_wire, encode, from_wire
from flowrun.backends.wrapper import PromptSize
from flowrun.core.events import AskModel
from flowrun.core.messages import Log, Message, Reply, Tokens, Usage
from flowrun.core.ports import ModelBackend, OnText
from flowrun.errors import BackendError, ModelError
from flowrun.process_starts import started_at
from flowrun.spec.model import Model
from flowrun.version import __version__
from tests.unit.backends.contract import LOOKED_UP, WEATHER, Live, ModelBackendContract, ask, obliging, started
from tests.unit.backends.warm.warm_pair import HELD, FakeHeld, WarmPair, host, record_of_host


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give warm engines a folder of their own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "flowrun"


class TestContract(ModelBackendContract):
    @pytest.fixture
    def fresh(self) -> ModelBackend:
        return WarmPair(FakeHeld(obliging))

    @pytest.fixture
    def live(self, fresh: ModelBackend) -> Iterator[Live]:
        with started(fresh) as live:
            yield live


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def in_time() -> Any:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(in_time())


async def connected(**options: Any) -> WarmBackend:
    backend = WarmBackend(await record_of_host(), timeout=None, **options)
    await backend.start()
    return backend


async def over(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_request_and_its_tokens_arrive_as_they_are() -> None:
    tokens = Tokens(vocabulary=7, ids=b"\x01\x02\x03\x04", end=9, digest=3)
    replied = Message(role="assistant", content="Hm", reasoning="r", tokens=tokens)
    request = ask([*LOOKED_UP, replied], tools=(WEATHER,), labels=("a", "b"), sampling={"stop": ["x"], "seed": 1})
    request = msgspec.structs.replace(request, previous=Log([replied]), round=3, flow="f")
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(as_wire(request)), type=WireRequest)
    assert from_wire(sent) == request
    assert type(from_wire(sent)) is AskModel


def test_adapters_and_kept_tokens_are_asked_for() -> None:
    held = FakeHeld(obliging, tokens="no tokens", decisions="no letters")
    with started(WarmPair(held)) as live:
        backend = live.backend
        assert isinstance(backend, WarmBackend)
        live.run(backend.with_adapter("lora").reply(ask()))
        live.run(backend.reply(ask(), keeps_tokens=True))
        with pytest.raises(BackendError, match="no tokens"):
            backend.check_tokens()
        with pytest.raises(BackendError, match="no letters"):
            backend.check_decisions()
        assert backend.concurrency == 16
        assert live.run(backend.measure_prompt(ask(LOOKED_UP))) == PromptSize(3, 4096)
    assert [(adapter, keeps) for _, adapter, keeps in held.asked] == [("lora", False), (None, True)]


# --- clients ----------------------------------------------------------------------------------------------------------


async def slowly(request: AskModel) -> Reply:
    await asyncio.sleep(3600 if request.sampling["max_tokens"] == 1 else 0)
    return Reply(content="Hi")


def test_a_client_that_goes_harms_no_other() -> None:
    async def work() -> tuple[Reply, int, int]:
        held = FakeHeld(slowly)
        hosting = asyncio.create_task(host(held))
        one, other = await connected(), await connected()
        waiting = asyncio.create_task(one.reply(ask(sampling={"max_tokens": 1})))
        await other.reply(ask())
        assert one._writer is not None
        one._writer.transport.abort()
        with pytest.raises(ModelError, match="has ended"):
            await waiting
        reply = await other.reply(ask())
        health = await look_at(await record_of_host())
        await other.stop()
        await over(hosting)
        return reply, held.cancelled, health.clients

    reply, cancelled, clients = run(work())
    assert (reply.content, cancelled, clients) == ("Hi", 1, 1)


def test_a_request_that_is_cancelled_frees_its_place() -> None:
    async def work() -> int:
        held = FakeHeld(slowly)
        hosting = asyncio.create_task(host(held))
        client = await connected()
        waiting = asyncio.create_task(client.reply(ask(sampling={"max_tokens": 1})))
        await client.reply(ask())
        await over(waiting)
        for _ in range(1000):
            if not held.cancelled:
                await asyncio.sleep(0)
        await client.stop()
        await over(hosting)
        return held.cancelled

    assert run(work()) == 1


def test_nonsense_ends_only_the_connection_that_it_came_by() -> None:
    async def work() -> Reply:
        hosting = asyncio.create_task(host(FakeHeld(slowly)))
        record = await record_of_host()
        for nonsense in (b"\xff" * 64, b"\x00\x00\x00\x01\xc1", encode(HELD)):  # type: ignore[arg-type]
            reader, writer = await asyncio.open_unix_connection(str(record.socket))
            writer.write(nonsense)
            await reader.read()
            writer.close()
        client = await connected()
        reply = await client.reply(ask())
        await client.stop()
        await over(hosting)
        return reply

    assert run(work()).content == "Hi"


def test_a_failure_comes_by_its_name() -> None:
    def fail(request: AskModel) -> Reply:
        raise ModelError("model.context_overflow", "too long")

    with started(WarmPair(FakeHeld(fail))) as live, pytest.raises(ModelError) as raised:
        live.reply(ask())
    assert (raised.value.name, raised.value.message) == ("model.context_overflow", "too long")


def test_a_bug_is_an_answer_too(capsys: pytest.CaptureFixture[str]) -> None:
    class Buggy(FakeHeld):
        async def reply(self, request: AskModel, **options: Any) -> Reply:
            raise ValueError("no error of flowrun")

    with started(WarmPair(Buggy(obliging))) as live, pytest.raises(ModelError) as raised:
        live.reply(ask())
    assert raised.value.name == "backend.unavailable"
    assert "a bug of flowrun in the process of the warm engine: ValueError: no error of flowrun" in str(raised.value)
    assert "ValueError: no error of flowrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "why"),
    [
        pytest.param(
            Reply(content="Hi", usage=Usage(prompt_tokens=2**70)),
            "the warm engine cannot send the reply: it has no form in MessagePack",
            id="a number of 70 bits",
        ),
        pytest.param(Reply(content="x" * 9000), "the warm engine cannot send the reply: it has 9,", id="too long"),
    ],
)
def test_a_reply_that_cannot_be_sent_fails_its_request_only(
    monkeypatch: pytest.MonkeyPatch, first: Reply, why: str
) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 8000)
    replies = iter([first, Reply(content="Hi")])
    with started(WarmPair(FakeHeld(lambda request: next(replies)))) as live:
        with pytest.raises(ModelError) as raised:
            live.reply(ask())
        assert live.reply(ask()).content == "Hi"
    assert (raised.value.name, why in raised.value.message) == ("model.request_refused", True)


def test_a_request_that_is_too_long_fails_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 8000)
    held = FakeHeld(obliging)
    with started(WarmPair(held)) as live:
        with pytest.raises(ModelError, match="the warm engine cannot be asked: it has 9,") as raised:
            live.reply(ask([Message(role="user", content="x" * 9000)]))
        live.reply(ask())
    assert (raised.value.name, len(held.asked)) == ("model.request_refused", 1)


def test_who_watches_and_fails_fails_its_request_only() -> None:
    def fail(text: str | None) -> None:
        raise ValueError("no terminal")

    with started(WarmPair(FakeHeld(lambda request: Reply(content="Hi")))) as live:
        with pytest.raises(ValueError, match="no terminal"):
            live.run(live.backend.reply(ask(), on_text=fail))
        assert live.reply(ask()).content == "Hi"


def test_a_client_that_does_not_read_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    freed = asyncio.Event()

    class Verbose(FakeHeld):
        async def reply(self, request: AskModel, *, on_text: OnText | None = None, **options: Any) -> Reply:
            try:
                while on_text is not None:
                    on_text("x" * 100_000)
                    await asyncio.sleep(0)
            finally:
                if on_text is not None:
                    freed.set()
            return Reply(content="Hi")

    async def work() -> Reply:
        hosting = asyncio.create_task(host(Verbose(obliging)))
        record = await record_of_host()
        _, writer = await asyncio.open_unix_connection(str(record.socket))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(encode(Ask(id=1, request=as_wire(ask()), watched=True)))
        other = await connected()
        await freed.wait()
        reply = await other.reply(ask())
        await other.stop()
        writer.transport.abort()
        await over(hosting)
        return reply

    monkeypatch.setattr("flowrun.backends.warm.host.MAX_UNREAD", 1_000_000)
    assert run(work()).content == "Hi"
    assert capsys.readouterr().err == "a client was disconnected: it does not read\n"


# --- its end ----------------------------------------------------------------------------------------------------------


def test_an_engine_ends_when_nobody_was_connected_for_a_while(folder: Path) -> None:
    async def work() -> None:
        clock = iter(range(0, 10_000, 50))
        await Host(FakeHeld(slowly), HELD, idle=60.0, now=lambda: float(next(clock))).run(lambda: None)

    run(work())
    assert list(folder.iterdir()) == []


def test_who_only_looks_keeps_no_engine_warm() -> None:
    async def work() -> None:
        now = 0.0
        hosting = asyncio.create_task(Host(FakeHeld(slowly), HELD, idle=60.0, now=lambda: now).run(lambda: None))
        record = await record_of_host()
        for now in (0.0, 40.0):
            assert await look_at(record) == Health(clients=0, live=0, served=0, idle=now)
        now = 80.0
        await hosting

    run(work())


def test_who_is_connected_to_ask_keeps_an_engine_warm() -> None:
    async def work() -> list[Health]:
        now = 0.0
        hosting = asyncio.create_task(Host(FakeHeld(slowly), HELD, idle=60.0, now=lambda: now).run(lambda: None))
        client = await connected()
        record = await record_of_host()
        now = 80.0
        before = await look_at(record)
        await asyncio.sleep(1.1)  # the engine is looked at each second
        assert not hosting.done()
        await client.stop()
        while (await look_at(record)).clients:
            pass
        now = 130.0
        after = await look_at(record)
        await over(hosting)
        return [before, after]

    assert run(work()) == [
        Health(clients=1, live=0, served=0, idle=0.0),
        Health(clients=0, live=0, served=0, idle=50.0),
    ]


def test_the_end_of_an_engine_writes_no_traceback() -> None:
    async def work() -> list[dict[str, Any]]:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, fault: faults.append(fault))
        hosting = asyncio.create_task(host(FakeHeld(slowly)))
        client = await connected()
        await client.reply(ask())
        await over(hosting)
        await client.stop()
        await asyncio.sleep(0)
        return faults

    assert run(work()) == []


def test_an_engine_that_dies_ends_its_process(folder: Path) -> None:
    async def work() -> None:
        held = FakeHeld(slowly)
        hosting = asyncio.create_task(host(held))
        client = await connected()
        held.failure = "killed"
        await hosting
        with pytest.raises(ModelError, match="has ended"):
            await client.reply(ask())
        await client.stop()

    run(work())
    assert list(folder.iterdir()) == []


# --- which engine is used ---------------------------------------------------------------------------------------------


def found(monkeypatch: pytest.MonkeyPatch, vllm: str = "1", **changes: Any) -> tuple[bool, list[str]]:
    """Return whether a warm engine is used for a model with these changes, and the notes."""
    notes: list[str] = []

    async def work() -> bool:
        hosting = asyncio.create_task(host(FakeHeld(slowly)))
        await record_of_host()
        monkeypatch.setattr("flowrun.backends.warm.records.vllm_version", lambda: vllm)
        wanted = msgspec.structs.replace(HELD, **{"adapters": (), **changes})
        backend = await connect_to_warm(wanted, timeout=None, note=notes.append)
        if backend is not None:
            await backend.stop()
        await over(hosting)
        return backend is not None

    return run(work()), notes


@pytest.fixture
def one_version(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("flowrun.backends.warm.host.vllm_version", lambda: "1")
    return monkeypatch


def test_the_engine_of_an_equal_model_is_used(one_version: pytest.MonkeyPatch) -> None:
    assert found(one_version) == (True, [f"the warm engine of tiny is used (process {os.getpid()})"])
    assert found(one_version, adapters=("lora",))[0]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        pytest.param({"engine": {"max_model_len": 8}}, "it has another engine", id="an engine argument"),
        pytest.param({"adapters": ("other",)}, "it has another adapters", id="an adapter that it lacks"),
        pytest.param({"chat_template": "x", "revision": "y"}, "another revision, chat_template", id="several"),
        pytest.param(
            {"files": {"tiny": {"model.safetensors": "9 2", "config.json": "5 1"}}},
            "the files of the model have changed since it was loaded (model.safetensors); end it by",
            id="trained anew",
        ),
        pytest.param({"vllm": "2"}, f"it runs flowrun {__version__} and vLLM 1; end it", id="another version"),
    ],
)
def test_another_engine_is_not_used_and_it_is_said_why(
    one_version: pytest.MonkeyPatch, changes: dict[str, Any], note: str
) -> None:
    used, notes = found(one_version, **changes)
    assert not used
    assert note in notes[0]


def test_files_of_which_nothing_is_known_are_no_others(one_version: pytest.MonkeyPatch) -> None:
    assert found(one_version, files={})[0]
    assert found(one_version, files={"other": {"config.json": "1 1"}})[0]


def test_the_engine_of_another_model_is_nothing_to_speak_of(one_version: pytest.MonkeyPatch) -> None:
    assert found(one_version, name="large") == (False, [])


def test_an_engine_that_cannot_be_reached_is_not_used(one_version: pytest.MonkeyPatch) -> None:
    async def work() -> list[str]:
        notes: list[str] = []
        write_record(
            EngineRecord(
                pid=os.getpid(),
                ticks=started_at(os.getpid()),
                digest=HELD.digest,
                model=HELD,
                started=0.0,
                idle=1.0,
                flowrun=__version__,
                vllm="1",
            )
        )
        one_version.setattr("flowrun.backends.warm.records.vllm_version", lambda: "1")
        assert await connect_to_warm(HELD, timeout=None, note=notes.append) is None
        return notes

    [note] = run(work())
    assert "cannot be reached: FileNotFoundError" in note


def test_paths_are_those_of_the_spec(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    by_path = held_model(Model(name="./model"), folder=tmp_path, template="x")
    assert by_path.name == str(tmp_path / "model")
    assert held_model(Model(name=str(tmp_path / "model")), folder=Path("/"), template="x") == by_path
    assert held_model(Model(name="model-of-a-hub"), folder=tmp_path, template=None).name == "model-of-a-hub"
    assert held_model(Model(name="./model"), folder=tmp_path, template="y").digest != by_path.digest


def test_a_model_that_is_trained_anew_has_other_files(tmp_path: Path) -> None:
    files = [tmp_path / "model" / name for name in ("config.json", "model.safetensors", "notes.md")]
    adapter = tmp_path / "adapter" / "adapter_model.safetensors"
    for file in (*files, adapter):
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")

    def now() -> HeldModel:
        return held_model(Model(name="./model"), folder=tmp_path, template=None, adapters=["./adapter"])

    before = now()
    assert now() == before
    files[2].write_text("read by nobody")
    assert now() == before
    files[1].write_text("[]")  # as long as before
    os.utime(files[1], ns=(1, 1))
    adapter.write_text("longer")
    assert now().changed_files(before) == ["adapter_model.safetensors", "model.safetensors"]
    assert now().digest == before.digest


def test_the_commit_that_was_loaded_counts() -> None:
    before = msgspec.structs.replace(HELD, files={"a/b": {"commit": "old"}, "/m": {"config.json": "1 1"}})
    loaded = before.with_commits({"a/b": {"commit": "new"}, "/m": {"config.json": "2 2"}})
    assert loaded.files == {"a/b": {"commit": "new"}, "/m": {"config.json": "1 1"}}
    assert before.changed_files(loaded) == ["commit"]


def test_the_socket_is_for_this_user_only() -> None:
    async def work() -> int:
        hosting = asyncio.create_task(host(FakeHeld(slowly)))
        mode = (await record_of_host()).socket.stat().st_mode
        await over(hosting)
        return mode & 0o777

    assert run(work()) == 0o600


def test_an_engine_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        hosting = asyncio.create_task(host(FakeHeld(slowly)))
        record = await record_of_host()
        monkeypatch.setattr(EngineRecord, "lives", property(lambda self: not hosting.done()))
        await end(record)
        await hosting

    run(work())


def test_an_engine_in_use_ends_only_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        hosting = asyncio.create_task(host(FakeHeld(slowly)))
        record, client = await record_of_host(), await connected()
        waiting = asyncio.create_task(client.reply(ask(sampling={"max_tokens": 1})))
        await client.reply(ask())
        monkeypatch.setattr(EngineRecord, "lives", property(lambda self: not hosting.done()))
        with pytest.raises(BackendError) as raised:
            await end(record)
        assert str(raised.value) == (
            f"tiny: process {os.getpid()} is in use (clients: 1, requests under way: 1): "
            "wait for them, or end it by flowrun engine down --force"
        )
        assert not waiting.done()
        await end(record, force=True)
        await hosting
        with pytest.raises(ModelError, match="has ended"):
            await waiting

    run(work())
