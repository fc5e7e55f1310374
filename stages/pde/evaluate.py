"""Compares a posterior with the data, with held-out replicates, and with the truth of simulated data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from stages.base import VERDICT, Context, Stage, StageError, Stopped
from stages.pde.evaluation import REPORT, Evaluation, EvaluationResults, FieldError, Recovery
from stages.pde.observations import Observations
from stages.pde.posterior import Posterior, PosteriorFacts

if TYPE_CHECKING:
    from stages.pde.observations import Array, Table


class EvaluatePde(Stage):
    """Measures a posterior: recovery of the parameters, the fields' errors, the residual of the equation."""

    headline: ClassVar[str | None] = "rmse"
    spawns: ClassVar[bool] = False

    posterior: Posterior
    observations: Observations

    def run(self, ctx: Context) -> Evaluation:
        import numpy as np

        from stages.pde import figures, residual

        facts, known = self.posterior.facts, self.observations.facts
        if known.components != facts.equation.components or known.coordinates != facts.equation.coordinates:
            raise StageError("the posterior is of an equation with other components or coordinates")
        table = self.observations.table()
        names = facts.equation.components
        recovery = {
            name: Recovery(
                truth=truth,
                relative_error=(facts.parameters[name].median - truth) / abs(truth) if truth else float("nan"),
                covered=facts.parameters[name].low <= truth <= facts.parameters[name].high,
            )
            for name, truth in known.parameters.items()
            if name in facts.parameters
        }
        training = {name: one for name in names if (one := self._fit(table.training, name)) is not None}
        held_out = {name: one for name in names if (one := self._fit(table.kept(table.held_out), name)) is not None}
        truth = {name: one for name in names if (one := self._against_truth(table, name)) is not None}
        if ctx.stopping():
            raise Stopped
        residuals = residual.on_grid(self.posterior)
        relative = tuple(
            float(np.sqrt(np.mean(one**2)) / scale)
            for one, scale in zip(residuals.values, residuals.scales, strict=True)
        )
        results = EvaluationResults(
            line=facts.line, recovery=recovery, training=training, held_out=held_out, truth=truth,
            residual_rms=relative, log_evidence=facts.log_evidence,
        )  # fmt: skip
        (ctx.out / REPORT).write_text(results.model_dump_json(indent=2) + "\n")
        self._report(ctx, results)
        for name in names:
            ctx.figure(f"field_{name}", figures.field_figure(self.posterior, table, name))
        for number in range(len(residuals.values)):
            ctx.figure(f"residual_{number + 1}", figures.residual_figure(facts, residuals, number))
        ctx.figure("pairs", figures.pairs_figure(self.posterior, known.parameters))
        if facts.sampler == "nuts":
            ctx.figure("traces", figures.traces_figure(self.posterior, known.parameters))
        ctx.page("parameters.md", page(facts, results))
        return Evaluation(ctx.out)

    def _fit(self, table: Table, component: str) -> FieldError | None:
        """The prediction next to observations, with their noise; censored and missing values are left out."""
        import numpy as np

        place = self.posterior.facts.equation.components.index(component)
        known = ~np.isnan(table.values[:, place]) & ~table.censored[:, place]
        noise = self.posterior.facts.noise.get(component)
        if not known.any() or noise is None:
            return None
        return _error(self.posterior.draws(component, table.points[known]), table.values[known, place], noise.median)

    def _against_truth(self, table: Table, component: str) -> FieldError | None:
        import numpy as np

        place = self.posterior.facts.equation.components.index(component)
        known = ~np.isnan(table.truth[:, place])
        if not known.any():
            return None
        return _error(self.posterior.draws(component, table.points[known]), table.truth[known, place], 0.0)

    def _report(self, ctx: Context, results: EvaluationResults) -> None:
        values: dict[str, float] = {"log_evidence": results.log_evidence}
        for kind, errors in (("", results.training), ("held_out_", results.held_out), ("true_", results.truth)):
            for name, one in errors.items():
                values |= {f"{kind}rmse_{name}": one.rmse, f"{kind}coverage_{name}": one.coverage}
                if one.log_density is not None:
                    values[f"{kind}log_density_{name}"] = one.log_density
        values["rmse"] = next(iter((results.held_out or results.training).values())).rmse
        for name, known in results.recovery.items():
            values |= {f"{name}_relative_error": known.relative_error, f"{name}_covered": float(known.covered)}
        values |= {f"residual_{number}": value for number, value in enumerate(results.residual_rms, 1)}
        ctx.metrics(values)
        text = results.line + "."
        if results.recovery:
            found = ", ".join(f"{name} {one.relative_error:+.1%}" for name, one in results.recovery.items())
            text += f" Relative errors: {found}."
        ctx.highlight(VERDICT, text)


def _error(drawn: Array, values: Array, noise: float) -> FieldError:
    import numpy as np

    mean, variance = drawn.mean(axis=0), drawn.var(axis=0) + noise**2
    sd = np.sqrt(np.maximum(variance, 1e-300))
    density = -0.5 * ((values - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
    return FieldError(
        values=len(values),
        rmse=float(np.sqrt(np.mean((values - mean) ** 2))),
        coverage=float(np.mean(np.abs(values - mean) <= 1.96 * sd)),
        log_density=float(density.mean()) if noise else None,
    )


def page(facts: PosteriorFacts, results: EvaluationResults) -> str:
    """The parameters and errors as a page for people."""

    lines = ["# Parameters", "", f"{facts.line}.", "", "Equations, linear in their derivatives:", ""]
    lines += [f"    {one}" for one in facts.augmentation]
    lines += ["", "| parameter | median | 95 % interval | sd | R-hat | effective samples | truth | error |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name, one in facts.parameters.items():
        truth = results.recovery.get(name)
        cells = [
            name, f"{one.median:.5g}", f"{one.low:.5g} to {one.high:.5g}", f"{one.sd:.2g}",
            "" if one.r_hat is None else f"{one.r_hat:.3f}",
            "" if one.effective_samples is None else f"{one.effective_samples:.0f}",
            f"{truth.truth:g}" if truth else "", f"{truth.relative_error:+.2%}" if truth else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| compared with | component | values | RMSE | within the 95 % band | log density |",
        "|---|---|---|---|---|---|",
    ]
    for kind, errors in (("data", results.training), ("held-out data", results.held_out), ("truth", results.truth)):
        for name, each in errors.items():
            density = "" if each.log_density is None else f"{each.log_density:.3f}"
            lines.append(f"| {kind} | {name} | {each.values} | {each.rmse:.4g} | {each.coverage:.1%} | {density} |")
    relative = ", ".join(f"{value:.2%}" for value in results.residual_rms)
    lines += [
        "",
        f"Residual of each equation, relative to its terms: {relative}. Log evidence: {results.log_evidence:.1f}.",
    ]
    lines += [f"\nNote: {note}." for note in facts.notes]
    return "\n".join(lines) + "\n"
