"""Kills at random points of digits runs, from a seed, and what has to be true all the same.

    python faults/crashloop.py --seed 7 --kills 50                    # SuperLink and SuperNodes
    python faults/crashloop.py --seed 7 --kills 50 --roles all        # and SuperExecs and apps

Every run ends. With kills of the SuperLink and SuperNodes only, it completes with the weights of a run
that nobody disturbed. With the others it may fail, but what it calls completed is.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# pylint: disable=wrong-import-position
from federation import Cast, Federation, Run, SuperNode  # noqa: E402
from harness import OURS, Process, wait_for  # noqa: E402

ROUNDS = 5
DAEMONS = ("superlink", "supernode")
ROLES = (*DAEMONS, "superexec", "serverapp", "clientapp")
# A ServerApp that is killed before its first heartbeat is given up after ten minutes.
RUN_SECONDS = 900.0
# Long enough for a process to be back and at work, or not.
PAUSE_SECONDS = (0.2, 3.0)


@dataclass
class Outcome:
    """What became of one run."""

    status: str
    killed: list[str]
    seconds: float
    weights: Optional[str]
    details: str = ""


@dataclass
class Loop:
    """A federation whose processes are killed."""

    federation: Federation
    choose: random.Random
    roles: Sequence[str]
    outcomes: list[Outcome] = field(default_factory=list)
    replaced: list[Process] = field(default_factory=list)
    upcoming: list[str] = field(default_factory=list)

    def run(self, kills: int) -> Outcome:
        """One run of the digits app, with so many kills at most."""
        begun = time.monotonic()
        run = self.federation.app("digits").start(**{"num-server-rounds": ROUNDS})
        killed: list[str] = []
        while len(killed) < kills:
            time.sleep(self.choose.uniform(*PAUSE_SECONDS))
            if run.status.startswith("finished"):
                break
            role = self._next_role()
            if getattr(self, f"_kill_{role}")():
                killed.append(role)
        wait_for(lambda: run.status.startswith("finished"), RUN_SECONDS, "the run to end")
        log = run.log()
        weights = re.findall(r"weights: (\w+)", log)
        outcome = Outcome(
            status=run.status,
            killed=killed,
            seconds=time.monotonic() - begun,
            weights=weights[-1] if weights else None,
            details=run.details,
        )
        self.outcomes.append(outcome)
        if run.status == "finished:completed":
            assert outcome.weights, f"a completed run says what came of it\n{log}"
            rounds = re.findall(r"aggregate_train: Received (\d) results and (\d) failures", log)
            assert len(rounds) == ROUNDS, f"{len(rounds)} rounds\n{log}"
        return outcome

    def close(self) -> None:
        """End what was started in place of killed processes."""
        for process in self.replaced:
            process.close()

    def _next_role(self) -> str:
        # Each as often as the others.
        if not self.upcoming:
            self.upcoming = self.choose.sample(list(self.roles), len(self.roles))
        return self.upcoming.pop()

    # -- who is killed, and started again -------------------------------------------------------

    def _kill_superlink(self) -> bool:
        link = self.federation.link
        link.process.kill()
        self.replaced.append(link.process)
        self._pause()
        link.start()
        return True

    def _kill_supernode(self) -> bool:
        node = self.choose.choice(self.federation.nodes)
        current: Process = getattr(node, "current", node)
        current.kill()
        self._pause()
        setattr(node, "current", node.again())
        self.replaced.append(getattr(node, "current"))
        return True

    def _kill_superexec(self) -> bool:
        if self.choose.random() < 0.5:
            assert self.federation.superexec is not None
            self.federation.superexec.kill()
            self._pause()
            self.federation.superexec = self._superexec_again(self.federation.superexec)
            return True
        node = self.choose.choice(self.federation.nodes)
        assert node.superexec is not None
        node.superexec.kill()
        self.replaced.append(node.superexec)
        self._pause()
        node.restart_superexec()
        return True

    def _superexec_again(self, former: Process) -> Process:
        again = Process("superexec", former.argv, former.log_path.parent, former.env)
        self.replaced += [former, again]
        return again

    def _kill_serverapp(self) -> bool:
        return self._kill_app([self.federation.superexec], "flwr-serverapp")

    def _kill_clientapp(self) -> bool:
        nodes: list[SuperNode] = self.federation.nodes
        return self._kill_app([node.superexec for node in nodes], "flwr-clientapp")

    def _kill_app(self, launchers: Sequence[Optional[Process]], program: str) -> bool:
        pids = [launcher.pid for launcher in launchers if launcher is not None]
        apps = [app for pid in pids for app in apps_of(pid, program)]
        return bool(apps) and kill(self.choose.choice(apps))

    def _pause(self) -> None:
        time.sleep(self.choose.choice((0.0, 0.5, 2.0)))


def apps_of(launcher: int, program: str) -> list[int]:
    """The apps of a launcher that forks them from a process of the same program."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(encoding="ascii", errors="replace")
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if program in line:
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return sorted(pid for pid, parent in parents.items() if parents.get(parent) == launcher)


def kill(pid: int) -> bool:
    """SIGKILL; whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def crash_loop(
    directory: Path,
    seed: int,
    kills: int,
    roles: Sequence[str] = DAEMONS,
    kills_a_run: int = 6,
    say: Callable[[str], None] = print,
    **federation: object,
) -> list[Outcome]:
    """Runs until there were so many kills. The first run is not disturbed."""
    say(f"seed {seed}: {kills} kills of {', '.join(roles)}")
    arguments: dict[str, object] = {
        "isolation": "process",
        "cast": Cast(supernode=OURS, server_launcher=OURS, client_launcher=OURS),
        **federation,
    }
    more = [*arguments.pop("superlink_args", []), "--database", directory / "state.db"]  # type: ignore[misc]
    with Federation(directory, superlink_args=more, **arguments) as world:  # type: ignore[arg-type]
        loop = Loop(world, random.Random(seed), roles)
        try:
            undisturbed = loop.run(kills=0)
            assert undisturbed.status == "finished:completed", undisturbed
            say(f"undisturbed: {undisturbed.seconds:.1f} s, weights {undisturbed.weights}")
            done = 0
            while done < kills:
                outcome = loop.run(min(kills_a_run, kills - done))
                done += len(outcome.killed)
                say(
                    f"{done} kills: {outcome.status} in {outcome.seconds:.1f} s, weights "
                    f"{outcome.weights}, killed {' '.join(outcome.killed)} {outcome.details}"
                )
                if set(outcome.killed) <= set(DAEMONS):
                    assert outcome.status == "finished:completed", outcome
                    assert outcome.weights == undisturbed.weights, outcome
        finally:
            loop.close()
    return loop.outcomes


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--roles", default=",".join(DAEMONS), help=f"any of {', '.join(ROLES)}, or all")
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    roles = ROLES if options.roles == "all" else options.roles.split(",")
    directory = options.directory or Path(tempfile.mkdtemp(prefix="crashloop-"))
    crash_loop(directory, options.seed, options.kills, roles)


if __name__ == "__main__":
    main()
