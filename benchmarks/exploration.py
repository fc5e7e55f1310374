"""Active exploration: regret and seconds of every method, by seed, on functions, environments and measured tables.

    python benchmarks/exploration.py contextual                # Branin, Hartmann 4 and 6, half hard
    python benchmarks/exploration.py landscape                 # a table of short trainings of this project
    python benchmarks/exploration.py reinforcement --seeds 20  # four environments
    python benchmarks/exploration.py states                    # the same budget on 10^2 to 10^6 candidate states
    python benchmarks/exploration.py --quick                   # a little of each

A table of means with 95 % intervals over seeds; the last line is JSON. The methods of one
seed run one after the other before the next seed starts, so that a change of the machine's load affects all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import exploration_tables
from stages.exploration import episodes
from stages.exploration.contextual_methods import METHODS, TPE, explore
from stages.exploration.intervals import mean_interval
from stages.exploration.problems import PROBLEMS, Problem
from stages.exploration.simulators import SIMULATORS
from stages.exploration.value_iteration import ValueSettings

INITIAL = 10
PARTS = ("contextual", "landscape", "reinforcement", "states")
Row = dict[str, Any]


def contextual(
    problems: Mapping[str, Callable[[], Problem]], seeds: int, budgets: Sequence[int], initial: int, only: Sequence[str]
) -> Iterator[Row]:
    """A row for every seed, problem and method."""
    made = {name: make() for name, make in problems.items() if not only or name in only}
    for seed in range(seeds):
        for name, problem in made.items():
            for method in (*METHODS, TPE):
                curve = explore(problem, method, budgets, seed, initial)
                yield {
                    "problem": name, "method": method, "seed": seed, "trials": budgets, "worst": curve.worst,
                    "mean": curve.mean, "seconds": curve.seconds, "fit_seconds": curve.fit_seconds,
                }  # fmt: skip


def reinforcement(seeds: int, rounds: Sequence[int], only: Sequence[str], beta: float) -> Iterator[Row]:
    """A row for every seed, environment, method and policy."""
    for seed in range(seeds):
        for name, make in SIMULATORS.items():
            if only and name not in only:
                continue
            for method in episodes.METHODS:
                settings = episodes.EpisodeSettings(candidates=300, values=ValueSettings(beta=beta))
                curve = episodes.explore(make(), method, rounds, settings, seed)
                for policy in curve.worst:
                    label = method if policy == "last" else f"{method}, best of all rounds"
                    yield {
                        "problem": name, "method": label, "seed": seed, "trials": rounds, "worst": curve.worst[policy],
                        "mean": curve.mean[policy], "seconds": curve.seconds,
                    }  # fmt: skip


def states(seeds: int, rounds: Sequence[int], counts: Sequence[int]) -> Iterator[Row]:
    """A row for every seed and number of candidate states: AE-LSVI in navigation with the same budget."""
    for seed in range(seeds):
        for count in counts:
            settings = episodes.EpisodeSettings(candidates=count)
            curve = episodes.explore(SIMULATORS["navigation"](), "ae_lsvi", rounds, settings, seed)
            yield {
                "problem": "navigation, by candidate states", "method": f"{count:,} states", "seed": seed,
                "trials": rounds, "worst": curve.worst["last"], "mean": curve.mean["last"], "seconds": curve.seconds,
            }  # fmt: skip


def show(rows: Sequence[Row], shown: Sequence[int], values: Sequence[str]) -> None:
    """A table for each problem: each value after the numbers of trials in `shown`, with its interval, and seconds."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["problem"]][row["method"]].append(row)
    for problem, methods in groups.items():
        count = len(next(iter(methods.values())))
        print(f"\n{problem} ({count} seeds)")
        named = [f"{value} at {at}" for value in values for at in shown]
        print("| method | " + " | ".join([*named, "seconds of decisions", "of fits"]) + " |")
        print("|---|" + "---|" * (len(values) * len(shown) + 2))
        for method, found in methods.items():
            cells = [
                "{:.3f} ± {:.3f}".format(*mean_interval([row[value][list(row["trials"]).index(at)] for row in found]))
                for value in values
                for at in shown
            ]
            seconds, fits = (np.mean([row.get(name, 0.0) for row in found]) for name in ("seconds", "fit_seconds"))
            print(f"| {method} | " + " | ".join(cells) + f" | {seconds:.3f} | {fits:.2f} |", flush=True)


def rows_of(part: str, given: argparse.Namespace) -> tuple[Iterator[Row], Sequence[int]]:
    """The rows of one part as they are made, and after how many trials or rounds its table shows them."""
    seeds, quick = 2 if given.quick else given.seeds, given.quick
    shown: Sequence[int]
    if part == "contextual":
        budgets, shown = ((20, 40), (20, 40)) if quick else ((25, 50, 75, 100), (50, 100))
        return contextual(PROBLEMS, seeds, budgets, INITIAL, given.only), shown
    if part == "landscape":
        shown = (10, 20) if quick else (10, 15, 20)
        return contextual(exploration_tables.TABLES, seeds, shown, 5, given.only), shown
    if part == "reinforcement":
        shown = given.rounds or ((3, 6) if quick else (5, 10, 20))
        return reinforcement(seeds, shown, given.only, given.beta), shown
    shown = given.rounds or ((3, 6) if quick else (10, 20))
    counts = given.states or ((100, 1000) if quick else (100, 1000, 10_000, 100_000))
    return states(seeds, shown, counts), shown


def summary(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """By problem and method the means over seeds of the last values and of the seconds."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["problem"]][row["method"]].append(row)
    return {
        problem: {
            method: {
                **{name: round(float(np.mean([row[name][-1] for row in found])), 4) for name in ("worst", "mean")},
                "seconds": round(float(np.mean([row["seconds"] for row in found])), 4),
            }
            for method, found in methods.items()
        }
        for problem, methods in groups.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: all of them")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[], help="problems or environments")
    parser.add_argument("--states", type=int, nargs="+", help="numbers of candidate states, of `states`")
    parser.add_argument("--rounds", type=int, nargs="+", help="of `reinforcement` and `states`")
    parser.add_argument("--beta", type=float, default=ValueSettings.beta, help="of the bounds, of `reinforcement`")
    parser.add_argument("--quick", action="store_true", help="under a minute: few seeds and trials")
    parser.add_argument("--json", type=Path, help="append every row to this file, as a JSON line")
    given = parser.parse_args()
    all_rows: list[Row] = []
    with threadpool_limits(1):
        for part in [given.part] if given.part else PARTS:
            made, shown = rows_of(part, given)
            rows = []
            for row in made:
                rows.append(row)
                if given.json is not None:
                    with given.json.open("a") as file:
                        file.write(f"{json.dumps(row)}\n")
            show(rows, shown, ("worst", "mean"))
            all_rows += rows
    print(json.dumps(summary(all_rows)))


if __name__ == "__main__":
    main()
