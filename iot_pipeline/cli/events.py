"""The commands about what is anomalous, and what people say to it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from iot_pipeline.cli.commands import command, gives_rows
from iot_pipeline.kinds import ANNOTATIONS, KINDS, title

if TYPE_CHECKING:
    from iot_pipeline.cli.output import Output


def _explaining(kinds: dict[str, str]) -> type[click.Command]:
    """Return a command that has kinds in its help."""

    class Explaining(click.Command):
        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Kinds"):
                formatter.write_dl(list(kinds.items()))
            super().format_epilog(ctx, formatter)

    return Explaining


@command(
    "iot-pipeline anomalies --since yesterday",
    "iot-pipeline anomalies --since '7 days ago' --sensor sensor_00000 -o events.csv",
    cls=_explaining({title(kind): text for kind, text in KINDS.items()}),
)
@click.option("--since", metavar="TIME", help="Only events that end then or later.")
@click.option("--until", metavar="TIME", help="Only events that start then or earlier.")
@click.option("--sensor", metavar="SENSOR", help="Only events of this sensor.")
@gives_rows
def anomalies(*, since: str | None, until: str | None, sensor: str | None, output: "Output") -> None:
    """List what is anomalous, event by event, the newest first.

    TIME is like 2013-10-05T12:00, yesterday or '7 days ago'; without a zone it means Europe/Berlin. An event
    with a peak score of 8 is as rare as a Gaussian reading 8 standard deviations off.
    """
    import pyarrow.compute as pc

    from iot_pipeline.warehouse.frames import get_anomalies

    events = get_anomalies(since, until, sensor, as_="arrow").drop_columns(["mean_residual"])
    position = events.schema.get_field_index("peak_score")
    scores = pc.round(events["peak_score"], 1)
    output.write(events.set_column(position, "peak_score", scores).to_reader())


@command("iot-pipeline sensors", "iot-pipeline sensors -o sensors.csv")
@gives_rows
def sensors(*, output: "Output") -> None:
    """List all sensors: what the mapping says of them, their readings, models and anomalies."""
    from iot_pipeline.cli.output import BATCH_ROWS
    from iot_pipeline.warehouse.events import find_sensors, rank_sensors
    from iot_pipeline.warehouse.query import connect

    with connect() as connection:
        judged = rank_sensors(connection).project("sensor_name, model, n_anomalies")
        rows = find_sensors(connection).join(judged, "sensor_name", how="left").order("sensor_name")
        output.write(rows.to_arrow_reader(BATCH_ROWS))


@command(
    "iot-pipeline annotate sensor_00000 2013-10-05 2013-10-06 maintenance --note 'new battery'",
    "iot-pipeline annotate 'hall_*' 2013-10-05T12:00 2013-10-05T13:00 false_alarm",
    "iot-pipeline annotate --from annotations.csv",
    "iot-pipeline annotate --list",
    cls=_explaining(ANNOTATIONS),
)
@click.argument("said", nargs=-1, metavar="[SENSOR START END KIND]")
@click.option("--note", default="", metavar="TEXT", help="Anything.")
@click.option("--author", default="", metavar="NAME", help="Who says it; by default the user.")
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take all of a CSV file with the header sensor,start,end,kind,note,author, or none.",
)
@click.option("--list", "list_", is_flag=True, help="List those that stand, the latest first.")
@click.option("--withdraw", "withdrawn", metavar="ID", help="Take one back.")
@gives_rows
def annotate(
    *,
    said: tuple[str, ...],
    note: str,
    author: str,
    file: Path | None,
    list_: bool,
    withdrawn: str | None,
    output: "Output",
) -> None:
    """Say what happened to SENSOR (a name, or a pattern of names) from START to END, both included.

    Times without a zone mean Europe/Berlin. Prints the id by which it can be withdrawn.
    Maintenance counts from the next judgement on: iot-pipeline load --only anomalies
    """
    from iot_pipeline.anomalies import annotations

    ways = [bool(said), file is not None, list_, withdrawn is not None]
    if sum(ways) != 1 or (said and len(said) != len(("SENSOR", "START", "END", "KIND"))):
        raise click.UsageError("Give SENSOR START END KIND, or one of --from, --list and --withdraw.")
    if list_:
        output.write(annotations.list_annotations().to_reader())
    elif withdrawn is not None:
        annotations.withdraw(withdrawn, author=author)
        click.echo(f"{withdrawn} is withdrawn")
    elif file is not None:
        for annotation_id in annotations.annotate_from(file, author=author):
            click.echo(annotation_id)
    else:
        sensor, start, end, kind = said
        click.echo(annotations.annotate(sensor, start, end, kind, note=note, author=author))
