"""A crawler over local HTML files, with a heartbeat: a page that hangs is given up, and the crawl goes on.

    python examples/crawler.py DIRECTORY             counts the words of every page that index.html leads to
    python examples/crawler.py                       makes a small site first

Kill it at any moment and run it again: no page is read twice, and a directory that was scanned in part is
continued after the last heartbeat.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from flowdsl import Retry, Runtime, current_step, publish, step, store, workflow

LINK = re.compile(r'href="([^"#:]+)"')
TAG = re.compile(r"<[^>]*>")


@step(heartbeat="30 sec", retry=Retry(attempts=3, initial=0.1))
def survey(root: str) -> dict[str, int]:
    """The size of every file below *root*. It sends a heartbeat after each file, and goes on from the last
    one."""
    sizes: dict[str, int] = dict(current_step().details or {})  # type: ignore[union-attr]
    for path in sorted(Path(root).rglob("*.html")):
        name = str(path.relative_to(root))
        if name not in sizes:
            sizes[name] = path.stat().st_size
            current_step().heartbeat(sizes)  # type: ignore[union-attr]
    return sizes


@step(retry=Retry(attempts=2, on=OSError, initial=0.1))
def read(root: str, page: str) -> tuple[int, list[str]]:
    """Words and links of one page."""
    text = (Path(root) / page).read_text(encoding="utf-8")
    links = [str((Path(page).parent / link).as_posix()) for link in LINK.findall(text)]
    return len(TAG.sub(" ", text).split()), links


@workflow
def crawl(root: str) -> dict[str, int]:
    """Read every page that can be reached from ``index.html``, level by level. Pages of a level are read
    concurrently."""
    known = survey(root)
    words: dict[str, int] = {}
    level = ["index.html"]
    while level:
        found = read.map([root] * len(level), level, limit=8, return_exceptions=True)
        following: set[str] = set()
        for page, outcome in zip(level, found, strict=True):
            if isinstance(outcome, BaseException):
                store.push("unreadable", page)
                continue
            words[page], links = outcome
            following |= {link for link in links if link in known}
        publish("progress", f"{len(words)} of {len(known)} pages")
        level = sorted(following - words.keys())
    unreadable = store.get("unreadable", [])
    publish("progress", f"done, {len(unreadable)} unreadable")
    return words


def small_site(directory: Path) -> Path:
    """A site of 40 pages that link to one another."""
    for n in range(40):
        links = "".join(f'<a href="page{m}.html">{m}</a> ' for m in (2 * n + 1, 2 * n + 2) if m < 40)
        name = "index.html" if n == 0 else f"page{n}.html"
        (directory / name).write_text(f"<html><body>page {n} {'word ' * n}{links}</body></html>")
    return directory


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("directory", nargs="?", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, Runtime():
        root = asked.directory or small_site(Path(made))
        run = crawl.start(str(root))
        for line in run.stream("progress", follow=True):
            tell(line)
        words = run.result()
    tell(f"{sum(words.values())} words on {len(words)} pages")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run it again to continue.")
