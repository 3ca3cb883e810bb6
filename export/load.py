"""Sends a bounded number of requests to TF Serving and prints how long they took.

    python export/load.py runs/models/ranker/1 --requests 2000 --rows 100 --threads 4

The rows are the version's golden rows, repeated. Only a server of this machine is
asked, unless `--remote` says that its owner knows. A request is sent once: what fails
is counted. Needs the extra `.[serving]`.
"""

import argparse
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_client import GrpcClient
from rest_client import RestClient, RestError

from tfmtl.serving.golden import read_golden
from tfmtl.serving.rows import repeat

Client = GrpcClient | RestClient
MOST = {"requests": 1_000_000, "rows": 100_000, "threads": 1000}
PORTS = {"grpc": 8500, "rest": 8501}


@dataclass(frozen=True)
class Report:
    """What a server did with the requests.

    Args:
        milliseconds: The time of each request that was answered.
        errors: How many requests failed, by reason.
        seconds: The time of all together.
        rows: The rows of one request.
    """

    milliseconds: list[float]
    errors: Counter[str]
    seconds: float
    rows: int

    def __str__(self) -> str:
        answered, failed = len(self.milliseconds), sum(self.errors.values())
        lines = [f"{answered} of {answered + failed} requests answered"]
        if answered:
            p50, p95, p99 = np.percentile(self.milliseconds, [50, 95, 99])
            lines.append(f"p50 {p50:.2f}  p95 {p95:.2f}  p99 {p99:.2f} ms")
            lines.append(f"{answered * self.rows / self.seconds:,.0f} rows/s")
        lines += [f"{count} x {reason}" for reason, count in self.errors.most_common()]
        return "\n".join(lines)


def load(
    connect: Callable[[], Client],
    rows: Mapping[str, Any],
    *,
    requests: int,
    threads: int,
    signature: str = "serving_default",
) -> Report:
    """Sends the same rows again and again.

    Args:
        connect: Makes a client; each thread has its own.
        rows: The columns of each request.
        requests: The number of requests.
        threads: How many are under way at a time.
        signature: The signature's name.

    Returns:
        The times and the errors.

    Example:
        `print(load(GrpcClient, {"age": [[31.0]]}, requests=100, threads=2))`
    """

    def send(number: int) -> tuple[list[float], Counter[str]]:
        milliseconds, errors = [], Counter[str]()
        with connect() as client:
            for _ in range(number, requests, threads):
                start = time.perf_counter()
                try:
                    client.predict(rows, signature)
                except (grpc.RpcError, RestError, OSError) as error:
                    errors[_reason(error)] += 1
                else:
                    milliseconds.append(1e3 * (time.perf_counter() - start))
        return milliseconds, errors

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(send, range(threads)))
    return Report(
        [each for milliseconds, _ in answers for each in milliseconds],
        sum((errors for _, errors in answers), Counter[str]()),
        time.perf_counter() - start,
        len(next(iter(rows.values()))),
    )


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return str(error.code().name)
    return f"HTTP {error.status}" if isinstance(error, RestError) else repr(error)


def is_loopback(address: str) -> bool:
    """Tells whether `host:port` is of this machine, without asking a name server.

    Example:
        `is_loopback("127.0.0.1:8500")  # True`
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Loads a server and prints the report.

    Args:
        arguments: Words of the command line. Defaults to the process's own.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", type=Path, help="the version's folder")
    parser.add_argument("--protocol", choices=PORTS, default="grpc")
    parser.add_argument("--address", help="default: this machine, the usual port")
    parser.add_argument("--model", default="ranker")
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100, help="of one request")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--remote", action="store_true", help="not this machine")
    options = parser.parse_args(arguments)
    address = options.address or f"127.0.0.1:{PORTS[options.protocol]}"
    if not options.remote and not is_loopback(address):
        parser.error(
            f"--address should be of this machine unless --remote. Received: {address}"
        )
    for name, most in MOST.items():
        given = getattr(options, name)
        if not 1 <= given <= most:
            parser.error(f"--{name} should be from 1 to {most:,}. Received: {given}")
    kind = GrpcClient if options.protocol == "grpc" else RestClient

    def connect() -> Client:
        return kind(address, options.model, max_rows=options.rows, attempts=1)

    report = load(
        connect,
        repeat(read_golden(options.version).rows, options.rows),
        requests=options.requests,
        threads=options.threads,
        signature=options.signature,
    )
    print(report)


if __name__ == "__main__":
    main()
