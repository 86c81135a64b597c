"""Which failures are open: laws over generated programs, without a runtime.

A program is a tree: steps that succeed or fail, ``try`` blocks, and a body that goes on or raises. It is executed
twice: by plain Python, which tells :class:`OpenFailures` what happens, and by the law itself. The law is the
definition: a failure is open if its exception left the body and no call began afterwards.
"""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.engine.failures import OpenFailures
from flowdsl.engine.scope import Scope

ME = 1  # the flow of control: the number of a thread


class Declined(Exception):
    """What a step raises."""


@dataclass
class World:
    """The body of one run, and what was seen of it."""

    failures: OpenFailures = field(default_factory=lambda: OpenFailures(threading.RLock()))
    scope: Scope = field(default_factory=lambda: Scope("", None, False, home=ME))
    calls: int = 0
    raised: dict[str, tuple[int, Exception]] = field(default_factory=dict)  # key → when, what
    kept: Exception | None = None

    def call(self, fails):
        self.calls += 1
        key = f"k{self.calls}"
        self.failures.begun(self.scope, ME)
        if fails:
            error = Declined(key)
            self.raised[key] = (self.calls, error)
            self.failures.failed(key, self.scope, ME, error)
            raise error


def run(world, program):
    """Execute a list of nodes."""
    for node in program:
        match node:
            case ("step",):
                world.call(False)
            case ("fail",):
                world.call(True)
            case ("handled", inner, handler):
                try:
                    run(world, inner)
                except Declined as error:
                    world.kept = error
                    run(world, handler)
            case ("raise kept",) if world.kept is not None:
                raise world.kept
            case ("raise anew",):
                raise Declined("the body's own")


leaves = st.sampled_from([("step",), ("fail",), ("raise kept",), ("raise anew",)])
nodes = st.recursive(
    leaves,
    lambda inner: st.tuples(st.just("handled"), st.lists(inner, max_size=3), st.lists(inner, max_size=2)),
    max_leaves=12,
)
programs = st.lists(nodes, max_size=5)


def outcome(program):
    """The world and the error that left the body."""
    world = World()
    try:
        run(world, program)
    except Declined as error:
        world.failures.left(world.scope, error)
        return world, error
    return world, None


def chain(error):
    """*error* and what stands behind it, but not behind another step's exception."""
    link = error
    while link is not None:
        yield link
        if str(link).startswith("k"):
            return
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


@given(programs)
def test_a_failure_is_open_if_it_left_the_body_and_nothing_began_afterwards(program):
    """A failure is open if it left the body and nothing began afterwards, whatever was caught and raised
    again."""
    world, error = outcome(program)
    if error is None:
        return  # the run has completed: nobody asks
    leaving = [] if error is None else list(chain(error))
    expected = {
        key for key, (when, failure) in world.raised.items() if failure in leaving and when == world.calls
    }
    assert set(world.failures.open) == expected


@given(programs)
def test_no_failure_of_a_body_that_goes_on_stays_open_behind_the_next_call(program):
    """A failure of a body that goes on is no longer open after its next call."""
    world, _ = outcome(program)
    world.failures.begun(world.scope, ME)
    assert not world.failures.open


@given(programs, st.booleans())
def test_what_is_inside_a_step_is_handled_when_the_step_succeeds(program, succeeds):
    """A failure inside a step is handled when the step succeeds, and executes again if the step fails."""
    world = World(scope=Scope("outer", Scope("", None, False, home=ME), False, of_step=True, home=ME))
    try:
        run(world, program)
    except Declined:
        pass
    before = set(world.failures.open)
    assert set(world.failures.inside(world.scope)) == before
    if succeeds:
        world.failures.succeeded(world.scope)
        assert not world.failures.open


def test_the_failure_of_a_submitted_call_belongs_to_nobody_until_it_is_asked_for():
    """The failure of a submitted call is handled only by calls that begin after the caller has asked for
    it."""
    failures, scope, call = OpenFailures(threading.RLock()), Scope("", None, False, home=ME), object()
    failures.failed("k", scope, call, Declined())
    failures.begun(scope, ME)
    assert set(failures.open) == {"k"}
    failures.handed("k", ME)
    failures.begun(scope, ME)
    assert not failures.open


@pytest.mark.parametrize("tried", [True, False])
def test_a_call_in_a_try_step_is_begun_for_its_caller_too(tried):
    """A call in a ``try`` step handles failures for its caller, and a ``do`` step stands for its inner
    calls."""
    failures, outer = OpenFailures(threading.RLock()), Scope("", None, False, home=ME)
    failures.failed("k", outer, ME, Declined())
    failures.begun(Scope("body", outer, False, of_step=not tried, tried=tried, home=ME), ME)
    assert bool(failures.open) is not tried


def test_members_of_a_group_lead_to_it():
    """The members of an exception group leave the body together with it."""
    failures, scope = OpenFailures(threading.RLock()), Scope("", None, False, home=ME)
    errors = [Declined(str(n)) for n in range(3)]
    for n, error in enumerate(errors):
        failures.failed(f"k{n}", scope, object() if n else ME, error)
    assert sorted(failures.blames(ExceptionGroup("all", errors))) == ["k0", "k1", "k2"]
