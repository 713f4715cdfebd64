"""The process above the processes of one job: starts them, waits for them, writes down how they ended.

`python -m recbandits.platforms.local.supervisor DIRECTORY LOCK`, with `job.json` in the directory; it is written in the
standard library alone, to be there at once.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

LOCK = "lock"


def write_json(file, value):
    """Write a file completely or not at all, also when other threads or processes write it at the same time."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    with open(descriptor, "w", encoding="utf-8") as written:
        written.write(json.dumps(value, indent=2) + "\n")
    os.replace(draft, file)


def supervise(directory, lock):
    """Run the replicas of the job in a directory to their end; `end.json` then has it.

    Args:
      directory: `pathlib.Path` with `job.json`.
      lock: file descriptor that every process of the job keeps open, which is how others see that it runs.
    """
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    job = json.loads((directory / "job.json").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", job["module"], *job["arguments"]]
    replicas = {}
    for number, config in enumerate(_cluster(job["replicas"])):
        log = (directory / (f"log-{number}.txt" if number else "log.txt")).open("ab")
        process = subprocess.Popen(
            command, env=os.environ | config, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock]
        )
        replicas[process.pid] = number
    code = 0
    while replicas:
        pid, status = os.wait()
        replicas.pop(pid, None)
        if not code and (code := os.waitstatus_to_exitcode(status)):
            for other in replicas:  # they would wait for the one that is gone
                os.kill(other, signal.SIGTERM)
    state = "stopped" if stopped else "failed" if code else "succeeded"
    write_json(directory / "end.json", {"state": state, "code": code, "ended": datetime.now(UTC).isoformat()})


def _cluster(replicas):
    """Variables that tell each replica who the others are, as Vertex AI does; none where it is alone."""
    if replicas == 1:
        return [{}]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(replicas)]
    chief, *workers = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    tasks = [("chief", 0), *(("worker", number) for number in range(replicas - 1))]
    cluster = {"chief": [chief], "worker": workers}
    return [
        {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})} for kind, index in tasks
    ]


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]))
