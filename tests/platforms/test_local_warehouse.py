"""The warehouse's file: shared by processes that are killed, out of reach of statements, and on a full disk."""

import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from warehouse_contract import START, at, shown

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.protocol import PlatformError

WRITER = """
import sys
from warehouse_contract import shown, told
from recbandits.platforms.local.warehouse import LocalWarehouse
warehouse, name = LocalWarehouse(sys.argv[1]), sys.argv[2]
for number in range(10**6):
    warehouse.write([shown(f"{name}-{number}", number), told(f"{name}-{number}", number, 1.0)])
    print(f"{name}-{number}", flush=True)
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "private" / "warehouse.sqlite"


def start(code, *arguments):
    folder = os.path.dirname(__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, folder])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, stdout=subprocess.PIPE)


def test_what_was_acknowledged_survives_sigkill_of_its_writer(file):
    """2 processes write event after event until SIGKILL: every acknowledged pair is there once, nothing twice."""
    warehouse, acknowledged = LocalWarehouse(file), set()
    for turn in range(2):
        writers = [start(WRITER, file, f"{turn}-{number}") for number in range(2)]
        for writer in writers:
            for _ in range(20):
                acknowledged.add(writer.stdout.readline().decode().strip())
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            acknowledged |= set(writer.communicate()[0].decode().split("\n")[:-1])
        table = warehouse.decisions(START, at(10**6), 5, 0.0)
        assert acknowledged <= set(table["event_id"].to_pylist())
        counts = warehouse.counts(START, at(10**6), 5)
        assert counts._asdict() == dict.fromkeys(counts._fields, 0) | {"total": len(table), "joined": len(table)}
    assert len(acknowledged) >= 80


def test_writers_at_once_are_each_told_their_own(file):
    """Of 64 writers every two write the same event: one of each pair is told that it was new."""
    warehouse = LocalWarehouse(file)
    with ThreadPoolExecutor(16) as pool:
        new = list(pool.map(lambda k: warehouse.write([shown(f"{k // 2}", 0)]), range(64)))
    assert [first + second for first, second in zip(new[::2], new[1::2], strict=True)] == [1] * 32


def test_queries_beside_writers_see_a_prefix_of_what_was_committed(file):
    """Events are written in the order of their numbers: whoever sees n rows sees the first n."""
    warehouse, reader, done = LocalWarehouse(file), LocalWarehouse(file), threading.Event()

    def write():
        for number in range(200):
            warehouse.write([shown(str(number), number)])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set() and not writing.done():
            events = reader.decisions(START, at(1000), 0, 0.0)["event_id"].to_pylist()
            assert events == [str(number) for number in range(len(events))]
        writing.result()
    assert reader.state()["interactions"]["rows"] == 200


def test_all_processes_share_it_without_tensorflow_a_server_or_a_port(tmp_path):
    warehouse = choose(Config(artifacts=str(tmp_path))).warehouse
    warehouse.write([shown("a", 0)])
    code = (
        "import sys, psutil\nfrom recbandits.config import Config\nfrom recbandits.platforms import choose\n"
        "warehouse = choose(Config(artifacts=sys.argv[1])).warehouse\n"
        "warehouse.write([])\nprint(sorted({'tensorflow', 'duckdb', 'sqlglot'} & set(sys.modules)))\n"
        "me = psutil.Process()\nprint(warehouse.state()['interactions']['rows'], me.children(), me.net_connections())"
    )
    assert start(code, tmp_path).communicate()[0].decode().split("\n") == ["[]", "1 [] []", ""]


def test_only_its_owner_can_read_it(file):
    LocalWarehouse(file).write([shown("a", 0)])
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", "could not be asked: Permission Error"),
        ("COPY interactions TO '/tmp/stolen.csv'", "could not be asked: "),
        ("SET enable_external_access = true", "could not be asked: "),
        ("DELETE FROM interactions WHERE TRUE", "statement must be one query, got DELETE"),
        ("SELECT 1; SELECT 2", "one statement is expected, got 2"),
    ],
)
def test_a_statement_reads_tables_and_nothing_else(file, statement, sentence):
    warehouse = LocalWarehouse(file)
    warehouse.write([shown("a", 0)])
    with pytest.raises(PlatformError, match=sentence):
        warehouse.query(statement)
    assert warehouse.state()["interactions"]["rows"] == 1


def test_what_one_object_drops_is_gone_from_the_copies_of_others(file):
    """The row written after the drop has the number of the last one before it."""
    warehouse, other = LocalWarehouse(file), LocalWarehouse(file)
    warehouse.write([shown("old", 0)])
    assert other.state()["interactions"]["rows"] == 1
    warehouse.drop_before(at(10))
    warehouse.write([shown("new", 20)])
    assert other.decisions(START, at(100), 0, 0.0)["event_id"].to_pylist() == ["new"]


def use_in_child(warehouse, pipe):
    pipe.send((warehouse.write([shown("child", 1)]), warehouse.state()["interactions"]["rows"]))


def test_a_forked_process_has_a_connection_and_a_copy_of_its_own(file):
    warehouse = LocalWarehouse(file)
    warehouse.write([shown("parent", 0)])
    assert warehouse.state()["interactions"]["rows"] == 1
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=use_in_child, args=(warehouse, theirs))
    child.start()
    assert ours.recv() == (1, 2)
    child.join()
    assert warehouse.state()["interactions"]["rows"] == 2
    assert warehouse.write([shown("again", 2)]) == 1


def test_a_file_that_is_no_warehouse_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "a").write_text("text " * 1000)
    with pytest.raises(PlatformError, match=r"a could not be written: file is not a database"):
        LocalWarehouse(tmp_path / "a").write([shown("a", 0)])


def fill_the_disk(file, pipe):
    """Write until the disk is full, then with room again, then end without a word."""
    warehouse, kept, error = LocalWarehouse(file), [], ""
    warehouse.write([shown("first", 0)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    for number in range(1000):
        try:
            warehouse.write([shown(f"{number} {k}", number) for k in range(50)])
            kept.append(number)
        except PlatformError as refusal:
            error = str(refusal)
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    new = warehouse.write([shown(f"{len(kept)} {k}", len(kept)) for k in range(50)])
    pipe.send((kept, error, new))
    os._exit(9)


def test_a_full_disk_is_one_sentence_and_loses_nothing(file):
    """Files may have 200 kB: what was acknowledged is there, what was refused is not, and goes in later."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=fill_the_disk, args=(file, theirs))
    child.start()
    kept, error, new = ours.recv()
    child.join()
    assert error.startswith(f"{file} could not be written: ")
    assert "\n" not in error
    assert new == 50
    warehouse = LocalWarehouse(file)
    assert warehouse.state()["interactions"]["rows"] == 1 + 50 * (len(kept) + 1)
    assert len(warehouse.decisions(START, at(2000), 0, 0.0)) == 1 + 50 * (len(kept) + 1)
