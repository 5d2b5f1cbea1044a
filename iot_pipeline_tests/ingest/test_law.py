"""The law: whatever happened before, the content is that of a load from scratch.

It holds the last readable version of every file, the files that have vanished from the source included.
"""

import gzip
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from iot_pipeline.ingest.fragment import convert_object
from iot_pipeline.store import DirectoryStore
from iot_pipeline.warehouse import open_folder, readings_file
from iot_pipeline_tests.conftest import OTHER_SENSOR, Bucket, Reading, csv_of, row
from iot_pipeline_tests.ingest.faults import dying

pytestmark = pytest.mark.system

KEYS = ("data1/data_0.csv", "data1/data_1.csv", "data2/data_0.csv", "data2/data_1.csv.gz")
BROKEN = b"<html></html>"
LINES = (
    row("2013-01-31 23:30", value=1),
    row("2013-01-31 23:30", value=2),
    row("2013-01-31T22:30Z", value=1),
    row("2013-02-01 00:00", OTHER_SENSOR, 3),
    row("2013-02-01 00:00", OTHER_SENSOR, "nan"),
    row("2013-10-27 01:50", value=4),
    row("2013-10-27 02:30", value=5),
    row("2013-10-27 02:10", value=5),
    row("2013-10-27 02:10", OTHER_SENSOR.upper(), 5),
    row("2013-10-27 03:10", value=6),
    row("2013-03-31 02:30", value=7),
    "refused",
    "",
)
contents = st.one_of(
    st.lists(st.sampled_from(LINES), max_size=6).map(lambda lines: csv_of(*lines)),
    st.sampled_from([b"", BROKEN]),
)


def is_readable(content: bytes | None) -> bool:
    return content not in (None, BROKEN)


@cache
def readings_of(content: bytes) -> frozenset[Reading]:
    """Return the readings of one file."""
    with tempfile.TemporaryDirectory() as directory:
        bronze = Path(directory)
        bronze.joinpath("data.csv").write_bytes(content)
        source = DirectoryStore(bronze)
        info = convert_object(source, source.list_objects()[0], open_folder(bronze))
        rows = pq.read_table(bronze / readings_file(info.fragment))
        instants = rows["timestamp"].to_numpy().astype("datetime64[us]").astype(int)
        uuids, values = rows["sensor_uuid"].to_pylist(), rows["sensor_value"].to_pylist()
    return frozenset(zip(uuids, instants.tolist(), values, strict=True))


class Loads(RuleBasedStateMachine):
    """Files come, change, overlap and go; loads run, are repeated and die."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.bucket = Bucket(self.directory / "source", self.directory / "warehouse")
        self.bucket.source.joinpath("Timeseries").mkdir(parents=True)
        self.source: dict[str, bytes] = {}
        self.loaded: dict[str, bytes] = {}
        self.has_loaded = False

    def teardown(self) -> None:
        try:
            if self.has_loaded:
                self.compare_with_a_load_from_scratch()
        finally:
            shutil.rmtree(self.directory)

    @rule(key=st.sampled_from(KEYS), content=contents)
    def write(self, key: str, content: bytes) -> None:
        self.bucket.write(key, gzip.compress(content) if key.endswith(".gz") else content)
        self.source[key] = content

    @precondition(lambda self: self.source)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.source)))
        self.bucket.delete(key)
        del self.source[key]

    @rule()
    def load(self) -> None:
        report = self.bucket.load()
        assert report.rows_read == report.rows_loaded + report.rows_rejected + report.rows_duplicate
        self.loaded |= self.loadable()
        self.has_loaded = True
        self.check()
        broken = {f"Timeseries/{key}" for key, content in self.source.items() if not is_readable(content)}
        assert broken <= set(self.bucket.errors())

    @rule()
    def load_again(self) -> None:
        self.load()
        version = self.ledger_version()
        report = self.bucket.load()
        assert (report.files_new, report.files_changed, report.months) == (0, 0, ())
        assert self.ledger_version() == version

    @rule()
    def load_from_nothing(self) -> None:
        report = self.bucket.load(full_reload=True, allow_empty=True)
        assert report.files_new == len(self.source)
        self.loaded = dict(self.source)
        self.has_loaded = True
        self.check()

    @rule(step=st.integers(0, 60), full_reload=st.booleans())
    def load_and_die(self, step: int, full_reload: bool) -> None:  # noqa: FBT001
        version = self.ledger_version()
        with dying(step):
            self.bucket.load(full_reload=full_reload, allow_empty=True)
        if self.ledger_version() != version:
            self.loaded = dict(self.source) if full_reload else self.loaded | self.loadable()
            self.has_loaded = True
        if self.has_loaded:
            self.check()

    def loadable(self) -> dict[str, bytes]:
        """Return the files of the source but those whose last readable version stays."""
        return {
            key: content
            for key, content in self.source.items()
            if is_readable(content) or not is_readable(self.loaded.get(key))
        }

    def ledger_version(self) -> int:
        """Return the ledger's last version that lists files; 0 while there is none."""
        path = self.bucket.warehouse / "source_files"
        return DeltaTable(path).version() if DeltaTable.is_deltatable(str(path)) else 0

    def check(self) -> None:
        content = self.bucket.content()
        expected = frozenset().union(*map(readings_of, self.loaded.values()))
        assert content == sorted(expected)
        ((read, loaded, rejected, duplicate, least),) = self.bucket.sql(SUMS)
        assert loaded == len(content)
        assert read == loaded + rejected + duplicate
        assert least >= 0

    def compare_with_a_load_from_scratch(self) -> None:
        scratch = Bucket(self.directory / "scratch", self.directory / "scratch_warehouse")
        scratch.source.mkdir()
        for key, content in self.loaded.items():
            scratch.write(key, gzip.compress(content) if key.endswith(".gz") else content)
        scratch.load()
        assert scratch.content() == self.bucket.content()


SUMS = """
    SELECT coalesce(sum(rows_read), 0)::BIGINT, coalesce(sum(rows_loaded), 0)::BIGINT,
        coalesce(sum(rows_rejected), 0)::BIGINT, coalesce(sum(rows_duplicate), 0)::BIGINT,
        coalesce(min(least(rows_loaded, rows_rejected, rows_duplicate)), 0)
    FROM source_files
"""

TestLaw = Loads.TestCase
TestLaw.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)
