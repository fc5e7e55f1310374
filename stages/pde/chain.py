"""One chain of NUTS, in a worker: rebuilds the problem from the artifacts, samples, and writes its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stages.pde.assemble import assemble
from stages.pde.equation import Equation
from stages.pde.inference import Mode
from stages.pde.observations import Observations, read_tensors, write_tensors
from stages.pde.problem import State
from stages.pde.settings import Settings
from stages.pde.smoothed import Smoothed

KEPT_DRAWS = 200  # of z, of all chains


@dataclass(frozen=True)
class Task:
    """What a worker needs for one chain. Paths are of artifacts and of the step's scratch directory."""

    number: int
    equation: Equation
    settings: Settings
    observations: Path
    smoothed: Path
    mode: Path
    result: Path


@dataclass(frozen=True)
class Chain:
    """The samples of a chain: `x` [n, eta and log sigma], `z` [draws, M] and the samples that they are of."""

    x: Tensor
    z: Tensor
    of: Tensor
    divergences: int
    gradients: float  # mean number of gradients for a sample


def write_mode(path: Path, mode: Mode) -> None:
    write_tensors(path, {
        "z": mode.state.z.numpy(), "eta": mode.state.eta.numpy(), "sigma": mode.state.sigma.numpy(),
        "x": mode.x.numpy(), "precision": mode.precision.numpy(), "volume": mode.volume.numpy(),
        "variances": mode.problem.variances.numpy(),
    })  # fmt: skip


def read_mode(task: Task) -> Mode:
    observations = Observations(task.observations)
    facts = Smoothed(task.smoothed).facts
    problem, _ = assemble(task.equation, facts, observations.table().training, task.settings)
    found = {name: torch.from_numpy(value) for name, value in read_tensors(task.mode).items()}
    problem.variances = found["variances"]
    state = State(found["z"], found["eta"], found["sigma"])
    return Mode(problem, state, found["x"], found["precision"], found["volume"], 0.0)


def run(task: Task) -> None:
    """Sample a chain unless its result is there already."""
    from threadpoolctl import threadpool_limits

    if task.result.exists():
        return
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # Pyro's step sizes and momenta have the default type
    try:
        with threadpool_limits(1):
            chain = sample(read_mode(task), task.settings, task.number)
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
    partial = task.result.with_suffix(".partial")
    write_tensors(partial, {
        "x": chain.x.numpy(), "z": chain.z.numpy(), "of": chain.of.numpy(),
        "facts": torch.tensor([chain.divergences, chain.gradients], dtype=torch.float64).numpy(),
    })  # fmt: skip
    partial.replace(task.result)


def read(path: Path) -> Chain:
    found = {name: torch.from_numpy(value) for name, value in read_tensors(path).items()}
    divergences, gradients = found["facts"].tolist()
    return Chain(found["x"], found["z"], found["of"].long(), int(divergences), gradients)


def sample(mode: Mode, settings: Settings, number: int) -> Chain:
    """A chain of NUTS in coordinates in which the posterior is near a standard normal one."""
    import pyro
    from pyro.infer.mcmc import MCMC, NUTS

    pyro.set_rng_seed(settings.seed * 1000 + number)
    evaluations = 0

    def potential(values: dict[str, Tensor]) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return -mode.log_density(mode.from_white(values["s"]))

    start = torch.randn(len(mode.x), dtype=torch.float64)
    kernel = NUTS(
        potential_fn=potential, adapt_mass_matrix=False, max_tree_depth=settings.most_doublings, target_accept_prob=0.8
    )
    sampler = MCMC(
        kernel, num_samples=settings.samples, warmup_steps=settings.warmup, initial_params={"s": start},
        disable_progbar=True,
    )  # fmt: skip
    sampler.run()
    white = sampler.get_samples()["s"]
    divergences = len(sampler.diagnostics()["divergences"]["chain 0"])
    every = torch.stack([mode.from_white(one) for one in white])
    count = max(1, min(settings.samples, KEPT_DRAWS // settings.chains))
    of = torch.linspace(0, settings.samples - 1, count).round().long()
    generator = torch.Generator().manual_seed(settings.seed * 1000 + number)
    z = torch.stack([mode.coefficients(every[place], generator) for place in of])
    return Chain(
        every[:, mode.eta_place.start :], z, of, divergences, evaluations / (settings.samples + settings.warmup)
    )


def normal(mode: Mode, count: int, seed: int) -> Chain:
    """Draws of the normal approximation at the mode, in place of a chain."""
    generator = torch.Generator().manual_seed(seed)
    every = torch.stack(
        [mode.from_white(torch.randn(len(mode.x), generator=generator, dtype=torch.float64)) for _ in range(count)]
    )
    of = torch.linspace(0, count - 1, min(count, KEPT_DRAWS)).round().long()
    z = torch.stack([mode.coefficients(every[place], generator) for place in of])
    return Chain(every[:, mode.eta_place.start :], z, of, 0, 0.0)


def diagnostics(chains: Sequence[Chain]) -> tuple[Tensor, Tensor]:
    """Split R-hat and the effective sample size of each column of x."""
    from pyro.ops.stats import effective_sample_size, split_gelman_rubin

    stacked = torch.stack([one.x for one in chains])
    return split_gelman_rubin(stacked, chain_dim=0, sample_dim=1), effective_sample_size(
        stacked, chain_dim=0, sample_dim=1
    )
