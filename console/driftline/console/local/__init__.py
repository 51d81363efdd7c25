"""The local Kafka and schema registry: real ones, started as child processes."""

from driftline.console.local.errors import LocalServiceError
from driftline.console.local.kafka import KafkaStatus, LocalKafka
from driftline.console.local.places import default_home, read_endpoints
from driftline.console.local.registry import LocalRegistry, RegistryStatus

__all__ = [
    "KafkaStatus",
    "LocalKafka",
    "LocalRegistry",
    "LocalServiceError",
    "RegistryStatus",
    "default_home",
    "read_endpoints",
]
