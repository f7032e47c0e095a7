"""Merging, at growing numbers of generations."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Tables
from benchmarks.grown import generations
from maintainer.cacheconfig import merge


@pytest.mark.parametrize("count", [50, 100, 200, 400, 800])
def test_merge(benchmark: BenchmarkFixture, tables: Tables, count: int) -> None:
    configs = list(generations(count))
    merged = benchmark.pedantic(  # type: ignore[no-untyped-call]
        merge, args=(configs,), rounds=7, warmup_rounds=1
    )
    assert benchmark.stats
    links = max(len(input_) for record in merged.records for input_ in record.inputs)
    tables.add(
        "merging",
        {
            "generations": f"{count}",
            "records read": f"{sum(len(config.records) for config in configs):,}",
            "records merged": f"{len(merged.records):,}",
            "most links of one input": f"{links}",
            "processor seconds": f"{benchmark.stats.stats.min:.3f}",
        },
    )
