"""check_replay and check_history accept all examples and generated programs."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from grammar import REPLAYED
from hypothesis import given, settings
from programs import PLAYERS, World
from support import examples
from worlds import meet

from flowdsl.testing import ReplayReport, check_replay

EXAMPLES = Path(__file__).parents[3] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def agent(module: ModuleType, _: Path) -> ReplayReport:
    module.Model.pause = 0
    refused = {"id": "call_save_note_", "yes": False}
    return check_replay(module.agent, "Which is the longest module of json?", signals=[("decision", refused)])


def agent_web(module: ModuleType, _: Path) -> ReplayReport:
    return check_replay(module.talk, "why?")


def approval(module: ModuleType, _: Path) -> ReplayReport:
    check_replay(module.approval, "desk", "bob", deaths=2)
    decision = {"yes": True, "by": "ann"}
    return check_replay(module.approval, "chair", "ann", signals=[("decision", decision)], deaths=2)


def checkout(module: ModuleType, _: Path) -> ReplayReport:
    module.Bank.is_up = False
    check_replay(module.checkout, 6, "teapot", 2950, raises=module.BankDown)
    module.Bank.is_up = True
    return check_replay(module.checkout, 7, "teapot", 2950, deaths=2)


def etl(module: ModuleType, folder: Path) -> ReplayReport:
    source = folder / "orders.csv"
    source.write_text((EXAMPLES / "orders.csv").read_text().replace(",1O,", ",10,"))
    return check_replay(module.import_orders, str(source), str(folder / "orders.db"), "2026-01-31")


def find_duplicates(module: ModuleType, folder: Path) -> ReplayReport:
    for name in ("a", "b", "c"):
        (folder / name).write_text("same" if name != "c" else "other")
    return check_replay(module.find_duplicates, str(folder))


def index_stdlib(module: ModuleType, folder: Path) -> ReplayReport:
    for name in ("a", "b"):
        (folder / f"{name}.py").write_text(f"def {name}(): ...\n")
    return check_replay(module.index_library, str(folder), "3", str(folder / "out"))


def order_saga(module: ModuleType, _: Path) -> ReplayReport:
    module.World.pause = 0
    module.World.courier_flies = False
    order = ("7", "tent", 2, 99_000, "the moon")
    check_replay(module.place_order, *order, raises=Exception)
    module.World.courier_flies = True
    return check_replay(module.place_order, *order)


def cart(module: ModuleType, _: Path) -> ReplayReport:
    said = [("add", {"item": "tea", "count": 3}), ("remove", {"item": "tea"}), ("checkout", None)]
    return check_replay(module.cart, "Ada", signals=said, deaths=2)


def crawler(module: ModuleType, folder: Path) -> ReplayReport:
    return check_replay(module.crawl, str(module.small_site(folder)))


def subscription(module: ModuleType, _: Path) -> ReplayReport:
    return check_replay(module.subscription, "Ada", signals=[("plan", "large"), ("cancel", None)])


CASES: dict[str, Callable[[ModuleType, Path], ReplayReport]] = {
    case.__name__: case  # type: ignore[attr-defined]
    for case in (
        agent,
        agent_web,
        approval,
        cart,
        checkout,
        crawler,
        etl,
        find_duplicates,
        index_stdlib,
        order_saga,
        subscription,
    )
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_replays(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example replays."""
    report = CASES[name](example(name, monkeypatch), tmp_path)
    assert report.error is None
    assert report.crashes >= 3


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@settings(max_examples=examples(3))
@given(program=REPLAYED.strategy)
def test_generated_programs_replay(is_async: bool, program: Any) -> None:
    """Generated programs with retries, nesting, children, branches and submitted steps replay from each
    commit."""
    meet(World(program=program))
    check_replay(PLAYERS[is_async].whole, program)
