"""Find files with the same content: one step for each of many files, with counters that survive a kill.

    python examples/find_duplicates.py [DIR]

hashes every file below DIR (by default, the standard library of this Python), several at a time. Each file is
a step. The counters are in the run's store, and are shown while the run executes. Kill it at any moment and
run it again: no hashed file is read again, and none is counted twice.
"""

import argparse
import hashlib
import logging
import os
import sys
import sysconfig
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flowdsl import Run, Runtime, step, store, workflow

SKIPPED = {"site-packages", "dist-packages", "__pycache__", ".git"}

readers = ThreadPoolExecutor(8, thread_name_prefix="reader")


@step
def list_files(root: str) -> list[str]:
    """List the files. This is a step, because the directory may change before the run continues."""
    found = []
    for folder, children, names in os.walk(root):
        children[:] = set(children) - SKIPPED
        found += [Path(folder, name) for name in names]
    return sorted(str(path.relative_to(root)) for path in found if path.is_file() and not path.is_symlink())


@step(executor=readers)
def digest(root: str, file: str) -> tuple[str, int]:
    """Hash one file and count it. The counting is part of the step: it takes effect once, however often the
    step is executed."""
    with open(Path(root, file), "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
        size = content.tell()
    store.increment("files")
    store.increment("bytes", size)
    if size == 0:
        store.push("empty", file)
    return found, size


@workflow
def find_duplicates(root: str) -> dict[str, Any]:
    """Hash all files, sixteen at a time, and group them by content."""
    files = list_files(root)
    store.set("known", len(files))
    digests = digest.map([root] * len(files), files, limit=16)
    groups = defaultdict(list)
    for file, found in zip(files, digests, strict=True):
        groups[found].append(file)
    twice = [(size, same) for (_, size), same in groups.items() if len(same) > 1 and size]
    twice.sort(key=lambda group: (-group[0] * (len(group[1]) - 1), group[1]))
    return {"counted": store.items(), "duplicates": twice}


# The program ------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("root", nargs="?", default=sysconfig.get_path("stdlib"), metavar="DIR")
    root = Path(parser.parse_args().root).resolve()
    if not root.is_dir():
        parser.error(f"{root} is not a directory")
    # Print that a run continues.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        with Runtime():  # leaving the block interrupts the run, and the next call continues it
            report = watch(find_duplicates.start(str(root)))
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again to continue.")
        return 130
    show_report(root, report)
    return 0


def watch(run: Run) -> dict[str, Any]:
    """Show the run's store, read from outside, until there is a result."""
    while True:
        try:
            report: dict[str, Any] = run.result(timeout=0.5)
            return report
        except TimeoutError:
            show_progress(run.state())


def show_progress(state: dict[str, Any]) -> None:
    files, known, size = (state.get(key, 0) for key in ("files", "known", "bytes"))
    line = f"{files:,} of {known:,} files, {size / 1e6:,.1f} MB" if known else "looking for files"
    print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)


def show_report(root: Path, report: dict[str, Any]) -> None:
    counted, duplicates = report["counted"], report["duplicates"]
    wasted = sum(size * (len(same) - 1) for size, same in duplicates)
    print(f"{counted.get('files', 0):,} files, {counted.get('bytes', 0) / 1e6:,.1f} MB below {root}")
    print(f"{len(counted.get('empty', ()))} are empty; {len(duplicates)} contents are there more than once")
    print(f"The copies take {wasted / 1e6:,.2f} MB:" if duplicates else "No file is there twice.")
    for size, same in duplicates[:8]:
        print(f"{size:>12,} B  {len(same)} ×  {same[0]}")


if __name__ == "__main__":
    sys.exit(main())
