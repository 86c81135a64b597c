"""``run.plot()`` and ``run.to_dataframe()``."""

import builtins
import importlib
import sys
from datetime import UTC
from xml.etree import ElementTree

import pytest

from flowdsl import Retry, Run, Runtime, StepStatus, log, now, sleep, step, workflow
from flowdsl.drawing.dataframe import COLUMNS


@step
def inner(x):
    """Called in a step."""
    return x


@step
def outer(x):
    """Calls a step."""
    return inner(x)


@step(retry=Retry(attempts=1))
def broken():
    """Fails."""
    raise ValueError("no <use>")


@workflow
def job(x):
    """A run with one of everything."""
    outer(x)
    log("half-way")
    sleep(1000)
    now()
    broken()


@pytest.fixture
def run(runtime: Runtime) -> Run:
    """A failed run."""
    with pytest.raises(ValueError):
        job(1)
    return runtime.runs()[0]


def test_a_plot_is_an_svg_of_its_own(run: Run, tmp_path):
    """A plot is a well-formed SVG with a title for each bar and no script or link, saved without any
    library."""
    plot = run.plot()
    svg = plot._repr_svg_()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert "job" in root.get("aria-label")
    tags = [one.tag.rpartition("}")[2] for one in root.iter()]
    assert not {"script", "a", "foreignObject", "image", "use", "link"} & set(tags)
    bars = [one for one in root.iter() if one.get("data-bar") is not None]
    assert len(bars) == len(run.steps())
    assert all(bar.find("{http://www.w3.org/2000/svg}title") is not None for bar in bars)
    plot.save(tmp_path / "run.svg")
    assert (tmp_path / "run.svg").read_text("utf-8") == svg
    assert "job" in repr(plot)


def test_other_pictures_are_matplotlibs(run: Run, tmp_path):
    """Other formats are made by matplotlib without pyplot, and chosen by the ending of the file."""
    pytest.importorskip("matplotlib")
    figure = run.plot(backend="matplotlib")
    assert type(figure).__module__ == "matplotlib.figure"
    assert "matplotlib.pyplot" not in sys.modules
    run.plot().save(str(tmp_path / "run.PNG"))
    assert (tmp_path / "run.PNG").read_bytes().startswith(b"\x89PNG")
    run.plot().save(tmp_path / "run.pdf")
    assert (tmp_path / "run.pdf").read_bytes().startswith(b"%PDF")


def test_wrong_plots_are_refused(run: Run, tmp_path):
    """A wrong backend or file ending is refused, and the message says what is right."""
    with pytest.raises(ValueError, match="'svg' or 'matplotlib'"):
        run.plot(backend="plotly")
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.pdf"):
        run.plot().save(tmp_path / "run.gif")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_has_a_row_a_step(run: Run, library):
    """A data frame has a row for each step in recorded order, with previews, aware times and seconds."""
    pytest.importorskip(library)
    frame = run.to_dataframe(library)
    steps = run.steps()
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame["key"]) == [one.key for one in steps]
    assert list(frame["args"]) == [one.args for one in steps]
    assert list(frame["status"]) == [str(one.status) for one in steps]
    kinds = dict(zip(frame["path"], frame["kind"], strict=True))
    assert kinds["flowdsl.sleep"] == "sleep"
    depths = dict(zip(frame["path"], frame["depth"], strict=True))
    assert (depths[outer.path], depths[inner.path]) == (0, 1)
    at = frame["created_at"][0]
    assert (at.utcoffset().total_seconds(), at.timestamp()) == (0, steps[0].created_at.timestamp())
    assert at.astimezone(UTC) == steps[0].created_at
    failed = [n for n, one in enumerate(steps) if one.status is StepStatus.FAILED]
    assert frame["error"][failed[0]] == "ValueError: no <use>"
    slept = [n for n, one in enumerate(steps) if one.kind == "sleep"]
    assert frame["duration"][slept[0]] == pytest.approx(1000)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_without_steps_has_its_columns(runtime: Runtime, library):
    """A data frame without steps has the same columns and types."""
    pytest.importorskip(library)

    @workflow
    def nothing():
        pass

    nothing()
    frame = runtime.runs()[0].to_dataframe(library)
    assert (len(frame), list(frame.columns)) == (0, list(COLUMNS))
    assert "UTC" in str(frame["created_at"].dtype)


def test_without_a_library_both_are_named(run: Run, monkeypatch):
    """If no data frame library is installed, the error names both."""
    real = importlib.import_module

    def missing(name, *args):
        if name in ("pandas", "polars"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr("flowdsl.drawing.dataframe.import_module", missing)
    with pytest.raises(ImportError, match="pip install pandas.*pip install polars"):
        run.to_dataframe()
    with pytest.raises(ImportError, match="pip install polars"):
        run.to_dataframe("polars")
    with pytest.raises(ValueError, match="'pandas', 'polars' or None"):
        run.to_dataframe("dask")


def test_without_matplotlib_it_is_named(run: Run, monkeypatch, tmp_path):
    """Without matplotlib the error names it, only for pictures that need it."""
    real = builtins.__import__

    def missing(name, *args):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    run.plot().save(tmp_path / "run.svg")
    with pytest.raises(ImportError, match="pip install matplotlib"):
        run.plot().save(tmp_path / "run.png")


def test_attempts_are_ticks_of_their_bar(runtime: Runtime):
    """Attempts and the waits between them are marks in their bar; a single attempt has none."""
    tries = []

    @step(retry=Retry(attempts=3, initial=10, multiplier=2, jitter=0))
    def flaky():
        tries.append(1)
        if len(tries) < 3:
            raise OSError
        return inner(1)

    @workflow
    def w():
        flaky()

    w()
    bars = {bar.step.path: bar for bar in runtime.runs(workflow=w)[0].plot()._line.bars}
    first, *others = bars[flaky.path].ticks
    assert [at - first for at in others] == [10, 30]
    assert bars[flaky.path].start == first
    assert bars[inner.path].ticks == ()
