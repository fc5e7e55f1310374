"""The mode with the length-scales that have the highest evidence.

Two shares are tried in all pairs: `length_share`, of the length-scales of the smoothed data, and `early_share`, how
much shorter the first coordinate's length-scale is at its first point than at its last. A solution that begins rough
and becomes smooth needs the second: one length-scale for all times either cannot follow the beginning or leaves the
constraint nothing to compare afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stages.pde import inference, search
from stages.pde.assemble import EARLY_SHARES, LENGTH_SHARES, assemble
from stages.pde.equation import Equation
from stages.pde.inference import Mode
from stages.pde.observations import Table
from stages.pde.settings import Settings
from stages.pde.smoothed import SmoothedFacts

Shares = tuple[float, float]


def mode(
    equation: Equation,
    smoothed: SmoothedFacts,
    table: Table,
    settings: Settings,
    stopping: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Mode, Settings]:
    """The best mode, and the settings with its shares. Shares that `settings` give are not searched.

    Raises StageError where data and equation do not fit, StopIteration once `stopping`, ArithmeticError if no
    posterior can be evaluated.
    """
    found: dict[Shares, Mode] = {}

    def best() -> Shares:
        return max(found, key=lambda shares: found[shares].log_evidence)

    def settings_of(shares: Shares) -> Settings:
        return settings.model_copy(update={"length_share": shares[0], "early_share": shares[1]})

    def visit(shares: Shares) -> None:
        problem, start = assemble(equation, smoothed, table, settings_of(shares))
        early = "" if shares[1] == 1 else f", at first {shares[1]:g} of those at last"
        note(
            f"length-scales {shares[0]:g} of the data's{early}: {problem.size} modes, {len(problem.grid)} points of "
            f"the constraint, temper {problem.temper:.3g}"
        )
        # The parameters of other length-scales are nearer than those of gradient matching, and a linear equation needs
        # no near start. With a hidden component there are several modes, and the best of several starts is taken.
        if problem.hidden:
            starts = search.hidden_matching(problem, start)
            starts += [replace(start, z=starts[0].z, eta=found[best()].state.eta)] if found else []
            start = max(starts, key=lambda one: inference.log_posterior(problem, one, stopping))
        elif found and not inference.marginalises(problem):
            start = replace(start, eta=found[best()].state.eta)
        else:
            start = search.gradient_matching(problem, start)
        found[shares] = inference.find(problem, start, stopping)
        theta = problem.parameters.constrained(found[shares].state.eta)
        values = ", ".join(f"{name} = {float(value):.4g}" for name, value in theta.items())
        note(f"log evidence {found[shares].log_evidence:.1f} at {values}")

    for early in [settings.early_share] if settings.early_share else EARLY_SHARES:
        for length in [settings.length_share] if settings.length_share else LENGTH_SHARES:
            visit((length, early))
    return found[best()], settings_of(best())
