"""Shared by all pictures: colours of statuses on light and dark pages, and text that is safe in markup."""

from functools import cache
from html import escape

from flowdsl.core.words import STATES, span, state_of

__all__ = ["HIDDEN", "attribute", "badge", "css", "cut", "length", "safe", "state_class"]

HIDDEN = "–"
"""Shown in place of a hidden value: the codec hides values, or ``previews=False``."""

_INK = {
    "light": ("#1f2328", "#57606a", "#ffffff", "#d0d7de"),
    "dark": ("#e6edf3", "#9aa4af", "#0d1117", "#30363d"),
}
"""Colours of text, quiet text, background and lines, for light and dark."""

_LAYOUT = """
@{font:13px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--fd-text);\
background:var(--fd-ground);border:1px solid var(--fd-line);border-radius:6px;padding:10px 12px;margin:2px 0;\
max-width:960px;overflow-x:auto;text-align:left}
@ code,@ pre{font:12px/1.45 ui-monospace,"SF Mono",Menlo,Consolas,monospace;color:inherit;\
background:none;padding:0;border:0;overflow-wrap:anywhere;white-space:pre-wrap}
@ .fd-head{font-size:14px}
@ .fd-quiet{color:var(--fd-quiet);font-size:12px}
@ .fd-error{border-left:3px solid var(--fd-failed);padding:2px 0 2px 10px;margin:8px 0}
@[data-status="cancelled"] .fd-error{border-left-color:var(--fd-cancelled)}
@ .fd-result{margin:6px 0}
@ svg{display:block;width:100%;min-width:640px;height:auto;margin:8px 0 2px}
@ svg.fd-small{display:inline-block;width:240px;min-width:0;margin:0;vertical-align:middle}
@ details{margin:6px 0 0}
@ summary{cursor:pointer;color:var(--fd-quiet);font-size:12px}
@ table{border-collapse:collapse;margin:4px 0 0;font-size:12px;border:0;width:auto;color:inherit}
@ th{color:var(--fd-quiet);font-weight:normal}
@ th,@ td{text-align:left;vertical-align:top;padding:2px 14px 2px 0;border:0;background:none;\
max-width:28em;white-space:normal}
@ td code{overflow-wrap:break-word}
@ td:last-child code{display:inline-block;min-width:12em}
@ tr{background:none}
@ tbody tr{border-top:1px solid var(--fd-line)}
@ .fd-nowrap{white-space:nowrap}
"""

"""``@`` is replaced by the class, three times. Otherwise a notebook's own style for tables and code would
win."""

_PICTURE = """
.flowdsl .fd-axis{fill:var(--fd-quiet);font:11px system-ui,sans-serif}
.flowdsl .fd-name{fill:var(--fd-text);font:11px system-ui,sans-serif}
.flowdsl .fd-on{fill:var(--fd-ground)}
.flowdsl .fd-grid{stroke:var(--fd-line);stroke-width:1}
.flowdsl .fd-idle{fill:var(--fd-line);fill-opacity:.5}
.flowdsl .fd-tick{stroke:var(--fd-ground);stroke-width:1.5}
.flowdsl .fd-hollow{fill-opacity:.18;stroke-dasharray:3 2;stroke-width:1}
.flowdsl .fd-replayed{fill-opacity:.55}
"""


@cache
def css(*, layout: bool = True) -> str:
    """The style of a picture. Without *layout*, only the rules that an SVG needs. All rules are for
    ``.flowdsl``."""
    rules = [_variables(".flowdsl", "light")]
    rules.append("@media (prefers-color-scheme:dark){" + _variables(".flowdsl", "dark") + "}")
    # The theme of the notebook wins over the system's.
    rules.append(_variables('.flowdsl:is([data-jp-theme-light="true"] *,.vscode-light *)', "light"))
    rules.append(
        _variables('.flowdsl:is([data-jp-theme-light="false"] *,.vscode-dark *,[theme="dark"] *)', "dark")
    )
    rules += [_LAYOUT.strip().replace("@", ".flowdsl" * 3)] if layout else []
    rules.append(_PICTURE.strip())
    for word in STATES:
        rules.append(f".flowdsl .fd-{word}{{fill:var(--fd-{word});stroke:var(--fd-{word})}}")
        if layout:
            rules.append(f".flowdsl.flowdsl b.fd-{word}{{color:var(--fd-{word});font-weight:600}}")
    return "".join(rules)


def _variables(selector: str, scheme: str) -> str:
    text, quiet, ground, line = _INK[scheme]
    colours = "".join(
        f"--fd-{state.word}:{state.light if scheme == 'light' else state.dark};" for state in STATES.values()
    )
    return (
        f"{selector}{{color-scheme:{scheme};--fd-text:{text};--fd-quiet:{quiet};--fd-ground:{ground};"
        f"--fd-line:{line};{colours}}}"
    )


def state_class(status: str) -> str:
    """The CSS class for *status*. An unknown status is drawn as ``pending``."""
    return f"fd-{status if status in STATES else 'pending'}"


def badge(status: str) -> str:
    """A status with its sign, in its colour.

    >>> badge("failed")
    '<b class="fd-failed fd-nowrap">✗ failed</b>'
    """
    state = state_of(status)
    return f'<b class="{state_class(status)} fd-nowrap">{safe(state.sign)} {safe(state.word)}</b>'


def cut(text: str, most: int) -> str:
    """The beginning of *text*, with ``…`` if something is left out.

    >>> cut("order-17", 6)
    'order…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def safe(text: str, most: int = 200) -> str:
    """*text* for HTML and SVG: shortened, escaped, and without characters that XML or HTML does not allow.

    >>> safe("<b>\\x00")
    '&lt;b&gt;\\\\x00'
    """
    shown = cut(text, most)
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in shown)
    return escape(shown)


def length(seconds: float) -> str:
    """A length of time.

    >>> length(75), length(0.0)
    ('1m15s', '&lt;1ms')
    """
    return safe(span(seconds))


def attribute(text: str) -> str:
    """*text* as the value of an attribute. It is shortened if it has more than a thousand characters."""
    return safe(text, 1000)
