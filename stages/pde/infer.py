"""Infers the parameters of an equation from observations, without solving the equation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeInt

from stages.base import Context, Runtime, Stage, StageError, Stopped
from stages.pde.equation import Equation
from stages.pde.observations import Observations
from stages.pde.posterior import BasisFacts, ParameterSummary, Posterior, PosteriorFacts, write
from stages.pde.settings import Settings
from stages.pde.smoothed import Smoothed

if TYPE_CHECKING:
    from stages.pde.chain import Chain
    from stages.pde.inference import Mode

CONTRACTION = 0.5  # of a parameter that is identified: posterior over prior standard deviation, at most
WIDEST = 1.0  # standard deviation of the logarithm of a positive parameter that is identified, at most
LAPLACE_DRAWS = 2000
MISFIT = 1.15  # of the noise, relative to that of the smoothed data, beyond which a note says so


class Infer(Settings, Stage):
    """Infers the parameters of `equation` from observations. Chains run in parallel."""

    version: ClassVar[str] = "4"  # a hidden component has a mean that the equation tells
    headline: ClassVar[str | None] = "worst_relative_sd"

    observations: Observations
    smoothed: Smoothed
    equation: Equation
    workers: Runtime[NonNegativeInt] = 0  # chains at once; 0: as many as the cluster has room for

    def run(self, ctx: Context) -> Posterior:
        import torch
        from threadpoolctl import threadpool_limits

        from stages.pde import chain, choice

        settings = Settings(**{name: getattr(self, name) for name in Settings.model_fields})
        with threadpool_limits(1):
            try:
                mode, settings = choice.mode(
                    self.equation, self.smoothed.facts, self.observations.table().training, settings,
                    ctx.stopping, ctx.note,
                )  # fmt: skip
            except StopIteration:
                raise Stopped from None
            except ArithmeticError as error:
                raise StageError(
                    f"the posterior cannot be evaluated: {error}. Check the units of the data, or give priors"
                ) from None
        problem = mode.problem
        if settings.sampler == "laplace":
            with threadpool_limits(1):
                chains = [chain.normal(mode, LAPLACE_DRAWS, self.seed)]
        else:
            chains = self._sampled(ctx, mode, settings)
        facts = self._facts(mode, chains, settings)
        self._report(ctx, facts, chains)
        tensors = {
            "x": torch.stack([one.x for one in chains]).numpy(),
            "z": torch.cat([one.z for one in chains]).numpy(),
            "eta": torch.cat([one.x[one.of, : len(facts.parameters)] for one in chains]).numpy(),
            "z_mean": mode.state.z.numpy(),
            "eta_mean": mode.state.eta.numpy(),
        }
        for name, one in zip(self.equation.components, problem.bases, strict=True):
            tensors[f"modes.{name}"] = one.modes.double().numpy()
            for axis, each in enumerate(one.coordinates):
                tensors[f"nodes.{name}.{axis}"] = each.nodes.numpy()
        return write(ctx.out, facts, tensors)

    def _sampled(self, ctx: Context, mode: Mode, settings: Settings) -> list[Chain]:
        from stages.pde import chain

        path = ctx.scratch / "mode.safetensors"
        if not path.exists():
            chain.write_mode(path, mode)
        tasks = [
            chain.Task(
                number=number,
                equation=self.equation,
                settings=settings,
                observations=self.observations.path,
                smoothed=self.smoothed.path,
                mode=path,
                result=ctx.scratch / f"chain-{number}.safetensors",
            )
            for number in range(settings.chains)
        ]
        for done, _ in enumerate(ctx.map(chain.run, tasks, workers=self.workers), 1):
            ctx.progress(done, len(tasks), "chains")
        return [chain.read(task.result) for task in tasks]

    def _facts(self, mode: Mode, chains: list[Chain], settings: Settings) -> PosteriorFacts:
        import torch

        from stages.pde import chain

        problem, names = mode.problem, tuple(self.equation.parameters)
        every = torch.cat([one.x for one in chains])
        r_hat: list[float] | None = None
        effective: list[float] | None = None
        if settings.sampler == "nuts" and settings.samples >= 4:
            found = chain.diagnostics(chains)
            r_hat, effective = found[0].tolist(), found[1].tolist()
        theta = problem.parameters.constrained(every[:, : len(names)])
        prior_sd = problem.parameters.prior_sd()

        def summary(values: torch.Tensor, column: int, identified: bool) -> ParameterSummary:
            low, median, high = torch.quantile(values, torch.tensor([0.025, 0.5, 0.975], dtype=values.dtype)).tolist()
            return ParameterSummary(
                mean=float(values.mean()), sd=float(values.std()), low=low, median=median, high=high,
                identified=identified, r_hat=r_hat[column] if r_hat else None,
                effective_samples=effective[column] if effective else None,
            )  # fmt: skip

        parameters = {}
        for column, name in enumerate(names):
            sd = float(every[:, column].std())
            known = sd < CONTRACTION * float(prior_sd[column])
            if self.equation.parameters[name].parsed.positive:
                known = known and sd < WIDEST
            parameters[name] = summary(theta[name], column, known)
        observed = [self.equation.components[index] for index in mode.observed]
        noise = {
            name: summary(every[:, len(names) + place].exp(), len(names) + place, True)
            for place, name in enumerate(observed)
        }
        notes = [f"{name} is a hidden component" for name in self.equation.components if name not in observed]
        for name, one in zip(self.equation.components, problem.bases, strict=True):
            if one.energy < settings.energy:
                notes.append(f"{name}: most_modes={settings.most_modes} keeps {one.energy:.4%} of the energy")
        for name in observed:
            ratio = noise[name].median / self.smoothed.facts.components[name].noise
            if ratio > MISFIT:
                notes.append(
                    f"{name}: the noise is {ratio:.2f} times that of the smoothed data, so the equation fits badly"
                )
        return PosteriorFacts(
            equation=self.equation,
            augmentation=problem.system.augmentation,
            linear=problem.system.linear,
            sampler=settings.sampler,
            parameters=parameters,
            noise=noise,
            bases={
                name: BasisFacts(
                    kernel=one.coordinates[0].kernel, lengths=tuple(each.length for each in one.coordinates),
                    origin=one.coordinates[0].origin,
                    mean=one.mean, mean_sd=one.mean_sd, scale=one.scale, energy=one.energy, modes=one.size,
                )
                for name, one in zip(self.equation.components, problem.bases, strict=True)
            },
            ranges=tuple((float(one.nodes[0]), float(one.nodes[-1])) for one in problem.bases[0].coordinates),
            temper=problem.temper,
            grid=tuple(len(one.nodes) for one in problem.bases[0].coordinates),
            log_evidence=mode.log_evidence,
            chains=len(chains),
            samples=len(chains[0].x),
            divergences=sum(one.divergences for one in chains),
            notes=tuple(notes),
        )  # fmt: skip

    def _report(self, ctx: Context, facts: PosteriorFacts, chains: list[Chain]) -> None:
        for note in facts.notes:
            ctx.note(note)
        values: dict[str, float] = {"log_evidence": facts.log_evidence, "divergences": facts.divergences}
        for name, one in (*facts.parameters.items(), *((f"noise_{k}", v) for k, v in facts.noise.items())):
            values |= {name: one.median, f"{name}_sd": one.sd}
        values["worst_relative_sd"] = max(one.sd / max(abs(one.median), 1e-300) for one in facts.parameters.values())
        rated = [one for one in (*facts.parameters.values(), *facts.noise.values()) if one.r_hat is not None]
        if rated:
            values["r_hat"] = max(one.r_hat or 0.0 for one in rated)
            values["effective_samples"] = min(one.effective_samples or 0.0 for one in rated)
            values["gradients_per_sample"] = sum(one.gradients for one in chains) / len(chains)
        ctx.metrics(values)
        ctx.highlight("parameters", facts.line + ".")
        if rated and self.r_hat_limit is not None and not values["r_hat"] <= self.r_hat_limit:
            raise StageError(
                f"the chains have not converged: R-hat is {values['r_hat']:.3f}, expected at most {self.r_hat_limit} "
                f"({values['effective_samples']:.0f} effective samples, {facts.divergences} divergences). Set more "
                "`warmup` and `samples`, give informative priors, or accept it with r_hat_limit=null"
            )
