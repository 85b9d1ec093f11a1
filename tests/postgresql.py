"""A PostgreSQL server of its own for tests, on loopback, gone when they end."""

import glob
import os
import shutil
import socket
import subprocess
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
def postgresql(folder: Path) -> Iterator[str]:
    """The address of an empty database; the test is skipped where PostgreSQL is not installed."""
    if not (binaries := _binaries()):
        pytest.skip("PostgreSQL is not installed")
    # It does not run as root.
    other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    folder.mkdir()
    if other:
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:  # pytest's folders are closed to others
            if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    data = folder / "data"
    subprocess.run(
        [*other, f"{binaries}/initdb", "-D", data, "-U", "tuner", "--auth=trust", "-E", "UTF8", "--locale=C"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    with (folder.parent / "postgresql.log").open("wb") as log:
        server = subprocess.Popen([*other, f"{binaries}/postgres", "-D", data, *options], stderr=log, cwd="/")
    try:
        for _ in range(100):
            if subprocess.run([f"{binaries}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0:
                break
            time.sleep(0.1)
        yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(timeout=30)
