"""A search on a cluster: two real Ray nodes on this machine, and one of them killed."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import commands
import psutil
import pytest
import torch
from commands import SPACE
from test_faults import SMALL

from nas.driver.run import Run

pytestmark = pytest.mark.slow

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
"""Without it a cluster would do as anybody says who reaches this machine."""

ENVIRONMENT = {**os.environ, **TOKEN}
RAY = Path(sys.executable).with_name("ray")
EPOCHS = 12
TRIALS = 8


class Node:
    """A Ray node of one CPU, with all its processes."""

    def __init__(self, folder, *arguments):
        command = [RAY, "start", "--block", "--num-cpus=1", *arguments]
        command += ["--object-store-memory=80000000", "--node-ip-address=127.0.0.1"]
        environment = {**ENVIRONMENT, "RAY_TMPDIR": str(folder)}
        self.process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def processes(self):
        return [self.process, *self.process.children(recursive=True)] if self.process.is_running() else []

    def trainers(self):
        return [process for process in self.processes() if "Trainable" in commands.command_line(process)]

    def kill(self):
        """As a machine that loses its power."""
        for process in self.processes():
            process.kill()
        psutil.wait_procs([self.process], timeout=10)


@contextmanager
def cluster(folder, *of_the_other):
    """Two nodes and their address; the second one is started with further arguments."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    port = address.rpartition(":")[2]
    nodes = [Node(folder, "--head", f"--port={port}", "--include-dashboard=false")]
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
            time.sleep(0.1)
        nodes.append(Node(folder, f"--address={address}", *of_the_other))
        while "/2.0 CPU" not in status(address):  # a search counts cores once, when it begins
            assert nodes[1].process.is_running()
        yield address, nodes
    finally:
        for node in nodes:
            node.kill()


def status(address):
    """What `ray status` prints of a cluster; nothing where none answers yet."""
    command = [RAY, "status", "--address", address]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60).stdout


def test_a_search_goes_on_when_a_node_of_its_cluster_dies(tmp_path):
    # Not below tmp_path: the names of Ray's sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="nas-") as folder, cluster(folder) as (address, (head, other)):
        extent = ("--trials", TRIALS, "--epochs", EPOCHS, "--reduction", 1)
        process = commands.start(tmp_path, SPACE, *SMALL, *extent, "--address", address, **TOKEN)
        commands.wait_for_epochs(tmp_path, 5, process)
        while not (head.trainers() and other.trainers()):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        other.kill()
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        records = Run.open(tmp_path / "run").records
        assert [record.state for record in records if not record.untrained] == ["complete"] * TRIALS
        for record in records:
            if not record.untrained:
                assert [epoch["epoch"] for epoch in record.curve] == list(range(1, EPOCHS + 1))
        assert commands.epochs_in(tmp_path) == TRIALS * EPOCHS


ASK = """
import ray
from nas.errors import UserError
from nas.driver.cluster import Card, card_of, ray_started
from nas.driver.options import Resources

with ray_started(Resources(address={address!r}, gpus_per_trial=0.5)) as workers:
    print(workers)
    nodes = {{node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in ray.nodes()}}
    seen = card_of(workers, lambda: Card(ray.get_runtime_context().get_node_id(), 1))
    print("asked a node with", nodes[seen.name], "GPU; the head has", min(nodes.values()))
    try:
        card_of(workers)
    except UserError as error:
        print("refused:", error)
"""


def test_a_head_without_a_gpu_asks_a_worker_that_has_one():
    """The other node says that it has a GPU, so that Ray plans with one; torch finds none there."""
    with tempfile.TemporaryDirectory(prefix="nas-") as folder, cluster(folder, "--num-gpus=1") as (address, _):
        ask = [sys.executable, "-c", ASK.format(address=address)]
        done = subprocess.run(ask, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["Workers(count=1, cpus=1, gpus=0.5, card=None)", "asked a node with 1 GPU; the head has 0"], (
        done.stderr
    )
    if not torch.cuda.is_available():
        assert lines[2].startswith("refused: gpus-per-trial 0.5: torch sees no GPU on a worker's machine (")


def test_a_search_on_this_machine_keeps_to_itself(tmp_path):
    """No process of its listens beyond loopback, the dashboard is off, and every worker has a core of its own."""
    # A temporary folder of its own, in which no other search has claimed cores.
    with tempfile.TemporaryDirectory(prefix="nas-") as folder:
        process = commands.start(tmp_path, SPACE, *SMALL, "--trials", 6, "--epochs", 30, TMPDIR=folder)
        commands.wait_for_epochs(tmp_path, 12, process)
        processes = [psutil.Process(process.pid), *commands.descendants(process)]
        lines = [commands.command_line(item) for item in processes]
        sockets = [(item.name(), s.laddr) for item in processes for s in item.net_connections("inet") if not s.raddr]
        cores = [item.cpu_affinity() for item in commands.trainers(process)]
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert {"gcs_server", "raylet"} <= {name for name, _ in sockets}
    assert [(name, address) for name, address in sockets if not address.ip.endswith("127.0.0.1")] == []
    assert not [line for line in lines if "dashboard.py" in line and "--disable-frontend" not in line]
    assert cores
    assert all(len(own) == 1 for own in cores)
    assert len({own[0] for own in cores}) == len(cores)
