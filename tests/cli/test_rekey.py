"""``flowdsl rekey``."""

from flowdsl import Runtime, wait_for, workflow
from flowdsl.codecs import PickleCodec, Signed

APP = """
from flowdsl import configure
from flowdsl.codecs import PickleCodec, Signed

configure(codec=Signed(PickleCodec(), ["new", "old"]))
"""


@workflow(id="waits")
def waits():
    return wait_for("go")


def test_a_new_secret(shop, invoke, answer, monkeypatch):
    """With the old secret, ``rekey`` gives every record the new one; a second time there is nothing to do."""
    shop.sell("x", id="order-17")
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "first")
    assert answer("rekey", "--unsealed")["rewritten"] > 5
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "second")
    assert "order-17" not in invoke("runs").stdout
    result = invoke("rekey")
    assert result.exit_code == 1
    assert "error: run order-17" in result.stderr
    monkeypatch.setenv("FLOWDSL_OLD_SECRET_KEY", "first")
    planned = invoke("rekey", "--dry-run")
    assert planned.stdout.startswith("would rewrite ")
    done = invoke("rekey")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == planned.stdout.replace("would rewrite", "rewrote")
    assert invoke("rekey").stdout.startswith("rewrote 0 records, ")
    assert "order-17" in invoke("runs").stdout


def test_the_codec_of_the_program(folder, url, invoke, imports):
    """``rekey`` uses the keys of the program named by --app, with the newest first."""
    with Runtime(url, codec=Signed(PickleCodec(), "old")):
        run = waits.start()
        run.signal("go", ["old"])
        assert run.result(timeout=60) == ["old"]
    (folder / "keys_of_today.py").write_text(APP)
    assert invoke("rekey", "--app", "keys_of_today.py").stdout.startswith("rewrote ")
    with Runtime(url, codec=Signed(PickleCodec(), "new")) as runtime:
        assert runtime.run("waits").result() == ["old"]


def test_not_while_programs_execute(shop, invoke, monkeypatch, url):
    """``rekey`` refuses to change the secret while a program executes runs."""
    with Runtime(url):
        run = waits.start()
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", "first")
        result = invoke("rekey", "--unsealed")
        assert result.exit_code == 1
        assert result.stderr == (
            "error: programs that know only the old secret execute runs: waits\n"
            "next: stop all programs that use this storage, then run it again\n"
        )
        run.signal("go")
        run.result(timeout=60)


def test_wrong_usage(shop, fault, invoke, monkeypatch):
    """A missing database, and --unsealed together with an old secret, are refused."""
    assert "no database at" in fault("rekey")
    shop.sell("x")
    monkeypatch.setenv("FLOWDSL_OLD_SECRET_KEY", "first")
    result = invoke("rekey", "--unsealed")
    assert result.exit_code == 2
    assert "give one of the two" in result.stderr
