"""A timeline as SVG."""

from xml.etree import ElementTree

from flowdsl.core.records import Run, Step
from flowdsl.core.timeline import timeline_of
from flowdsl.drawing.svg import MOST, timeline_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(steps, *, end=None, alone=False):
    """The picture of a completed run, parsed."""
    end = max(step.completed_at or 0.0 for step in steps) if end is None else end
    run = Run("r", "shop.checkout", "k", finished_at=end)
    line = timeline_of(run, "completed", steps, now=end)
    return ElementTree.fromstring(timeline_svg(line, "checkout", alone=alone))


def recorded(name, start, end, **facts):
    """A step that took from *start* to *end*."""
    return Step("r", name, f"shop.{name}", created_at=start, completed_at=end, **facts)


def bars(picture):
    """Group and rectangle of each bar, by the step's key."""
    groups = [one for one in picture.iter(f"{SVG}g") if one.get("data-bar") is not None]
    return {one.get("data-step-key"): (one, one.find(f"{SVG}rect")) for one in groups}


def test_a_bar_lies_where_its_step_was_in_time():
    """The left edge and width of a bar follow the clock."""
    found = bars(drawn([recorded("a", 0.0, 1.0), recorded("b", 1.0, 4.0)]))
    (_, first), (_, second) = found["a"], found["b"]
    assert float(second.get("width")) > 2.9 * float(first.get("width"))
    assert abs(float(first.get("x")) + float(first.get("width")) - float(second.get("x"))) < 1


def test_what_overlaps_lies_in_lanes():
    """Overlapping bars are in different lanes."""
    found = bars(drawn([recorded("a", 0.0, 2.0), recorded("b", 1.0, 3.0), recorded("c", 2.5, 3.0)]))
    tops = {key: rect.get("y") for key, (_, rect) in found.items()}
    assert tops["a"] != tops["b"]
    assert tops["a"] == tops["c"]


def test_idle_time_is_folded_and_says_its_length():
    """An idle hour is folded, and its length is written."""
    picture = drawn([recorded("a", 0.0, 1.0), recorded("b", 3601.0, 3602.0)])
    (idle,) = [one for one in picture.iter() if one.get("data-idle") is not None]
    assert "1h0m" in "".join(idle.itertext())
    assert float(bars(picture)["a"][1].get("width")) > 300


def test_a_bar_tells_itself():
    """A bar has a text for people who cannot see it, and on pointing."""
    steps = [recorded("charge", 0.0, 1.2, attempts=3, extra='{"begun": [0.0, 0.5, 1.0]}')]
    ((group, _),) = bars(drawn(steps)).values()
    assert group.find(f"{SVG}title").text == "charge, completed, 3 attempts, 1.2s"
    assert group.find(f"{SVG}path").get("d").count("M") == 2


def test_of_many_bars_the_ones_that_matter_are_drawn_one_by_one():
    """Of many bars the failed, unfinished and longest are drawn one by one, and the others as a shape."""
    steps = [recorded(f"s{n}", n * 1.0, n + 0.5) for n in range(3000)]
    steps.append(recorded("long", 0.0, 2999.0))
    picture = drawn(steps)
    assert len(bars(picture)) == MOST
    assert "long" in bars(picture)
    assert len(ElementTree.tostring(picture)) < 150_000


def test_a_picture_of_its_own_needs_nothing():
    """A picture alone contains role, label, title and style."""
    picture = drawn([recorded("a", 0.0, 1.0)], alone=True)
    assert (picture.get("role"), picture.get("aria-label")) == ("img", "checkout")
    assert picture.find(f"{SVG}title").text == "checkout"
    assert ".fd-completed" in picture.find(f"{SVG}style").text


def test_points_and_empty_runs_are_drawn():
    """Steps without duration, in a run without duration, are drawn."""
    found = bars(drawn([recorded("a", 0.0, 0.0), recorded("b", 0.0, 0.0)], end=0.0))
    assert all(float(rect.get("width")) > 0 for _, rect in found.values())
