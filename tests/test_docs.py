"""Documentation that is executed: code blocks, links, and the commands it names."""

import doctest
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flowdsl import errors
from flowdsl.cli._app import COMMANDS
from flowdsl.runtime import _runtimes

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if "_build" not in page.parts
)
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\$ )?(?:\S*/)?flowdsl (\w+)", re.MULTILINE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """The code blocks of *page* in these languages, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(2)), found[2])
        for found in FENCE.finditer(text)
        if found[1] in languages
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of *page*, as code forges make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fresh module to execute a page in, and a directory of its own, as a reader would have them."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWDSL_STORAGE")
    return module


@pages
def test_python_blocks_of_a_page_run_one_after_the_other(page: Path, reader: ModuleType) -> None:
    """The Python blocks of a page work when they are executed from top to bottom."""
    for line, code in blocks(page, "python"):
        exec(compile("\n" * line + code, str(page), "exec"), reader.__dict__)
    for line, code in blocks(page, "pycon"):
        session = doctest.DocTestParser().get_doctest(code, reader.__dict__, page.name, str(page), line)
        doctest.DebugRunner(optionflags=doctest.ELLIPSIS).run(session, clear_globs=False)
    assert not _runtimes._entered, "it would be the runtime of all that follows"


@pages
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository, and to a heading in it, finds its target."""
    lost = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def test_every_error_is_explained() -> None:
    """The page of errors explains each error."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert not [name for name in errors.__all__ if not re.search(rf"`(flowdsl\.errors\.)?{name}`", page)]


MODULES = "flowdsl aio errors storage codecs rekeying testing web notebook contrib.otel contrib.logs contrib.dask".split()


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented(name: str) -> None:
    """Each public module has a page of the reference, and each of its names a docstring."""
    module = importlib.import_module(name if name == "flowdsl" else f"flowdsl.{name}")
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    assert re.search(rf"automodule:: {re.escape(module.__name__)}$", pages, re.MULTILINE)
    assert not [public for public in module.__all__ if not (getattr(module, public).__doc__ or "").strip()]


@pages
def test_commands_of_a_page_exist(page: Path) -> None:
    """Each ``flowdsl <command>`` in a block exists."""
    shown = {name for _, code in blocks(page, "", "bash", "console", "sh") for name in COMMAND.findall(code)}
    assert shown <= set(COMMANDS)


@pytest.mark.parametrize("system", ["Temporal", "DBOS", "Restate", "Prefect", "LangGraph", "joblib"])
def test_ten_samples_of_each_system_are_said_in_code(system: str) -> None:
    """The page has ten samples of each system, and says what that system does and flowdsl does not."""
    page = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {system}\n")[2].partition("\n## ")[0]
    samples = re.split(r"^\*\*(\d+)\. ", section, flags=re.MULTILINE)[1:]
    assert samples[::2] == [str(n) for n in range(1, 11)]
    assert [
        number for number, text in zip(samples[::2], samples[1::2], strict=True) if "```python" not in text
    ] == []
    assert f"**What {system} does that flowdsl does not.**" in section


SYNC = (
    "sleep sleep_until wait_for receive gather race schedule send now uuid4 rng publish continue_as_new log"
)
AWAITED = "sleep sleep_until wait_for receive gather race schedule store"
OTHERS = ".reply( .refuse( .ask( .tag( .heartbeat( .details .latest( .stream( .generation .version store. detached=True"


def test_each_verb_has_an_example_that_runs() -> None:
    """The page of verbs has an example of each verb, sync and async."""
    code = "\n".join(code for _, code in blocks(ROOT / "docs" / "verbs.md", "python"))
    assert [verb for verb in SYNC.split() if not re.search(rf"(?<![\w.]){verb}\(", code)] == []
    assert [verb for verb in AWAITED.split() if not re.search(rf"\baio\.{verb}[.(]", code)] == []
    assert [
        text for text in (*OTHERS.split(), "return_exceptions=True", "attempts=None") if text not in code
    ] == []
