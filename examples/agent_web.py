"""Words that stream to a browser as server-sent events. After a lost connection the stream goes on where it
was.

    pip install 'flowdsl[web]'
    python examples/agent_web.py             then open http://127.0.0.1:8000

Each word is published, so it is durable. A page that loses its connection asks for the words after the last
one that it saw (browsers send the id by themselves). This works even if the server was killed and started
again.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flowdsl import Runtime, aio, publish, step, workflow

PAUSE = float(os.environ.get("PAUSE", "0.2"))  # seconds between two words
PAGE = """<!doctype html><title>talk</title>
<input id="question" placeholder="ask something" autofocus> <p id="answer"></p>
<script>
const answer = document.getElementById("answer")
document.getElementById("question").onchange = async (event) => {
  answer.textContent = ""
  const talk = await fetch("/talks", {method: "POST", body: JSON.stringify(event.target.value)})
  const words = new EventSource(`/talks/${(await talk.json()).id}/words`)
  words.onmessage = (message) => answer.append(JSON.parse(message.data), " ")
  words.addEventListener("end", () => words.close())
}
</script>"""


@step
def think(question: str) -> list[str]:
    """A stand-in for a model."""
    return f"You asked {question!r} and this is all that I can say to it".split()


@workflow
async def talk(question: str) -> int:
    """Answer word by word."""
    words = await think.submit(question)
    for word in words:
        publish("words", word)
        await aio.sleep(PAUSE)
    return len(words)


def make_app(runtime: Runtime) -> Starlette:
    """The server. The talks are in the storage of *runtime*."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def begin(request: Request) -> Response:
        run = talk.options(fresh=True).start(await request.json())
        return JSONResponse({"id": run.id})

    async def words(request: Request) -> Response:
        run = await runtime.aio.run(request.path_params["id"])
        if run is None:
            return JSONResponse({"error": "there is no such talk"}, status_code=404)
        seen = int(request.headers.get("last-event-id", 0))

        async def events() -> AsyncIterator[str]:
            number = seen
            async for word in run.stream("words", after=seen, follow=True):
                number += 1
                yield f"id: {number}\ndata: {json.dumps(word)}\n\n"
            yield "event: end\ndata: \n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with runtime:
            await runtime.aio.recover()  # continue the talks of a killed server
            yield

    routes = [
        Route("/", page),
        Route("/talks", begin, methods=["POST"]),
        Route("/talks/{id:path}/words", words),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(make_app(Runtime()), host="127.0.0.1", port=8000)
