"""Throughput and latency of a store's operations.

    python benchmarks/store.py --database sqlite:///bench.sqlite --threads 8

Use an empty database, because the benchmark leaves its jokes in it; PostgreSQL URLs and
``sqlite://`` (in memory) work too. Prints a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from joker.core.joke import GeneratedJoke
from joker.store import Store


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--database", required=True, help="URL of an empty database")
    parser.add_argument("--calls", type=int, default=2000, help="calls of each kind")
    parser.add_argument("--pool", type=int, default=1000, help="jokes in the pool")
    parser.add_argument("--threads", type=int, default=8, help="concurrent threads")
    options = parser.parse_args()

    store = Store(options.database, timeout_seconds=60, max_pool_size=options.pool)
    store.check()
    jokes = [
        GeneratedJoke(f"Why was lamp {n} late?", f"It waited {n} times for the light.", n, 1)
        for n in range(max(options.calls, options.pool))
    ]
    ids: list[str] = []

    def add(number: int) -> None:
        stored = store.add(jokes[number], model="benchmark")
        assert stored is not None
        ids.append(stored.id)

    def rate(call: Callable[[int], object], count: int) -> dict[str, float]:
        """Return calls per second, and the median and 99th percentile of their duration."""

        def timed(number: int) -> float:
            begin = time.perf_counter()
            call(number)
            return 1000 * (time.perf_counter() - begin)

        begin = time.perf_counter()
        with ThreadPoolExecutor(options.threads) as pool:
            times = sorted(pool.map(timed, range(count)))
        return {
            "calls_per_second": round(count / (time.perf_counter() - begin)),
            "median_ms": round(times[count // 2], 2),
            "p99_ms": round(times[count * 99 // 100], 2),
        }

    results = {
        "add": rate(add, options.calls),
        "get": rate(lambda n: store.get(ids[n]), options.calls),
        "vote": rate(lambda n: store.vote(ids[n % 100], f"client {n}", "up"), options.calls),
        "top": rate(lambda _: store.top(), options.calls // 10),
    }
    for number in range(options.pool):
        store.pool.add(jokes[number], model="benchmark", quality=number)
    results["pool_take"] = rate(lambda n: store.pool.take(f"client {n % 50}"), options.calls)
    assert store.failures == 0
    store.close()
    print(json.dumps({"database": str(store), "threads": options.threads} | results, indent=2))


if __name__ == "__main__":
    main()
