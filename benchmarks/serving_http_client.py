"""Clients of a prediction server: python -m benchmarks.serving_http_client PORT CLIENTS SECONDS < bodies.json."""

import asyncio
import itertools
import json
import sys
import time


async def ask(port, requests, end, taken):
    """Send one request after the other on one connection until `end`, and keep how long each took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        start = time.perf_counter()
        if start > end:
            break
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.decode()}{body.decode()}")
        taken.append(time.perf_counter() - start)
    writer.close()


async def main(port, clients, seconds):
    """Print the seconds of all requests as JSON."""
    requests = []
    for body in json.load(sys.stdin):
        content = json.dumps(body).encode()
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
        requests.append(head.encode() + b"\r\n\r\n" + content)
    end, taken = time.perf_counter() + seconds, []
    await asyncio.gather(*(ask(port, itertools.cycle(requests), end, taken) for _ in range(clients)))
    print(json.dumps(taken))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
