"""Put the outcome into words and into figures that people know: days, dates, counts."""

from collections import Counter

import numpy as np
from scipy import special

from iot_pipeline.detection.cycles import DAY, WEEK
from iot_pipeline.detection.judge import Verdict
from iot_pipeline.detection.model import Fit

_RULE = 3.0  # the rule of thumb that chance is compared with
_NOUNS = {
    "spike": "spike",
    "burst": "burst",
    "level_shift": "level shift",
    "drift": "drift",
    "variance": "noise burst",
    "stuck": "stuck run",
    "gap": "gap",
}
_CYCLES = {DAY: "daily cycle", WEEK: "weekly cycle"}


def model_name(fit: Fit) -> str:
    """Name the model, such as "piecewise linear + daily cycle"."""
    cycles = [_CYCLES.get(each.period, f"cycle of {each.period / 3600:.2f} h") for each in fit.cycles]
    return " + ".join([fit.trends[0].name, *cycles])


def model_parameters(fit: Fit, span: float, scale: float) -> tuple[tuple[str, float], ...]:
    """Describe the model by (name, value) pairs, times in days and heights in the unit of the values.

    Args:
        fit: The fitted model.
        span: The sensor's span in seconds.
        scale: The unit of the scaled values.
    """
    half = span / 2 / DAY
    pairs = []
    for name, value in fit.trends[0].parameters:
        if name == "omega":
            pairs.append(("wave_period_days", 2 * np.pi * half / value))
        elif name == "rate":
            pairs.append(("time_constant_days", half / abs(value)))
        else:
            pairs.append((name, value))
    for cycle in fit.cycles:
        hours = cycle.period / 3600
        pairs.append((f"amplitude_{hours:.4g}h", float(np.ptp(cycle.table)) / 2 * scale))
    return tuple(pairs)


def reasoning(fit: Fit, verdict: Verdict, *, share: float, misfit: bool) -> str:
    """Say why this model was chosen, and why there are or aren't anomalies.

    Args:
        fit: The fitted model.
        verdict: What was found.
        share: The share of the readings that would be flagged.
        misfit: Whether that is too much to be flagged.
    """
    return f"{_why_this_model(fit)}; {_why_these_anomalies(verdict, share=share, misfit=misfit)}."


def _why_this_model(fit: Fit) -> str:
    best, *others = fit.trends
    name = model_name(fit)
    text = name[0].upper() + name[1:]
    if others:
        verb = "beat" if best.name.endswith("steps") else "beats"
        text += f" {verb} {others[0].name} by {others[0].criterion - best.criterion:,.1f} points of BIC"
        constant = next((trend for trend in others[1:] if trend.name == "constant"), None)
        if constant:
            text += f" and a constant by {constant.criterion - best.criterion:,.1f}"
    else:
        text += " is all that so few readings can tell"
    return text


def _why_these_anomalies(verdict: Verdict, *, share: float, misfit: bool) -> str:
    n = len(verdict.scores)
    beyond = int(np.count_nonzero(np.abs(verdict.scores) > _RULE))
    chance = 2 * n * float(special.ndtr(-_RULE))
    tails = (
        ""
        if np.isinf(verdict.freedom)
        else f", given its heavy tails (Student t, {verdict.freedom:g} degrees)"
    )
    lie = f"of {n:,} readings {beyond:,} lie beyond 3 sd of the noise{tails}"
    text = f"{lie}, where chance alone gives {chance:,.0f}"
    if misfit:
        return f"{text}; {share:.0%} would be flagged: the model doesn't describe this sensor, so nothing is"
    if not verdict.runs:
        return f"{text}; none is too far for chance among so many, and no run of them adds up to an event"
    kinds = Counter(run.kind for run in verdict.runs)
    flagged = sum(run.stop - run.start for run in verdict.runs)
    strongest = max(verdict.runs, key=lambda run: run.score)
    return (
        f"{text}; {counted(flagged, 'reading')} {'is' if flagged == 1 else 'are'} flagged"
        f" ({', '.join(counted(count, _NOUNS[kind]) for kind, count in kinds.most_common())}), and chance"
        f" explains less than one such finding in 50; the strongest is a {_NOUNS[strongest.kind]}"
        f" as rare as a reading at {strongest.score:.1f} sd"
    )


def counted(count: int, noun: str) -> str:
    """Write a number of things, such as "1 burst" or "3 spikes"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
