"""The diff of many pairs in DuckDB, as a run's database answers it: at every level, by stratum, in SQL alone.

    python bench/replay_diff.py [PAIRS] [--memory 3GB] [--threads 2]

The `pairs` table and the views are the store's own. The rows are made in SQL, in another process than that of the
diff, and not timed against the target: level hashes of 32 hexadecimal digits, all of them distinct but those of
verdicts, in 16 strata; the arms differ in 20 % of texts, 10 % of canonical texts, 8 % of arguments, 5 % of actions,
3 % of verdicts. Texts, contexts and actions are left null: the columns that a diff reads are all there, and DuckDB
reads no others.

Timed is each of the statements in `STATEMENTS`, in one process that opens the database read-only, as `driftline sql`
does, its memory as DuckDB has it by default (four fifths of the machine's) or as `--memory` says; its results come
back to Python as they are printed. Peak memory is the process's, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

import duckdb
from bench.kit.cluster import load
from bench.kit.resident import PEAK, resident_mb

from driftline.replay import columns
from driftline.replay.levels import LEVELS
from driftline.replay.store import DATABASE, VIEWS
from driftline.replay.tables import create

SECONDS_MAX, PEAK_GB_MAX = 60, 4
STRATA = 16
DIFFERING = {"bytes": 20, "canonical": 10, "arguments": 8, "action": 5, "verdict": 3}
"""Of each hundred pairs, at each level; those of one are among those of the level before it."""

STATEMENTS = {
    "by stratum and level": f"""
        SELECT boundary, stream, level, count(*) AS decisions, sum(changed::INT) AS mismatches,
            avg(changed::INT) AS mismatch
        FROM (UNPIVOT (SELECT boundary, stream, {", ".join(f"{level}_changed" for level in LEVELS)} FROM compared)
              ON COLUMNS('_changed$') INTO NAME level VALUE changed)
        GROUP BY ALL ORDER BY ALL""",
    "flips by stratum": """
        SELECT boundary, stream, count(*) FILTER (baseline_verdict = 'accepted') AS down,
            count(*) FILTER (candidate_verdict = 'accepted') AS up
        FROM flips GROUP BY ALL ORDER BY ALL""",
    "view by_stream": "FROM by_stream",
    "which rule now rejects": """
        SELECT candidate_rejection_code AS code, candidate_rule_id AS rule, count(*) AS decisions,
            any_value(coordinates) AS example
        FROM flips WHERE candidate_verdict = 'rejected' GROUP BY ALL ORDER BY decisions DESC""",
    "the fifty costliest flips": """
        SELECT coordinates, workflow, baseline_verdict, candidate_verdict, candidate_rule_id, candidate_cost_usd,
            candidate_latency_ms
        FROM flips ORDER BY candidate_cost_usd DESC NULLS LAST, candidate_latency_ms DESC NULLS LAST LIMIT 50""",
}


def rows_sql(pairs: int) -> str:
    """The statement that fills `pairs`. `draw` is a hash of the row's number, spread over 0 to 99."""
    hashes = []
    for level in LEVELS:
        differs = f"draw < {DIFFERING[level]}"
        if level == "verdict":
            same, other = "if(accepted, 'accepted', 'rejected')", "if(accepted, 'rejected', 'accepted')"
        else:
            same, other = (f"md5(i::VARCHAR || '{level}{arm}')" for arm in ("", "*"))
        hashes += [f"{same} AS baseline_{level}_hash", f"if({differs}, {other}, {same}) AS candidate_{level}_hash"]
    return f"""
        INSERT INTO pairs BY NAME
        SELECT 'bench' AS run_id, i AS turn, true AS evidence, draw_lost = 0 AS lost, i::VARCHAR AS decision_id,
            'boundary-' || i % 4 AS boundary, 'stream-' || (i // 4) % {STRATA // 4} AS stream,
            'customer-' || i % 100000 AS workflow, 'bench.decisions[' || i % 4 || ']@' || i // 4 AS coordinates,
            TIMESTAMP '2026-07-01' + to_milliseconds(i) AS event_time,
            {", ".join(hashes)},
            baseline_verdict_hash AS baseline_verdict, candidate_verdict_hash AS candidate_verdict,
            if(candidate_verdict_hash = 'rejected', 'policy', NULL) AS candidate_rejection_code,
            if(candidate_verdict_hash = 'rejected', 'rule-' || i % 7, NULL) AS candidate_rule_id,
            draw_cost / 1e9 AS candidate_cost_usd, draw_cost % 5000 AS candidate_latency_ms
        FROM (SELECT range AS i, hash(range) % 100 AS draw, hash(range, 1) % 100 AS draw_lost,
                     hash(range, 2) % 10 < 9 AS accepted, hash(range, 3) % 100000000 AS draw_cost
              FROM range({pairs}))"""


def fill(database: Path, pairs: int, threads: int) -> None:
    """The store's tables and views, and so many pairs."""
    with duckdb.connect(str(database), config={"threads": threads}) as db:
        db.execute("SET preserve_insertion_order = false")
        for table in (columns.pairs, columns.floor, columns.changes):
            create(db, table.__name__, table("bench"))
        db.execute(rows_sql(pairs))
        db.execute(VIEWS)


def diff(database: Path, memory: str | None, threads: int) -> None:
    """Run the statements; prints seconds of each, and the first of its rows."""
    config: dict[str, str | bool | int | float | list[str]] = {"threads": threads}
    if memory:
        config["memory_limit"] = memory
    with duckdb.connect(str(database), read_only=True, config=config) as db:
        for name, sql in STATEMENTS.items():
            began = time.perf_counter()
            rows = db.execute(sql).fetchall()
            told = {"statement": name, "seconds": time.perf_counter() - began, "rows": len(rows)}
            print(json.dumps({**told, "first": [str(cell) for cell in rows[0]]}))
    print(json.dumps({"peak_mb": resident_mb(which=PEAK)}))


def in_process(given: argparse.Namespace, role: str, database: Path) -> list[dict[str, object]]:
    """This file again, in a process of its own: what it prints."""
    options = ["--threads", str(given.threads), *(["--memory", given.memory] if given.memory else [])]
    command = [sys.executable, __file__, str(given.pairs), *options, "--role", role, "--database", str(database)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def compare(given: argparse.Namespace) -> None:
    with TemporaryDirectory(prefix="driftline-bench-") as name:
        database = Path(name) / DATABASE
        began = time.perf_counter()
        in_process(given, "fill", database)
        made_s, size_gb = time.perf_counter() - began, database.stat().st_size / 1e9
        print(f"{given.pairs:,} pairs made in {made_s:.0f} s, {size_gb:.1f} GB on disk  {load()}")
        *found, last = in_process(given, "diff", database)
    for told in found:
        print(f"  {told['seconds']:6.2f} s  {told['statement']}: {told['rows']} rows, first {told['first']}")
    seconds, peak_gb = sum(float(str(told["seconds"])) for told in found), float(str(last["peak_mb"])) / 1e3
    limit = f" ({SECONDS_MAX} s for ten million: {seconds / given.pairs * 1e7 / SECONDS_MAX:.2f} of it at this rate)"
    print(f"diff of {given.pairs:,} pairs at {len(LEVELS)} levels: {seconds:.1f} s{limit}  {load()}")
    print(f"peak memory: {peak_gb:.2f} GB, {peak_gb / PEAK_GB_MAX:.2f} of {PEAK_GB_MAX} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=int, nargs="?", default=2_000_000)
    parser.add_argument("--memory", help="DuckDB's limit, for example 3GB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--role", choices=("fill", "diff"), help=argparse.SUPPRESS)
    parser.add_argument("--database", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "fill":
        fill(given.database, given.pairs, given.threads)
    elif given.role == "diff":
        diff(given.database, given.memory, given.threads)
    else:
        compare(given)


if __name__ == "__main__":
    main()
