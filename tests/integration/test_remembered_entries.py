"""What a store that cannot list everything may ask the memory of a run."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import anyio

from maintainer.cacheconfig import encode
from maintainer.model.entry import Listing
from maintainer.stores.base import RunContext
from tests.integration.simulated_runs import Memory
from tests.integration.world import START, blob_of, built
from tests.stores.contract import NO_GRACE
from tests.stores.memory import MemoryStore, Vault
from tests.stores.runs import run_on


class _Forgetful(MemoryStore):
    """Asks for what earlier runs have listed."""

    remembered: Mapping[str, datetime] = {}

    async def entries(self, now: datetime, context: RunContext) -> Listing:
        self.remembered = context.remembered()
        return await super().entries(now, context)


def test_a_run_remembers_what_was_stored_at_the_last_probe_and_since_when(tmp_path: Path) -> None:
    (memory,), vault = Memory.make(tmp_path, 1), Vault()
    vault.blobs = {blob_of("base"): START, blob_of("old"): START}
    vault.write("api", encode(built("base")), START)

    def run(hours: int) -> Mapping[str, datetime]:
        store = _Forgetful(vault)
        anyio.run(run_on, store, memory, NO_GRACE, START + timedelta(hours=hours))
        return store.remembered

    assert run(0) == {}
    assert run(1).items() >= {(blob_of("base"), START)}
    assert blob_of("old") not in vault.blobs
    remembered = run(2)
    assert remembered[blob_of("base")] == START
    assert blob_of("old") not in remembered
    # Where the indexes are, also the merge that a run has written.
    assert {str(version) for version, _, _ in vault.indexes.values()} <= remembered.keys()
