"""The web page: runs, live, in a browser. ``flowdsl ui`` serves it. :func:`app` returns it, to be mounted in
an app of yours.

It needs the extra ``web`` (Starlette, uvicorn, Jinja2). It has no build step, and loads nothing from another
host.

>>> from flowdsl.storage import MemoryStorage
>>> page = app(MemoryStorage())
>>> len(page.token) >= 22  # 128 random bits
True
"""

from importlib.util import find_spec

if not all(find_spec(name) for name in ("starlette", "uvicorn", "jinja2")):
    raise ImportError("the web page needs more packages: pip install 'flowdsl[web]'")

from flowdsl.web.page import Page, app

__all__ = ["Page", "app"]
