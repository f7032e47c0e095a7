"""The least that any fleet on this engine needs: its jobs, which do nothing.

    python -m benchmarks.floors.empty_jobs create URL
    python -m benchmarks.floors.empty_jobs 2 URL
    python -m benchmarks.floors.empty_jobs defer URL 1000

create its tables; work on two jobs at once until a signal; put a thousand jobs into the queue.
"""

import asyncio
import sys

from procrastinate import App, PsycopgConnector
from procrastinate.types import JSONDict

_AT_ONCE = 10


def _app(url: str) -> App:
    app = App(
        connector=PsycopgConnector(conninfo=url.replace("+psycopg", ""), min_size=1, max_size=3)
    )

    @app.task(name="nothing", queue="nothing")
    async def nothing(number: int) -> None:
        del number

    return app


async def _main(command: str, url: str, *number: str) -> None:
    app = _app(url)
    async with app.open_async():
        if command == "create":
            await app.schema_manager.apply_schema_async()
        elif command == "defer":
            deferrer = app.configure_task("nothing")
            for one in range(0, int(*number), _AT_ONCE):
                jobs: list[JSONDict] = [{"number": one + more} for more in range(_AT_ONCE)]
                await deferrer.batch_defer_async(*jobs)
        else:
            await app.run_worker_async(
                queues=["nothing"], concurrency=int(command), delete_jobs="always"
            )


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
