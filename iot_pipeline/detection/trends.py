"""Smooth trends on the blocks: polynomials, exponential decay and slow waves, the best by a capped BIC."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.blocks import Blocks
from iot_pipeline.detection.types import FloatArray

_HUBER = 1.5
_CAP = 4.0  # standard errors, beyond which a block is an event and costs no more
_ROUNDS = 10
_SETTLED = 1e-3  # standard errors
_EVENTFUL = 0.12  # the share of blocks that events may spoil,
_LASTING = 0.022  # and the share that they may spoil in a row
_FEWEST_CURVED = 12  # blocks, for a non-linear fit
_STRAIGHT = 2  # numbers in a line
_GROUPS = 24
_LIKE_A_YEAR = 0.03
_STEEPEST = 15.0  # exponential, in 1 / half the span: what changes faster is an event or a step

Basis = Callable[[FloatArray, float], FloatArray]


@dataclass(frozen=True, eq=False)
class Trend:
    """A fitted trend.

    Attributes:
        name: What it is called.
        evaluate: The trend as a function of time in [-1, 1], in scaled units.
        criterion: The capped BIC; the less the better.
        size: How many numbers were fitted.
        away: float64, shape (B,), how far the blocks lie away from it, in standard errors.
        parameters: (name, value) pairs, times as shares of the span's half.
        breaks: Where it bends or jumps, in [-1, 1].
    """

    name: str
    evaluate: Callable[[FloatArray], FloatArray]
    criterion: float
    size: int
    away: FloatArray
    parameters: tuple[tuple[str, float], ...] = ()
    breaks: tuple[float, ...] = ()

    def is_adequate(self) -> bool:
        """Say whether it leaves nothing but noise and a few events on the blocks.

        An event ends soon. The other blocks should have unit variance, no correlation between neighbours (Box
        & Pierce, JASA 65, 1970), and means over longer groups that vary no more than chance has it.
        """
        n = len(self.away)
        regular = np.abs(self.away) < _CAP
        strange = np.concatenate(([0], np.cumsum(~regular)))
        lasting = max(4, round(_LASTING * n))
        if strange[-1] > _EVENTFUL * n or np.any(strange[lasting:] - strange[:-lasting] == lasting):
            return False
        kept = np.where(regular, self.away, 0.0)
        limit = 4.0 / float(np.sqrt(n))
        groups = min(_GROUPS, n)
        slow = sum(float(part.sum()) ** 2 / len(part) for part in np.array_split(kept, groups))
        return (
            float(kept @ kept) / n < 1.0 + 1.5 * limit
            and float(kept[1:] @ kept[:-1]) / n < limit
            and slow < groups + 3.0 * float(np.sqrt(2.0 * groups))
        )


def capped_bic(away: FloatArray, parameters: int) -> float:
    """Give Schwarz's criterion of blocks so many standard errors away, float64[B], with bounded loss.

    Then events in the data decide nothing. Source: Ronchetti, "Robust model selection in regression",
    Statistics & Probability Letters 3 (1985).
    """
    return float(np.minimum(away**2, _CAP**2).sum()) + parameters * float(np.log(len(away)))


def huber_weights(away: FloatArray) -> FloatArray:
    """Weigh blocks so many standard errors away, float64[B], as Huber's estimator does.

    While a fit is far off, the residuals' own spread is the yardstick; the standard errors take over as it
    shrinks.
    """
    size = np.abs(away)
    middle = len(away) // 2
    spread = max(1.0, 1.4826 * float(np.partition(size, middle)[middle]))
    return _HUBER * spread / np.maximum(size, _HUBER * spread)


def fit_robustly(design: FloatArray, level: FloatArray, error: FloatArray) -> FloatArray:
    """Fit coefficients, float64[p], by iteratively reweighted least squares with Huber's weights.

    Source: Holland & Welsch, "Robust regression using iteratively reweighted least-squares", Communications
    in Statistics A 6 (1977). The design is float64[B, p].
    """
    precision = error**-2.0
    coefficients = _solve(design, level, precision)
    away = (level - design @ coefficients) / error
    for _ in range(_ROUNDS):
        coefficients = _solve(design, level, precision * huber_weights(away))
        previous, away = away, (level - design @ coefficients) / error
        if np.max(np.abs(away - previous)) < _SETTLED:
            break
    return coefficients


def smooth_trends(blocks: Blocks, year: float) -> list[Trend]:
    """Fit the smooth candidates and rank them, the best first; `year` is its angular frequency in x."""
    count = len(blocks.x)
    names = ("constant", "linear", "quadratic", "cubic")[: max(1, count // 4)]
    trends = ranked([_fitted(name, _polynomial(degree), blocks) for degree, name in enumerate(names)])
    adequate = trends[0].is_adequate()
    if count < _FEWEST_CURVED or (adequate and trends[0].size <= _STRAIGHT):
        return trends

    rates = np.geomspace(0.4, _STEEPEST, 8)
    rate = _start(_exponential, np.concatenate((-rates, rates)), blocks)
    bounds = (0.1, _STEEPEST) if rate > 0 else (-_STEEPEST, -0.1)
    rate = _refine(_exponential, rate, bounds, blocks)
    name = "exponential decay" if rate > 0 else "exponential growth"
    trends.append(_fitted(name, _exponential, blocks, "rate", rate))
    if adequate:
        return ranked(trends)

    omegas = np.append(np.pi * np.arange(0.75, min(16.0, count / 8), 0.5), min(max(year, 1.0), count / 2))
    omega = _start(_wave(1, 1), omegas, blocks)
    for degree, harmonics in ((1, 1), (0, 1), (1, 2), (0, 2)):
        basis = _wave(degree, harmonics)
        omega = _refine(basis, omega, (0.8, count), blocks)
        name = "annual wave" if abs(omega / year - 1) < _LIKE_A_YEAR else "slow wave"
        name += (" with overtone" if harmonics > 1 else "") + (" on a slope" if degree else "")
        trends.append(_fitted(name, basis, blocks, "omega", omega))
    return ranked(trends)


def ranked(trends: list[Trend]) -> list[Trend]:
    """Sort them, the best first."""
    return sorted(trends, key=lambda trend: trend.criterion)


def _fitted(name: str, basis: Basis, blocks: Blocks, symbol: str = "", theta: float = 0.0) -> Trend:
    design = basis(blocks.x, theta)
    coefficients = fit_robustly(design, blocks.level, blocks.error)
    away = (blocks.level - design @ coefficients) / blocks.error
    size = design.shape[1] + bool(symbol)
    return Trend(
        name=name,
        evaluate=lambda at: basis(at, theta) @ coefficients,
        criterion=capped_bic(away, size),
        size=size,
        away=away,
        parameters=((symbol, theta),) if symbol else (),
    )


def _solve(design: FloatArray, target: FloatArray, weights: FloatArray) -> FloatArray:
    """Solve a weighted least-squares problem by its normal equations, with a ridge too small to matter."""
    weighted = design.T * weights
    gram = weighted @ design
    diagonal = gram.ravel()[:: len(gram) + 1]
    diagonal *= 1.0 + 1e-12
    diagonal += 1e-300
    return np.asarray(np.linalg.solve(gram, weighted @ target), dtype=np.float64)


def _polynomial(degree: int) -> Basis:
    return lambda x, _: np.asarray(np.polynomial.chebyshev.chebvander(x, degree), dtype=np.float64)


def _exponential(x: FloatArray, rate: float) -> FloatArray:
    """Span a constant and an exponential that starts or ends at one: a positive rate decays."""
    return np.array((np.ones_like(x), np.exp(-np.abs(rate) * (1.0 + np.sign(rate) * x)))).T


def _wave(degree: int, harmonics: int) -> Basis:
    def basis(x: FloatArray, omega: float) -> FloatArray:
        angles = [omega * harmonic * x for harmonic in range(1, harmonics + 1)]
        powers = [np.ones_like(x), x][: degree + 1]
        return np.array([*powers, *np.cos(angles), *np.sin(angles)]).T

    return basis


def _refine(basis: Basis, theta: float, bounds: tuple[float, float], blocks: Blocks) -> float:
    """Improve the one non-linear parameter to convergence by robust Gauss-Newton steps.

    The linear coefficients are fitted anew at each step, "variable projection" (Golub & Pereyra, SIAM Journal
    on Numerical Analysis 10, 1973).
    """
    x = blocks.x
    weights = precision = blocks.error**-2.0
    for _ in range(_ROUNDS):
        design = basis(x, theta)
        coefficients = _solve(design, blocks.level, weights)
        rest = blocks.level - design @ coefficients
        weights = precision * huber_weights(rest / blocks.error)
        h = 1e-5 * abs(theta)
        slope = (basis(x, theta + h) @ coefficients - basis(x, theta - h) @ coefficients) / (2 * h)
        step = float(_solve(np.column_stack((design, slope)), rest, weights)[-1])
        previous = theta
        theta = float(np.clip(theta + np.clip(step, -0.3 * abs(theta), 0.3 * abs(theta)), *bounds))
        if abs(theta - previous) < 1e-6 * abs(theta):
            break
    return theta


def _start(basis: Basis, grid: FloatArray, blocks: Blocks) -> float:
    """Choose the best start on a grid by the sum of absolute residuals of a plain fit."""
    weights = blocks.error**-2.0
    losses = []
    for theta in grid:
        design = basis(blocks.x, float(theta))
        rest = blocks.level - design @ _solve(design, blocks.level, weights)
        losses.append(np.sum(np.abs(rest) / blocks.error))
    return float(grid[int(np.argmin(losses))])
