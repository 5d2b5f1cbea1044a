"""Put the outcome into the words of people on the plant, and the figures behind it into a second sentence."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from scipy import special

from iot_pipeline.berlin import BERLIN, describe_length
from iot_pipeline.detection.cycles import DAY, WEEK
from iot_pipeline.detection.events import Run
from iot_pipeline.detection.judge import Verdict
from iot_pipeline.detection.model import Fit
from iot_pipeline.detection.types import Cycle, Event, FloatArray
from iot_pipeline.kinds import counted, title

CLOSELY = "follows itself too closely for a fixed curve"
NO_CURVE = "fits no curve: too many readings lie off the best one"
_RULE = 3.0  # the rule of thumb that chance is compared with
_NOUNS = {"stuck": "stuck value", "variance": "noisy stretch"}  # others are called as their kind is
_CYCLES = {DAY: "daily", WEEK: "weekly"}
_A_TURN = 0.02  # of a curve's height; a smaller move back is none


def model_name(fit: Fit) -> str:
    """Name the model, such as "piecewise linear + daily cycle"."""
    cycles = [_repeating("cycle", each, f"{each.period / 3600:.2f} h") for each in fit.cycles]
    return " + ".join([fit.trends[0].name, *cycles])


def _repeating(noun: str, cycle: Cycle, length: str) -> str:
    return f"{_CYCLES[cycle.period]} {noun}" if cycle.period in _CYCLES else f"{noun} of {length}"


def model_parameters(fit: Fit, span: float, scale: float) -> tuple[tuple[str, float], ...]:
    """Describe the model by (name, value) pairs: times in days, heights in the unit of the values.

    The span is in seconds, the scale is what scaled values are multiplied by.
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
    heights = [
        (f"amplitude_{cycle.period / 3600:.4g}h", float(np.ptp(cycle.table)) / 2 * scale)
        for cycle in fit.cycles
    ]
    return (*pairs, *heights)


def reasoning(fit: Fit, verdict: Verdict, events: Sequence[Event]) -> str:
    """Say what a sensor does and which events don't fit, in words; then in figures why."""
    course = f"{_course(fit)}{_rhythm(fit.cycles)}"
    if verdict.misfit:
        course += ". That doesn't describe the sensor well, so only stuck values and gaps are looked for"
    return _said(course, events, verdict.runs, f"{_why_this_model(fit)}; {_why_these_readings(verdict)}")


def reasoning_of_innovations(
    why: str,
    cycles: Sequence[Cycle],
    correlation: float,
    events: Sequence[Event],
    *,
    doubt: float,
    runs: Sequence[Run],
) -> str:
    """Say likewise of a sensor that is judged by innovations, and why it is: `CLOSELY` or `NO_CURVE`."""
    how = "judged by how far a reading jumps from where the last eight lead"
    course = f"Wanders{_rhythm(cycles)}, and {why}: {how}"
    if doubt > 1.0:
        course += f". It jumps a lot, so every deviation counts {doubt:.2g} times less"
    figures = f"a reading and the next correlate at {correlation:.2f} around a line and the rhythm"
    return _said(course, events, runs, figures)


def _said(course: str, events: Sequence[Event], runs: Sequence[Run], figures: str) -> str:
    text = course + (f". {_what_does_not_fit(events)}" if events else "; nothing unusual.")
    if runs:
        strongest = max(run.score for run in runs)
        figures += f"; the clearest finding is as rare as a reading at {strongest:.1f} sd"
    return f"{text} In figures: {figures}."


def _course(fit: Fit) -> str:
    """Say how the trend runs."""
    name, height = fit.trends[0].name, fit.curve.y
    verb = "Climbs" if height[-1] > height[0] else "Falls"
    if name in {"quadratic", "cubic"}:
        return _bend(height, verb)
    changes = _times(len(fit.trends[0].breaks))
    swings = "Swings with the year" if name.startswith("annual") else "Swings slowly"
    courses = {
        "constant": "Holds one level",
        "linear": f"{verb} steadily",
        "exponential decay": f"{verb} fast at first, then ever more slowly",
        "exponential growth": f"{verb} ever faster",
        "steps": f"Jumps from one level to another {changes}",
        "piecewise linear": f"Runs straight and changes course {changes}",
        "piecewise linear with jumps": f"Runs straight and changes course {changes}",
    }
    return courses.get(name, f"{swings} while it {verb.lower()}" if name.endswith("slope") else swings)


def _bend(height: FloatArray, verb: str) -> str:
    """Say how a smooth curve runs; a small move back is none."""
    ahead, inner = np.diff(height), height[1:-1]
    away = np.minimum(np.abs(inner - height[0]), np.abs(inner - height[-1]))
    turns = np.flatnonzero((ahead[:-1] * ahead[1:] < 0) & (away > _A_TURN * np.ptp(height)))
    if not len(turns):
        return f"{verb} along a smooth curve"
    first, second = ("Climbs", "falls") if ahead[turns[0]] > 0 else ("Falls", "climbs")
    back = f" and {first.lower()} again" if len(turns) > 1 else ""
    return f"{first}, then {second}{back}, along a smooth curve"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _rhythm(cycles: Sequence[Cycle]) -> str:
    rhythms = [f"a {_repeating('rhythm', each, f'{each.period / 3600:.3g} hours')}" for each in cycles]
    return f", with {' and '.join(rhythms)}" if rhythms else ""


def _what_does_not_fit(events: Sequence[Event]) -> str:
    gaps = [event for event in events if event.kind == "gap"]
    others = [event for event in events if event.kind != "gap"]
    sentences = []
    if others:
        flagged = sum(event.n_points for event in others)
        verb = "doesn't" if flagged == 1 else "don't"
        *many, last = [_number(*each) for each in Counter(event.kind for event in others).most_common()]
        kinds = f"{', '.join(many)} and {last}" if many else last
        clearest = max(others, key=lambda event: event.peak_score)
        which = "" if len(others) == 1 else f"; the clearest is a {_noun(clearest.kind)}"
        sentences.append(
            f"{counted(flagged, 'reading')} {verb} fit: {kinds}{which} {_when(clearest)}{_height(clearest)}."
        )
    if gaps:
        longest = max(gaps, key=lambda gap: gap.end - gap.start)
        often = "" if len(gaps) == 1 else f" {_times(len(gaps))}, longest"
        length = describe_length(timedelta(microseconds=int((longest.end - longest.start).astype(np.int64))))
        sentences.append(f"Nothing was measured{often} for {length} {_when(longest)}.")
    return " ".join(sentences)


def _noun(kind: str) -> str:
    return _NOUNS.get(kind, title(kind))


def _number(kind: str, count: int) -> str:
    noun = _noun(kind)
    return f"one {noun}" if count == 1 else counted(count, noun, f"{noun}es" if noun.endswith("ch") else "")


def _when(event: Event) -> str:
    moment = event.start.astype("datetime64[s]").item()
    start = str(event.start)
    if isinstance(moment, datetime):  # an int in a year that the calendar does not reach
        start = f"{moment.replace(tzinfo=UTC).astimezone(BERLIN):%Y-%m-%d %H:%M}"
    return f"{'at' if event.start == event.end else 'from'} {start}"


def _height(event: Event) -> str:
    if event.kind in {"stuck", "variance"}:
        return ""
    side = "above" if event.mean_residual > 0 else "below"
    return f", {abs(event.mean_residual):.3g} {side} what was expected"


def _why_this_model(fit: Fit) -> str:
    best, *others = fit.trends
    if not others:
        return f"{model_name(fit)} is all that so few readings can tell"
    verb = "beat" if best.name.endswith("steps") else "beats"
    text = f"{model_name(fit)} {verb} {others[0].name} by {others[0].criterion - best.criterion:,.1f}"
    constant = next((trend for trend in others[1:] if trend.name == "constant"), None)
    if constant:
        text += f" and a constant by {constant.criterion - best.criterion:,.1f}"
    return f"{text} points of BIC"


def _why_these_readings(verdict: Verdict) -> str:
    n = len(verdict.scores)
    beyond = int(np.count_nonzero(np.abs(verdict.scores) > _RULE))
    chance = 2 * n * float(special.ndtr(-_RULE))
    heavy = f", given its heavy tails (Student t, {verdict.freedom:g} degrees)"
    tails = "" if np.isinf(verdict.freedom) else heavy
    return (
        f"of {n:,} readings {beyond:,} lie beyond 3 sd of the noise{tails}, and {chance:,.0f} would by chance"
    )
