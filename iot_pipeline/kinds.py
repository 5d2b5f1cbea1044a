"""Kinds of anomalies and annotations, reasoning and numbers in words: for all that is shown to people."""

KINDS = {
    "spike": "one or two readings far from where the sensor should be; the next ones are regular again",
    "burst": "a few readings in a row, up to a hundred, far from where the sensor should be",
    "level_shift": "a longer time in which all readings lie too high or too low by about the same amount",
    "drift": "readings that move away from where the sensor should be, or back to it, step by step",
    "stuck": "the same value over and over, from a sensor whose values usually change",
    "variance": "readings that scatter much more than this sensor's usually do",
    "gap": "no readings for much longer than usual, from the last reading before to the first one after",
}
"""What each kind means to somebody who looks after the sensors, by the name that the tables use."""

COLOURS = {
    "spike": "#D55E00",
    "burst": "#E69F00",
    "level_shift": "#CC79A7",
    "stuck": "#000000",
    "drift": "#009E73",
    "variance": "#56B4E9",
    "gap": "#8A6D1B",
}
"""Okabe and Ito's palette, which colour-blind people can tell apart; markers differ for print in grey."""

ANNOTATIONS = {
    "false_alarm": "nothing was wrong: an event in this time is neither alerted nor counted",
    "confirmed": "something was wrong: an event in this time is true",
    "maintenance": "somebody worked on the sensor: readings in this time are neither learnt from nor flagged",
}
"""What people can say about a sensor; of several that an event overlaps the first counts."""


def title(kind: str) -> str:
    """Return a kind as people write it, like ``level shift``."""
    return kind.replace("_", " ")


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number of things, like ``1 reading`` or ``3 readings``; by default the plural has an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def in_words(reasoning: str) -> str:
    """Return a sensor's reasoning without the figures at its end."""
    return reasoning.partition(" In figures:")[0]
