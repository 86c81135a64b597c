"""Steps laid out in time: lanes, nesting and folded idle time, as laws over generated journals."""

from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.core.timeline import timeline_of

RUN = Run("r", "shop.checkout", "k", created_at=100.0, finished_at=200.0)


def step(key, start, end=None, **more):
    """A record of a step that was executing from *start* to *end*."""
    status = StepStatus.PENDING if end is None else more.pop("status", StepStatus.COMPLETED)
    return Step("r", key, f"shop.{key}", created_at=start, completed_at=end, status=status, **more)


@st.composite
def journals(draw):
    """Steps at any times, some inside others."""
    steps = []
    for n in range(draw(st.integers(0, 12))):
        start = draw(st.integers(100, 190))
        length = draw(st.none() | st.integers(0, 50))
        scope = draw(st.sampled_from(["", *(one.key for one in steps)]))
        end = None if length is None else float(start + length)
        steps.append(step(f"s{n}", float(start), end, scope=scope, seq=n + 1))
    return steps


@given(journals())
def test_bars_that_overlap_lie_in_different_lanes(steps):
    """Two bars of one lane never overlap."""
    line = timeline_of(RUN, "running", steps, now=210.0)
    for one in line.bars:
        for other in line.bars:
            if one is not other and one.lane == other.lane:
                assert one.end <= other.start or other.end <= one.start


@given(journals())
def test_what_was_called_inside_a_bar_lies_below_it(steps):
    """A nested bar is one level below its owner."""
    line = timeline_of(RUN, "completed", steps, now=210.0)
    by_key = {bar.step.key: bar for bar in line.bars}
    assert len(by_key) == len(steps)
    for bar in line.bars:
        assert 0 <= bar.lane < max(line.lanes, 1)
        if bar.owner:
            assert bar.depth == by_key[bar.owner].depth + 1
            assert bar.lane > by_key[bar.owner].lane


@given(journals(), st.lists(st.integers(90, 260), min_size=2))
def test_places_keep_the_order_of_time(steps, moments):
    """A later time is never left of an earlier one, and all times are inside the picture."""
    line = timeline_of(RUN, "running", steps, now=210.0)
    for folded in (True, False):
        places = [line.place(float(moment), folded=folded) for moment in sorted(moments)]
        assert places == sorted(places)
        assert all(0.0 <= place <= 1.0 for place in places)
        assert line.place(line.begin, folded=folded) == 0.0
        assert line.place(line.end, folded=folded) == 1.0


@given(journals())
def test_no_body_executes_in_idle_time(steps):
    """An idle fold is longer than a tenth of the whole, and no body executes in it."""
    line = timeline_of(RUN, "completed", steps, now=210.0)
    for idle in line.idle:
        assert idle.length > (line.end - line.begin) / 10
        assert not [bar for bar in line.bars if bar.start < idle.end and bar.end > idle.start]


def test_a_long_sleep_is_one_fold():
    """A sleep of three days is one fold, at most a twentieth of the picture."""
    steps = [
        step("reserve", 100.0, 101.0),
        step("nap", 101.0, 101.0 + 3 * 86400, kind="sleep"),
        step("charge", 101.0 + 3 * 86400, 102.0 + 3 * 86400),
    ]
    run = Run("r", "shop.checkout", "k", created_at=100.0, finished_at=102.0 + 3 * 86400)
    line = timeline_of(run, "completed", steps, now=9e9)
    assert [idle.length for idle in line.idle] == [3 * 86400]
    reserve, nap, charge = line.bars
    assert line.place(nap.end) - line.place(nap.start) <= 0.0501
    assert line.place(reserve.end) > 0.4
    assert line.place(charge.end, folded=False) - line.place(charge.start, folded=False) < 1e-4


def test_a_step_without_an_outcome_reaches_to_now_only_while_its_run_executes():
    """An open step of an interrupted run is a point, with its status."""
    steps = [step("charge", 150.0)]
    (running,) = timeline_of(RUN, "running", steps, now=180.0).bars
    (lost,) = timeline_of(RUN, "interrupted", steps, now=180.0).bars
    assert (running.status, running.end) == ("running", 180.0)
    assert (lost.status, lost.end) == ("interrupted", 150.0)
    (waiting,) = timeline_of(RUN, "running", [step("a", 150.0, extra='{"until": 190.0}')], now=180.0).bars
    assert waiting.status == "waiting"


def test_what_a_later_execution_answered_from_its_record_is_replayed():
    """Steps from before the last execution count as replayed, later ones do not."""
    steps = [
        step("a", 100.0, 101.0, seq=1),
        Step("r", "audit-1", "flowdsl.retry", kind="audit", seq=2, created_at=102.0),
        step("b", 103.0, 104.0, seq=3),
    ]
    assert [bar.replayed for bar in timeline_of(RUN, "completed", steps, now=210.0).bars] == [True, False]


def test_the_times_of_a_child_are_its_own():
    """The bar of a child run shows when the child executed."""
    child = Run("r/c", "shop.ship", "k", created_at=110.0, finished_at=150.0)
    steps = [step("ship", 150.0, 150.0, kind="child", extra='{"child": "r/c"}')]
    (bar,) = timeline_of(RUN, "completed", steps, now=210.0, children={"r/c": child}).bars
    assert (bar.start, bar.end) == (110.0, 150.0)


def test_deep_nesting_needs_no_recursion():
    """Two thousand nested steps have two thousand lanes."""
    steps = [
        step(f"s{n}", 100.0 + n / 1e3, 199.0 - n / 1e3, scope=f"s{n - 1}" if n else "") for n in range(2000)
    ]
    line = timeline_of(RUN, "completed", steps, now=210.0)
    assert line.lanes == 2000
    assert max(bar.depth for bar in line.bars) == 1999
