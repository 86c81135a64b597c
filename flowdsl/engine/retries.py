"""What follows a failed attempt of a step: the step gives up, or it waits and tries again.

The failed attempt is stored before the wait that follows it. So a later process goes on where this one was:
it counts the attempts that were made, and waits for what is left of the wait.
"""

import logging

from attrs import evolve

from flowdsl.codecs.exceptions.handling import carry_history
from flowdsl.core.facts import ATTEMPTS, Facts, InDoubt, Retrying, facts_of
from flowdsl.core.records import Step
from flowdsl.core.retry import Retry
from flowdsl.core.status import StepStatus
from flowdsl.engine.attempt import Attempt
from flowdsl.engine.call import Call
from flowdsl.engine.effects import Effects, Flow, Result
from flowdsl.engine.heartbeat import last_words
from flowdsl.engine.record import halted, note_on, put, require_python, row
from flowdsl.engine.scope import INTERRUPTS
from flowdsl.engine.waiting import wait_out
from flowdsl.errors import ResultNotStorable, StepOutcomeUnknown, Stopped

__all__ = ["begun_with", "facts_with", "go_on", "next_or_outcome"]

logger = logging.getLogger("flowdsl")

_YEAR = 86_400.0 * 365


def begun_with(begun: tuple[float, ...], attempt: Attempt) -> tuple[float, ...]:
    """When the last attempts began: those of *begun*, and *attempt*."""
    return (*begun, attempt.began)[-ATTEMPTS:]


def facts_with(facts: Facts | None, begun: tuple[float, ...], attempt: Attempt) -> Facts | None:
    """*facts* of a step that ends with *attempt*. They say when each attempt began, if there were several."""
    if not begun:
        return facts
    return evolve(facts or Facts(), begun=begun_with(begun, attempt))


def next_or_outcome(
    attempt: Attempt, error: BaseException, begun: tuple[float, ...], policy: Retry | None
) -> Effects[Result | None]:
    """What follows an *attempt* that failed with *error*: the outcome of the step, or ``None`` when it is
    time for the next attempt. *policy* is that of the step. Earlier attempts had *begun* at those times."""
    call, run, scope = attempt.call, attempt.run, attempt.scope
    if isinstance(error, (*INTERRUPTS, Stopped)) or not isinstance(error, Exception):
        return error, None
    if isinstance(error, ResultNotStorable):  # the body gave such a value to the run store
        raise halted(run, error, call) from None
    require_python(run, error, call)
    run.failures.left(scope, error)
    retry = policy or run.engine.retry
    # A step inside has retried this already, and has given up.
    given_up = policy is None and run.failures.blames_any(error)
    if given_up or not retry.should_retry(error, attempt.number):
        return (yield from _give_up(attempt, error, begun))
    run.stop.check()
    yield from _back_off(attempt, error, begun, retry)
    with run.lock:
        run.journal.reopen(run.failures.inside(scope))
    return None


def _give_up(attempt: Attempt, error: Exception, begun: tuple[float, ...]) -> Flow:
    """Store the exception, and raise what was loaded from it, with the original's traceback."""
    call, run = attempt.call, attempt.run
    payload, loaded = run.engine.payloads.pack_error(error, run.id, call.key, "error")
    text = run.engine.payloads.previews.error(error)
    facts = facts_with(None, begun, attempt)
    more = () if attempt.heart is None else last_words(call, attempt.number, attempt.heart)
    yield from put(call, row(call, StepStatus.FAILED, payload, text, attempt.number, facts, attempt), *more)
    carry_history(error, loaded)
    note_on(loaded, call, attempt.number)
    run.failures.failed(call.key, call.scope, call.flow, loaded)
    return loaded, None


def _back_off(attempt: Attempt, error: Exception, begun: tuple[float, ...], retry: Retry) -> Effects[None]:
    """Store the failed attempt, then wait."""
    call, engine, number = attempt.call, attempt.run.engine, attempt.number
    delay = retry.delay(number, engine.hooks.jitter(), error)
    previews = engine.payloads.previews
    next_at = engine.clock.now() + delay
    facts: Facts = Retrying(next_at, previews.error(error), begun=begun_with(begun, attempt))
    more = () if attempt.heart is None else last_words(call, number, attempt.heart)
    yield from put(call, row(call, StepStatus.PENDING, None, "", number, facts, attempt), *more)
    engine.hooks.fire("on_step_retry", attempt.step, error, number, delay)
    logger.info(
        "step %s failed at attempt %d of %s (%s); next in %.3g s",
        call.operation.path,
        number,
        retry.attempts or "any",
        previews.error_line(error),
        delay,
        extra={"run": call.run.id, "step": call.key},
    )
    yield from wait_out(call.run, delay)


def go_on(call: Call, prior: Step, *, in_doubt: str) -> Effects[int]:
    """Go on after an unfinished execution of an earlier process, of which *prior* is the record. Returns the
    number of attempts made. Raises if nobody knows whether the last one took effect, and the step's option
    *in_doubt* is ``"raise"``."""
    facts = facts_of(prior)
    run, path = call.run, call.operation.path
    if isinstance(facts, InDoubt) and in_doubt == "raise":
        text = (
            f"step {path} ({call.shown}) of run {run.id} was executing when its process died; nobody knows "
            f"whether it took effect. Find out, then say so: Runtime.resolve({run.id!r}, "
            f"{call.key[:12]!r}, result=…), error=… or rerun=True"
        )
        raise halted(run, StepOutcomeUnknown(text, run=run.id, step=call.key), call)
    if isinstance(facts, Retrying):
        left = min(facts.next - run.engine.clock.now(), _YEAR)
        if left > 0:
            yield from wait_out(run, left)
    return prior.attempts
