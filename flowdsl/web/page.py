"""The page as an ASGI app: it admits requests, finds the handler of an address, and turns errors into
responses."""

from collections.abc import Callable, Iterable

from attrs import frozen
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from flowdsl.runtime import Runtime
from flowdsl.storage import Storage
from flowdsl.web import actions, api, pages
from flowdsl.web.address import base_of, segments_of
from flowdsl.web.answers import HEADERS, Refusal, html, json_response, refusal_of, see_other
from flowdsl.web.events import Pulse, stream
from flowdsl.web.guard import Guard, checked_hosts, checked_token
from flowdsl.web.page_request import PageRequest
from flowdsl.web.rendering import Renderer
from flowdsl.web.tables import KINDS

__all__ = ["Page", "app"]

Handler = Callable[[PageRequest], Response]

_LARGEST = 1 << 20  # bytes of a request's body
_READ = ("GET", "HEAD")


@frozen
class Route:
    """One kind of address. *name* is its second or third segment."""

    handler: Handler | None
    methods: tuple[str, ...] = _READ
    name: str = ""
    action: str = ""
    is_page: bool = False


def app(
    storage_or_runtime: Storage | Runtime | str,
    *,
    token: str | bool | None = None,
    allow_actions: bool = False,
    allowed_hosts: Iterable[str] = (),
) -> "Page":
    """A web page that shows the runs of a storage, as an ASGI app. Serve it, or mount it below any path.

    Parameters: *storage_or_runtime*: a :class:`~flowdsl.storage.Storage`, its URL, or a
    :class:`~flowdsl.Runtime` (then actions can execute the workflows that its process knows). *token*: what a
    reader must show. ``None`` makes one of 192 random bits; with ``False`` none is needed, because your own
    login protects the page. *allow_actions*: whether runs can be cancelled, retried, forked, signalled and
    resolved. *allowed_hosts*: host names besides ``localhost`` under which the page may be reached.

    Closing the app never closes a storage or runtime that you passed in. Raises ``ValueError`` for an empty
    token.

    >>> from flowdsl.storage import MemoryStorage
    >>> app(MemoryStorage(), token="a secret of ours").token
    'a secret of ours'
    """
    return Page(storage_or_runtime, token, allow_actions, allowed_hosts)


class Page:
    """The app that :func:`app` makes. *token* is what a reader must show (``None``: nothing)."""

    def __init__(
        self,
        storage_or_runtime: Storage | Runtime | str,
        token: str | bool | None,
        allow_actions: bool,
        allowed_hosts: Iterable[str],
    ) -> None:
        self.token = checked_token(token)
        self._guard = Guard(self.token, checked_hosts(allowed_hosts))
        self._owns_runtime = not isinstance(storage_or_runtime, Runtime)
        self.runtime = (
            storage_or_runtime if isinstance(storage_or_runtime, Runtime) else Runtime(storage_or_runtime)
        )
        self.allow_actions = bool(allow_actions)
        self.pulse = Pulse(self.runtime.storage)
        self._renderer = Renderer()

    def close(self) -> None:
        """End open event streams, and close the runtime if it was opened here."""
        self.pulse.close()
        if self._owns_runtime:
            self.runtime.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            answer = await self._answer(Request(scope, receive))
            await answer(scope, receive, _guarded(send, scope["method"] == "HEAD"))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.pulse.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, request: Request) -> Response:
        is_api = False
        try:
            admitted = self._guard.admit(request)
            if admitted is None:
                return html(self._renderer.refused(), 403)
            segments = segments_of(request.scope)
            is_api = segments is not None and segments[:1] == ["api"]
            page_request = PageRequest(
                request, self.runtime, self._guard, self._renderer, self.allow_actions, admitted
            )
            route = self._route(segments, page_request)
            if request.method not in route.methods:
                allowed = {"Allow": ", ".join(route.methods)}
                raise Refusal(405, f"this address accepts {' and '.join(route.methods)}", allowed)
            if admitted.by_query and route.is_page and request.method in _READ:
                return self._with_cookie(page_request)
            page_request = page_request.about(route.name, route.action)
            if request.method == "POST":
                await self._check_form(page_request, request)
            if route.action == "events":
                return await stream(page_request, self.pulse)
            assert route.handler is not None
            return await run_in_threadpool(route.handler, page_request)
        except Exception as error:  # a visitor sees a page, whatever it is
            refusal = refusal_of(error)
            as_json = is_api or "application/json" in request.headers.get("accept", "")
            if as_json:
                return json_response({"error": refusal.text}, refusal.status, refusal.headers)
            page = self._renderer.error(refusal.status, refusal.text, base_of(request.scope) or "")
            return html(page, refusal.status, refusal.headers)

    def _with_cookie(self, page_request: PageRequest) -> Response:
        """Redirect to the same address without the token, and set a cookie."""
        answer = see_other(page_request.here_without("token"))
        answer.headers.append("Set-Cookie", self._guard.cookie(page_request.http, page_request.base or "/"))
        return answer

    async def _check_form(self, page_request: PageRequest, request: Request) -> None:
        if not self.allow_actions:
            raise Refusal(403, "this page only shows; `flowdsl ui --allow-actions` serves one that can act")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST:
                raise Refusal(413, "a request has one megabyte at most")
        page_request.read_form(body)

    def _route(self, segments: list[str] | None, page_request: PageRequest) -> Route:
        match segments:
            case [""] | ["runs"]:
                return Route(pages.runs, is_page=True)
            case ["runs", name]:
                return Route(pages.run, name=name, is_page=True)
            case ["runs", name, action] if action in actions.OF_RUNS:
                return Route(actions.act_on_run, ("POST",), name, action)
            case ["api", "runs"]:
                return Route(api.runs)
            case ["api", "runs", name]:
                return Route(api.run, name=name)
            case ["api", "runs", name, "events"]:
                return Route(None, name=name, action="events")
            case ["api", "runs", name, "history"]:
                return Route(api.history, name=name)
            case [kind] if kind in KINDS:
                return Route(pages.table, name=kind, is_page=True)
            case [kind, name, action] if action in actions.OF_KINDS.get(kind, ()):
                return Route(actions.act_on_row, ("POST",), name, f"{kind}/{action}")
            case ["static", name] if name in self._renderer.static:
                return Route(pages.static, name=name)
        raise Refusal(404, "there is nothing at this address")


def _guarded(send: Send, is_head: bool) -> Send:
    """*send*, which adds the headers of every response, and removes the body for HEAD."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        elif is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending
