"""Which event is which: an event that was found before keeps its id when its sensor is judged anew.

Everything else about an event is a pure function of readings and annotations; its id remembers. While a
sensor has maintenance, what its events were before is remembered too, so that they have the same ids again
once the maintenance is withdrawn.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_ID_BYTES = 6
"""Long enough that a million events share none."""


class Span(NamedTuple):
    """When an event was.

    Attributes:
        kind: As in ``kinds.KINDS``.
        start: In microseconds since the epoch (UTC); of a gap the last reading before it.
        end: Likewise, the last flagged reading.
    """

    kind: str
    start: int
    end: int


def name_events(
    sensor_name: str,
    found: Sequence[Span],
    earlier: Sequence[tuple[str, Span]],
    instants: npt.NDArray[np.int64],
) -> list[str]:
    """Return an id for each event of a sensor, that of the earlier event that it overlaps most.

    Each earlier id is given once, first to an event that is as it was, then to the pair with the longest
    common time; of equal ones to that of the same kind. Events with no reading between them touch, and count
    as overlapping. An event that overlaps none gets a new id.

    Args:
        sensor_name: The sensor's name.
        found: Its events, in any order.
        earlier: The ids and times of those that were found before, likewise; an id may have several.
        instants: int64[n], when its readings were taken, ascending.
    """
    first, last = np.searchsorted(instants, [(span.start, span.end) for span in found] or [(0, 0)]).T
    old_spans = [(span.start, span.end) for _, span in earlier]
    old_first, old_last = np.searchsorted(instants, old_spans or [(0, 0)]).T
    touching = (first[:, None] <= old_last + 1) & (old_first <= last[:, None] + 1)
    pairs = []
    for position, old_position in np.argwhere(touching[: len(found), : len(earlier)]).tolist():
        new, (event_id, old) = found[position], earlier[old_position]
        common = min(new.end, old.end) - max(new.start, old.start)
        distance = abs(new.start - old.start) + abs(new.end - old.end)
        pairs.append((new != old, -common, new.kind != old.kind, distance, new, event_id, position))
    ids: dict[int, str] = {}
    taken: set[str] = set()
    for *_, event_id, position in sorted(pairs):
        if position not in ids and event_id not in taken:
            ids[position] = event_id
            taken.add(event_id)
    taken.update(event_id for event_id, _ in earlier)
    for position, span in sorted(enumerate(found), key=lambda entry: entry[1]):
        if position not in ids:
            ids[position] = _new_id(sensor_name, span, taken)
            taken.add(ids[position])
    return [ids[position] for position in range(len(found))]


def remember(
    before: Sequence[tuple[str, Span]],
    remembered: Sequence[tuple[str, Span]],
    now: Sequence[tuple[str, Span]],
) -> list[tuple[str, Span]]:
    """Return the events of a sensor that have vanished or changed, each as it was first.

    Args:
        before: The ids and times of its events when it was judged last.
        remembered: What was remembered then.
        now: As ``before``, after it has been judged anew.
    """
    return sorted((dict(before) | dict(remembered)).items() - set(now))


def _new_id(sensor_name: str, span: Span, taken: set[str]) -> str:
    attempt = 0
    while True:
        text = repr((sensor_name, span.kind, span.start, attempt))
        event_id = hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=_ID_BYTES).hexdigest()
        if event_id not in taken:
            return event_id
        attempt += 1
