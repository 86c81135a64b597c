"""Workflows that do not replay: check_replay must find each, and blame the right cause."""

import asyncio
import collections
import contextlib
import datetime
import email.utils
import fileinput
import functools
import glob
import itertools
import json
import os
import pathlib
import platform
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed
from os import stat
from typing import Any

from flowdsl import Retry, gather, step, store, workflow
from flowdsl.testing.replay import causes as cause

MISTAKES: dict[str, tuple[Any, str]] = {}
"""Name → workflow, and the cause that the story names ("": it is refused at once)."""


def mistake(blamed: str) -> Any:
    """Add a workflow to the table."""

    def add(fn: Any) -> Any:
        made = workflow(fn)
        MISTAKES[fn.__name__] = made, blamed
        return made

    return add


def body(name: str, blamed: str, look: Any) -> None:
    """A workflow that hands what *look* gives to a step."""

    def fn() -> Any:
        return charge(look())

    fn.__name__ = fn.__qualname__ = name
    MISTAKES[name] = workflow(name=f"mistakes.{name}")(fn), blamed


@step
def charge(what: Any) -> str:
    """A step."""
    return f"paid {what}"


@workflow
def random_above_four(n: int) -> str:
    """A mistake for some arguments only."""
    return charge(random.random()) if n > 4 else charge(n)


@step
async def acharge(what: Any) -> str:
    """An async one, that takes longer the smaller its argument."""
    for _ in range(30 // (1 + len(str(what)))):
        await asyncio.sleep(0)
    return f"paid {what}"


@step(mode="try")
def roll() -> float:
    """A step that leaves no record."""
    return random.random()


@step
def enrich(order: Any) -> None:
    """A step that changes its argument."""
    order["price"] = 5


# clocks -----------------------------------------------------------------------------------------------

CLOCKS = {
    "time": time.time,
    "time_ns": time.time_ns,
    "localtime": lambda: time.localtime().tm_mon,
    "gmtime": lambda: time.gmtime().tm_mon,
    "strftime": lambda: time.strftime("%Y-%m"),
    "ctime": lambda: time.ctime(),
    "asctime": lambda: time.asctime(time.gmtime()),
    "clock_gettime": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "monotonic": time.monotonic,
    "perf_counter": time.perf_counter,
    "today": lambda: datetime.date.today().isoformat(),
    "now": lambda: datetime.datetime.now().month,
    "now_utc": lambda: datetime.datetime.now(datetime.UTC).strftime("%B"),
    "formatdate": email.utils.formatdate,
    "email_localtime": lambda: email.utils.localtime().month,
    "zone": lambda: datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC).astimezone().isoformat(),
    "fromtimestamp": lambda: datetime.datetime.fromtimestamp(0).isoformat(),
    "tzname": lambda: time.localtime(0).tm_zone,
}
for _name, _look in CLOCKS.items():
    _blamed = cause.ZONE if _name in ("zone", "fromtimestamp", "tzname") else cause.CLOCK
    body(f"clock_{_name}", _blamed, _look)


@mistake(cause.CLOCK)
def clock_in_a_branch() -> str:
    return charge("early") if datetime.datetime.now().month < 7 else charge("late")


@mistake(cause.CLOCK)
def clock_in_a_loop() -> int:
    end = time.time() + 0.0005
    count = 0
    while time.time() < end:
        count += 1
    return len(charge(count))


# chance and ids ---------------------------------------------------------------------------------------

CHANCES = {
    "random": lambda: random.random(),
    "choice": lambda: random.choice(range(10**6)),
    "instance": lambda: random.Random().random(),
    "secrets": secrets.token_hex,
    "urandom": lambda: os.urandom(8).hex(),
    "shuffle": lambda: random.sample(range(100), 20),
}
for _name, _look in CHANCES.items():
    body(f"chance_{_name}", cause.CHANCE, _look)
body("id_uuid4", cause.IDS, lambda: str(uuid.uuid4()))
body("id_uuid1", cause.IDS, lambda: str(uuid.uuid1()))


@mistake(cause.CHANCE)
def chance_submitted() -> list[str]:
    return [one.result() for one in [charge.submit(random.random()) for _ in range(3)]]


@functools.lru_cache
def token() -> str:
    """Cached, so that it is the same in this process."""
    return uuid.uuid4().hex


@mistake(cause.IDS)
def id_cached() -> str:
    return charge(token())


@mistake(cause.UNRECORDED)
def chance_in_a_step_without_record() -> str:
    return charge(roll())


class HttpError(Exception):
    """Made with other arguments than it keeps: pickle cannot make it again."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"HTTP {code}: {text}")
        self.code = code


@step(retry=Retry(attempts=1))
def fetch() -> str:
    raise HttpError(503, "away")


@mistake(cause.ENVIRONMENT)
def behind_an_odd_exception() -> str:
    try:
        return fetch()
    except HttpError:
        return charge(os.environ.get("FLOWDSL_NOT_SET_REGION", "eu"))


# this process, this host ------------------------------------------------------------------------------

PROCESSES = {
    "pid": os.getpid,
    "host": socket.gethostname,
    "node": platform.node,
    "uname": lambda: os.uname().nodename,
    "hash": lambda: hash("text"),
    "id": lambda: id(object()),
    "cpus": os.cpu_count,
    "thread": threading.get_ident,
    "argv": lambda: sys.argv[0],
    "address": lambda: repr(object()),
}
for _name, _look in PROCESSES.items():
    body(f"process_{_name}", "" if _name in ("argv", "address") else cause.PROCESS, _look)

# settings ---------------------------------------------------------------------------------------------

SETTINGS = {
    "set": lambda: os.environ["HOME"],
    "unset": lambda: os.getenv("FLOWDSL_TEST_UNSET", "off"),
    "unset_contained": lambda: "FLOWDSL_TEST_UNSET" in os.environ,
    "get": lambda: os.environ.get("FLOWDSL_TEST_UNSET"),
    "copy": lambda: dict(os.environ),
    "expandvars": lambda: os.path.expandvars("$HOME/x"),
    "expanduser": lambda: os.path.expanduser("~/x"),
    "path_home": lambda: str(pathlib.Path.home()),
}
for _name, _look in SETTINGS.items():
    body(f"environment_{_name}", cause.ENVIRONMENT, _look)
body("directory", cause.DIRECTORY, os.getcwd)
body("directory_path", cause.DIRECTORY, lambda: str(pathlib.Path("x").absolute()))

# what a module reads when it is imported ------------------------------------------------------------------

STAGE = os.environ.get("FLOWDSL_TEST_UNSET", "dev")
HOME = os.environ["HOME"]
PLACE = os.getcwd()
TODAY = datetime.date.today()
OFFSET = time.timezone


@mistake(cause.ENVIRONMENT)
def imported_setting() -> str:
    return charge([STAGE, HOME])


@mistake(cause.DIRECTORY)
def imported_directory() -> str:
    return charge(PLACE)


@mistake(cause.CLOCK)
def imported_day() -> str:
    return charge(TODAY)


@mistake(cause.ZONE)
def imported_zone() -> str:
    return charge(OFFSET)


@mistake(cause.CLOCK)
def imported_in_a_default(day: datetime.date = datetime.date.today()) -> str:
    return charge(day)


# threads of the workflow ------------------------------------------------------------------------------


def in_pool(look: Any, *args: Any) -> Any:
    """What *look* gives in a thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(look, *args).result()


def in_thread(look: Any) -> Any:
    """The same, in a thread by hand."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(look()))
    thread.start()
    thread.join()
    return found


# what is outside --------------------------------------------------------------------------------------

FOLDER = pathlib.Path(tempfile.gettempdir()) / f"flowdsl-mistakes-{os.getpid()}"
FOLDER.mkdir(exist_ok=True)
FILE = FOLDER / "limit.json"
FILE.write_text("5")

FILES = {
    "open": lambda: [line for line in fileinput.input(FILE)],
    "read_text": FILE.read_text,
    "json": lambda: json.loads(FILE.read_bytes()),
    "listdir": lambda: os.listdir(FOLDER),
    "scandir": lambda: [one.name for one in os.scandir(FOLDER)],
    "glob": lambda: glob.glob(f"{FOLDER}/*.json"),
    "iterdir": lambda: [one.name for one in FOLDER.iterdir()],
    "exists": FILE.exists,
    "isfile": lambda: os.path.isfile(FILE),
    "size": lambda: os.path.getsize(FILE),
    "changed": lambda: FILE.stat().st_mtime,
}
for _name, _look in FILES.items():
    body(f"outside_{_name}", cause.OUTSIDE, _look)
body("outside_resolved", cause.OUTSIDE, lambda: len(socket.getaddrinfo("localhost", 80)))
body("effect_write", "", lambda: (FOLDER / "out").write_text("x"))
body("effect_command", "", lambda: subprocess.run([sys.executable, "-c", ""]).returncode)
body("effect_folder", "", lambda: tempfile.mkdtemp(dir=FOLDER) and None)

POOLED = {
    "read": (cause.OUTSIDE, lambda: in_pool(FILE.read_text)),
    "read_by_hand": (cause.OUTSIDE, lambda: in_thread(lambda: FILE.read_text())),
    "size": (cause.OUTSIDE, lambda: in_pool(os.path.getsize, FILE)),
    "size_imported": (cause.OUTSIDE, lambda: stat(FILE).st_size),
    "setting": (cause.ENVIRONMENT, lambda: in_pool(os.getenv, "FLOWDSL_TEST_UNSET", "dev")),
    "clock": (cause.CLOCK, lambda: in_pool(time.time)),
    "chance": (cause.CHANCE, lambda: in_thread(lambda: random.random())),
    "written": ("", lambda: in_pool((FOLDER / "out").write_text, "x")),
    "command": ("", lambda: in_pool(subprocess.run, [sys.executable, "-c", ""]) and None),
}
for _name, (_blamed, _look) in POOLED.items():
    body(f"thread_{_name}", _blamed, _look)


@mistake(cause.ENVIRONMENT)
def setting_that_must_be_a_number() -> str:
    try:
        return charge(int(os.getenv("FLOWDSL_TEST_UNSET", "5")))
    except ValueError:
        return charge(5)


# sets -------------------------------------------------------------------------------------------------

NAMES = ("ann", "bob", "cyd", "dan", "eve")

ORDERS = {
    "pop": lambda: set(NAMES).pop(),
    "next": lambda: next(iter(set(NAMES))),
    "list": lambda: list(set(NAMES)),
    "sorted_by_length": lambda: sorted(set(NAMES), key=len),
    "longest": lambda: max(set(NAMES), key=len),
    "join": lambda: ",".join(frozenset(NAMES)),
    "text": lambda: str(set(NAMES)),
    "dictionary": lambda: list(dict.fromkeys(set(NAMES))),
    "common_keys": lambda: list(dict.fromkeys(NAMES).keys() & {*NAMES, "fay"}),
    "counted": lambda: collections.Counter(set(NAMES)).most_common(1),
}
for _name, _look in ORDERS.items():
    body(f"set_{_name}", cause.SETS, _look)


@mistake(cause.SETS)
def set_loop() -> list[str]:
    return [charge(one) for one in {"a", "b", "c", "d", "e"}]


@mistake(cause.SETS)
def set_map() -> list[str]:
    return charge.map({"a", "b", "c", "d", "e"})


# memory -----------------------------------------------------------------------------------------------

CACHE: dict[str, str] = {}
COUNTER = 0
NUMBERS = itertools.count(1)
STARTED = time.time()
LOCAL = threading.local()


class Settings:
    """State of a class."""

    calls = 0


@step
def fill_cache() -> None:
    """A step that leaves something in memory."""
    CACHE["rate"] = "high"


@functools.cache
def cached_price() -> str:
    """Calls a step the first time only."""
    return charge("price")


@mistake(cause.MEMORY)
def memory_global() -> str:
    global COUNTER
    COUNTER += 1
    return charge(COUNTER)


@mistake(cause.MEMORY)
def memory_counter() -> str:
    return charge(next(NUMBERS))


@mistake(cause.MEMORY)
def memory_class() -> str:
    Settings.calls += 1
    return charge(Settings.calls)


@mistake(cause.MEMORY)
def memory_cache() -> str:
    if "x" not in CACHE:
        CACHE["x"] = charge("x")
    return CACHE["x"]


@mistake(cause.MEMORY)
def memory_decorated_cache() -> str:
    return cached_price() + charge("rest")


@mistake(cause.MEMORY)
def memory_filled_by_a_step() -> str:
    fill_cache()
    return charge(CACHE.get("rate", "unknown"))


@mistake(cause.MEMORY)
def memory_of_a_thread() -> str:
    LOCAL.calls = getattr(LOCAL, "calls", 0) + 1
    return charge(LOCAL.calls)


@mistake(cause.MEMORY)
def memory_in_a_default(seen: Any = []) -> str:
    seen.append(1)
    return charge(len(seen))


@mistake(cause.MEMORY)
def memory_from_import() -> str:
    return charge(STARTED)


@mistake(cause.ARGUMENT)
def argument_changed_by_a_step() -> str:
    order = {"item": "book"}
    enrich(order)
    return charge(order.get("price"))


# orders and threads -----------------------------------------------------------------------------------


@mistake(cause.ORDER)
async def order_as_completed() -> list[str]:
    return [await one for one in asyncio.as_completed([acharge("x"), acharge("longer text")])]


@mistake(cause.ORDER)
async def order_first_completed() -> str:
    tasks = [asyncio.create_task(acharge(one)) for one in ("x", "longer text")]
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*left)
    return sorted(one.result() for one in done)[0]


@mistake(cause.ORDER)
async def order_appended() -> list[str]:
    found: list[str] = []

    async def one(what: str) -> None:
        found.append(await acharge(what))

    await asyncio.gather(one("x"), one("longer text"))
    return [await acharge(found)]


@mistake("")
def order_of_futures() -> list[str]:
    return [one.result() for one in as_completed([charge.submit(n) for n in range(4)])]


@mistake(cause.THREADS)
def threads_of_a_pool() -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(charge, range(4)))


@mistake(cause.THREADS)
def threads_by_hand() -> int:
    threads = [threading.Thread(target=charge, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(threads)


# other ------------------------------------------------------------------------------------------------


@mistake("")
def always_raises() -> str:
    return charge("x").nmae  # type: ignore[attr-defined]


@mistake(cause.CLOCK)
def hidden_in_a_child() -> str:
    return str(CHILD(str(datetime.date.today())))


CHILD = workflow(name="mistakes.child")(lambda what: charge(what))


@mistake(cause.CLOCK)
def swallowed() -> str:
    with contextlib.suppress(Exception):
        return charge(str(datetime.date.today()))
    return "nothing"


@mistake(cause.CHANCE)
def after_many_steps() -> str:
    for n in range(30):
        charge(n)
    return gather(charge.submit(random.random()))[0]


@step
def read_and_write() -> None:
    """A step that is not safe to repeat."""
    store.set("n", store.get("n", 0) + 1)
    store.push("log", "written")


@mistake("")
def store_read_and_written() -> Any:
    read_and_write()
    return store.get("n")


# what looks different by chance, or hides ------------------------------------------------------------------


class Later(datetime.datetime):
    """A subclass of datetime."""


HIDDEN = {
    "subclass": (cause.CLOCK, lambda: Later.now().isoformat()),
    "times": (cause.CLOCK, lambda: os.times().elapsed),
    "group": (cause.PROCESS, lambda: os.getpgid(0)),
    "name_of_the_thread": (cause.PROCESS, lambda: threading.current_thread().name),
    "names_of_variables": (cause.ENVIRONMENT, lambda: sorted(os.environ)),
    "access": (cause.OUTSIDE, lambda: os.access(FILE, os.R_OK)),
}
for _name, (_blamed, _look) in HIDDEN.items():
    body(f"hidden_{_name}", _blamed, _look)


@mistake(cause.CLOCK)
async def clock_of_the_loop() -> str:
    return await acharge(asyncio.get_running_loop().time())


@mistake("")  # a counter in memory, and each process has its own
async def process_name_of_a_task() -> str:
    task = asyncio.current_task()
    assert task is not None
    return await acharge(task.get_name())


@mistake(cause.OUTSIDE)
async def outside_read_in_a_thread() -> str:
    return await acharge(await asyncio.to_thread(FILE.read_text))
