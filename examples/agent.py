"""An agent: a language model that calls tools until it has an answer. Every turn is recorded.

    python examples/agent.py

A turn of a model is slow and costs money, so each is a step: kill the agent anywhere and run it again, and no
turn that was paid for is paid for again, no tool that has answered is called again. The model here is a local
stand-in that speaks as the usual chat APIs do; put your client's call in its place in ``ask_model``.
"""

import argparse
import asyncio
import json
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowdsl import Retry, Runtime, aio, step, workflow

Message = dict[str, Any]
LIBRARY = Path(sysconfig.get_path("stdlib"))

# The tools: plain functions, made durable -------------------------------------------------------------------


@step
def list_modules(package: str) -> list[str]:
    """List the source files of a package of the standard library."""
    tell(f"  tool  list_modules({package!r})")
    return sorted(path.name for path in (LIBRARY / package).glob("*.py"))


@step(retry=Retry(attempts=1))
def count_lines(package: str, file: str) -> int:
    """Count the lines of a source file."""
    tell(f"  tool  count_lines({package!r}, {file!r})")
    return (LIBRARY / package / file).read_text(encoding="utf-8").count("\n")


TOOLS: dict[str, Callable[..., Any]] = {
    "list_modules": list_modules.submit,
    "count_lines": count_lines.submit,
}

# The agent --------------------------------------------------------------------------------------------------


class RateLimited(Exception):
    """What an API raises when it is asked too often; ``retry_after`` is in seconds."""

    retry_after = 0.2


@step(retry=Retry(attempts=5, on=(RateLimited, ConnectionError)), timeout="2 min")
async def ask_model(messages: list[Message]) -> Message:
    """One turn. With a real API: ``return (await client.chat(messages, tools=…)).model_dump()``."""
    return await stand_in(messages)


async def use_tool(call: dict[str, Any]) -> Message:
    """Execute one tool call; a failure is an answer too, which the model can read."""
    try:
        answer = json.dumps(await TOOLS[call["name"]](**json.loads(call["arguments"])))
    except Exception as error:  # what stops a run, such as a cancel, passes through this
        answer = f"error: {error!r}"
    return {"role": "tool", "tool_call_id": call["id"], "content": answer}


@workflow(timeout="1 hour")
async def agent(question: str, max_turns: int = 10) -> str:
    """Ask the model, execute the tool calls of a turn side by side, tell it the results, until it answers."""
    messages: list[Message] = [{"role": "user", "content": question}]
    for _ in range(max_turns):
        reply = await ask_model(messages)
        await aio.store.increment("tokens", reply.pop("usage"))
        messages.append(reply)
        if not reply["tool_calls"]:
            return f"{reply['content']} ({await aio.store.get('tokens')} tokens)"
        messages += await aio.gather(*(use_tool(call) for call in reply["tool_calls"]))
    raise RuntimeError(f"no answer in {max_turns} turns")


# The stand-in -----------------------------------------------------------------------------------------------


class Model:
    pause = 0.7  # seconds that a turn takes
    asked = 0


async def stand_in(messages: list[Message]) -> Message:
    """Looks up which module of a package is the longest, as a model would: with one mistake on its way."""
    Model.asked += 1
    if Model.asked == 2:
        tell("model  429: too many requests")
        raise RateLimited("slow down")
    await asyncio.sleep(Model.pause)
    package = messages[0]["content"].rstrip("?").split()[-1]
    results = [message["content"] for message in messages if message["role"] == "tool"]
    answers = [json.loads(result) for result in results if not result.startswith("error")]
    calls: list[dict[str, Any]] = []
    content = ""
    if not answers:
        calls = [tool_call("list_modules", package=package)]
    elif len(answers) == 1:
        calls = [
            tool_call("count_lines", package=package, file=name) for name in [*answers[0], "invented.py"]
        ]
    else:
        lines, name = max(zip(answers[1:], answers[0], strict=True))
        content = f"{package}/{name} is the longest, with {lines} lines."
    tell(f"model  {content or 'calls ' + ', '.join(call['name'] for call in calls)}")
    return {"role": "assistant", "content": content, "tool_calls": calls, "usage": 90 + 40 * len(messages)}


def tool_call(name: str, **arguments: str) -> dict[str, Any]:
    text = json.dumps(arguments)
    return {"id": f"call_{name}_{'_'.join(arguments.values())}", "name": name, "arguments": text}


# The program ------------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("package", nargs="?", default="json", help="a package of the standard library")
    parser.add_argument("--pause", type=float, default=Model.pause, help="seconds that a turn takes")
    asked = parser.parse_args()
    Model.pause = asked.pause
    async with Runtime():
        tell(await agent(f"Which is the longest module of {asked.package}?"))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run it again to continue.")
