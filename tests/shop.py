"""A project whose runs wait for people, go slowly and are killed: what pages and servers are tested with."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowrun.runtime.project import Project
from flowrun.runtime.session import Session

TOOLS = '''\
"""The tools of the shop."""

import os
import signal
import time
from pathlib import Path


def pay_back(order_id: int, amount: int, note: str = "") -> dict:
    """Pay money back."""
    return {"order_id": order_id, "amount": amount, "note": note}


def work(name: str, seconds: float) -> str:
    """Work for some time."""
    time.sleep(seconds)
    return f"{name} is done"


def pay_once(marker: str) -> str:
    """Pay, and lose the process at the first time, before the result is written down."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid again"
'''

REPLIES = """\
replies:
  - when: request.state == 'ask'
    tool_calls: [{name: refund, arguments: {order_id: 45, amount: 60, note: "to <b>account</b> 12345678"}}]
    repeat: true
  - {when: request.state == 'answer', content: "We have paid <b>60</b> back to you. \\u202e", repeat: true}
"""

REFUND = """\
flowrun: v1
name: refund
version: 1.2.0
description: Pays money back, once a person has agreed to the call.
inputs: {message: {type: string, default: "The lamp came broken. Please pay 60 back."}}
model: {backend: scripted, name: replies.yaml}
tools:
  refund:
    entrypoint: shop_tools:pay_back
    description: Pay money back to the customer
    parameters:
      type: object
      properties:
        order_id: {type: integer}
        amount: {type: integer, minimum: 1, maximum: 1000, description: How much is paid back}
        note: {type: string}
      required: [order_id, amount]
      additionalProperties: false
    approve: {prompt: "The customer wrote: {{ inputs.message }}", timeout: 7d}
messages: [{role: user, content: "{{ inputs.message }}"}]
states:
  ask: {type: chat, tool_choice: refund, next: pay}
  pay: {type: tools, next: answer}
  answer: {type: chat, tools: [], next: done}
  done: {type: end, output: {answer: "{{ reply.content }}", paid: "{{ (results | first).value.amount }}"}}
"""

ASKS = """\
flowrun: v1
name: asks
version: 1.0.0
inputs: {city: {type: string, default: Dallas}}
states:
  ask:
    type: wait
    prompt: "How hot is it in {{ inputs.city }}? <script>alert(1)</script>"
    schema:
      type: object
      properties:
        degrees: {type: integer, minimum: -90, maximum: 60, description: In degrees Celsius}
        sure: {type: boolean}
      required: [degrees, sure]
      additionalProperties: false
    timeout: 7d
    catch: [{errors: [wait.timeout], to: nobody}]
    next: work
  work: {type: call, entrypoint: "shop_tools:work", with: {name: check, seconds: 0.6}, next: done}
  done: {type: end, output: {degrees: "{{ outputs.ask.degrees }}"}}
  nobody: {type: end, status: failed}
"""

SLOW = """\
flowrun: v1
name: slow
version: 1.0.0
inputs: {seconds: {type: number, default: 0.5}}
states:
  one: {type: call, entrypoint: "shop_tools:work", with: {name: one, seconds: "{{ inputs.seconds }}"}, next: two}
  two: {type: call, entrypoint: "shop_tools:work", with: {name: two, seconds: "{{ inputs.seconds }}"}, next: three}
  three: {type: call, entrypoint: "shop_tools:work", with: {name: three, seconds: "{{ inputs.seconds }}"}, next: done}
  done: {type: end, output: {said: "{{ outputs.three }}"}}
"""

LATE = """\
flowrun: v1
name: late
version: 1.0.0
states:
  work: {type: call, entrypoint: "shop_tools:work", with: {name: first, seconds: 3}, next: ask}
  ask:
    type: wait
    prompt: Is it well?
    schema:
      type: object
      properties: {ok: {type: boolean}}
      required: [ok]
      if: {properties: {ok: {const: false}}}
      then: {properties: {note: {type: string}}}
    next: done
  done: {type: end, output: "{{ outputs.ask }}"}
"""

TWO = """\
flowrun: v1
name: two
version: 1.0.0
flows:
  half:
    inputs: {who: {type: string}}
    states:
      ask: {type: wait, prompt: "Well, {{ inputs.who }}?", schema: {type: string, minLength: 2}, next: done}
      done: {type: end, output: "{{ outputs.ask }}"}
states:
  both:
    type: parallel
    branches:
      left: {flow: "#half", with: {who: left}}
      right: {flow: "#half", with: {who: right}}
    next: done
  done: {type: end, output: "{{ outputs.both }}"}
"""

DOUBT = """\
flowrun: v1
name: doubt
version: 1.0.0
inputs: {marker: {type: string}}
states:
  pay: {type: call, entrypoint: "shop_tools:pay_once", with: {marker: "{{ inputs.marker }}"}, next: done}
  done: {type: end, output: {paid: "{{ outputs.pay }}"}}
"""

SPECS = {"refund": REFUND, "asks": ASKS, "slow": SLOW, "doubt": DOUBT, "two": TWO, "late": LATE}


def write_shop(folder: Path) -> Path:
    """Write the project into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop_tools.py").write_text(TOOLS)
    (folder / "replies.yaml").write_text(REPLIES)
    for name, text in SPECS.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def run_shop(shop: Path, journal: Path, name: str, inputs: Mapping[str, Any] | None = None, **session: Any) -> str:
    """Run a flow of the project until it ends or waits, and return the id of its run in the journal."""

    async def run() -> str:
        flow = Project(folder=shop, environ=session.get("environ") or {}).compile(shop / f"{name}.yaml")
        async with Session(journal=journal, **session) as opened:
            return (await opened.run(flow, inputs or {})).run_id

    return asyncio.run(run())
