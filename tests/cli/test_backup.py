"""``flowdsl backup``."""


def test_backup(shop, invoke, answer, folder):
    """The copy is a complete database, and the command prints its size."""
    shop.sell("x", id="order-17")
    result = invoke("backup", "copy.db")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"copied {folder}/.flowdsl/flow.db to copy.db  ")
    assert answer("runs", "--storage", "sqlite:///copy.db") == answer("runs")
    assert answer("backup", "again.db")["bytes"] == (folder / "again.db").stat().st_size


def test_backups_that_cannot_be_made(shop, fault, folder):
    """No file is overwritten, a missing database is not made, and a database server is refused."""
    assert "no database at" in fault("backup", "copy.db")
    shop.sell("x")
    (folder / "copy.db").touch()
    assert fault("backup", "copy.db").startswith("error: ")
    assert (folder / "copy.db").stat().st_size == 0
    (folder / "file").touch()
    assert fault("backup", "file/copy.db").startswith("error: ")
    assert "tools of your database server" in fault("backup", "x.db", "--storage", "memory://")
