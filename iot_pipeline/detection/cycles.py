"""Find and fit what repeats within days and weeks: sinusoids, or the profile of a day or a week."""

from collections.abc import Iterator

import numpy as np
from scipy import fft, special

from iot_pipeline.detection.blocks import row_medians
from iot_pipeline.detection.prepare import Readings
from iot_pipeline.detection.summer_time import clock_seconds
from iot_pipeline.detection.types import Cycle, FloatArray

DAY = 86_400.0
WEEK = 7 * DAY
A_FEW_DAYS, MANY_DAYS = 4, 32  # between them the spectrum may miss a day
_CALENDAR = ((DAY, 12), (WEEK, 48))  # periods and their highest harmonic that is taken for them
_MOST_CYCLES = 2
_FEWEST_TURNS = 16  # a slower wave belongs to the trend
# How many parts a period has, how many shorter ones of a profile of their own, and how often it has to come.
_PARTS = {DAY: (24, 1, A_FEW_DAYS), WEEK: (28, 7, 2)}
_BY_CHANCE = 1e-6
_CONTRAST = 2.0  # of a line to all its neighbours; what a trend leaves falls off slowly
_BAND = 64  # neighbouring frequencies that share one background
_NEAR = 0.1  # turns of the base period that a frequency may be off
_FINER = 4  # nodes of a smooth cycle per part
_MOST_PARTS = 672  # of a folded period: quarters of an hour in a week
_FEWEST_PARTS = 8
_COVERED = 0.8  # the share of the parts that must hold readings


def find_periods(readings: Readings, residual: FloatArray) -> tuple[float, ...]:
    """Find the periods that stand far above the spectrum around them, in seconds, at most two.

    The test against an exponentially distributed background is Fisher's ("Tests of significance in harmonic
    analysis", Proc. R. Soc. A 125, 1929); the local median as background allows for red noise. Irregular
    readings are put on the grid of their median step. The residual, float64[n], is free of slow trend and of
    outliers.
    """
    n, span = len(residual), readings.span
    step = max(readings.step, span / (4 * n))
    cells = np.rint(readings.seconds / step).astype(np.intp)
    grid = np.bincount(cells, weights=residual) / np.maximum(np.bincount(cells), 1)
    length = fft.next_fast_len(len(grid), real=True)
    power = np.abs(fft.rfft(grid, length)) ** 2
    power = power[: len(power) // _BAND * _BAND]
    if not len(power):
        return ()
    frequency = np.arange(len(power)) / (length * step)
    middle = row_medians(power.reshape(-1, _BAND))
    background = np.maximum(np.repeat(middle, _BAND), 1e-12 * float(power.max()) + 1e-300) / np.log(2)
    ratio = power / background
    # A line leaks into its neighbours, and they may stand out more where the next band is quieter.
    ratio[1:-1][power[1:-1] < np.maximum(power[:-2], power[2:])] = 0.0
    ratio[(frequency < _FEWEST_TURNS / span) | (frequency > 1 / (4 * step))] = 0.0

    periods: list[float] = []
    for _ in range(_MOST_CYCLES):
        peak = int(np.argmax(ratio))
        nearby = np.concatenate((power[max(peak - 10, 1) : peak - 2], power[peak + 3 : peak + 11]))
        if ratio[peak] < np.log(n) + 20.0 or power[peak] < _CONTRAST * nearby.max():
            break
        period = _calendar_period(frequency[peak], span)
        if not period:
            period = 2 * np.pi / _refine(readings.seconds, residual, 2 * np.pi * frequency[peak])
        periods.append(period)
        turns = frequency * period
        ratio[np.abs(turns - np.rint(turns)) < 2.5 * period / span] = 0.0
    return tuple(periods)


def repeats(readings: Readings, residual: FloatArray, period: float) -> bool:
    """Say whether the hours of a day differ, or the days of a week by more than the time of day.

    In short spans no spectrum tells. Analysis of variance over the periods that are nearly complete (Fisher,
    "Statistical Methods for Research Workers", 1925): what varies from period to period is the yardstick. The
    memory of the noise takes degrees of freedom away (Greenhouse & Geisser, "On methods in the analysis of
    profile data", Psychometrika 24, 1959); from one quarter of a day to the next it is forgotten. The
    residual, float64[n], is free of what changes from period to period, and of outliers.
    """
    parts, turns, fewest = _PARTS[period]
    count = int(readings.span // period)
    cells = np.minimum((readings.seconds * (parts / period)).astype(np.intp), count * parts)
    size = np.bincount(cells, minlength=count * parts + 1)[:-1].reshape(count, parts)
    total = np.bincount(cells, residual, count * parts + 1)[:-1].reshape(count, parts)
    mostly = (size > 0).mean(axis=1) >= _COVERED
    present = size[mostly] > 0
    if len(present) < fewest or not present.any(axis=0).all():
        return False
    means = np.where(present, total[mostly] / np.maximum(size[mostly], 1), np.nan)
    means -= np.nanmean(means, axis=1, keepdims=True)
    profile = np.nanmean(means, axis=0)
    rest = np.where(present, means - profile, 0.0)
    within = float(np.sum(rest**2))
    sphericity = 1.0
    if period == DAY:
        sphericity = within**2 / max(float(np.sum((rest @ rest.T) ** 2)), 1e-300) / (parts - 1)
    profile -= np.tile(profile.reshape(turns, -1).mean(axis=0), turns) if turns > 1 else 0.0
    between = len(means) * float(profile @ profile)
    freedom = parts - parts // turns if turns > 1 else parts - 1
    rest_freedom = np.count_nonzero(present) - len(means) - parts + 1
    limit = special.fdtri(freedom * sphericity, rest_freedom * sphericity, 1.0 - _BY_CHANCE)
    return bool(between / freedom > within / rest_freedom * limit)


def _calendar_period(frequency: float, span: float) -> float:
    """Take a frequency for a harmonic of the day or the week where the span can't tell them apart."""
    for base, highest in _CALENDAR:
        turns = frequency * base
        if 1 <= round(turns) <= highest and abs(turns - round(turns)) < min(base / span, _NEAR):
            return base
    return 0.0


def _refine(seconds: FloatArray, residual: FloatArray, omega: float) -> float:
    """Sharpen a frequency by the drift of its phase over the span (Kay, IEEE Trans. ASSP 37, 1989)."""
    chunk = np.minimum((seconds / seconds[-1] * 16).astype(np.intp), 15)
    times = np.bincount(chunk, seconds, 16) / np.maximum(np.bincount(chunk, minlength=16), 1)
    for _ in range(2):
        angle = omega * seconds
        real, imaginary = (np.bincount(chunk, residual * part, 16) for part in (np.cos(angle), np.sin(angle)))
        wave = real - 1j * imaginary
        weight = np.abs(wave)
        if not weight.any():
            break
        centred = times - np.average(times, weights=weight)
        phase = np.angle(wave * np.exp(-1j * np.angle(wave.sum())))
        omega += float(np.sum(weight * centred * phase) / max(float(np.sum(weight * centred**2)), 1e-300))
    return omega


def fit_cycles(
    readings: Readings, residual: FloatArray, periods: tuple[float, ...], clock_changes: FloatArray
) -> tuple[Cycle, ...]:
    """Fit one cycle after the other, each to what the earlier ones leave.

    Args:
        readings: n of them.
        residual: float64, shape (n,), their values without trend, outliers clipped.
        periods: In seconds, the strongest first.
        clock_changes: In seconds, those that days and weeks follow.
    """
    cycles = []
    for period in periods:
        changes = clock_changes if period in {DAY, WEEK} else np.empty(0)
        table = _fit_cycle(clock_seconds(readings.seconds, changes), residual, period, readings.step)
        if table is not None:
            cycles.append(Cycle(period, table, changes))
            if period != periods[-1]:
                residual = residual - cycles[-1](readings.seconds)
    return tuple(cycles)


def _fit_cycle(seconds: FloatArray, residual: FloatArray, period: float, step: float) -> FloatArray | None:
    """Fit a repeating curve to the means of the parts of the folded period; None where nothing repeats.

    Harmonics or the means themselves, whichever has the least BIC (Schwarz, "Estimating the dimension of a
    model", Annals of Statistics 6, 1978). A part holds about one reading a period, so that regular readings
    always fall on the same parts.
    """
    parts = int(np.clip(round(period / max(step, period / _MOST_PARTS)), _FEWEST_PARTS, _MOST_PARTS))
    turns = seconds / period
    part = np.rint((turns - np.floor(turns)) * parts).astype(np.intp) % parts
    count = np.bincount(part, minlength=parts).astype(np.float64)
    mean = np.bincount(part, weights=residual, minlength=parts) / np.maximum(count, 1.0)
    n = len(residual)
    if np.count_nonzero(count) < _COVERED * parts or n < 2 * parts:
        return None
    rest = float(np.sum(residual**2)) - float(count @ mean**2)
    variance = max(rest, 1e-12 * n) / (n - parts)

    best, table = float(count @ mean**2) / variance, None
    for size, curve in (_harmonics(count, mean, variance), *_profiles(count, mean)):
        at_parts = curve[:: len(curve) // parts]
        criterion = float(count @ (mean - at_parts) ** 2) / variance + size * np.log(n)
        if criterion < best:
            best, table = criterion, curve
    return None if table is None else table - table.mean()


def _harmonics(count: FloatArray, mean: FloatArray, variance: float) -> tuple[int, FloatArray]:
    """Keep the harmonics that stand out of the noise: the number of coefficients, and the curve.

    Hard thresholding (Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81,
    1994) at the price of two coefficients in the BIC.
    """
    parts = len(mean)
    coefficients = fft.rfft(mean)
    noise = parts * variance * float(np.mean(1.0 / np.maximum(count, 1.0)))
    weak = np.abs(coefficients) ** 2 < noise * np.log(count.sum())
    coefficients[weak] = 0.0
    coefficients[0] = parts * np.average(mean, weights=count)
    fine = _FINER * parts
    return 2 * int(np.count_nonzero(~weak[1:])), fft.irfft(coefficients, fine) * _FINER


def _profiles(count: FloatArray, mean: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Join the means of the parts, or of two or four together, as they are: their number, and the curve."""
    parts = len(mean)
    for size in (1, 2, 4):
        if parts % size == 0:
            total = count.reshape(-1, size).sum(axis=1)
            level = (count * mean).reshape(-1, size).sum(axis=1) / np.maximum(total, 1.0)
            middle = np.arange(parts // size) * size + (size - 1) / 2
            yield parts // size, np.interp(np.arange(parts), middle, level, period=parts)
