"""
One real PostgreSQL for all tests of a trial run, started when the first test asks for it.

It listens on a unix socket only. PostgreSQL refuses to run as root: then it is another user's.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from glob import glob
from typing import Any

from thrtwisted.redis.embedded import private_directory

#: linux/prctl.h
PR_SET_PDEATHSIG = 1

#: What nobody needs of a database that is thrown away.
_HASTE = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "max_wal_senders=0",
)


@cache
def installed() -> str | None:
    """The directory of the newest PostgreSQL's programs, which Debian keeps off the path; None if there is none."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres") is not None:
        return os.path.dirname(os.path.realpath(found))
    return max(
        (os.path.dirname(path) for path in glob("/usr/lib/postgresql/*/bin/initdb")),
        key=lambda path: float(path.split("/")[-2]),
        default=None,
    )


def _user() -> dict[str, Any]:
    """As whom to run, for C{Popen}."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL does not run as root; add a user nobody")


def _dying_with_us() -> Callable[[], object]:
    """What a child does first, so that it does not outlive this process: then the kernel stops it at once."""
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


@cache
def _server() -> str:
    """Start the server, which dies with this process; what says where it is to a client."""
    programs, user = installed(), _user()
    assert programs is not None
    directory = private_directory()
    if user:
        os.chown(directory, user["user"], user["group"])
    data = os.path.join(directory, "data")
    made = subprocess.run(
        (f"{programs}/initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"),
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **user,
    )
    if made.returncode:
        raise RuntimeError(made.stdout.decode())
    settings = ("listen_addresses=", f"unix_socket_directories={directory}", *_HASTE)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            (f"{programs}/postgres", "-D", data, *(word for setting in settings for word in ("-c", setting))),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_dying_with_us(),
            **user,
        )

        def stop() -> None:
            process.send_signal(signal.SIGQUIT)
            process.wait()
            shutil.rmtree(directory, ignore_errors=True)

        atexit.register(stop)
        where = f"host={directory} user=test dbname=postgres"
        while not _answers(where):
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(log.read().decode())
            time.sleep(0.02)
    return where


def _answers(where: str) -> bool:
    import psycopg

    try:
        psycopg.connect(where).close()
    except psycopg.OperationalError:
        return False
    return True


def url() -> str:
    """What says to a client where the server is, and who it may be."""
    return _server()


def execute(*statements: str) -> None:
    """Have something done in the database."""
    import psycopg

    with psycopg.connect(url(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
