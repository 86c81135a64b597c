"""``flowdsl retry``, with scripts in processes of their own."""

import json
import sys
import textwrap

import forked


def test_retry_a_script(script, effects, folder, invoke, spawn):
    """A run of a script is retried from its file: its main part does not execute, and its classes are
    found."""
    assert script(7) == 1
    (folder / "card").touch()
    process = spawn("retry", "order-7", "--app", "jobs/shop-v2.py")
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert effects() == ["main", "reserve 7", "charge", "charge"]
    lines = stdout.splitlines()
    assert lines[:2] == ["the body prints", "and so does its child"]
    assert lines[2].startswith("✓ completed  order-7  1 executed, 1 recorded before, ")
    assert lines[3] == "  result  [Order(number=7), 'paid']"


def test_a_run_that_fails_again(script, effects, spawn, folder):
    """A run that fails again is one line on standard error, with exit code 1."""
    script(9)
    process = spawn("retry", "order-9", "--app", "jobs/shop-v2.py")
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr == (
        "error: run order-9 failed: CardDeclined: no money at all\n"
        "next: flowdsl retry order-9 --app jobs/shop-v2.py\n"
    )
    assert effects() == ["main", "reserve 9", "charge", "charge"]
    process = spawn("retry", "order-9", "--app", "jobs/shop-v2.py", "--json")
    document = json.loads(process.communicate()[0])
    assert (process.returncode, document["status"]) == (1, "failed")
    assert document["next"] == [["flowdsl", "retry", "order-9", "--app", "jobs/shop-v2.py"]]


def test_the_module_has_to_define_the_workflow(script, folder, fault, imports):
    """A module that does not define the run's workflow is an error that names the workflow."""
    script(5)
    (folder / "empty_module.py").touch()
    assert "shop-v2.checkout" in fault("retry", "order-5", "--app", "empty_module")


def test_the_module_is_asked_for(shop, invoke):
    """Without --app the error names the probable module and the whole command, and nothing executes."""
    run = shop.fail("x")
    for command in ("resume", "retry"):
        result = invoke(command, run.id)
        assert result.exit_code == 2
        assert f"probably --app shop\nnext: flowdsl {command} {run.id} --app shop\n" in result.stderr


CONFIGURED = """
    import flowdsl
    from flowdsl.codecs import JsonCodec

    flowdsl.configure("sqlite:///elsewhere.db", codec=JsonCodec())

    @flowdsl.step(retry=flowdsl.Retry(attempts=1))
    def charge(order):
        if not card:
            raise ValueError("no card")
        return "paid"

    @flowdsl.workflow(id="order-{order}")
    def checkout(order):
        return charge(order)

    card = __name__ != "__main__"
    if __name__ == "__main__":
        checkout(3)
"""


def test_the_runtime_that_the_module_configures(folder, spawn):
    """``retry`` uses the storage and codec that the module configures."""
    (folder / "conf.py").write_text(textwrap.dedent(CONFIGURED))
    assert forked.run([sys.executable, "conf.py"], capture_output=True).returncode == 1
    process = spawn("retry", "order-3", "--app", "conf", "--json")
    document = json.loads(process.communicate()[0])
    assert (process.returncode, document["status"], document["result"]) == (0, "completed", "'paid'")
    assert not (folder / ".flowdsl").exists()
