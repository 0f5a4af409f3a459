"""An OpenAI-compatible server on loopback, for rehearsals and tests. It answers without a model.

``async with Simulator(settings) as simulator`` runs it in the caller's loop, ``start_in_thread(settings)``
beside blocking code, ``serve(settings)`` alone until a signal.
"""

from batchllm.simulator.chat import ScriptedResponse
from batchllm.simulator.ledger import Ledger
from batchllm.simulator.server import Received, Simulator
from batchllm.simulator.service import serve, start_in_thread
from batchllm.simulator.settings import BatchSettings, SimulatorSettings

__all__ = [
    "BatchSettings",
    "Ledger",
    "Received",
    "ScriptedResponse",
    "Simulator",
    "SimulatorSettings",
    "serve",
    "start_in_thread",
]
