"""Tokens and signatures are in no output, no log and no byte of the database, whatever happens."""

import secrets
from collections.abc import Iterator

import pytest

from maintainer.emulator import Fault, FaultPlan, Request
from maintainer.emulator.server import Service
from tests import processes
from tests.commands import Outcome, run_here
from tests.integration.small import Stage, a_small_world, a_stage
from tests.integration.world import MAIN

TROUBLES = {
    "no trouble": (),
    "HTML": (Fault(kind="html", request="download"), Fault(kind="html", request="upload")),
    "expired": (Fault(kind="expired", request="download"), Fault(kind="expired", request="upload")),
    "refused": (Fault(kind="status", status=401, request="look-up"),),
    "not allowed": (Fault(kind="status", status=403, request="reserve"),),
    "lost": tuple(
        Fault(kind="lost-answer", request=kind, nth=1) for kind in ("list", "download", "finalize")
    ),
    "cut short": (Fault(kind="truncated", every=4),),
    "no list": (Fault(kind="wrong-shape", request="list"),),
}


class Ear:
    """Hears all that is said, and knows the secrets that must not be."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.environment: dict[str, str] = {}
        self.signatures: set[str] = set()

    def listen(self, service: Service, troubles: tuple[Fault, ...], *, rest: bool) -> None:
        """Begin anew, with new tokens in the environment."""
        running = self.stage.world.running
        self.environment = running.environment(MAIN, service=service, rest=rest)
        self.environment["MAINTAINER_DATABASE"] = f"sqlite:///{self.stage.world.database}"
        # A reservation whose answer was lost is taken for somebody else's.
        self.environment["MAINTAINER_RESERVATION_WAIT"] = "0s"
        self.signatures.clear()
        running.inject(FaultPlan(troubles))
        running.observe(before=self.note)

    def note(self, request: Request) -> None:
        """Keep the signature that a request came with, whatever becomes of it."""
        signer = self.stage.world.running._emulator.site.signer
        number = request.path.rsplit("/", 1)[-1]
        if request.kind in ("download", "upload") and number.isdigit():
            self.signatures |= {signer.sign(int(number), purpose)["sig"] for purpose in ("r", "w")}

    def start(self, *command: str) -> Outcome:
        """Run a command as a process; what it says and leaves must hold no secret."""
        folder = self.stage.world.database.parent
        done = self.heard(processes.run(folder, self.environment, *command))
        assert "Traceback" not in done.err
        return done

    def run(self, *command: str) -> Outcome:
        """Run a command in this process."""
        folder = self.stage.world.database.parent
        return self.heard(run_here(folder, self.environment, *command))

    def heard(self, done: Outcome) -> Outcome:
        """Listen to what a command has said and left."""
        self.check(done.out.encode(), "stdout")
        self.check(done.err.encode(), "stderr")
        for file in self.stage.world.database.parent.glob(f"{self.stage.world.database.name}*"):
            self.check(file.read_bytes(), file.name)
        return done

    def check(self, said: bytes, where: str) -> None:
        """Fail if a secret, or the signature part of a token, was said."""
        runtime, rest = (
            self.environment["ACTIONS_RUNTIME_TOKEN"],
            self.environment.get("GITHUB_TOKEN"),
        )
        forbidden = [runtime, *runtime.split("."), *([rest] if rest else []), *self.signatures]
        for secret in forbidden:
            assert secret.encode() not in said, where
        assert b"sig=" not in said, where
        assert b"Bearer" not in said, where


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(tmp_path_factory.mktemp("secrets"), a_small_world) as stage:
        yield stage


@pytest.fixture
def ear(shared: Stage) -> Iterator[Ear]:
    shared.set_up()
    yield Ear(shared)
    shared.world.running.inject()
    shared.world.running.observe()


CASES = [
    (trouble, service, level)
    for row, trouble in enumerate(TROUBLES)
    for column, (service, level) in enumerate(
        [("v2", "--verbose"), ("v1", "--verbose"), ("v2", "--quiet"), ("v1", ""), ("v2", "--json")]
    )
    if (row + column) % 5 in (0, 2)
]


@pytest.mark.parametrize(
    ("trouble", "service", "level"),
    [
        pytest.param(*case, marks=() if number % 4 == 0 else pytest.mark.soak)
        for number, case in enumerate(CASES)
    ],
)
def test_a_run_tells_no_secret_whatever_goes_wrong(
    ear: Ear, trouble: str, service: Service, level: str
) -> None:
    ear.listen(service, TROUBLES[trouble], rest=True)

    done = ear.start("gc", "--grace", "0s", *([level] if level else []))

    assert done.status in (0, 1)
    assert trouble in ("refused", "no list") or ear.signatures


def test_what_is_told_of_a_run_later_tells_no_secret(ear: Ear) -> None:
    ear.listen("v2", TROUBLES["lost"], rest=True)
    ear.run("gc", "--grace", "0s", "--verbose")

    for command in (["report"], ["report", "--json"], ["runs", "--json"], ["db", "upgrade"]):
        assert ear.run(*command).status == 0


@pytest.mark.soak
@pytest.mark.parametrize("command", ["demo", "version", "--help", "schedule"])
def test_other_commands_tell_no_secret_either(ear: Ear, command: str) -> None:
    ear.listen("v2", (), rest=True)

    ear.start(command)


@pytest.mark.parametrize(
    "variable",
    ["ACTIONS_RUNTIME_TOKEN", "GITHUB_TOKEN", "ACTIONS_RESULTS_URL", "MAINTAINER_GRACE"],
)
def test_a_wrong_environment_is_told_without_its_values(ear: Ear, variable: str) -> None:
    ear.listen("v2", (), rest=True)
    wrong = f"\u00e9 {secrets.token_hex(20)}"
    ear.environment[variable] = wrong

    done = ear.run("gc")

    assert done.status in (1, 2)
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert wrong[2:] not in done.err


def test_the_ear_would_have_heard_a_secret(ear: Ear) -> None:
    ear.listen("v2", (), rest=True)
    ear.run("gc", "--grace", "0s")

    assert len(ear.signatures) > 2
    for secret in (*ear.signatures, ear.environment["GITHUB_TOKEN"], "?sp=r&sig=x"):
        with pytest.raises(AssertionError):
            ear.check(f"GET /blob: {secret}".encode(), "log")
    with pytest.raises(AssertionError):
        ear.check(ear.environment["ACTIONS_RUNTIME_TOKEN"].split(".")[2].encode(), "log")
