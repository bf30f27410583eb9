"""The form of a conversation that a model's chat template takes, learnt by rendering samples when the engine starts.

Templates refuse, or leave out, what others take: user turns in a row, a late system message, text beside a call, ids of
calls of another length. A message is put into the nearest form that the template takes, always in the same way, so that
a later prompt extends an earlier one. Pure.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from flowrun.backends.chat_api import join_turns

ChatMessage = dict[str, Any]
"""A message in the form of the OpenAI chat API."""

Render = Callable[[list[ChatMessage]], str]
"""Renders messages as text by a model's template; raises any error for those that the template refuses."""

_OWN_ID: Final = "call00001"
_OTHER_ID: Final = "functions.look:0"


class Forms(NamedTuple):
    """What a chat template takes as it is.

    Attributes:
        call_text: text beside a call; else it is a message of its own before the call, or is left out.
        users: user turns in a row; else they are joined by a blank line.
        assistants: assistant turns in a row; else they are joined too.
        system: where a system message may stand; elsewhere it is a user's.
        developer: messages of this role; else they are system messages.
        empty: assistant messages without text and calls; else they are left out.
        ids: ids of calls in any form; else one that is not nine letters and digits is replaced by its checksum.
    """

    call_text: Literal["beside", "before", "nowhere"] = "beside"
    users: bool = True
    assistants: bool = True
    system: Literal["anywhere", "first", "nowhere"] = "anywhere"
    developer: bool = True
    empty: bool = True
    ids: bool = True

    def adapt(self, messages: Sequence[ChatMessage], *, after: Sequence[ChatMessage] = ()) -> list[ChatMessage]:
        """Return messages in the form that the template takes; those that have it are the same objects.

        Args:
            after: the adapted messages before them, which are returned too; only the last of them may change.
        """
        if self == _ALL:
            return [*after, *messages]
        adapted = list(after)
        begun = bool(adapted) and adapted[-1]["role"] != "system"  # where it matters, all of these come first
        for message in messages:
            for one in self._parts(message, begun=begun):
                if adapted and self._joins(adapted[-1], one):
                    adapted[-1] = {**one, "content": join_turns(adapted[-1]["content"], one["content"])}
                else:
                    adapted.append(one)
                begun = begun or one["role"] != "system"
        return adapted

    def _joins(self, last: ChatMessage, message: ChatMessage) -> bool:
        role = message["role"]
        if role != last["role"] or last.get("tool_calls"):
            return False
        return (role == "user" and not self.users) or (role == "assistant" and not self.assistants)

    def _parts(self, message: ChatMessage, *, begun: bool) -> list[ChatMessage]:
        role, calls = message["role"], message.get("tool_calls")
        if role == "developer" and not self.developer:
            role = "system"
        if role == "system" and (self.system == "nowhere" or (self.system == "first" and begun)):
            role = "user"
        if role != message["role"]:
            message = {**message, "role": role}
        if role == "assistant" and not (calls or message["content"] or self.empty):
            return []
        if not self.ids:
            message = _with_short_ids(message)
        if not calls or not message["content"] or self.call_text == "beside":
            return [message]
        silent = {**message, "content": None}
        if self.call_text == "nowhere":
            return [silent]
        text = {key: value for key, value in message.items() if key != "tool_calls"}
        silent.pop("reasoning", None)
        return [text, silent]


_ALL: Final = Forms()


def _with_short_ids(message: ChatMessage) -> ChatMessage:
    if calls := message.get("tool_calls"):
        return {**message, "tool_calls": [{**call, "id": _short_id(call["id"])} for call in calls]}
    if "tool_call_id" in message:
        return {**message, "tool_call_id": _short_id(message["tool_call_id"])}
    return message


def _short_id(call_id: str) -> str:
    if len(call_id) == len(_OWN_ID) and call_id.isascii() and call_id.isalnum():
        return call_id
    return f"c{zlib.crc32(call_id.encode()):08x}"


def learn_forms(render: Render) -> Forms:
    """Render samples, and return what the template takes. One that refuses even a question is left as it is."""

    def takes(*messages: ChatMessage, words: Sequence[str]) -> bool:
        try:
            text = render([dict(message) for message in messages])
        except Exception:  # a template refuses messages by whatever error it likes
            return False
        return all(word in text for word in words)

    ask, reply = _message("user", "Zebra?"), _message("assistant", "Yak.")
    if not takes(ask, words=["Zebra"]):
        return Forms()
    forms = Forms(
        users=takes(_message("user", "Lynx."), ask, words=["Lynx", "Zebra"]),
        assistants=takes(ask, _message("assistant", "Lynx."), reply, _message("user", "Ibex."), words=["Lynx", "Yak"]),
        empty=takes(ask, _message("assistant", ""), _message("user", "Ibex."), words=["Zebra", "Ibex"]),
    )
    rule = _message("system", "Lynx.")
    if not takes(ask, reply, rule, _message("user", "Ibex."), words=["Lynx", "Zebra"]):
        first = takes(rule, ask, words=["Lynx", "Zebra"])
        forms = forms._replace(system="first" if first else "nowhere")
    forms = forms._replace(developer=takes(_message("developer", "Lynx."), ask, words=["Lynx", "Zebra"]))
    if not takes(ask, *_called(), words=["Zebra"]):
        return forms  # it has no form for calls
    forms = forms._replace(ids=takes(ask, *_called(call_id=_OTHER_ID), words=["Zebra"]))
    for call_text in ("beside", "before"):
        forms = forms._replace(call_text=call_text)
        if takes(*forms.adapt([ask, *_called("Lynx.")]), words=["Lynx"]):
            return forms
    return forms._replace(call_text="nowhere")


def _message(role: str, content: str) -> ChatMessage:
    return {"role": role, "content": content}


def _called(text: str | None = None, call_id: str = _OWN_ID) -> tuple[ChatMessage, ChatMessage]:
    call = {"id": call_id, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    answer = {"role": "tool", "content": "Gnu.", "tool_call_id": call_id, "name": "look"}
    return {"role": "assistant", "content": text, "tool_calls": [call]}, answer
