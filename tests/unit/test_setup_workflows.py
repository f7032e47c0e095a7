"""What workflows say about caches of builds, in all the ways in which people write it."""

from pathlib import Path

import pytest

from maintainer.setup.workflows import read_workflow, read_workflows

_OF_Y = {"mode": "max", "scope": "y"}
_CASES = [
    ("cache-to: type=gha,mode=max,scope=api", [("to", "gha", {"mode": "max", "scope": "api"})]),
    ("cache-from: 'type=gha'", [("from", "gha", {})]),
    (
        "cache-from: |\n  type=gha\n  type=gha,scope=maintained\ntags: type=raw",
        [("from", "gha", {}), ("from", "gha", {"scope": "maintained"})],
    ),
    (
        (
            "cache_to:\n- type=gha,scope=${{ matrix.image }},mode=max\n- type=local,dest=/c\n"
            "name: type=x"
        ),
        [
            ("to", "gha", {"scope": "${{ matrix.image }}", "mode": "max"}),
            ("to", "local", {"dest": "/c"}),
        ],
    ),
    ('cache-to: ["type=gha"] # type=x, no', [("to", "gha", {})]),
    (
        "run: docker buildx build --cache-to type=gha,mode=min --cache-from=type=gha .",
        [("to", "gha", {"mode": "min"}), ("from", "gha", {})],
    ),
    ("run: buildx --cache-to mode=max,type=gha,scope=y", [("to", "gha", _OF_Y)]),
    ("set: |\n  *.cache-to=type=gha,scope=$SCOPE", [("to", "gha", {"scope": "$SCOPE"})]),
    ("# cache-to: type=gha", []),
    ("cache-to: ${{ inputs.cache }}", []),
    ("metadata:\n  tags: type=ref,event=branch", []),
]


@pytest.mark.parametrize(("text", "expected"), _CASES, ids=range(len(_CASES)))
def test_caches_are_found_however_they_are_written(
    text: str, expected: list[tuple[str, str, dict[str, str]]]
) -> None:
    indented = "\n".join(f"          {line}" for line in text.splitlines())

    found = read_workflow("build.yml", f"jobs:\n{indented}\n").caches

    ways = [("to" if use.exports else "from", use.kind, dict(use.attributes)) for use in found]
    assert ways == expected


def test_the_action_of_this_project_is_recognized() -> None:
    by_hash = "    - uses: octo/maintainer@0123 # v0.1.0"
    assert read_workflow("a.yml", by_hash).maintainer == "0123"
    assert read_workflow("a.yml", "    uses: octo/maintainer/.github/x.yml@v0").maintainer == "v0"
    assert read_workflow("a.yml", "    - uses: octo/build@v0").maintainer is None


def test_what_another_step_calls_a_store_is_not_the_action_of_this_project_has() -> None:
    ours, other = "- uses: octo/maintainer@v0", "- uses: octo/upload@v2\n  with:\n    store: s3"
    assert read_workflow("a.yml", f"{other}\n{ours}\n{other}").maintainer == "v0"
    bucket = f"{ours}\n  with:\n    store: s3://bucket/"
    assert read_workflow("a.yml", bucket).maintainer is None
    assert read_workflow("a.yml", f"{bucket}\n{ours}").maintainer == "v0"


def test_a_job_that_calls_the_workflow_of_this_project_is_no_part_of_the_step_before_it() -> None:
    steps = "  a:\n    steps:\n      - uses: octo/maintainer@v0\n        with:\n          store: s3://b/\n"
    job = "  b:\n    uses: octo/maintainer/.github/workflows/maintain.yml@v1\n"
    assert read_workflow("a.yml", f"jobs:\n{steps}{job}").maintainer == "v1"
    assert read_workflow("a.yml", f"jobs:\n{steps}").maintainer is None


def test_a_list_in_a_text_ends_no_step() -> None:
    text = "- uses: octo/maintainer@v0\n  with:\n    room: |\n      - x\n    store: s3://b/\n"
    assert read_workflow("a.yml", text).maintainer is None


def test_workflows_that_are_not_text_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "a.yml").write_bytes(b"\xff\x00" * 100 + b"\n  cache-to: type=gha\n")
    (folder / "b.yaml").mkdir()
    (folder / "c.txt").write_text("cache-to: type=gha")

    a, b = read_workflows(tmp_path)

    assert [use.line for use in a.caches] == [2]
    assert b.caches == ()
    assert read_workflows(tmp_path / "nowhere") == ()


@pytest.mark.parametrize("store", ["registry://ghcr.io/octo/a", "'s3://b/a/'", "${{ vars.CACHE }}"])
def test_a_step_that_maintains_another_store_does_not_maintain_githubs_cache(store: str) -> None:
    step = "    - uses: octo/maintainer@v0\n"
    other = f"{step}      with:\n        store: {store} # where it is\n"
    itself = f"{step}      with:\n        store: github\n"

    assert read_workflow("a.yml", other).maintainer is None
    assert read_workflow("a.yml", other + step).maintainer == "v0"
    assert read_workflow("a.yml", other + itself).maintainer == "v0"
    before = "    - with:\n        store: x\n      uses: octo/maintainer@v0\n"
    assert read_workflow("a.yml", before).maintainer is None
