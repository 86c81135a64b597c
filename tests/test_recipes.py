"""What the recipes show beside Python: units, manifests, hosts whose clocks differ."""

import configparser
import re
import shlex
import sys
from pathlib import Path

import pytest
from support import script, spawn
from verbsupport import until

from flowdsl import Runtime
from flowdsl.cli.worker import worker
from flowdsl.core.durations import seconds

sys.path.insert(0, str(Path(__file__).parent / "storage"))
from postgres_server import postgres_url

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "services.md"


def blocks(language: str) -> list[str]:
    """The blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def options_of(command: list[str]) -> dict[str, object]:
    """What the options of ``flowdsl worker …`` mean to the command itself."""
    name, verb, *given = command
    assert (Path(name).name, verb) == ("flowdsl", "worker")
    return worker.make_context("worker", given, resilient_parsing=False).params


def test_the_units_of_systemd_fit() -> None:
    """The systemd unit runs an existing command and kills it only after the drain, and the timer has a
    time."""
    units = []
    for text in blocks("ini"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(text)
        units.append(unit)
    service, timer = units
    options = options_of(shlex.split(service["Service"]["ExecStart"]))
    assert options["app"] == "shop"
    assert float(service["Service"]["TimeoutStopSec"]) > float(str(options["drain"]))
    assert service["Service"].get("KillSignal", "SIGTERM") == "SIGTERM"
    assert timer["Timer"]["OnCalendar"] == "*-*-* 02:30"


def test_the_manifest_of_kubernetes_fits() -> None:
    """The Kubernetes manifest has the required fields, a matching selector, and enough time for the drain."""
    yaml = pytest.importorskip("yaml")
    (text,) = blocks("yaml")
    manifest = yaml.safe_load(text)
    assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    template = manifest["spec"]["template"]
    assert manifest["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    pod = template["spec"]
    (container,) = pod["containers"]
    assert {"name", "image", "command", "env"} <= set(container)
    assert all(isinstance(word, str) for word in container["command"])
    options = options_of(container["command"])
    assert pod["terminationGracePeriodSeconds"] > seconds(options["drain"]) + 5
    assert [variable["name"] for variable in container["env"]] == ["FLOWDSL_STORAGE"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"].keys() == {"name", "key"}


def test_two_hosts_whose_clocks_differ(tmp_path: Path) -> None:
    """With one host two hours ahead and one two behind, each run executes once and not before its time."""
    code = script(
        tmp_path / "host.py",
        """
        import sys, time
        real, off = time.time, float(sys.argv[1])
        time.time = lambda: real() + off
        from flowdsl import Runtime, sleep, step, workflow
        @step
        def body(n): return n
        @workflow(id="w-{n}")
        def w(n):
            sleep(0.01)
            return body(n)
        if __name__ == "__main__":
            with Runtime(sys.argv[2], lease=30) as rt:
                if off == 0:
                    w.options(delay="1 hour").enqueue(0)
                    for n in range(1, 9): w.enqueue(n)
                else:
                    rt.work(concurrency=1, drain=30)
        """,
    )
    url = postgres_url()
    assert spawn(code, "0", url).communicate(timeout=60)[1] == ""
    hosts = [spawn(code, str(off), url) for off in (7200, -7200)]
    with Runtime(url) as rt:
        until(lambda: all(run.status == "completed" for run in rt.runs() if run.id != "w-0"))
        for host in hosts:
            host.terminate()
        for host in hosts:
            host.communicate(timeout=60)
        assert rt.run("w-0").status == "pending"
        records = [rt.storage.get_run(f"w-{n}") for n in range(1, 9)]
        assert {(record.recoveries, record.epoch) for record in records} == {(0, 2)}
