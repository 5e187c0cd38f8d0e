"""A `nas` that starts at once: a process that has imported all of it forks for each command.

The imports are most of what a command takes that trains a tiny network. `python warm.py SOCKET` waits for commands.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

COMMAND = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
sys.exit(int(server.recv(9) or 1))
"""


@contextlib.contextmanager
def warm_nas(folder: Path) -> Iterator[None]:
    """Put a `nas` into a folder: arguments, environment, working directory, output and exit code are a command's."""
    address = str(folder / "socket")
    with subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            (folder / "nas").write_text(COMMAND.format(python=sys.executable, address=address))
            (folder / "nas").chmod(0o755)
            yield
        finally:
            server.kill()


def serve(address: str) -> None:
    from nas import api, cli, console
    from nas.export import command, predict
    from nas.report import page

    assert all((api, console, command, predict, page))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            break
        connection.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    message, files, _, _ = socket.recv_fds(connection, 2**20, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    arguments, folder, environment = json.loads(message)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["nas", *arguments]
    code: object = 1
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
        raise
    finally:
        sys.stdout.flush()
        connection.send(str(int(code or 0)).encode())


if __name__ == "__main__":
    sys.path.pop(0)
    serve(sys.argv[1])
