"""Every shipped equation, fitted to its own simulation and compared with the truth.

    python benchmarks/pde_fields.py --replicates 10             # a table, then one line of JSON
    python benchmarks/pde_fields.py --quick                     # the first cases at their smallest, under a minute
    python benchmarks/pde_fields.py --only wave burgers         # some of the cases; each fit goes to standard error

A replicate is a new draw of the noise. The inference knows neither the initial nor the boundary values. Estimates and
intervals are of the normal approximation at the mode, with the length-scales that have the highest evidence. Bias and
RMSE are relative to the truth. The error of the field is the root mean square of (mean - truth) over the points of the
data, as a share of the true field's standard deviation; the band is that of the normal approximation. Seconds are CPU
seconds of a replicate on one thread, smoothing included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import config
from stages.pde import choice
from stages.pde.inference import Mode
from stages.pde.make_observations import MakeObservations
from stages.pde.settings import Settings
from stages.pde.smooth import Smooth

CASES: dict[str, tuple[str, dict[str, Any]]] = {  # by case: the simulation of conf/simulation, and what is different
    "heat": ("heat", {}),
    "heat, a fifth missing, observed twice": ("heat", {"missing_share": 0.2, "replicates": 2}),
    "heat, a fifth censored": ("heat", {"censored_below": {"u": -0.45}}),
    "lidar": ("lidar", {}),
    "wave": ("wave", {}),
    "hidden_reaction, v hidden": ("hidden_reaction", {}),
    "lotka_volterra": ("lotka_volterra", {}),
    "fitzhugh_nagumo": ("fitzhugh_nagumo", {}),
    "fisher_kpp": ("fisher_kpp", {}),
    "porous_fisher": ("porous_fisher", {}),
    "burgers": ("burgers", {}),
    "allen_cahn": ("allen_cahn", {}),
    "brusselator, v hidden": ("brusselator", {}),
}
DRAWS = 200  # of the field, for its band
QUICK = ("heat", "lotka_volterra")
SETTINGS = Settings(most_modes=200, most_grid_points=1000)


def simulator(name: str, changes: Mapping[str, Any]) -> MakeObservations:
    graph = config.compose(["pipeline=pde", f"simulation@steps.observations.simulation={name}"]).graph
    stage = graph.steps["observations"].stage
    assert isinstance(stage, MakeObservations)
    assert stage.simulation is not None
    return stage.model_copy(update={"simulation": stage.simulation.model_copy(update=changes)})


def fit(stage: MakeObservations, seed: int) -> dict[str, Any]:
    """One replicate: by parameter the relative error and whether the interval holds the truth; field error; time."""
    assert stage.simulation is not None
    simulation = stage.simulation.model_copy(update={"seed": seed})
    stage = stage.model_copy(update={"simulation": simulation})
    inferred = simulation.equation.model_copy(update={"boundary": {}})
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "observations", Path(folder) / "smoothed"
        first.mkdir()
        second.mkdir()
        observations = stage.run(_context(first))
        table = observations.table()
        started = time.process_time()
        smoothed = Smooth.model_construct(observations=observations, kernel="matern_11_2", starts=2, seed=0).run(
            _context(second)
        )
        mode, chosen = choice.mode(inferred, smoothed.facts, table, SETTINGS)
        seconds = time.process_time() - started
    problem, state = mode.problem, mode.state
    deviations = torch.linalg.inv(mode.precision).diagonal().sqrt()[mode.eta_place]
    low, found, high = (problem.parameters.constrained(state.eta + side * deviations) for side in (-1.96, 0.0, 1.96))
    errors, inside = [], []
    drawn = _drawn(mode)
    for place, basis in enumerate(problem.bases):
        part = slice(problem.offsets[place], problem.offsets[place + 1])
        points, zero = torch.from_numpy(table.points), (0,) * table.points.shape[1]
        functions, truth = basis.at(points, zero), table.truth[:, place]
        difference = (functions @ state.z[part] + basis.mean).numpy() - truth
        errors.append(float(np.sqrt(np.mean(difference**2)) / truth.std()))
        lowest, highest = np.quantile((drawn[:, part] @ functions.T + basis.mean).numpy(), (0.025, 0.975), axis=0)
        inside.append(float(np.mean((lowest <= truth) & (truth <= highest))))
    return {
        "errors": {name: float(found[name]) / truth - 1 for name, truth in simulation.parameters.items()},
        "covered": {name: bool(low[name] <= truth <= high[name]) for name, truth in simulation.parameters.items()},
        "fields": dict(zip(inferred.components, errors, strict=True)),
        "inside": dict(zip(inferred.components, inside, strict=True)),
        "shares": (chosen.length_share, chosen.early_share),
        "energy": min(one.energy for one in problem.bases),
        "censored_share": float(table.censored.mean()),
        "seconds": seconds,
    }


def _drawn(mode: Mode) -> torch.Tensor:
    """z of samples of the normal approximation [DRAWS, M]."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn((DRAWS, len(mode.x)), generator=generator, dtype=torch.float64)
    return torch.stack([mode.coefficients(mode.from_white(one), generator) for one in white])


def _context(out: Path) -> Any:
    """What the two stages use of a context."""

    def ignore(*_: Any) -> None:
        pass

    return SimpleNamespace(out=out, note=ignore, metrics=ignore, progress=ignore, stopping=lambda: False)


def row(case: str, fits: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(fits[0]["errors"])
    errors = {name: np.array([one["errors"][name] for one in fits]) for name in names}
    return {
        "case": case, "replicates": len(fits),
        "bias": {name: float(errors[name].mean()) for name in names},
        "rmse": {name: float(np.sqrt(np.mean(errors[name] ** 2))) for name in names},
        "covered": {name: sum(one["covered"][name] for one in fits) for name in names},
        "field_error": {name: float(np.mean([one["fields"][name] for one in fits])) for name in fits[0]["fields"]},
        "field_inside": {name: float(np.mean([one["inside"][name] for one in fits])) for name in fits[0]["inside"]},
        "early": sum(one["shares"][1] < 1 for one in fits),
        "energy": float(np.mean([one["energy"] for one in fits])),
        "censored_share": fits[0]["censored_share"],
        "cpu_seconds": float(np.median([one["seconds"] for one in fits])),
    }  # fmt: skip


def line(found: Mapping[str, Any]) -> str:
    def each(values: Mapping[str, float], form: str) -> str:
        return ", ".join(f"{name} {value:{form}}" for name, value in values.items())

    covered = ", ".join(f"{name} {count} of {found['replicates']}" for name, count in found["covered"].items())
    cells = [
        found["case"], str(found["replicates"]), each(found["bias"], "+.1%"), each(found["rmse"], ".1%"), covered,
        each(found["field_error"], ".1%"), each(found["field_inside"], ".0%"),
        f"{found['early']} of {found['replicates']}", f"{found['energy']:.2%}",
        f"{found['cpu_seconds']:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=[], metavar="SIMULATION")
    options = parser.parse_args()
    unknown = sorted(set(options.only) - {name for name, _ in CASES.values()})
    if unknown:
        parser.error(f"--only: no case has the simulation {unknown[0]!r}")
    torch.set_num_threads(1)
    chosen = {
        case: simulator(name, changes)
        for case, (name, changes) in CASES.items()
        if (not options.only or name in options.only) and (not options.quick or case in QUICK)
    }
    fits: dict[str, list[dict[str, Any]]] = {case: [] for case in chosen}
    with threadpool_limits(1):
        for seed in range(1 if options.quick else options.replicates):  # the cases take turns
            for case, stage in chosen.items():
                fits[case].append(fit(stage, seed))
                print(json.dumps({"case": case, "seed": seed, **fits[case][-1]}), file=sys.stderr, flush=True)
    rows = [row(case, found) for case, found in fits.items()]
    columns = (
        "data", "replicates", "bias", "RMSE", "95 % coverage", "field error", "field in its 95 % band",
        "early share chosen", "energy", "CPU seconds",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("|" + "---|" * len(columns))
    print("\n".join(line(one) for one in rows))
    print(json.dumps({"settings": SETTINGS.model_dump(mode="json"), "rows": rows}))


if __name__ == "__main__":
    main()
