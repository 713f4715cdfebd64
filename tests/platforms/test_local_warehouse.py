"""The file of the local warehouse: processes that are killed, restricted SQL statements, a full disk."""

import multiprocessing
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from warehouse_contract import START, decision, join, time_at

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.protocol import PlatformError

WRITER = """
import sys
from warehouse_contract import decision, reward
from recbandits.platforms.local.warehouse import LocalWarehouse
warehouse, name = LocalWarehouse(sys.argv[1]), sys.argv[2]
for number in range(10**6):
    warehouse.write([decision(f"{name}-{number}", number), reward(f"{name}-{number}", number, 1.0)])
    print(f"{name}-{number}", flush=True)
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "private" / "warehouse.sqlite"


def start(code, *arguments):
    folder = os.path.dirname(__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, folder])}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, stdout=subprocess.PIPE)


def test_acknowledged_events_survive_sigkill_of_their_writer(file):
    """2 processes write event after event until SIGKILL: every acknowledged pair is stored exactly once."""
    warehouse, acknowledged_ids = LocalWarehouse(file), set()
    for attempt in range(2):
        writers = [start(WRITER, file, f"{attempt}-{number}") for number in range(2)]
        for writer in writers:
            for _ in range(20):
                acknowledged_ids.add(writer.stdout.readline().decode().strip())
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            acknowledged_ids |= set(writer.communicate()[0].decode().split("\n")[:-1])
        table = warehouse.decisions(START, time_at(10**6), join(5, 0.0))
        assert acknowledged_ids <= set(table["event_id"].to_pylist())
        counts = warehouse.counts(START, time_at(10**6), join(5))
        assert counts._asdict() == dict.fromkeys(counts._fields, 0) | {"total": len(table), "joined": len(table)}
    assert len(acknowledged_ids) >= 80


def test_concurrent_writers_each_get_their_own_count(file):
    """Of 64 writers every two write the same event: one write of each pair counts it as new."""
    warehouse = LocalWarehouse(file)
    with ThreadPoolExecutor(16) as pool:
        new = list(pool.map(lambda k: warehouse.write([decision(f"{k // 2}", 0)]), range(64)))
    assert [first + second for first, second in zip(new[::2], new[1::2], strict=True)] == [1] * 32


def test_concurrent_queries_read_a_prefix_of_the_committed_events(file):
    """Events are written in the order of their numbers: a query that returns n rows returns the first n."""
    warehouse, reader, is_finished = LocalWarehouse(file), LocalWarehouse(file), threading.Event()

    def write():
        for number in range(200):
            warehouse.write([decision(str(number), number)])
        is_finished.set()

    with ThreadPoolExecutor(1) as pool:
        insertion = pool.submit(write)
        while not is_finished.is_set() and not insertion.done():
            events = reader.decisions(START, time_at(1000), join(1, 0.0))["event_id"].to_pylist()
            assert events == [str(number) for number in range(len(events))]
        insertion.result()
    assert reader.state()["interactions"]["rows"] == 200


def test_processes_share_the_file_without_tensorflow_a_client_of_google_a_server_or_a_port(tmp_path):
    warehouse = choose(Config(artifacts=str(tmp_path))).warehouse
    warehouse.write([decision("a", 0)])
    code = (
        "import sys, psutil\nfrom recbandits.config import Config\nfrom recbandits.platforms import choose\n"
        "platform = choose(Config(artifacts=sys.argv[1]))\nwarehouse = platform.warehouse\nwarehouse.write([])\n"
        "platform.messages.publisher('projects/p/topics/t').send([])\n"
        "heavy = {'tensorflow', 'duckdb', 'sqlglot', 'grpc', 'google.cloud.pubsub_v1'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "me = psutil.Process()\nprint(warehouse.state()['interactions']['rows'], me.children(), me.net_connections())"
    )
    assert start(code, tmp_path).communicate()[0].decode().split("\n") == ["[]", "1 [] []", ""]


def test_only_the_owner_can_read_the_file(file):
    LocalWarehouse(file).write([decision("a", 0)])
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("SELECT * FROM read_text('/etc/passwd')", "could not be asked: Permission Error"),
        ("SELECT * FROM read_csv('/etc/passwd')", "could not be asked: Permission Error"),
        ("COPY interactions TO '{folder}/stolen.csv'", "must be one query, got COPY"),
        ("SET enable_external_access = true", "must be one query, got SET"),
        ("DELETE FROM interactions WHERE TRUE", "statement must be one query, got DELETE"),
        ("SELECT 1; SELECT 2", "one statement is expected, got 2"),
        ("ATTACH '{folder}/stolen.db' AS other", "could not be asked: Invalid expression"),
        ("LOAD httpfs", "statement must be one query, got LOAD"),
        ("SELECT * FROM enable_logging('{folder}/stolen.csv')", "configuration has been locked"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "could not be asked: maximum recursion depth"),
    ],
    ids=range(10),
)
def test_a_statement_can_only_read_tables(file, tmp_path, statement, sentence):
    warehouse = LocalWarehouse(file)
    warehouse.write([decision("a", 0)])
    with pytest.raises(PlatformError, match=sentence):
        warehouse.query(statement.replace("{folder}", str(tmp_path)))
    assert list(tmp_path.iterdir()) == [file.parent]
    assert warehouse.state()["interactions"]["rows"] == 1


def test_a_folder_that_was_there_keeps_its_mode_and_the_file_is_its_owners_alone(tmp_path):
    tmp_path.chmod(0o755)
    LocalWarehouse(tmp_path / "a.sqlite").write([decision("a", 0)])
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_no_record_is_written_to_the_working_directory():
    """DuckDB would put what does not fit into memory there, for every user to read."""
    table = LocalWarehouse().query("SELECT current_setting('temp_directory') AS folder")
    assert table.to_pylist() == [{"folder": ""}]


def test_dropped_rows_vanish_from_the_copies_of_other_objects(file):
    """The row written after the drop has the number of the last one before it."""
    warehouse, other = LocalWarehouse(file), LocalWarehouse(file)
    warehouse.write([decision("old", 0)])
    assert other.state()["interactions"]["rows"] == 1
    warehouse.drop_before(time_at(10))
    warehouse.write([decision("new", 20)])
    assert other.decisions(START, time_at(100), join(1, 0.0))["event_id"].to_pylist() == ["new"]


def test_a_file_made_anew_in_place_of_another_is_queried_from_its_first_row(file):
    """Both have one row, so that the number of the last one tells nothing."""
    warehouse = LocalWarehouse(file)
    warehouse.write([decision("old", 0)])
    assert warehouse.state()["interactions"]["rows"] == 1
    shutil.rmtree(file.parent)
    LocalWarehouse(file).write([decision("new", 0)])
    assert warehouse.decisions(START, time_at(100), join(1, 0.0))["event_id"].to_pylist() == ["new"]


def use_in_child(warehouse, pipe):
    pipe.send((warehouse.write([decision("child", 1)]), warehouse.state()["interactions"]["rows"]))


def test_a_forked_process_has_a_connection_and_a_copy_of_its_own(file):
    warehouse = LocalWarehouse(file)
    warehouse.write([decision("parent", 0)])
    assert warehouse.state()["interactions"]["rows"] == 1
    receiver, sender = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=use_in_child, args=(warehouse, sender))
    child.start()
    assert receiver.recv() == (1, 2)
    child.join()
    assert warehouse.state()["interactions"]["rows"] == 2
    assert warehouse.write([decision("again", 2)]) == 1


def test_a_file_of_another_format_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "a").write_text("text " * 1000)
    with pytest.raises(PlatformError, match=r"a could not be written: file is not a database"):
        LocalWarehouse(tmp_path / "a").write([decision("a", 0)])


def fill_the_disk(file, pipe):
    """Write until the disk is full, once more when it has space again, then end abruptly."""
    warehouse, batches, error = LocalWarehouse(file), [], ""
    warehouse.write([decision("first", 0)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    for number in range(1000):
        try:
            warehouse.write([decision(f"{number} {k}", number) for k in range(50)])
            batches.append(number)
        except PlatformError as refusal:
            error = str(refusal)
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    new = warehouse.write([decision(f"{len(batches)} {k}", len(batches)) for k in range(50)])
    pipe.send((batches, error, new))
    os._exit(9)


def test_a_full_disk_raises_one_sentence_and_loses_no_event(file):
    """Files may have 200 kB: acknowledged batches are stored, the refused one is not, and can be written later."""
    receiver, sender = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=fill_the_disk, args=(file, sender))
    child.start()
    batches, error, new = receiver.recv()
    child.join()
    assert error.startswith(f"{file} could not be written: ")
    assert "\n" not in error
    assert new == 50
    warehouse = LocalWarehouse(file)
    assert warehouse.state()["interactions"]["rows"] == 1 + 50 * (len(batches) + 1)
    assert len(warehouse.decisions(START, time_at(2000), join(1, 0.0))) == 1 + 50 * (len(batches) + 1)
