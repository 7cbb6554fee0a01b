"""The stock `flwr` command line with a small real app, and a stock SuperExec to run it."""

from __future__ import annotations

import re
from pathlib import Path

from harness import VENV_BIN, Process, SuperLink, environment

PROJECT = """\
[project]
name = "chatter"
version = "1.2.3"

[tool.flwr.app]
publisher = "conformance"

[tool.flwr.app.components]
serverapp = "chatter.server:app"
clientapp = "chatter.client:app"

[tool.flwr.app.config]
lines = 3
wait = false
compute-seconds = 0.0

[tool.flwr.federations]
default = "link"

[tool.flwr.federations.link]
address = "{address}"
insecure = true
"""

SERVER = '''\
"""Prints numbered lines, computes, then ends or polls the SuperLink until it is told to stop."""

import time

from flwr.server import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    """Run once."""
    for number in range(context.run_config["lines"]):
        print(f"line {number} of the app")
    time.sleep(context.run_config["compute-seconds"])
    while context.run_config["wait"]:
        grid.get_node_ids()
        time.sleep(0.2)
    print("the last line")
'''

CLIENT = '''\
"""Never called."""

from flwr.client import ClientApp

app = ClientApp()
'''


class Cli:
    """`flwr` commands in an app folder whose federation is one SuperLink."""

    def __init__(self, directory: Path, link: SuperLink) -> None:
        self.link = link
        self.directory = directory
        self.app = directory / "chatter-app"
        package = self.app / "chatter"
        package.mkdir(parents=True)
        (self.app / "pyproject.toml").write_text(PROJECT.format(address=link.control))
        (package / "__init__.py").write_text("")
        (package / "server.py").write_text(SERVER)
        (package / "client.py").write_text(CLIENT)
        self.env = environment(directory / "flwr-home")

    def start(self, *args: object) -> Process:
        """Start a command in the app folder."""
        argv = [VENV_BIN / "flwr", *args]
        return Process(f"flwr-{args[0]}", argv, self.directory, self.env)

    def output(self, *args: object, status: int = 0) -> str:
        """Run a command to its end and return what it printed."""
        with self.start(*args) as process:
            assert process.wait(60.0) == status, process.tail()
            return process.log

    def run(self, *args: object) -> int:
        """`flwr run` of the app; returns the run id it printed."""
        return started_run(self.output("run", self.app, "link", *args))

    def superexec(self) -> Process:
        """Start a stock SuperExec that launches the ServerApp of every pending run."""
        argv = [
            VENV_BIN / "flower-superexec", "--insecure",
            "--plugin-type", "serverapp",
            "--appio-api-address", self.link.serverappio,
        ]  # fmt: skip
        return Process("superexec", argv, self.directory, self.env)


def started_run(output: str) -> int:
    """The run id that `flwr run` printed."""
    match = re.search(r"Successfully started run (\d+)", output)
    assert match is not None, output
    return int(match.group(1))
