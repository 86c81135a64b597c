"""Importing the user's code for ``--app``."""

import sys

import pytest

from flowdsl.cli._command import Failure
from flowdsl.cli._modules import load_app


@pytest.mark.parametrize(
    ("app", "source", "said"),
    [
        ("nowhere", None, "error: no module 'nowhere' here"),
        ("nowhere.py", None, "error: no file nowhere.py\n"),
        ("broken.py", "import nosuchthing", "importing broken.py failed: ModuleNotFoundError"),
        ("broken", "import nosuchthing", "importing broken failed: ModuleNotFoundError"),
        ("broken.py", "def", "importing broken.py failed: SyntaxError"),
        ("broken.py", "x = 1\n1 / 0", "broken.py:2)"),
        ("broken.py", "raise SystemExit(0)", "importing broken.py failed: SystemExit"),
        ("json.py", "", "there is another of that name"),
    ],
)
def test_modules_that_cannot_be_imported(app, source, said, shop, folder, invoke, imports):
    """A module that does not exist or raises is one line that says why."""
    if source is not None:
        (folder / f"{app.removesuffix('.py')}.py").write_text(source)
    run = shop.fail("x")
    result = invoke("retry", run.id, "--app", app)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "broken" not in sys.modules


def test_a_file_in_a_package(folder, imports):
    """A file inside a package is imported as part of it, or as a script, as the workflow of the run
    requires."""
    package = folder / "pkg" / "sub"
    package.mkdir(parents=True)
    for place in (folder / "pkg", package):
        (place / "__init__.py").touch()
    (package / "jobs.py").write_text("name = __name__")
    assert load_app("pkg/sub/jobs.py", "pkg.sub.jobs.checkout").name == "pkg.sub.jobs"
    assert load_app("pkg/sub/jobs.py").name == "pkg.sub.jobs"
    assert load_app("pkg/sub/jobs.py", "jobs.checkout").name == "jobs"
    assert load_app("pkg/sub/jobs.py", "jobs.checkout") is sys.modules["jobs"]
    with pytest.raises(Failure):
        load_app("pkg/sub/nothing.py")
