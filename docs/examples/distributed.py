"""Share a batch between workers on any number of machines; here, with one of them.

Set `SUNO_JOURNAL_URL` to an empty database, such as `postgresql:///personas`.
"""
# Needs: pip install 'suno-persona[distributed]'
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

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
        print(f"{await enqueue(app, requests)} enqueued")
        # More of them, on any machine: suno-persona worker
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(
                app.run_worker_async(install_signal_handlers=False)
            )
            async for outcome in outcomes(app):
                result = outcome.persona.id if outcome.persona else outcome.error
                print(f"{outcome.request.name}: {result}")
            worker.cancel()  # jobs in flight finish first


if __name__ == "__main__":
    asyncio.run(main())
