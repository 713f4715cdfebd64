"""The contract of messages, on this machine and on Google's Pub/Sub emulator."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from google.cloud.pubsub_v1 import SubscriberClient
from messages_contract import MessagesContract

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.gcp.messages import GcpMessages
from tests.sockets import free_ports

PATIENCE = 60  # seconds for the emulator to start, and for a message to arrive


class TestLocalMessages(MessagesContract):
    """SQLite on this machine."""

    @pytest.fixture
    def messages(self, tmp_path):
        return choose(Config(artifacts=str(tmp_path))).messages

    @pytest.fixture
    def take(self, messages):
        def take(subscription, number):
            received = messages.take(subscription, 100)
            assert len(received) == number
            messages.settle(subscription, [message.number for message in received])
            return [(message.data, message.attributes) for message in received]

        return take


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    """Address of Google's Pub/Sub emulator: of the one that the environment names, or of one that gcloud starts."""
    if host := os.environ.get("PUBSUB_EMULATOR_HOST"):
        yield host
        return
    if not shutil.which("gcloud"):
        pytest.skip("needs Google's Pub/Sub emulator: set PUBSUB_EMULATOR_HOST, or install it for gcloud")
    folder = tmp_path_factory.mktemp("emulator")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = ["gcloud", "beta", "emulators", "pubsub", "start", f"--host-port={address}", f"--data-dir={folder}"]
    with (folder / "log").open("wb") as log:
        options = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, "start_new_session": True}
        process = subprocess.Popen([*command, "--quiet"], **options)
    try:
        deadline = time.monotonic() + PATIENCE
        while b"Server started" not in (output := (folder / "log").read_bytes()):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"gcloud does not start the Pub/Sub emulator: {output[-300:].decode(errors='replace')}")
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # gcloud leads a session of its own, in which the emulator is
        process.wait()


class TestGcpMessagesOnTheEmulator(MessagesContract):
    """The adapter of Google Cloud as it is."""

    @pytest.fixture
    def messages(self, emulator, monkeypatch, tmp_path):
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator)
        config = Config(platform="gcp", project="movie-lab-42", artifacts=str(tmp_path))
        return GcpMessages(config)

    @pytest.fixture
    def take(self, messages):
        client = SubscriberClient()

        def take(subscription, number):
            received, deadline = [], time.monotonic() + PATIENCE
            if number == 0:
                request = {"subscription": subscription, "max_messages": 1, "return_immediately": True}
                return list(client.pull(request=request).received_messages)
            while len(received) < number and time.monotonic() < deadline:
                pulled = client.pull(request={"subscription": subscription, "max_messages": 100}).received_messages
                received += [(each.message.data, dict(each.message.attributes)) for each in pulled]
                ids = [each.ack_id for each in pulled]
                client.acknowledge(request={"subscription": subscription, "ack_ids": ids})
            assert len(received) == number
            return received

        return take
