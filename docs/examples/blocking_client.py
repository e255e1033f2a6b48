"""A client that the threads of a synchronous program share."""
# Needs: pip install suno-persona
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

import asyncio
import threading

from suno_persona import CreatePersonaRequest, Persona, PersonaAPI


class BlockingClient:
    def __init__(self) -> None:
        self._api = PersonaAPI()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def create(self, request: CreatePersonaRequest) -> Persona:
        call = self._api.create(request)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._api.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


if __name__ == "__main__":
    client = BlockingClient()
    persona = client.create(
        CreatePersonaRequest(
            root_clip_id="54834687", name="Neon", description="Night drive"
        )
    )
    print(persona.id)
    client.close()
