"""check_replay against a corpus of mistakes: each is found, and the right thing is blamed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import array_mistakes  # noqa: F401  (it adds to MISTAKES)
import mistakes
import pytest
from mistakes import MISTAKES

from flowdsl.testing import check_replay
from flowdsl.testing.replay import causes


@pytest.fixture(scope="module", autouse=True)
def _folder() -> Iterator[None]:
    mistakes.FOLDER.mkdir(
        exist_ok=True
    )  # a worker that took the rest of this module from another begins it again
    mistakes.FILE.write_text("5")
    yield
    shutil.rmtree(mistakes.FOLDER)


@pytest.fixture(autouse=True)
def _fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWDSL_TEST_UNSET", raising=False)
    mistakes.CACHE.clear()
    mistakes.cached_price.cache_clear()
    mistakes.token.cache_clear()


@pytest.mark.filterwarnings("ignore:step mistakes.charge is called outside any run")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_and_blamed(name: str) -> None:
    """check_replay reports each dependency of a workflow outside its steps, and names it."""
    made, blamed = MISTAKES[name]
    with pytest.raises(Exception) as caught:
        check_replay(made)
    story = str(caught.value)
    if blamed:
        assert blamed in story
        named = {one for one in vars(causes).values() if isinstance(one, str) and one in causes.ADVICE}
        told = "".join(line for line in story.splitlines() if "it depends on:" in line)
        true = {blamed}
        if blamed == causes.CLOCK:  # a day or an hour depends on the zone too
            true.add(causes.ZONE)
        assert not [one for one in named - true if one in told], story
    assert os.environ["HOME"] == os.path.expanduser("~")


def test_the_first_of_several_is_a_race() -> None:
    """``asyncio.wait(…, FIRST_COMPLETED)`` is explained, and the report names ``race``."""
    made, _ = MISTAKES["order_first_completed"]
    with pytest.raises(AssertionError, match=r"race\(\)"):
        check_replay(made)


def test_other_processes_begin_where_the_test_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Long-lived processes begin with the present directory and environment of the test."""
    made, _ = MISTAKES["directory"]
    for folder in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("FLOWDSL_TEST_FOLDER", str(folder))
        with pytest.raises(AssertionError, match=causes.DIRECTORY):
            check_replay(made)
