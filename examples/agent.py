"""An agent: a language model that calls tools until it has an answer. Every turn is recorded.

    python examples/agent.py                 asks you before the agent writes a file
    python examples/agent.py --yes           allows it

A turn of a model is slow and costs money, so each turn is a step. Kill the agent at any moment and run it
again: it pays for no turn twice, and calls no tool twice that has answered. The answer is streamed word by
word. A tool that changes something waits for a person. A budget ends the talk. The model here is a local
stand-in with the form of the usual chat APIs; put your client's call into ``ask_model``.
"""

import argparse
import asyncio
import json
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowdsl import Retry, Run, Runtime, aio, publish, step, workflow

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


@step
def save_note(text: str) -> str:
    """Write the finding into a file."""
    tell(f"  tool  save_note({text!r})")
    Path("note.txt").write_text(f"{text}\n", encoding="utf-8")
    return "saved"


TOOLS: dict[str, Callable[..., Any]] = {
    "list_modules": list_modules.submit,
    "count_lines": count_lines.submit,
    "save_note": save_note.submit,
}
ASK_FIRST = {"save_note"}  # a person must allow these

# The agent --------------------------------------------------------------------------------------------------


class RateLimited(Exception):
    """Raised by an API that is asked too often. ``retry_after`` is in seconds."""

    retry_after = 0.2


@step(retry=Retry(attempts=5, on=(RateLimited, ConnectionError)), timeout="2 min")
async def ask_model(messages: list[Message]) -> Message:
    """One turn. Its words are published as they come, as from a real API."""
    reply = await stand_in(messages)
    for word in reply["content"].split():
        publish("answer", word)
    return reply


async def use_tool(call: dict[str, Any]) -> Message:
    """Execute one tool call, if it is allowed. A failure is also an answer, which the model can read."""
    try:
        if call["name"] in ASK_FIRST and not await allowed(call):
            return {"role": "tool", "tool_call_id": call["id"], "content": "error: a person has refused it"}
        answer = json.dumps(await TOOLS[call["name"]](**json.loads(call["arguments"])))
    except Exception as error:  # a stop of the run, such as a cancel, is not caught here
        answer = f"error: {error!r}"
    return {"role": "tool", "tool_call_id": call["id"], "content": answer}


async def allowed(call: dict[str, Any]) -> bool:
    """Show the call to a person, and wait for the answer, for days if necessary."""
    publish("approvals", {"id": call["id"], "call": f"{call['name']}({call['arguments']})"})
    decision = await aio.wait_for("decision", where={"id": call["id"]})
    return bool(decision["yes"])


@workflow
async def agent(question: str, budget: int = 5000) -> str:
    """Ask the model, execute the tool calls of a turn concurrently, and tell it the results, until it answers
    or has used its budget of tokens."""
    messages: list[Message] = [{"role": "user", "content": question}]
    spent = 0
    while spent < budget:
        reply = await ask_model(messages)
        spent = await aio.store.increment("tokens", reply.pop("usage"))
        messages.append(reply)
        if not reply["tool_calls"]:
            return f"{reply['content']} ({spent} tokens)"
        messages += await aio.gather(*(use_tool(call) for call in reply["tool_calls"]))
    return f"no answer within the budget ({spent} tokens)"


# The stand-in -----------------------------------------------------------------------------------------------


class Model:
    pause = 0.7  # seconds that a turn takes
    asked = 0


async def stand_in(messages: list[Message]) -> Message:
    """Finds the longest module of a package as a model would, with one mistake on the way."""
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
        lines, name = max(zip([a for a in answers[1:] if a != "saved"], answers[0], strict=True))
        content = f"{package}/{name} is the longest, with {lines} lines."
        if not any(result.startswith(("error: a person", '"saved"')) for result in results):
            calls, content = [tool_call("save_note", text=content)], ""
    tell(f"model  {content or 'calls ' + ', '.join(call['name'] for call in calls)}")
    return {"role": "assistant", "content": content, "tool_calls": calls, "usage": 90 + 40 * len(messages)}


def tool_call(name: str, **arguments: str) -> dict[str, Any]:
    text = json.dumps(arguments)
    return {"id": f"call_{name}_{arguments.get('file', '')}", "name": name, "arguments": text}


# The program ------------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def person(run: Run[str], yes: bool) -> None:
    """Answer what the agent asks. In another process: ``flowdsl signal RUN decision --payload …``"""
    async for asked in run.stream("approvals", follow=True):
        if not yes:
            yes = (await asyncio.to_thread(input, f"allow {asked['call']}? [y/n] ")).startswith("y")
        run.signal("decision", {"id": asked["id"], "yes": yes}, key=asked["id"])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("package", nargs="?", default="json", help="a package of the standard library")
    parser.add_argument("--pause", type=float, default=Model.pause, help="seconds that a turn takes")
    parser.add_argument("--budget", type=int, default=5000, help="tokens that it may use")
    parser.add_argument("--yes", action="store_true", help="allow what the agent wants to write")
    asked = parser.parse_args()
    Model.pause = asked.pause
    async with Runtime():
        run = agent.start(f"Which is the longest module of {asked.package}?", asked.budget)
        answering = asyncio.create_task(person(run, asked.yes))
        result = await run
        await answering
        tell(" ".join([word async for word in run.stream("answer")]))
        tell(f"=> {result}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run it again to continue.")
