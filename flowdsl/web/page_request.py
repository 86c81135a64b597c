"""One admitted request, as handlers see it."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

from attrs import define, evolve, field
from starlette.requests import Request

from flowdsl.runtime import Runtime
from flowdsl.web.address import base_of, href, segments_of
from flowdsl.web.answers import Refusal
from flowdsl.web.guard import Admission, Guard
from flowdsl.web.rendering import Renderer
from flowdsl.web.tables import KINDS

__all__ = ["PageRequest"]


@define
class PageRequest:
    """A request that was admitted. *name*: the id or name in its address. *action*: what to do with it."""

    http: Request
    runtime: Runtime
    guard: Guard
    renderer: Renderer
    allow_actions: bool
    admission: Admission
    name: str = ""
    action: str = ""
    form: dict[str, str] = field(factory=dict)

    @property
    def query(self) -> list[tuple[str, str]]:
        """The names and values of the query. Raises a 400 if it is not UTF-8."""
        raw = self.http.scope.get("query_string", b"").decode("latin-1")
        return _pairs(raw)

    @property
    def base(self) -> str:
        """The path below which the page is mounted."""
        return base_of(self.http.scope)

    @property
    def csrf(self) -> str:
        """The CSRF token of our forms; ``""`` if there are no forms."""
        return self.guard.derived("csrf") if self.allow_actions else ""

    @property
    def wants_json(self) -> bool:
        """Whether the client asked for JSON."""
        return "application/json" in self.http.headers.get("accept", "")

    def about(self, name: str, action: str) -> "PageRequest":
        """This request with the *name* and *action* of its address. If the name is empty, it is in the
        query."""
        if not name and (segments_of(self.http.scope) or [""]) != [""]:
            name = next((value for key, value in self.query if key == "id"), "")
        return evolve(self, name=name, action=action)

    def path(self, kind: str, name: str, *more: str) -> str:
        """The path of a run, queue, …, and of the pages below it."""
        return href(self.base, kind, name, *more)

    def here_without(self, name: str) -> str:
        """The address of this request without the field *name* of its query."""
        path: str = self.http.scope.get("raw_path", b"/").decode("latin-1")
        query = urlencode([pair for pair in self.query if pair[0] != name])
        return ("/" + path.lstrip("/")) + (f"?{query}" if query else "")

    def read_form(self, body: bytes) -> None:
        """Read the fields of a form, and check that the form is one of ours."""
        kind = self.http.headers.get("content-type", "application/x-www-form-urlencoded")
        if body and kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
            raise Refusal(400, "send the fields of a form, as application/x-www-form-urlencoded")
        try:
            self.form = dict(_pairs(body.decode("ascii")))
        except UnicodeDecodeError:
            raise Refusal(400, "the form is not encoded as forms are") from None
        sent = self.http.headers.get("x-csrf-token", self.form.get("csrf_token"))
        if not self.admission.bearer and not self.guard.knows_form(sent):
            raise Refusal(403, "this form is not one of this page; load the page again")

    def context(self, **more: Any) -> dict[str, Any]:
        """The variables that every template needs, and *more*."""
        return {
            "base": self.base,
            "csrf": self.csrf,
            "kinds": KINDS,
            "allow_actions": self.allow_actions,
            **more,
        }


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError:  # not UTF-8, or too many fields
        raise Refusal(400, "the fields are not UTF-8, or too many") from None
