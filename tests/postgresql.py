"""A PostgreSQL server of its own for tests, on loopback, gone when they end."""

import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _binaries() -> str | None:
    found = [
        *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True),
        os.path.dirname(shutil.which("initdb") or ""),
    ]
    return next((folder for folder in found if folder and Path(folder, "initdb").exists()), None)


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of an empty database; the test is skipped where PostgreSQL is not installed."""
    if not (binaries := _binaries()):
        pytest.skip("PostgreSQL is not installed")
    # It does not run as root, and pytest's folders are closed to others.
    other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder, socket.socket() as free:
        if other:
            shutil.chown(folder, "postgres", "postgres")
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        subprocess.run(
            [*other, f"{binaries}/initdb", "-D", f"{folder}/data", "-U", "tuner", "--auth=trust", "-E", "UTF8"],
            check=True,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            cwd="/",
        )
        options = ["-h", "127.0.0.1", "-p", port, "-k", folder, "-c", "fsync=off"]
        command = [*other, f"{binaries}/postgres", "-D", f"{folder}/data", *options]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/")
        try:
            for _ in range(300):
                if subprocess.run([f"{binaries}/pg_isready", "-q", "-h", "127.0.0.1", "-p", port]).returncode == 0:
                    break
                time.sleep(0.1)
            else:
                raise TimeoutError("PostgreSQL did not start")
            yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(timeout=30)
