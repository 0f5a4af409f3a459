"""An OpenAI-compatible server on loopback, for rehearsals and tests. It answers without a model.

``async with Simulator(settings) as simulator`` runs it in the caller's loop, ``start_in_thread(settings)``
beside blocking code, ``serve(settings)`` alone until a signal.
"""

from batchllm.simulator.app import Received, Simulator
from batchllm.simulator.chat import Scripted
from batchllm.simulator.ledger import Ledger
from batchllm.simulator.service import Running, serve, start_in_thread
from batchllm.simulator.settings import BatchSettings, SimulatorSettings

__all__ = [
    "BatchSettings",
    "Ledger",
    "Received",
    "Running",
    "Scripted",
    "Simulator",
    "SimulatorSettings",
    "serve",
    "start_in_thread",
]
