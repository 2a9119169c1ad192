"""
A small program that runs another one that must not outlive the proxy, not even one that was killed with -9.

    python launch.py {bind|supervise} PARENT PROGRAM [ARGUMENT...]

C{bind} (Linux) asks the kernel for SIGKILL at the parent's death, then becomes the program: nothing of Python
stays. C{supervise} (anywhere) stays as the program's parent, and kills it when its own stdin, a pipe from the
proxy, closes. Either way the program is in a session of its own: Ctrl-C on the terminal does not reach it before
the proxy has said goodbye, and killing the process group kills both the launcher and the program.

It is run by its path, so that it imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

#: linux/prctl.h
PR_SET_PDEATHSIG = 1


def bind(parent: int, command: list[str]) -> None:
    """Become the command, which the kernel kills when the parent (a process id) dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the proxy died before its server was started")  # and the kernel's promise came too late
    os.execv(command[0], command)


def supervise(command: list[str]) -> int:
    """Run the command until it ends, or kill it when stdin closes. Its exit status, negative for a signal."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())

    def watch() -> None:
        while os.read(0, 1024):
            pass
        child.kill()

    threading.Thread(target=watch, daemon=True).start()
    return child.wait()


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    way, parent, *command = arguments
    os.setsid()
    if way == "bind":
        bind(int(parent), command)
    return abs(supervise(command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
