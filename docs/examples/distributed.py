"""A batch that workers on any number of machines share; here, one in this process.

`SUNO_JOURNAL_URL` names an empty database, such as `postgresql:///personas`.
"""
# Needs: pip install 'suno-persona[distributed]'
# SUNO_API_KEY and SUNO_BASE_URL name the service: `suno-persona fake` runs one to try
# this with, and prints both.

import asyncio
import os

from suno_persona import CreatePersonaRequest
from suno_persona.distributed import enqueue, make_app, outcomes

app = make_app(os.environ["SUNO_JOURNAL_URL"])


async def main() -> None:
    requests = [
        CreatePersonaRequest(
            root_clip_id=f"clip-{number}",
            name=f"Voice {number}",
            description="Airy pop",
        )
        for number in range(10)
    ]
    async with app.open_async():
        if not await app.check_connection_async():  # the queue has no tables yet
            await app.schema_manager.apply_schema_async()
        print(f"{await enqueue(app, requests)} enqueued")
        # Others: PYTHONPATH=docs/examples procrastinate --app=distributed.app worker
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(
                app.run_worker_async(install_signal_handlers=False)
            )
            async for outcome in outcomes(app):
                result = outcome.persona.id if outcome.persona else outcome.error
                print(f"{outcome.request.name}: {result}")
            worker.cancel()  # it finishes what is under way


if __name__ == "__main__":
    asyncio.run(main())
