"""Servers as directories, with real processes."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from recbandits.platforms.local.services import Service, answers
from recbandits.platforms.protocol import PlatformError


def web(port):
    """Python's own web server."""
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path / "web", "server web")
    yield service
    service.stop()


def test_a_service_answers_when_started_and_leaves_nothing_when_stopped(service):
    assert (service.running, service.port, service.process, service.logs()) == (False, None, None, "")
    service.stop()
    service.start(web)
    assert service.running
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/") as answer:
        assert answer.status == 200
    assert "GET /" in service.logs()
    process = service.process
    service.stop()
    assert (service.running, service.process) == (False, None)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_all_who_start_a_service_at_once_get_the_same_one(service):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: service.start(web), range(4)))
    assert service.logs().count("Serving HTTP") == 1


def test_another_process_finds_it_and_ends_it(service):
    service.start(web)
    code = (
        "import sys; from pathlib import Path; from recbandits.platforms.local.services import Service\n"
        "found = Service(Path(sys.argv[1]), 'it'); print(found.process); found.stop(); print(found.running)"
    )
    process = service.process
    asked = subprocess.run([sys.executable, "-c", code, service.directory], capture_output=True, text=True)
    assert asked.stdout == f"{process}\nFalse\n"
    assert not service.running


def test_a_killed_service_comes_back_on_its_port(service):
    service.start(web)
    before = service.port, service.process
    service.kill()
    assert not service.running
    service.start(web)
    assert service.port == before[0]
    assert service.process != before[1]


def test_a_service_takes_another_port_where_its_own_was_taken(service):
    service.start(web)
    port = service.port
    service.kill()
    with socket.create_server(("127.0.0.1", port)):
        service.start(web)
        assert service.port != port


def test_a_service_that_does_not_start_says_its_last_words_of_this_time(service):
    for word in ("first", "second"):
        with pytest.raises(PlatformError, match=r"(?s)server web did not start.*ValueError: ") as refused:
            service.start(lambda port, word=word: [sys.executable, "-c", f"raise ValueError('{word}')"])
    assert "second" in str(refused.value)
    assert "first" not in str(refused.value)


def test_one_that_ignores_its_end_is_killed_with_what_it_started(service, monkeypatch):
    monkeypatch.setattr("recbandits.platforms.local.services._END", 0.2)
    stubborn = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(sys.argv[1:]); print(child.pid, flush=True); signal.pause()"
    )
    service.start(lambda port: [sys.executable, "-c", stubborn, *web(port)])
    service.stop()
    assert not service.running
    end = time.monotonic() + 30  # what it started is killed with it, and gone a moment later
    while answers(service.port) and time.monotonic() < end:
        time.sleep(0.05)
    assert not answers(service.port)


def test_variables_reach_the_server_and_are_remembered(service):
    code = (
        "import os, sys, http.server as h; print(os.environ['PLACE'], flush=True); h.test(port=int(os.environ['PORT']))"
    )
    service.start(lambda _: [sys.executable, "-c", code], lambda port: {"PLACE": "here", "PORT": str(port)})
    assert service.logs().startswith("here")
    assert service.variables == {"PLACE": "here", "PORT": str(service.port)}
