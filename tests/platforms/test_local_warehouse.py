"""The warehouse of this machine: the contract with a real process, which is killed, locked out and short of disk."""

import re
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from warehouse_contract import START, WarehouseContract, at, shown, told

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.local.warehouse import DuckWarehouse
from recbandits.platforms.local.warehouse_client import LocalWarehouse
from recbandits.platforms.protocol import PlatformError


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process for all tests that leave it as they found it."""
    warehouse = choose(Config(artifacts=str(tmp_path_factory.mktemp("artifacts")))).warehouse
    yield warehouse
    warehouse.stop()
    assert not warehouse.service.running


@pytest.fixture
def warehouse(one):
    """An empty one."""
    yield one
    one._change(
        [f"DELETE FROM {name} WHERE TRUE" for name in ("interactions", "rewards", "quarantine", "verdicts")], {}
    )


class TestLocalWarehouse(WarehouseContract):
    """A client and a process."""


def test_what_was_acknowledged_survives_any_kill(warehouse):
    """4 threads write event after event; 5 kills meanwhile: nobody notices, every event is there once."""
    done = threading.Event()

    def write(thread):
        number = 0
        while not done.is_set():
            warehouse.write([shown(f"{thread} {number}", number), told(f"{thread} {number}", number, 1.0)])
            number += 1
        return number

    with ThreadPoolExecutor(4) as pool:
        numbers = [pool.submit(write, thread) for thread in range(4)]
        for kill in range(5):
            rows = warehouse.state()["rewards"]["rows"]
            while warehouse.state()["rewards"]["rows"] < rows + 1 + kill:
                pass
            warehouse.service.kill()
        done.set()
        events = {f"{thread} {k}" for thread, number in enumerate(numbers) for k in range(number.result())}
    table = warehouse.decisions(START, at(10_000), 5, 0.0)
    assert sorted(table["event_id"].to_pylist()) == sorted(events)
    counts = warehouse.counts(START, at(10_000), 5)
    assert counts._asdict() == dict.fromkeys(counts._fields, 0) | {"total": len(events), "joined": len(events)}


def test_writers_at_once_are_each_told_their_own(warehouse):
    """Of 64 writers every two write the same event: one of each pair is told that it was new."""
    with ThreadPoolExecutor(16) as pool:
        new = list(pool.map(lambda k: warehouse.write([shown(f"{k // 2}", 0)]), range(64)))
    assert [first + second for first, second in zip(new[::2], new[1::2], strict=True)] == [1] * 32


def test_all_processes_share_it(warehouse):
    config = Config(artifacts=str(warehouse.service.directory.parent))
    warehouse.write([shown("a", 0)])
    code = (
        "import sys\nfrom recbandits.config import Config\nfrom recbandits.platforms import choose\n"
        f"print(choose(Config(artifacts={config.artifacts!r})).warehouse.state()['interactions']['rows'])\n"
        "print(sorted({'tensorflow', 'duckdb', 'sqlglot'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split("\n")[:2] == ["1", "[]"], "a client needs neither DuckDB nor TensorFlow"


def test_a_stopped_one_starts_again_with_all_it_had(warehouse):
    warehouse.write([shown("a", 0)])
    warehouse.stop()
    assert not warehouse.service.running
    assert warehouse.state()["interactions"]["rows"] == 1
    assert warehouse.service.running
    assert warehouse.service.logs() == ""


def test_a_full_disk_is_one_sentence_and_recovers(warehouse):
    """The process may not write 100 kB more; events are written one after the other until it says so."""
    warehouse.write([shown("a", 0)])
    file = warehouse.service.directory / "warehouse.duckdb.wal"
    limit = file.stat().st_size + 100_000
    resource.prlimit(warehouse.service.process, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    kept, error = 1, ""
    while not error:
        try:
            warehouse.write([shown(f"{kept} {k}", 0) for k in range(50)])
            kept += 50
        except PlatformError as refusal:
            error = str(refusal)
    assert re.fullmatch(r"warehouse .* could not be written to: .*File too large", error)
    assert warehouse.state()["interactions"]["rows"] == kept, "it goes on answering"
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(warehouse.service.process, resource.RLIMIT_FSIZE, limits)
    assert warehouse.write([shown(f"{kept} {k}", 0) for k in range(50)]) == 50
    warehouse.service.kill()
    assert warehouse.state()["interactions"]["rows"] == kept + 50


def test_a_broken_database_is_opened_again(warehouse):
    """A checkpoint that fails makes DuckDB give up: the process ends after its answer, and the next one has it all."""
    warehouse.write([shown(str(k), 0) for k in range(500)])
    process = warehouse.service.process
    resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    with pytest.raises(PlatformError, match="could not be changed"):
        warehouse._change(["CHECKPOINT"], {})
    assert warehouse.write([shown("later", 0)]) == 1
    assert warehouse.state()["interactions"]["rows"] == 501
    assert warehouse.service.process != process


def test_a_file_that_another_process_owns_is_one_sentence(tmp_path):
    """Whoever opens the file beside the process, or before it."""
    warehouse = LocalWarehouse(Config(artifacts=str(tmp_path)))
    file = warehouse.service.directory / "warehouse.duckdb"
    with DuckWarehouse(file), pytest.raises(PlatformError, match=r"could not be opened: .*lock on file"):
        warehouse.write([shown("a", 0)])
    assert warehouse.write([shown("a", 0)]) == 1
    with pytest.raises(PlatformError, match="could not be opened"):
        DuckWarehouse(file)
    warehouse.stop()
