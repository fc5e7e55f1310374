"""The posterior: gradients, the constraint on true solutions, the linear case in closed form, and its mode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from stages.pde import basis, choice, inference, laplace, linear, search
from stages.pde.equation import Equation
from stages.pde.kernels import covariance, shared_variance
from stages.pde.problem import Problem, State, likelihood
from stages.pde.settings import Settings
from stages.pde.smoothed import SmoothedComponent, SmoothedFacts
from tests.stages.pde.examples import BURGERS, HEAT, fitzhugh_nagumo, heat_truth, problem, table

KERNELS = ("matern_5_2", "matern_7_2", "matern_9_2", "matern_11_2", "rbf")


def never() -> bool:
    return False


@pytest.mark.parametrize("kernel", KERNELS)
def test_derivatives_of_kernels_are_those_of_differences(kernel: Any) -> None:
    x, y = torch.linspace(-1, 2, 7, dtype=torch.float64), torch.tensor([0.0, 0.31], dtype=torch.float64)
    for order in range(1, 3):
        step = 1e-5
        above, below = (covariance(kernel, x + sign * step, y, 0.7, order - 1) for sign in (1, -1))
        torch.testing.assert_close(
            covariance(kernel, x, y, 0.7, order), (above - below) / (2 * step), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_variance_of_a_derivative_is_that_of_differences_of_the_process(kernel: Any) -> None:
    step = 1e-3
    points = torch.tensor([-step, step], dtype=torch.float64)
    k = covariance(kernel, points, points, 0.7)
    assert shared_variance(kernel, 0.7, 1, 1) == pytest.approx(
        float(2 * (k[0, 0] - k[0, 1])) / (2 * step) ** 2, rel=1e-3
    )


def test_a_basis_has_the_covariance_of_its_kernel() -> None:
    given, _ = problem(energy=0.9999999, most_modes=400)
    basis = given.bases[0]
    points = torch.tensor([[0.1, 0.2], [0.6, 0.9], [0.33, 0.5]], dtype=torch.float64)
    functions = basis.at(points, (0, 0))
    expected = basis.scale**2 * torch.ones((3, 3), dtype=torch.float64)
    for axis, one in enumerate(basis.coordinates):
        expected = expected * covariance(one.kernel, points[:, axis], points[:, axis], one.length)
    torch.testing.assert_close(functions @ functions.T, expected, rtol=0, atol=1e-5)
    assert basis.energy >= 0.9999999


@pytest.mark.parametrize("kernel", KERNELS)
def test_derivatives_of_a_coordinate_with_an_origin_are_those_of_differences(kernel: Any) -> None:
    nodes = torch.tensor([0.0, 0.02, 0.08, 0.25, 0.6, 1.0], dtype=torch.float64)
    one = basis.coordinate(kernel, 0.8, nodes, origin=-0.1)
    x = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)
    for order in (1, 2):
        above, below = (one.functions(x + step, order - 1) for step in (1e-5, -1e-5))
        torch.testing.assert_close(one.functions(x, order), (above - below) / 2e-5, rtol=1e-4, atol=1e-4)


def test_a_coordinate_with_an_origin_has_a_length_scale_that_grows() -> None:
    nodes = torch.linspace(0, 1, 60, dtype=torch.float64)
    one = basis.coordinate("rbf", 0.5, nodes, origin=-0.1)
    places = torch.tensor([0.0, 1.0], dtype=torch.float64)
    slopes = 1 / (0.5 * (places + 0.1))  # standard deviation of the derivative: 1 / local length-scale
    torch.testing.assert_close(one.variance(places, 1), slopes.square())
    kept = one.functions(places, 1).square().sum(1)  # what the functions have of it
    torch.testing.assert_close(kept, slopes.square(), rtol=0.05, atol=0)
    bend = (math.sqrt(3) * slopes**2).square() + slopes**2 / (places + 0.1) ** 2
    torch.testing.assert_close(one.variance(places, 2), bend)


def test_the_grid_of_the_constraint_is_denser_where_the_length_scale_is_shorter() -> None:
    given, _ = problem(early_share=0.1)
    times = given.grid[:, 0].unique()
    steps = times.diff()
    assert [float(times[0]), float(times[-1])] == [0.0, 1.0]
    assert float(steps[-1] / steps[0]) == pytest.approx(10, rel=0.2)


def test_the_evidence_chooses_shorter_length_scales_early_where_the_solution_begins_rough() -> None:
    t, x = np.meshgrid(np.linspace(0, 1, 10), np.linspace(0, 1, 25), indexing="ij")
    modes = [(1, 1.0), (4, 0.8)]
    truth = sum(
        (a * np.exp(-0.1 * (k * np.pi) ** 2 * t) * np.cos(k * np.pi * x) for k, a in modes), start=np.zeros(t.shape)
    )
    values = truth + 0.03 * np.random.default_rng(4).standard_normal(truth.shape)
    points = np.stack([t.ravel(), x.ravel()], axis=1)
    facts = SmoothedFacts(
        components={"u": SmoothedComponent(
            kernel="matern_11_2", lengths=(1.0, 0.4), mean=0.0, scale=0.6, noise=0.1, observed=True)},
        ranges=((0, 1), (0, 1)),
    )  # fmt: skip
    equation = Equation.model_validate(
        {**HEAT, "equations": ["u_t - D*u_xx = 0"], "parameters": {"D": {"positive": True}}}
    )
    given = Settings(length_share=0.6, most_modes=200, most_grid_points=500)
    notes: list[str] = []
    mode, chosen = choice.mode(equation, facts, table(points, values.ravel()), given, note=notes.append)
    assert (chosen.length_share, chosen.early_share) == (0.6, 0.1)
    assert float(mode.problem.parameters.constrained(mode.state.eta)["D"]) == pytest.approx(0.1, rel=0.1), notes
    assert any("at first 0.1 of those at last" in one for one in notes)


def test_a_pulse_that_moves_keeps_the_length_scales_of_its_data() -> None:
    def pulse(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-((x / 0.15) ** 2)))

    t, x = np.meshgrid(np.linspace(0, 0.8, 16), np.linspace(-1, 1, 21), indexing="ij")
    truth = (pulse(x - t) + pulse(x + t)) / 2  # d'Alembert's solution, with speed 1
    values = truth + 0.03 * np.random.default_rng(1).standard_normal(truth.shape)
    facts = SmoothedFacts(
        components={"u": SmoothedComponent(
            kernel="matern_11_2", lengths=(0.14, 0.14), mean=0.2, scale=0.3, noise=0.03, observed=True)},
        ranges=((0, 0.8), (-1, 1)),
    )  # fmt: skip
    equation = Equation.model_validate(
        {**HEAT, "equations": ["u_tt - c**2*u_xx = 0"], "parameters": {"c": {"positive": True}}}
    )
    observed = table(np.stack([t.ravel(), x.ravel()], axis=1), values.ravel())
    given = Settings(early_share=1, most_modes=220, most_grid_points=600)
    notes: list[str] = []
    mode, chosen = choice.mode(equation, facts, observed, given, note=notes.append)
    assert chosen.length_share == 1.0, notes
    assert float(mode.problem.parameters.constrained(mode.state.eta)["c"]) == pytest.approx(1.0, rel=0.05), notes


@pytest.mark.parametrize("equation", [HEAT, BURGERS])
@pytest.mark.parametrize("censored", [False, True])
def test_the_gradient_is_that_of_differences(equation: dict[str, Any], censored: bool) -> None:
    given, start = problem(equation=equation, censored=censored)
    given.refresh(start.z, start.eta)
    value, gradient, _ = search.quadratic(given, start)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction = torch.randn(given.size + 2, generator=generator, dtype=torch.float64)
        sides = [
            float(given.energy(start.z + step * direction[:-2], start.eta + step * direction[-2:], start.sigma))
            for step in (1e-6, -1e-6)
        ]
        assert float(gradient @ direction) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4)
    assert value == pytest.approx(float(given.energy(start.z, start.eta, start.sigma)))


@pytest.mark.parametrize(
    "equation",
    [
        BURGERS,
        HEAT,
        {**HEAT, "equations": ["u_t - D*u_xx - s*u = t"]},
        {**HEAT, "equations": ["u_t - D*u_xx - s*x*u = 0"]},
    ],
)
def test_the_gradient_that_chains_use_is_that_of_differences(equation: dict[str, Any]) -> None:
    given, start = problem(equation=equation, most_modes=20, most_grid_points=100, noise=0.05)
    mode = inference.find(given, search.gradient_matching(given, start), never)
    x = (mode.x + 0.01).requires_grad_()
    (gradient,) = torch.autograd.grad(mode.log_density(x), x)
    direction = torch.randn(len(x), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sides = [float(mode.log_density((x + step * direction).detach())) for step in (1e-6, -1e-6)]
    assert float(gradient @ direction) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4)


def test_the_constraint_vanishes_on_a_true_solution_and_not_with_other_parameters() -> None:
    given, _ = problem(energy=0.999999999, most_modes=400, most_grid_points=900)
    functions = given.bases[0].at(given.grid, (0, 0))
    truth = torch.from_numpy(heat_truth(given.grid.numpy())) - given.bases[0].mean
    z = torch.linalg.lstsq(functions, truth[:, None]).solution[:, 0]
    right = given.residuals(z, given.parameters.unconstrained({"D": 0.1, "s": -0.2}))
    wrong = given.residuals(z, given.parameters.unconstrained({"D": 0.2, "s": -0.2}))
    assert float(right.abs().max()) < 0.01 * float(wrong.abs().max())


def dense(given: Problem, eta: torch.Tensor, sigma: float) -> float:
    """log p(y | F = 0) from the joint normal density of y and F, in the space of the data."""
    data = given.data[0]
    assert data is not None
    zero = torch.zeros(given.size, dtype=torch.float64)
    free, by_z, _ = given.linearised(zero, eta)
    b, f = by_z[0], free[0]
    prior = given.temper  # of z
    k_ff = prior * b @ b.T + torch.diag(given.variances[0] * given.temper)
    k_yf = prior * data.functions @ b.T
    k_yy = prior * data.functions @ data.functions.T + sigma**2 * torch.eye(len(data.values), dtype=torch.float64)
    solved = torch.linalg.solve(k_ff, torch.cat([k_yf.T, -f[:, None]], dim=1))
    mean = given.bases[0].mean + k_yf @ solved[:, -1]
    covariance_ = k_yy - k_yf @ solved[:, :-1]
    normal = torch.distributions.MultivariateNormal(mean, (covariance_ + covariance_.T) / 2)
    return float(normal.log_prob(data.values))


@pytest.mark.parametrize("text", ["u_t - D*u_xx - s*u = 0", "u_t - D*u_xx - s*u = t", "u_t - D*u_xx - s*x*u = t"])
def test_the_linear_case_equals_the_closed_form(text: str) -> None:
    given, start = problem(equation={**HEAT, "equations": [text]}, noise=0.05, most_grid_points=150, most_modes=40)
    given.refresh(start.z, start.eta)
    marginal = linear.Marginal(given)
    for d, s, sigma in ((0.1, -0.2, 0.05), (0.3, 0.5, 0.1)):
        eta = given.parameters.unconstrained({"D": d, "s": s})
        found = float(marginal.log_likelihood(eta, torch.tensor([sigma], dtype=torch.float64).log()))
        assert found == pytest.approx(dense(given, eta, sigma), rel=1e-4)


def test_the_maximum_is_found_at_the_far_end_of_a_narrow_valley() -> None:
    class Valley:
        """A density that falls a hundred times as fast across the direction (1, 0.1) as along it."""

        def log_posterior(self, x: torch.Tensor) -> torch.Tensor:
            along, across = x[0] + 0.1 * x[1], x[1] - 0.1 * x[0]
            return -0.5 * along**2 - 0.5e4 * across**2

    valley: Any = Valley()
    x, precision, value = linear.maximum(valley, torch.tensor([20.0, 2.0], dtype=torch.float64))
    assert float(x.abs().max()) < 1e-3
    assert value == pytest.approx(0, abs=1e-4)
    assert bool((torch.linalg.eigvalsh(precision) > 0.9).all())


def test_laplaces_approximation_is_exact_where_the_equations_are_linear() -> None:
    given, start = problem(noise=0.05, most_modes=40, most_grid_points=150)
    given.refresh(start.z, start.eta)
    marginal, differences = linear.Marginal(given), []
    for d in (0.05, 0.3):
        x = torch.cat([given.parameters.unconstrained({"D": d, "s": -0.2}), torch.tensor([0.05]).double().log()])
        value, gradient = laplace.Profile(given, start, never).at(x)
        leaf = x.clone().requires_grad_()
        exact = marginal.log_posterior(leaf)
        differences.append(value + float(exact.detach()))
        (expected,) = torch.autograd.grad(-exact, leaf)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3)
    # The residual of the mode without data, which is small, is not part of it.
    assert differences[0] == pytest.approx(differences[1], abs=0.02)


@pytest.mark.parametrize("censored", [False, True])
def test_the_gradient_of_laplaces_approximation_is_that_of_differences(censored: bool) -> None:
    given, start = problem(equation=BURGERS, censored=censored, noise=0.05, most_modes=25, most_grid_points=100)
    given.refresh(start.z, start.eta)
    profile = laplace.Profile(given, start, never)
    x = torch.cat([start.eta, start.sigma.log()])
    _, gradient = profile.at(x)
    for place in range(len(x)):
        step = 1e-4 * torch.eye(len(x), dtype=torch.float64)[place]
        sides = [profile.at(x + sign * step)[0] for sign in (1, -1)]
        assert float(gradient[place]) == pytest.approx((sides[0] - sides[1]) / 2e-4, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("text", ["u_t - D*u_xx - s*u = 0", "u_t - D*u_xx - s*u + 0.001*u*u_x = 0"])
def test_parameters_are_recovered_within_their_intervals(text: str) -> None:
    fine: dict[str, Any] = {"most_modes": 80, "energy": 0.999999, "length_share": 0.5}
    given, start = problem(equation={**HEAT, "equations": [text]}, noise=0.03, most_grid_points=120, **fine)
    mode = inference.find(given, search.gradient_matching(given, start), never)
    sd = torch.linalg.inv(mode.precision).diagonal().sqrt()[mode.eta_place]
    truth = given.parameters.unconstrained({"D": 0.1, "s": -0.2})
    assert bool(((mode.state.eta - truth).abs() < 3.5 * sd).all())
    assert float(sd[0]) < 0.3
    assert float(mode.state.sigma[0]) == pytest.approx(0.03, rel=0.25)


def test_censored_values_are_used_as_limits() -> None:
    given, start = problem(censored=True, most_modes=70, most_grid_points=150, length_share=0.5, noise=0.03)
    assert given.data[0] is not None
    assert bool(given.data[0].censored.any())
    mode = inference.find(given, search.gradient_matching(given, start), never)
    assert not mode.exact
    assert float(given.parameters.constrained(mode.state.eta)["D"]) == pytest.approx(0.1, rel=0.2)
    assert float(mode.state.sigma[0]) == pytest.approx(0.03, rel=0.3)


def test_the_likelihood_of_a_limit_is_the_normal_distribution_function() -> None:
    difference = torch.tensor([-2.0, 0.0, 3.0, 40.0], dtype=torch.float64, requires_grad=True)
    value, slope, bend = likelihood(difference, torch.ones(4, dtype=torch.bool))
    expected = torch.distributions.Normal(0.0, 1.0).cdf(-difference[:3])
    np.testing.assert_allclose(torch.exp(-value[:3]).detach(), expected.detach(), rtol=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), difference)
    torch.testing.assert_close(slope.detach(), gradient)
    assert bool((bend >= 0).all())


def test_two_stage_gradient_matching_is_near_without_noise() -> None:
    given, start = problem(noise=1e-3, energy=0.999999, most_modes=120)
    given.refresh(start.z, start.eta)
    found: State = search.gradient_matching(given, start)
    assert float(given.parameters.constrained(found.eta)["D"]) == pytest.approx(0.1, rel=0.05)


def test_fitzhugh_nagumo_recovers_its_parameters() -> None:
    """An equation without space whose solution, of two components, has fast and slow parts."""
    given, start, truth = fitzhugh_nagumo()
    mode = inference.find(given, search.gradient_matching(given, start), never)
    deviations = torch.linalg.inv(mode.precision).diagonal().sqrt()[mode.eta_place]
    assert bool(((mode.state.eta - given.parameters.unconstrained(truth)).abs() < 3 * deviations).all())
    assert float(deviations[2]) < 0.04
    assert mode.state.sigma.tolist() == pytest.approx([0.2, 0.2], rel=0.3)
