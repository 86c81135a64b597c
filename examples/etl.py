"""An ETL of a CSV file: rates with retries, rows that are checked, a table in SQLite, and repair by fork.

    python examples/etl.py

imports ``orders.csv``, in which somebody typed ``1O`` for ``10``. The run fails there. Calling it again would
not help, because the content of the file is recorded, with the typo. So the file is mended, and the run is
*forked* before the step that reads it. The fork keeps the rates, which cost money, and executes the rest. The
same, act by act:

    python examples/etl.py --act import
    python examples/etl.py --act mend
    flowdsl fork RUN --before extract --app examples/etl.py
    flowdsl delete RUN
"""

import argparse
import csv
import sqlite3
import sys
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

from flowdsl import Retry, Runtime, log, step, workflow

RATES = {"EUR": 1.0, "GBP": 0.86, "JPY": 161.0, "SEK": 11.4, "USD": 1.08}
asked_before: set[str] = set()


class BadRow(ValueError):
    """A row that cannot be understood. Another attempt would not help."""


# The steps --------------------------------------------------------------------------------------------------


@step(retry=Retry(attempts=4, initial=0.05, on=ConnectionError))
def fetch_rate(currency: str, day: str) -> float:
    """Stands for a service that costs money, and fails now and then."""
    if currency in ("JPY", "USD") and currency not in asked_before:
        asked_before.add(currency)
        tell(f"  no rate for {currency} just now")
        raise ConnectionError(f"no rate for {currency} just now")
    tell(f"  bought the rate of {currency}")
    return RATES[currency]


@step
def extract(source: str) -> list[dict[str, str]]:
    """Read the file. Its content is recorded."""
    with open(source, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    tell(f"  read {len(rows)} rows")
    return rows


@step(retry=Retry(never=BadRow))
def transform(rows: list[dict[str, str]], rates: dict[str, float]) -> list[tuple[Any, ...]]:
    """Check every row, and convert it to euros."""
    done = []
    for line, row in enumerate(rows, start=2):
        try:
            count, price = int(row["quantity"]), float(row["price"]) / rates[row["currency"]]
            day = date.fromisoformat(row["date"])
        except (ValueError, KeyError) as error:
            raise BadRow(f"line {line}, order {row['order']}: {error}") from error
        done.append((int(row["order"]), day.isoformat(), row["country"], row["item"], count, count * price))
    tell(f"  converted {len(done)} rows")
    return done


@step
def load(target: str, rows: list[tuple[Any, ...]]) -> int:
    """Write the table, all rows or none. A step may execute twice, so new rows replace old ones."""
    with closing(sqlite3.connect(target)) as db, db:
        db.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            "(id INTEGER PRIMARY KEY, day TEXT, country TEXT, item TEXT, count INTEGER, euros REAL)"
        )
        db.executemany("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?, ?)", rows)
    tell(f"  loaded {len(rows)} rows")
    return len(rows)


@workflow
def import_orders(source: str, target: str, day: str) -> int:
    """Get the rates first, because they cost money. Then read the file."""
    rates = {currency: fetch_rate(currency, day) for currency in RATES}
    rows = transform(extract(source), rates)
    log("converted", rows=len(rows), euros=round(sum(row[-1] for row in rows), 2))
    return load(target, rows)


# The story --------------------------------------------------------------------------------------------------


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def import_file(source: Path, target: Path) -> None:
    tell("1. Import a file with a typo in it.")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(Path(__file__).with_name("orders.csv").read_bytes())
    try:
        import_orders(str(source), str(target), "2026-01-31")
    except BadRow as error:
        tell(f"  => failed: {error}")


def mend(source: Path) -> None:
    source.write_text(source.read_text(encoding="utf-8").replace(",1O,", ",10,"), encoding="utf-8")
    tell(f"2. Mend it: in {source.name}, 1O is 10 now.")


def fork(runtime: Runtime) -> None:
    failed = runtime.runs(workflow=import_orders, status="failed", limit=1)[0]
    tell(f"3. Fork run {failed.id} before the file is read. No rate is bought again.")
    repaired = runtime.fork(failed.id, before=extract)
    tell(f"  => {repaired.result()} orders, by run {repaired.id}")
    runtime.delete(failed.id)  # otherwise the next call would continue it


def show(target: Path) -> None:
    query = "SELECT country, count(*), sum(euros) FROM orders GROUP BY 1 ORDER BY 3 DESC"
    with closing(sqlite3.connect(target)) as db:
        for country, count, euros in db.execute(query):
            tell(f"  {country}  {count:>4} orders  {euros:>10,.2f} €")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", default="out", type=Path, help="directory for the file and the table")
    parser.add_argument("--act", choices=("import", "mend"), help="play one act only")
    asked = parser.parse_args()
    source, target = asked.out.resolve() / "orders.csv", asked.out.resolve() / "orders.db"
    with Runtime() as runtime:
        if asked.act != "mend":
            import_file(source, target)
        if asked.act != "import":
            mend(source)
        if asked.act is None:
            fork(runtime)
            show(target)


if __name__ == "__main__":
    main()
