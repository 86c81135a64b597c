"""What the tests of sealed rows share: the application's secret, and a step that notes its executions."""

from flowdsl import step

__all__ = ["SECRET", "did", "pay"]

SECRET = "only the application knows this"

did: list[str] = []


@step
def pay(what: str) -> str:
    """Note what is paid."""
    did.append(what)
    return what
