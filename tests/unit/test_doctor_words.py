"""How findings are told: problems first, each with what to do, the verdict last."""

from maintainer.model.finding import Finding, note, ok, problem
from maintainer.setup.doctor import Diagnosis, format_diagnosis

_OK, _NOTE = ok("clock", "it agrees"), note("quota", "it is assumed", "set `quota`")
_PROBLEM = problem("token", "it is not set", "set it")


def _lines(*findings: Finding) -> list[str]:
    return list(format_diagnosis(Diagnosis(findings, ())))


def test_problems_come_first_and_the_verdict_last() -> None:
    assert _lines(_OK, _NOTE, _PROBLEM) == [
        "problem  token: it is not set",
        "         → set it",
        "note     quota: it is assumed",
        "         → set `quota`",
        "ok       clock: it agrees",
        "1 problem and 1 note.",
    ]


def test_a_set_up_without_problems_is_told_so_and_what_looks_for_damage() -> None:
    rest = "`maintainer gc --repair --dry-run` looks for damage in the cache."

    assert _lines(_OK, _NOTE)[-1] == f"No problems with the set-up, and 1 note; {rest}"
    assert _lines(_OK)[-1] == f"No problems with the set-up; {rest}"
