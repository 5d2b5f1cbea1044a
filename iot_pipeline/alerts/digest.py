"""What is news after a run, given what was told before. Pure: neither reads nor sends."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from iot_pipeline.alerts.events import KEPT, Event, Findings
from iot_pipeline.kinds import counted

RECENT = timedelta(days=3)
"""How long before the last reading a new event may have ended to be news. Files come a day late."""


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """A check of the data that did not pass.

    Attributes:
        name: Its name.
        is_error: It is an error, not a warning.
        found: What it found, in figures and names.
        count: How many things it found, where it counts any: more of them are news.
    """

    name: str
    is_error: bool
    found: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """How a run of the nightly job ended.

    Attributes:
        run_id: Dagster's id.
        succeeded: Whether it did.
        error: The first real error; empty where only checks failed.
        checks: The checks that did not pass.
    """

    run_id: str
    succeeded: bool
    error: str = ""
    checks: tuple[FailedCheck, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """An event that people know of.

    Attributes:
        event_id: Its name.
        sensor_name: The sensor.
        start: When it starts.
        end: When it ended as far as was known.
        ongoing: People were told that it goes on, and not yet that it has ended.
    """

    event_id: str
    sensor_name: str
    start: datetime
    end: datetime
    ongoing: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """What people know.

    Attributes:
        events: The events, as long as they may still matter.
        checks: How many things the checks that did not pass found, by name.
    """

    events: tuple[Told, ...] = ()
    checks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Digest:
    """What there is to tell after a run.

    Attributes:
        run: The run.
        incidents: New events by incident, the strongest incident and in it the strongest event first.
        ended: Events that people were told go on, and that have ended.
        settled: Events that people were told go on, and that are no longer anomalous: the sensor's model
            follows them now, or somebody has said that it was maintenance.
        checks: Checks that did not pass and are news.
        standing: The names of those that people know of already.
        reasonings: Why the readings of each sensor were judged as they were, by name.
    """

    run: Run
    incidents: tuple[tuple[Event, ...], ...] = ()
    ended: tuple[Event, ...] = ()
    settled: tuple[Told, ...] = ()
    checks: tuple[FailedCheck, ...] = ()
    standing: tuple[str, ...] = ()
    reasonings: dict[str, str] = field(default_factory=dict)

    @property
    def is_news(self) -> bool:
        """Whether it is worth a message."""
        return bool(not self.run.succeeded or self.incidents or self.ended or self.settled or self.checks)


def compose(
    run: Run, findings: Findings, known: Memory | None, *, min_score: float
) -> tuple[Digest, Memory | None]:
    """Decide what is news, and what people know after it.

    Args:
        run: How the run ended.
        findings: What was found, as of now.
        known: What people know; None before the first good run, whose events and warnings they aren't told.
        min_score: The least peak score that is worth a message. An event in an incident of several sensors
            is worth one whatever its score: that many at once are no chance.

    Returns:
        The digest, and what is known once it is sent.
    """
    counts = {check.name: check.count for check in run.checks}
    if known is None:
        checks = tuple(check for check in run.checks if check.is_error)
        told = tuple(_told(event, ongoing=False) for event in findings.events)
        return Digest(run, checks=checks), Memory(told, counts) if run.succeeded else None
    told_before = {told.event_id: told for told in known.events}
    present = {event.event_id for event in findings.events}
    vanished = [told for told in known.events if told.event_id not in present]
    settled = [
        told for told in vanished if told.ongoing and findings.clock and not _overlap(told, findings.events)
    ]
    sensors = Counter(incident for incident, _ in {(e.incident_id, e.sensor_name) for e in findings.events})
    new: list[Event] = []
    ended: list[Event] = []
    told_after: list[Told] = []
    for event in findings.events:
        earlier = told_before.get(event.event_id) or _find_overlapping(event, vanished)
        if event.annotation is not None:
            # It is remembered only where it was told: withdrawing the annotation makes it news again.
            told_after += [_told(event, ongoing=False)] if earlier else []
        elif earlier is None:
            is_worth_it = event.peak_score >= min_score or sensors[event.incident_id] > 1
            if is_worth_it and findings.clock and event.end >= findings.clock - RECENT:
                new.append(event)
                told_after.append(_told(event, ongoing=event.ongoing))
        else:
            if earlier.ongoing and not event.ongoing:
                ended.append(event)
            # One that ended and goes on again is no news.
            told_after.append(_told(event, ongoing=earlier.ongoing and event.ongoing))
    told_after += [
        replace(told, ongoing=told.ongoing and not findings.clock)  # it is settled, or another one carries on
        for told in vanished
        if not findings.clock or told.end >= findings.clock - KEPT
    ]
    news = tuple(
        check for check in run.checks if check.is_error or check.count > known.checks.get(check.name, -1)
    )
    standing = tuple(check.name for check in run.checks if check not in news)
    digest = Digest(
        run, _group(new), tuple(ended), tuple(settled), news, standing, reasonings=findings.reasonings
    )
    if not run.succeeded:  # it may have ended before some checks: what they said last still stands
        counts = known.checks | counts
    return digest, Memory(tuple(told_after), counts)


def _told(event: Event, *, ongoing: bool) -> Told:
    return Told(event.event_id, event.sensor_name, event.start, event.end, ongoing)


def _find_overlapping(event: Event, vanished: Iterable[Told]) -> Told | None:
    """Return what people know of the same time of the sensor: an event that comes and goes is told once."""
    return next((told for told in vanished if _overlap(told, [event])), None)


def _overlap(told: Told, events: Iterable[Event]) -> bool:
    """Tell whether one of the events was at the same time at the same sensor."""
    return any(
        told.sensor_name == event.sensor_name and told.start <= event.end and event.start <= told.end
        for event in events
    )


def _group(events: list[Event]) -> tuple[tuple[Event, ...], ...]:
    """Put the events of each incident together; they come the strongest first, and so do the incidents."""
    incidents: dict[str, list[Event]] = {}
    for event in events:
        incidents.setdefault(event.incident_id, []).append(event)
    return tuple(map(tuple, incidents.values()))


def headline(digest: Digest) -> str:
    """Return the title of the message about a digest."""
    events = [event for incident in digest.incidents for event in incident]
    sensors = Counter(event.sensor_name for event in events)
    failed = sum(check.is_error for check in digest.checks)
    where = " ".join(next(iter(sensors)).split()) if len(sensors) == 1 else f"{len(sensors):,} sensors"
    parts = {
        "the run failed": not digest.run.succeeded,
        f"{counted(len(events), 'new event')} on {where}": events,
        counted(len(digest.ended), "event has ended", "events have ended"): digest.ended,
        counted(
            len(digest.settled), "event is no longer anomalous", "events are no longer anomalous"
        ): digest.settled,
        counted(failed, "check failed", "checks failed"): failed,
        counted(len(digest.checks) - failed, "check warns", "checks warn"): len(digest.checks) - failed,
    }
    return f"Sensors: {', '.join(part for part, is_said in parts.items() if is_said)}"
