"""``av-bench`` for the blocks of the docs: one process imports once and forks for each command.

``serve SOCKET`` is the process; ``call SOCKET ARGUMENTS`` is a small program that hands over its arguments, folder,
environment and streams, waits, and ends with the command's exit code.
"""

import array
import json
import os
import socket
import sys
from pathlib import Path


def call(path: str, arguments: list[str]) -> int:
    """Run ``av-bench ARGUMENTS`` in a fork of the server, on this process's streams."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        streams = array.array("i", [0, 1, 2])
        link.sendmsg([b"s"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        link.sendall(json.dumps(request).encode() + b"\n")
        answer = link.makefile("r").readline()
    return int(answer) if answer else 99


def serve(path: str) -> None:
    """Fork for each call; nothing has computed yet, so the fork has no threads to lose."""
    from importlib import import_module

    import torch

    for name in ("pandas", "pyarrow.parquet", "matplotlib.figure", "av_bench.cli.app", "av_bench.pipeline.run"):
        import_module(name)
    torch.set_num_threads(1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            link, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(link)
            link.close()
            _reap()


def _answer(link: socket.socket) -> None:
    """In a fork: fork again for the command, send its exit code, and end."""
    _, ancillary, _, _ = link.recvmsg(1, socket.CMSG_LEN(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    request = json.loads(link.makefile("r").readline())
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)  # type: ignore[misc]
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)  # type: ignore[misc]
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        os._exit(_run(request["arguments"]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    link.sendall(f"{code}\n".encode())
    os._exit(0)


def _run(arguments: list[str]) -> int:
    from av_bench.cli.app import main

    sys.argv = ["av-bench", *arguments]
    try:
        main()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _reap() -> None:
    """Take the status of calls that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(call(sys.argv[2], sys.argv[3:]))
