"""The planted bugs: what is wrong, the text that it replaces, and the tests that have to notice."""

from attrs import frozen

__all__ = ["BUGS", "Bug"]

VERBS = "tests/laws/test_verbs_laws.py"
CORE = "tests/laws/test_replay_laws.py"


@frozen
class Bug:
    """One planted bug: *changes* are pairs of a text that stands in flowdsl once, and what stands there
    instead."""

    name: str
    what: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


BUGS: dict[str, Bug] = {}


def bug(name: str, what: str, *changes: tuple[str, str], tests: str) -> None:
    assert name not in BUGS
    BUGS[name] = Bug(name, what, changes, tuple(tests.split()))


# Steps: recorded before they are seen, never again, and in order -------------------------------------------

bug(
    "acknowledge-before-commit",
    "the caller sees a result that is written behind its back",
    (
        "stored = put(attempt.call, record, *more) if stored:",
        "run = attempt.run\n"
        "        run.engine.background(lambda: run.engine.commit(run.writer.put(record), *more))\n"
        "        stored = ()\n"
        "        if stored:",
    ),
    tests=f"{CORE}::test_crash_at_every_single_point",
)
bug(
    "occurrence-dropped",
    "equal calls have one key",
    ("self.key = key = step_key(content, occurrence)", "self.key = key = step_key(content, 0)"),
    tests="tests/engine/operations/test_step.py::test_identical_calls_are_numbered_by_occurrence",
)
bug(
    "key-without-arguments",
    "what a call is called with is no part of its key",
    (
        "content_digest(scope.id, path, operation.version, operation.canonical)",
        'content_digest(scope.id, path, operation.version, b"")',
    ),
    tests="tests/engine/operations/test_step.py::test_occurrence_counts_equal_calls_and_ordinal_all_calls_of_a_path",
)
bug(
    "default-in-key",
    "an argument that is its default is part of the key",
    ("if value is default: left_out |= bit continue", "if False:\n                    continue"),
    ("if code == default_code or (default_code is _LIVE and code == _code_or_none(default)):", "if False:"),
    tests="tests/core/test_binding.py::test_a_mutable_default_is_looked_at_each_time",
)
bug(
    "minus-zero",
    "-0.0 is 0.0",
    (
        'return b"f" + (_pack_float(value) if value == value',
        'return b"f" + (_pack_float(value + 0.0) if value == value',
    ),
    tests="tests/core/test_encoding.py::test_dataclasses_count_the_fields_that_they_compare",
)
bug(
    "set-order",
    "a set is encoded in the order of this process",
    ("codes.sort() return head % len(codes)", "return head % len(codes)"),
    tests="tests/core/test_keys_golden.py::test_encodings_are_golden",
)
bug(
    "divergence-off",
    "nobody asks whether the arguments have changed",
    ("if sequential and self._steps:", "if False:"),
    ("self.quiet = not self._positions", "self.quiet = True"),
    tests="tests/core/test_journal.py::test_one_changed_argument_diverges",
)
bug(
    "handled-failure-again",
    "a failure that was handled executes again on replay",
    (
        "if status is _UNDONE or (self._open and key in self._open):",
        "if status is _UNDONE or status is _FAILED:",
    ),
    tests=f"{CORE}::test_replay_executes_nothing_and_gives_the_same",
)
bug(
    "retry-executed-twice",
    "what the retry of a failed run has executed is still open when its process dies",
    ("if writer.reopened and call is not None: operations += writer.answers(call.key)", "pass"),
    tests="tests/engine/runs/test_resume.py::test_a_kill_behind_what_a_retry_executed",
)
bug(
    "attempts-start-anew",
    "after a crash the attempts of a step are counted from one",
    ("if left > 0: yield from wait_out(run, left) return prior.attempts", "return 0"),
    tests="tests/engine/test_retries.py::test_attempts_survive_a_crash",
)
bug(
    "attempt-not-recorded",
    "a failed attempt is not stored before the wait that follows it",
    (
        'yield from put(call, row(call, StepStatus.PENDING, None, "", number, facts, attempt), *more) engine.hooks',
        "engine.hooks",
    ),
    tests="tests/engine/test_retries.py::test_attempts_survive_a_crash",
)
bug(
    "jitter-after-the-cap",
    "a delay may be longer than the longest",
    ("* (1.0 - self.jitter * uniform)", "* (1.0 + self.jitter * uniform)"),
    tests="tests/core/test_retry.py::test_a_delay_is_never_above_the_maximum",
)
bug(
    "hook-inside-the-try",
    "a hook that raises fails the step",
    (
        'logger.error("hook %s raised; the run is not affected", event, exc_info=self._tells, extra=where)',
        "raise",
    ),
    tests="tests/test_hooks.py::test_a_hook_that_raises_changes_nothing",
)
bug(
    "in-doubt-without-intent",
    "that a step in doubt has begun is not recorded",
    ('if self.defn.in_doubt == "raise": doubt', "if False:\n                doubt"),
    tests="tests/engine/operations/test_step_in_doubt.py::test_raise_stops_the_run_and_a_person_decides",
)
bug(
    "storage-error-swallowed",
    "a write that failed is taken for one that happened",
    (
        "outcomes = run.engine.storage.commit(operations) except StorageError as error: raise halted(run, error, call) from error",
        "outcomes = run.engine.storage.commit(operations)\n    except StorageError:\n        return 0",
    ),
    tests="tests/engine/test_stop.py::test_it_crosses",
)
bug(
    "divergence-swallowed",
    "what must not be swallowed is an exception like others",
    ("class Stopped(BaseException):", "class Stopped(Exception):"),
    tests="tests/engine/test_stop.py::test_it_crosses",
)
bug(
    "interrupt-recorded",
    "Ctrl-C in a step is recorded as its failure",
    (
        "lambda: fn(*args, **kwargs)) except BaseException as error:  # whatever the user's body raises\n"
        "outcome = error, None "
        "finally: leaves(token) if process",
        "lambda: fn(*args, **kwargs))\n    except BaseException as error:\n"
        "        outcome = (RuntimeError() if isinstance(error, KeyboardInterrupt) else error), None\n"
        "    finally:\n"
        "        leaves(token)\n"
        "    if process",
    ),
    tests="tests/engine/test_interruption.py::test_an_interrupt_leaves_the_run_resumable_and_releases_it",
)
bug(
    "loaded-value-not-seen",
    "on the first run the caller sees what the body returned, on replay what was stored",
    (
        "return self._tell_hooks(attempt, loaded) def _completed(",
        "return self._tell_hooks(attempt, value)\n\n    def _completed(",
    ),
    tests="tests/engine/operations/test_step_results.py::test_the_caller_sees_the_loaded_value_on_the_first_run_too",
)
bug(
    "tuple-to-list",
    "a tuple comes back as a list",
    (
        "return pickle.loads(data) except (ImportError, AttributeError):",
        "found = pickle.loads(data)\n                return list(found) if type(found) is tuple else found\n        except (ImportError, AttributeError):",
    ),
    tests="tests/codecs/test_payloads.py::test_pickle_gives_back_what_it_was_given",
)
bug(
    "exception-by-name-only",
    "of an exception its class and its text are stored",
    (
        'record = {**_record(error, pieces, set()), "trace": trace, INNERMOST: True}',
        'record = {**_text_record(error), "trace": trace, INNERMOST: True}',
    ),
    tests="tests/codecs/test_exceptions.py::test_the_original_is_caught_first_and_on_replay",
)
bug(
    "checksum-not-checked",
    "what was altered in the storage is loaded",
    ("return body if compare_digest(payload[:size], expected) else None", "return body"),
    tests="tests/codecs/test_envelope.py::test_one_flipped_bit_is_refused",
)
bug(
    "memo-not-copied",
    "a replay asks the memo again",
    (
        "yield from put(call, record) return replay(call, record)",
        "return replay(call, record)\n    yield",
    ),
    tests=f"{VERBS}::test_each_verb_survives_a_kill_at_every_point[memo-sync]",
)
bug(
    "memo-forever",
    "a memo does not expire",
    (
        "if memo is not None and memo.expires_at is not None and memo.expires_at <= engine.clock.now(): memo = None",
        "pass",
    ),
    tests="tests/engine/operations/test_value.py::test_a_memo_is_shared_until_it_expires_or_is_forgotten",
)

# Runs: who owns them, and how they end ---------------------------------------------------------------------

bug(
    "no-epoch-memory",
    "a stale owner's record is taken, in memory",
    (
        "step = op.step data = tables.runs.get(step.run_id) if data is None: return _MISSING if op.epoch is not None",
        "step = op.step\n"
        "    data = tables.runs.get(step.run_id)\n"
        "    if data is None:\n"
        "        return _MISSING\n"
        "    if False",
    ),
    tests="tests/storage/test_contract.py::TestMemory::test_the_next_generation_fences_off_the_former",
)
bug(
    "no-epoch-sqlite",
    "a stale owner's record is taken, in SQLite",
    ("return head if fits(head, epoch) else self.fenced(run_id)", "return head"),
    ("fenced = op.epoch is not None", "fenced = False"),
    tests="tests/storage/test_contract.py::TestSQLiteFull::test_replies_that_have_no_place",
)
bug(
    "lease-never-checked",
    "a run whose owner may live is taken over",
    ("free = force or run.owner is None or run.lease_until <= now", "free = True"),
    tests="tests/storage/test_contract.py::TestMemory::test_claim_needs_a_free_run",
)
bug(
    "owner-taken-for-dead",
    "a living process of this host counts as gone",
    ("return Liveness.ALIVE if now and started else Liveness.UNKNOWN", "return Liveness.DEAD"),
    tests="tests/engine/test_owner.py::test_a_zombie_is_dead",
)
bug(
    "lease-not-renewed",
    "a long run loses its lease",
    (
        "UpdateRun(state.id, {}, epoch=state.epoch, lease=self._engine.lease)",
        "UpdateRun(state.id, {}, epoch=state.epoch)",
    ),
    tests="tests/engine/runs/test_acquire.py::test_leases_are_renewed_while_a_run_executes",
)
bug(
    "published-before-stored",
    "that a run is complete is told before it is stored",
    (
        "stop = yield from _finish(state, changes) if stop is not None: return Stopped(stop), None "
        'state.tell("on_run_complete", loaded)',
        'state.tell("on_run_complete", loaded)\n'
        "    stop = yield from _finish(state, changes)\n"
        "    if stop is not None:\n"
        "        return Stopped(stop), None",
    ),
    tests="tests/test_hooks.py::test_the_result_a_hook_sees_is_stored",
)
bug(
    "other-arguments-joined",
    "an id with other arguments gets the result of the first ones",
    ("if run.key != wanted.key:", "if False:"),
    tests="tests/engine/runs/test_request.py::test_the_same_id_with_other_arguments_is_a_conflict",
)
bug(
    "prune-without-tombstone",
    "an id that was pruned is used again",
    ("DeleteRun(run_id, tombstone=True) for run_id in gone", "DeleteRun(run_id) for run_id in gone"),
    tests="tests/test_runtime_queries.py::test_prune_leaves_a_tombstone",
)
bug(
    "cancelled-as-failed",
    "a run that was cancelled ends as failed",
    (
        "if isinstance(stop, RunCancelled): return (yield from _cancelled(state, stop))",
        "if isinstance(stop, RunCancelled):\n        return (yield from _failed(state, stop))",
    ),
    tests="tests/engine/runs/test_undo.py::test_a_cancelled_run_undoes_and_is_then_cancelled",
)
bug(
    "cancel-not-durable",
    "a request to stop does not outlive the process",
    ("cancelled = record.cancel_requested is not None", "cancelled = False"),
    tests="tests/engine/runs/test_cancel.py::test_cancelling_an_interrupted_parent_cancels_its_children",
)
bug(
    "neighbour-fails-too",
    "in a shared commit the failure of one caller fails the others",
    (
        "except catch: pass",
        "except catch as error:\n"
        "                for request in batch:\n"
        "                    request.fail(error)\n"
        "                return",
    ),
    tests="tests/engine/test_commit.py::test_what_one_writes_cannot_fail_another",
)
bug(
    "neighbour-dropped",
    "behind a shared commit that failed, only the first caller's operations are written",
    (
        "try: outcomes = yield request.operations",
        "try:\n            outcomes = (yield request.operations) if request is batch[0] else []",
    ),
    tests="tests/engine/test_commit.py::test_what_one_writes_cannot_fail_another",
)
bug(
    "cancelled-commit-unknown",
    "a task that is cancelled while it commits does not learn of it",
    ("cancelled = cancelled or error self._future = self.loop.create_future()", "raise"),
    tests="tests/engine/test_commit.py::test_a_cancelled_async_caller_loses_nothing_of_others",
)

# The verbs --------------------------------------------------------------------------------------------------

bug(
    "store-not-tied-to-step",
    "each attempt of a step pushes once more",
    (
        "operation = StoreWrite(op, key, item)",
        "operation = StoreWrite(op, key, item)\n    operation.canonical += str(frame.step and frame.step.attempt).encode()",
    ),
    tests="tests/engine/operations/test_store.py::test_a_step_that_pushes_fails_and_is_retried_leaves_one_item",
)
bug(
    "store-read-not-recorded",
    "a replay reads what the store holds now",
    ('keep(call, payload, run.engine.payloads.previews.value(loaded[0]) if loaded else "")', "str(payload)"),
    tests="tests/engine/operations/test_store.py::test_reads_of_the_body_are_replayed_and_reads_of_a_step_are_live",
)
bug(
    "store-live-value",
    "what get returns is the state itself",
    (
        "return copy.deepcopy(dict(self.values) if key is None else self.values.get(key, default))",
        "return dict(self.values) if key is None else self.values.get(key, default)",
    ),
    tests="tests/engine/operations/test_store.py::test_what_a_step_reads_is_its_own",
)
bug(
    "sleep-in-full-again",
    "after a restart a sleep begins anew",
    ("left = facts.until - now", "left = self._length if self._length is not None else facts.until - now"),
    tests="tests/engine/operations/test_sleep.py::test_a_resume_sleeps_what_is_left_by_the_wall_clock",
)
bug(
    "sleep-not-recorded-first",
    "the time to wake up is not stored before the wait",
    (
        "yield from pending(call, facts) yield from wait_out(call.run, left)",
        "str((pending, facts))\n        yield from wait_out(call.run, left)",
    ),
    tests="tests/engine/operations/test_sleep.py::test_an_elapsed_sleep_is_not_slept_again",
)
bug(
    "wait-in-full-again",
    "after a restart the timeout of a wait begins anew",
    ("left = None if deadline is None else deadline - now", "left = self._limit"),
    tests="tests/engine/operations/test_receive_wait_for.py::test_a_signal_before_the_deadline_beats_the_timeout_even_when_it_is_read_later",
)
bug(
    "late-signal-loses",
    "a signal that came in time and is read late is lost to the timeout",
    (
        "taken = yield from self._take(call, deadline if late else None)",
        "taken = None if late else (yield from self._take(call, None))",
    ),
    tests="tests/engine/operations/test_receive_wait_for.py::test_a_signal_before_the_deadline_beats_the_timeout_even_when_it_is_read_later",
)
bug(
    "newest-signal-first",
    "signals are taken in the wrong order",
    (
        "for signal in page: if deadline is not None",
        "for signal in page[::-1]:\n                if deadline is not None",
    ),
    tests="tests/engine/operations/test_receive_wait_for.py::test_a_wait_takes_the_oldest_that_matches",
)
bug(
    "signal-taken-unrecorded",
    "a signal is taken, and the wait that took it is recorded later",
    (
        "del data.unread[signal.id] return Done(data.append(op.step))",
        "del data.unread[signal.id]\n    return _DONE",
    ),
    (
        "done = tx.append(head, op.step) tx.execute(sql.TAKE_SIGNAL",
        "done = _DONE\n    tx.execute(sql.TAKE_SIGNAL",
    ),
    tests="tests/storage/test_contract.py::TestMemory::test_taking",
)
bug(
    "gather-in-any-order",
    "results come in another order than the branches",
    ("return [item.result() for item in items]", "return [item.result() for item in items][::-1]"),
    tests="tests/engine/operations/test_gather.py::test_results_come_in_input_order",
)
bug(
    "gather-one-scope",
    "the branches of a gather share their identity",
    (
        'branch = branch_scope(scope.id, "gather", ordinal, index)',
        'branch = branch_scope(scope.id, "gather", ordinal, 0)',
    ),
    tests="tests/engine/operations/test_gather.py::test_the_first_failure_is_raised_and_the_others_end",
)
bug(
    "branches-not-awaited",
    "a run completes before its scheduled branches have",
    (
        "run.branches.remember(record.key, found) run.branches.add(found)",
        "run.branches.remember(record.key, found)",
    ),
    tests="tests/engine/operations/test_schedule.py::test_a_run_completes_after_its_last_branch_then_on_complete_fires",
)
bug(
    "branches-not-armed",
    "after a restart, what a replayed step had scheduled is forgotten",
    (
        "not record.undoing and not cancelled: arm_all(state)",
        "not record.undoing and not cancelled:\n                pass",
    ),
    tests="tests/engine/operations/test_schedule.py::test_a_branch_scheduled_by_a_step_that_is_replayed_still_happens_once",
)
bug(
    "schedule-in-full-again",
    "after a restart a delay begins anew",
    ("wait = facts.at - run.engine.clock.now()", "wait = facts.at - record.created_at"),
    tests=f"{VERBS}::test_each_verb_survives_a_kill_at_every_point[schedule-async]",
)
bug(
    "one-handler",
    "an event reaches one handler",
    (
        "for path, fn, is_async in HANDLERS.of(event):",
        "for path, fn, is_async in list(HANDLERS.of(event))[:1]:",
    ),
    tests="tests/engine/operations/test_value.py::test_events_call_every_handler_on_the_runtime_that_sends",
)
bug(
    "send-raises",
    "what a step that was sent off raises reaches the sender",
    ("engine.background(work) return None", "fn(*args, **kwargs)\n    return None"),
    tests="tests/engine/operations/test_mode.py::test_send_returns_none_at_once_and_close_drains",
)
bug(
    "now-not-recorded",
    "a replay sees another time",
    (
        'keep(call, payload, datetime.fromtimestamp(moment, UTC).isoformat(" ", "milliseconds"))',
        "str(payload)",
    ),
    tests="tests/engine/operations/test_value.py::test_values_are_the_same_at_every_replay",
)
bug(
    "uuid4-by-chance",
    "a replay draws another UUID",
    ("return uuid.UUID(bytes=_seed(frame.run, frame.scope)[:16], version=4)", "return uuid.uuid4()"),
    tests="tests/engine/operations/test_value.py::test_values_are_the_same_at_every_replay",
)
bug(
    "rng-by-chance",
    "a replay draws other numbers",
    ('return random.Random(int.from_bytes(_seed(frame.run, frame.scope), "big"))', "return random.Random()"),
    tests="tests/engine/operations/test_value.py::test_values_are_the_same_at_every_replay",
)
bug(
    "draws-not-counted",
    "all UUIDs of a scope are one",
    ("self.draws = number + 1", "self.draws = number"),
    tests="tests/engine/operations/test_value.py::test_values_are_the_same_at_every_replay",
)
bug(
    "value-after-the-body",
    "a body may act upon a time that is not durable",
    ("or call.run.writer.buffer", "or False"),
    ("if run.writer.buffer: yield from flush(run) if self.defn.transaction:", "if self.defn.transaction:"),
    tests="tests/engine/operations/test_value.py::test_values_are_the_same_at_every_replay",
)
bug(
    "log-again",
    "a replay logs again",
    (
        "def answer(self, call: Call, record: Step) -> Flow: return None, None yield def _shown",
        "def answer(self, call: Call, record: Step) -> Flow:\n        return self.execute(call, None)\n\n\ndef _shown",
    ),
    tests="tests/engine/operations/test_value.py::test_a_log_line_is_stored_once_and_not_repeated_by_a_replay",
)
bug(
    "child-by-chance",
    "after a crash a call has another child",
    (
        'return f"{call.run.origin}/{call.key[:16]}{again}"',
        'import os\n    return f"{call.run.origin}/{os.urandom(4).hex()}{again}"',
    ),
    tests="tests/engine/runs/test_child.py::test_one_child_for_each_call_across_crashes",
)
bug(
    "failed-child-again",
    "a child that failed executes again because its parent died",
    ("again = run.journal.get(call.key) is not None", "again = True"),
    tests="tests/engine/runs/test_child.py::test_a_failed_child_whose_parent_died_is_not_executed_again",
)
bug(
    "undone-child-kept",
    "a child whose undo was broken off keeps its owner",
    ("yield from free_lease(engine, claimed)", "pass"),
    tests="tests/engine/runs/test_undo_children.py::test_closing_gives_back_a_child_whose_undo_has_begun",
)
bug(
    "children-not-told",
    "children go on when their parent is cancelled",
    ("child.halt(error, outside=outside)", "pass"),
    tests="tests/engine/runs/test_cancel.py::test_cancelling_the_parent_cancels_the_children",
)
bug(
    "undo-oldest-first",
    "undo goes from the oldest step to the newest",
    ("for step in list(state.journal)[::-1]:", "for step in list(state.journal):"),
    tests="tests/engine/runs/test_undo.py::test_the_undo_of_every_completed_step_runs_newest_first",
)
bug(
    "undo-start-not-recorded",
    "a kill while undoing executes the body again",
    (
        "operations: list[Operation] = [UpdateRun(state.id, begin, epoch=state.epoch)]",
        "operations: list[Operation] = [UpdateRun(state.id, {}, epoch=state.epoch)]",
    ),
    tests="tests/engine/runs/test_undo.py::test_an_undo_that_failed_for_good_is_reported_once",
)
bug(
    "undo-not-recorded",
    "what was undone is undone once more after a kill",
    (
        "yield from self._put(call, *self._undone(call, attempt.number), beside=self.beside)",
        "pass",
    ),
    tests="tests/engine/runs/test_undo.py::test_the_undo_of_every_completed_step_runs_newest_first",
)
bug(
    "failing-undo-stops",
    "an undo that fails keeps the others from being undone",
    ("return (yield from self._give_up(call, made, failed))", "return failed, None"),
    tests="tests/engine/runs/test_undo.py::test_a_failing_undo_is_retried_then_reported_without_stopping_the_others",
)
bug(
    "fork-copies-the-point",
    "a fork has the step before which it is to begin",
    ("copied = [s for s in steps if s.seq < point.seq", "copied = [s for s in steps if s.seq <= point.seq"),
    tests="tests/engine/runs/test_repair.py::test_fork_copies_what_was_recorded_before_the_point",
)
bug(
    "resolve-executes",
    "a step that was resolved with a result executes again",
    (
        "status = StepStatus.COMPLETED payload, loaded",
        "status = StepStatus.PENDING\n            payload, loaded",
    ),
    tests="tests/engine/runs/test_repair.py::test_resolve_says_what_came_of_a_step_in_doubt",
)
bug(
    "forget-keeps",
    "a step that was forgotten is still answered",
    (
        "changed = found._replace(seq=0, status=StepStatus.UNDONE, payload=None",
        "changed = found._replace(seq=0, payload=None",
    ),
    tests="tests/engine/runs/test_repair.py::test_forget_inside_a_run_is_recorded_once",
)
bug(
    "open-failure-handled-in-a-branch",
    "a failure that a branch handled executes again when the step around it is retried",
    ("seen = whose == scope.home or _returned(whose)", "seen = whose == scope.home"),
    tests=f"{VERBS}::test_what_was_found_stays_mended",
)

# What the house was cut into -----------------------------------------------------------------------------------

bug(
    "epoch-not-raised",
    "who claims a run has the epoch of its last owner",
    (
        'return None claim = {"owner": owner, "status": _RUNNING, "finished_at": None} return {**claim, **changes, "epoch": run.epoch + 1,',
        'return None\n    claim = {"owner": owner, "status": _RUNNING, "finished_at": None}\n    return {**claim, **changes, "epoch": run.epoch,',
    ),
    tests="tests/core/test_ownership.py::test_a_claim_raises_the_epoch_or_is_refused",
)
bug(
    "message-for-two-waits",
    "a message that one wait has taken is taken by another",
    ("return taken_by is None or taken_by == step_key", "return True"),
    tests="tests/core/test_ownership.py::test_messages",
)
bug(
    "ended-run-takes-messages",
    "a message to a completed run is stored",
    ("return status not in _ENDED", "return True"),
    tests="tests/core/test_ownership.py::test_messages",
)
bug(
    "handled-failure-stays-open",
    "a failure that the body has handled is executed again",
    ("self._handled(key) place = place.parent", "pass\n                place = place.parent"),
    tests="tests/engine/test_failures.py::test_no_failure_of_a_body_that_goes_on_stays_open_behind_the_next_call",
)
bug(
    "group-blames-nobody",
    "a failure in an exception group is not found",
    ("chain.extend(exceptions_of(link)) chain += [cause_of(link), None", "chain += [cause_of(link), None"),
    tests="tests/engine/test_failures.py::test_members_of_a_group_lead_to_it",
)
bug(
    "last-stop-wins",
    "a later reason to stop replaces the first",
    (
        "if not self.halted: self._reason, self.halted = error, True",
        "if True:\n                self._reason, self.halted = error, True",
    ),
    tests="tests/engine/test_stop_cleanup.py::test_the_first_reason_to_stop_wins",
)
bug(
    "flush-dropped",
    "a body acts upon values that are not durable",
    ("if run.writer.buffer: yield from commit(run, None)", "if False:\n        yield from commit(run, None)"),
    tests="tests/engine/test_record.py::test_a_body_does_not_begin_while_another_branch_commits_the_value_that_it_got",
)
bug(
    "overlap-one-sided",
    "of two calls that overlap, the first counts as sequential",
    ("other.concurrent = True", "pass"),
    tests="tests/engine/test_divergence_concurrent.py::test_a_call_that_another_one_has_overlapped_is_no_evidence",
)
bug(
    "another-process-is-this-one",
    "check_replay changes nothing in another process",
    ("with elsewhere(changes): if notice:", "with elsewhere(()):\n            if notice:"),
    tests="tests/testing/replay/test_check_mistakes.py::test_a_mistake_is_found_and_blamed[clock_localtime]",
)
bug(
    "strange-step-forgotten",
    "check_replay does not mind a step that the first execution did not call",
    ("-> Any: self._life.strange.append(shown)", "-> Any:\n            pass"),
    tests="tests/testing/replay/test_report.py::test_the_story_of_a_crash",
)
bug(
    "clock-jumps-while-busy",
    "a virtual clock jumps though something is runnable",
    ("if self._busy > 0: return self._settled", "if False:\n            return\n        self._settled"),
    (
        "if self._busy <= 0 and not self._advancing and timer is not None:",
        "if not self._advancing and timer is not None:",
    ),
    tests="tests/test_clock.py::test_threads_sleep_side_by_side",
)

# Messages between runs, queues, schedules, heartbeats, transactions, other keys --------------------------------

bug(
    "race-loser-goes-on",
    "what has lost a race is not withdrawn",
    ("self._withdraw(winner) run.stop.check()", "run.stop.check()"),
    tests="tests/engine/operations/test_race.py::test_the_first_wins_and_the_others_are_withdrawn",
)
bug(
    "race-failure-wins",
    "the first that ends wins a race, even if it has failed",
    ("if found[0] is None and chosen in (None, number):", "if chosen in (None, number):"),
    tests="tests/engine/operations/test_race.py::test_if_all_fail_their_errors_come_in_a_group",
)
bug(
    "publish-counts-anew",
    "a continued run numbers its published items from the beginning",
    ("self._counts = dict(counts)", "self._counts = {}"),
    tests="tests/engine/operations/test_publish.py::test_a_replay_publishes_nothing_twice",
)
bug(
    "heartbeat-last-words-lost",
    "what a body said last before it failed is not there for the next attempt in another process",
    (
        "return (PutStep(_with_details(call.run.engine, beat_of(call, attempt), heart.details), call.run.epoch),)",
        "return ()",
    ),
    tests="tests/engine/test_heartbeat.py::test_the_last_words_before_a_failure_reach_the_next_process",
)
bug(
    "heartbeat-silence-unseen",
    "a body that has been silent for too long is as good as one that beats",
    ("return self._missed or self.left() <= 0", "return False"),
    tests="tests/engine/test_heartbeat.py::test_an_inline_sync_body_ends_first_and_is_then_lost",
)
bug(
    "queue-limit-passed",
    "one run more than the limit of a queue executes",
    ("if all(used[room] < places.get(room[0]", "if all(used[room] <= places.get(room[0]"),
    tests="tests/storage/test_operations_claiming.py::test_limits_of_queues_hold",
)
bug(
    "priority-ignored",
    "what waits longest is next, whatever its priority",
    ("key=lambda run: (-run.priority, run.created_at, run.id)", "key=lambda run: (run.created_at, run.id)"),
    tests="tests/storage/test_operations_claiming.py::test_priority_then_age",
)
bug(
    "paused-schedule-fires",
    "a schedule that is paused starts runs",
    ("if row.paused or workflow_of(row)", "if workflow_of(row)"),
    tests="tests/engine/runs/test_schedules_due.py::test_a_pause",
)
bug(
    "generation-counts-items-anew",
    "the next generation of a run numbers its published items from the beginning",
    ("following.inherit({Channels: state.part(Channels)})", "pass"),
    tests="tests/engine/operations/test_continue_as_new.py::test_messages_channels_and_tags_stay",
)
bug(
    "transaction-body-stores",
    "the body of a transactional step may store what stays although it is rolled back",
    ("self.transacts = True", "pass"),
    tests="tests/engine/test_transact.py::test_nothing_else_is_stored_by_the_body",
)
bug(
    "epoch-anew",
    "a run that takes the id of a deleted one has the epochs of that again",
    ("inserted(op.run, op.run.id, None, epoch + 1,", "inserted(op.run, op.run.id, None, 1,"),
    tests="tests/storage/test_contract.py::TestMemory::test_a_deleted_run_leaves_no_owner",
)
bug(
    "worker-takes-what-kills-it",
    "a run whose process died each time is taken over for ever",
    ("if run.recoveries > TAKEN_OVER_AT_MOST:", "if False:"),
    tests="tests/engine/runs/test_worker.py::test_what_kills_its_workers_is_parked",
)
bug(
    "dry-run-writes",
    "to ask what a change of the secret would do is to change it",
    ("if rewrites and not self._dry_run else []", "if rewrites else []"),
    tests="tests/test_rekeying.py::test_everything_has_the_new_keys",
)
bug(
    "generation-keeps-its-epoch",
    "what the former generation of a run has under way lands in the journal of the next",
    ('"generation": run.generation + 1, "epoch": run.epoch + 1}', '"generation": run.generation + 1}'),
    ('begun = changed(record, {**changes, "epoch": record.epoch + 1})', "begun = changed(record, changes)"),
    tests="tests/engine/operations/test_continue_as_new.py::test_a_flush_that_comes_late_leaves_nothing_in_the_next_generation",
)
bug(
    "cancel-breaks-into-replay",
    "a cancel that comes during a replay takes what was done for not done",
    ("self.replaying = self.replaying or replaying", "pass"),
    tests="tests/engine/runs/test_cancel.py::test_a_cancel_during_a_replay_comes_where_the_journal_ends",
)
bug(
    "given-up-child-fails",
    "a child that its parent has stopped waiting for ends failed with it",
    (
        "yield from end_given_up(state) if (yield from end_children(",
        "if (yield from end_children(",
    ),
    tests="tests/engine/runs/test_child_stopping.py::test_a_child_that_was_given_up_is_cancelled_although_its_parent_fails",
)
bug(
    "ended-branch-in-the-way",
    "a run cannot begin anew after a crash because of a branch that has ended before it",
    ("if future.lost or future.key in recorded or run.journal.answers(future.key)", "if False"),
    tests="tests/engine/operations/test_continue_as_new.py::test_a_branch_that_ended_before_the_crash_does_not_hold_it_up",
)
bug(
    "loser-left-to-nobody",
    "a child that has lost a race before it began stays unfinished when its parent begins anew",
    ("with crossing(state): yield from end_given_up(state, all_of_them=True)", "pass"),
    tests="tests/engine/runs/test_child.py::test_a_loser_that_has_not_begun_ends_with_its_parent",
)
bug(
    "loser-given-back-late",
    "a child that does not begin is given back after its parent has learnt that it has ended",
    ("future = start(call, is_async, executor, left)", "future = start(call, is_async, executor)"),
    tests="tests/engine/runs/test_child.py::test_the_next_generation_waits_until_a_loser_was_given_back",
)
bug(
    "unasked-child-stays",
    "a child that a dead process has left, and that nobody asks for again, stays unfinished when its parent ends",
    ("{Channels: counts, GivenUp: GivenUp()}", "{Channels: counts}"),
    tests="tests/engine/runs/test_child.py::test_a_child_that_nobody_asks_for_again_ends_with_its_parent",
)
bug(
    "release-of-what-another-has",
    "who lets a run go takes it from whoever has taken it meanwhile",
    ("if self._runs.get(run_id) == epoch:", "if isinstance(self._runs.get(run_id), int):"),
    tests="tests/engine/test_owned.py::test_a_run_that_another_thread_has_taken_meanwhile_is_not_released",
)
bug(
    "half-undone-child-is-damaged",
    "a completed child cannot be continued where a killed process was undoing it",
    ("if record.undoing == _COMPLETED:", "if False:"),
    tests="tests/engine/runs/test_ending.py::test_a_completed_child_that_a_killed_process_was_undoing_is_completed_again",
)
bug(
    "undone-by-two",
    "a parent undoes a child although somebody else is undoing it",
    ("if record is not None and record.undoing:", "if False:"),
    tests="tests/engine/runs/test_undo_children.py::test_a_parent_waits_for_a_child_that_somebody_else_undoes",
)

# Closing, claiming, sealing, faces -----------------------------------------------------------------------------

bug(
    "run-for-two-places",
    "a claim that looks further takes a run that it has already",
    (
        "row[0] not in without and row[1] not in chosen and row[1] not in op.skip",
        "row[0] not in without and row[1] not in op.skip",
    ),
    tests="tests/storage/test_operations_claiming.py::test_a_claim_among_many_takes_what_the_rules_choose",
)
bug(
    "short-page",
    "a page has a run less for each that is damaged",
    ("len(found) >= where.limit or len(rows) < size", "True"),
    tests="tests/storage/test_left_out.py::test_a_damaged_run_stops_no_other",
)
bug(
    "timer-outlives-its-wait",
    "a virtual clock jumps to the end of a wait that was woken before",
    (
        "return waker.is_set timer.cancelled = True return waker.is_set and not timer.fired",
        "return waker.is_set\n            return waker.is_set and not timer.fired",
    ),
    tests="tests/test_clock.py::test_the_timeout_of_a_wait_that_has_ended_moves_no_clock",
)
bug(
    "unloadable-run-in-the-way",
    "a worker takes a run that it cannot execute again and again",
    ("skip=tuple(self._left_alone)", "skip=()"),
    tests="tests/engine/runs/test_worker.py::test_a_run_that_cannot_be_loaded_holds_up_no_other",
)
bug(
    "own-pool-shut-down",
    "code that has shut its own pool down is taken for the end of Python",
    ("return _python_is_ending() return False", "return True\n    return False"),
    tests="tests/engine/test_interruption.py::test_a_pool_that_the_body_has_shut_down_is_a_failure_like_others",
)
bug(
    "ended-run-has-no-reply",
    "what a run has answered cannot be read when it has ended",
    (
        "signal.reply is not None: if signal.reply_failed",
        "signal.reply is not None and run is not None and not is_final(run.status):\n"
        "        if signal.reply_failed",
    ),
    tests="tests/engine/operations/test_receive.py::test_an_answered_key_gives_the_reply_again_even_after_the_end",
)
bug(
    "names-in-turn",
    "who receives several names gets all messages of the first before those of the second",
    (
        "return list(merge(*map(of, names), key=lambda signal: signal.seq))[:most]",
        "return [signal for name in names for signal in of(name)][:most]",
    ),
    tests="tests/engine/operations/test_receive.py::test_the_oldest_over_all_names_comes_first",
)
bug(
    "closing-keeps-the-lease",
    "a run that closing leaves behind is not given back",
    (
        "UpdateRun(state.id, {}, epoch=state.epoch, release=True) for state in left]",
        "UpdateRun(state.id, {}, epoch=state.epoch) for state in left]",
    ),
    tests="tests/engine/runs/test_closing.py::test_a_body_that_does_not_stop_is_left_behind_and_its_run_is_given_back",
)
bug(
    "lost-commit-guessed",
    "when the connection is lost in COMMIT, the transaction counts as lost too",
    (
        "return found if found is not None and found.status is last.status else None",
        "return None if found is None or found.status is last.status else found",
    ),
    tests="tests/engine/test_transact.py::test_a_connection_lost_in_commit_is_never_guessed",
)
bug(
    "seal-of-the-row-before",
    "the second change of a run in one commit is sealed as if there had been no first",
    ("changed[op.run_id] = after", "changed.setdefault(op.run_id, row)"),
    tests="tests/engine/test_sealed_ways.py::test_two_changes_of_a_run_in_one_commit",
)
bug(
    "undo-answered-by-the-last-one",
    "a run that was retried and fails again is not undone, for its steps were undone before",
    (
        "operations.append(DropSteps(state.id, tuple(earlier), state.epoch)) yield",
        "pass\n    earlier = []\n    yield",
    ),
    tests="tests/engine/runs/test_undo.py::test_an_undo_that_failed_is_tried_again_when_the_retried_run_fails_again",
)
bug(
    "failed-branch-left-behind",
    "a run whose branch has failed begins anew",
    ("called.bind() _require_no_failed_branch(run)", "called.bind()"),
    tests="tests/engine/operations/test_continue_as_new.py::test_a_branch_that_has_failed_fails_the_run",
)
bug(
    "page-under-any-name",
    "the page answers a request by a name that is not ours",
    ("if host is None or host[1] not in self.hosts:", "if host is None:"),
    tests="tests/web/test_guard.py::test_a_foreign_host_is_refused_even_with_the_token",
)
bug(
    "first-of-many",
    "the beginning of several ids means the shortest",
    ('if all(run is first or run.id.startswith(first.id + "/") for run in matches):', "if matches:"),
    tests="tests/cli/test_find.py::test_ids_by_their_beginning",
)
bug(
    "clock-jumps-at-a-childs-end",
    "a virtual clock jumps to a far time limit while a child with ended branches hands its outcome over",
    (
        "with engine.parked() if held or (tally is None and not self.done()) else nullcontext():",
        "with engine.parked():",
    ),
    tests="tests/test_clock.py::test_no_time_passes_when_a_child_ends_whose_branches_have_ended",
)

# Opening and ending a run ----------------------------------------------------------------------------------

bug(
    "child-of-no-call",
    "the run of a child does not know which call made it",
    ('{"parent": run.id, "parent_key": call.key}', '{"parent": run.id}'),
    tests="tests/engine/runs/test_undo_children.py::test_a_call_does_not_continue_a_run_whose_failed_child_was_undone",
)
bug(
    "retried-child-is-the-old-one",
    "a child that begins again after an undo has the id of the one before",
    (
        'again = f"~{call.generation}" if call.generation else "" return f"{call.run.origin}/',
        'again = ""\n    return f"{call.run.origin}/',
    ),
    tests="tests/engine/runs/test_child.py tests/engine/runs/test_undo_children.py",
)
bug(
    "deleted-run-joined",
    "a run that was deleted while somebody waited for it is given as if it were there",
    (
        "run = yield _read(engine, wanted.id) return None",
        "run = yield _read(engine, wanted.id)\n    return Acquired(found, False)",
    ),
    tests="tests/engine/runs/test_acquire.py::test_a_run_that_is_deleted_before_it_is_continued_begins_anew",
)
bug(
    "stray-calls-unseen",
    "calls that a body left behind are looked for only in branches",
    ("if not (beginning or scopes or run.scope.active):", "if not (beginning or scopes):"),
    tests="tests/engine/runs/test_undo.py::test_what_a_plain_gather_leaves_behind_ends_before_the_undo",
)
bug(
    "moved-run-found-where-it-was",
    "the memory storage finds a run that was renumbered by its former number",
    ('("key" in changes or "number" in changes)', '("key" in changes and "number" in changes)'),
    tests="tests/storage/test_contract.py",
)
bug(
    "giving-back-untold",
    "nobody is told that a run was given back before its end",
    ("if release and not ends:", "if False:"),
    tests="tests/engine/runs/test_worker_idle.py::test_what_is_enqueued_or_given_back_wakes_a_worker",
)
bug(
    "tags-merged-too-early",
    "tags are merged with those that the run had before the commit",
    ("if engine.storage.merges_tags:", "if False:"),
    tests="tests/engine/runs/test_tagging.py::test_tags_of_others_are_kept",
)
bug(
    "added-tags-replace-the-others",
    "tags that are added are the only ones that the run has then",
    ('return {**(old if isinstance(old, Mapping) else dict.fromkeys(old, "")), **new}', "return dict(new)"),
    tests="tests/storage/test_contract.py::TestMemory::test_tags_are_added",
)
bug(
    "transaction-needs-its-loop-too-long",
    "a blocking write is refused while a transaction ends whose body is over",
    (
        "finally: # from here on its thread ends it self._needed.discard(loop)",
        "finally:\n                pass",
    ),
    tests="tests/engine/test_commit_turns.py::test_a_blocking_write_after_a_body_waits_for_the_end_of_its_transaction",
)
bug(
    "run-holds-itself",
    "a run that has ended is held by itself, with its functions, until garbage is collected",
    ("partial(_unreplayed, journal, self.lock)", "lambda: _unreplayed(self.journal, self.lock)"),
    tests="tests/engine/test_definitions.py::test_a_run_that_has_ended_holds_no_function",
)
