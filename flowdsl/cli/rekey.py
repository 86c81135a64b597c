"""``flowdsl rekey``: rewrite what is stored with the present keys."""

import os

import click

from flowdsl.cli._command import Cli, Failure, command, opened_storage
from flowdsl.cli._execute import APP, stdout_reserved
from flowdsl.cli._modules import app_payloads
from flowdsl.core.records import RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.handle import is_interrupted
from flowdsl.rekeying import rekey as rewrite
from flowdsl.storage import Storage

__all__ = ["rekey"]

OLD_SECRET = "FLOWDSL_OLD_SECRET_KEY"
_NAMED = 3  # executing runs that are named


@command(
    epilog="""\b
Examples:
  flowdsl rekey --app shop.py --dry-run
  flowdsl rekey --app shop.py
  FLOWDSL_OLD_SECRET_KEY=… FLOWDSL_SECRET_KEY=… flowdsl rekey"""
)
@APP
@click.option("--unsealed", is_flag=True, help="Trust and seal records that were written without a secret.")
@click.option("--dry-run", is_flag=True, help="Only count the records that would be rewritten.")
def rekey(cli: Cli, app: str | None, unsealed: bool, dry_run: bool) -> int:
    """Rewrite what is stored with the present keys.

    The codec is that of --app, with its newest key first. FLOWDSL_SECRET_KEY is the present secret. If it has
    changed, FLOWDSL_OLD_SECRET_KEY is the old one. The command can be stopped at any moment and started
    again. The exit code is 1 if a record was left as it is.
    """
    old = os.environ.get(OLD_SECRET) or None
    if unsealed and old is not None:
        text = f"--unsealed is for records without a secret, and {OLD_SECRET} names one; give one of the two"
        raise click.UsageError(text, click.get_current_context())
    with stdout_reserved(cli.as_json):
        payloads = app_payloads(app)
    with opened_storage(cli) as storage:
        if (old is not None or unsealed) and not dry_run:
            _require_rest(storage)
        done = rewrite(
            storage,
            payloads.codec,
            secret=payloads.secret,
            old_secret=old,
            unsealed=unsealed,
            dry_run=dry_run,
        )
    did = "would rewrite" if dry_run else "rewrote"
    cli.out.line(
        f"{did} {done.rewritten} record{'' if done.rewritten == 1 else 's'}, ",
        f"{done.current} had the keys before",
    )
    if cli.as_json:
        facts = {"rewritten": done.rewritten, "current": done.current, "refused": list(done.refused)}
        cli.out.document({"dry_run": dry_run, **facts})
    for line in done.refused:
        cli.out.error(line)
    return 1 if done.refused else 0


def _require_rest(storage: Storage) -> None:
    """Raise :class:`Failure` if a process executes runs, because it would go on with the old secret."""
    running = storage.list_runs(RunFilter(status=(RunStatus.RUNNING,)))
    busy = [run.id for run in running if not is_interrupted(storage, run)]
    if busy:
        more = f" and {len(busy) - _NAMED} more" if len(busy) > _NAMED else ""
        named = ", ".join(busy[:_NAMED]) + more
        raise Failure(
            f"programs that know only the old secret execute runs: {named}",
            "stop all programs that use this storage, then run it again",
        )
