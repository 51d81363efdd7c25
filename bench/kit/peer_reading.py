"""A bare confluent-kafka loop over a topic: `python peer_reading.py SPEC.json decode|bytes`, nothing of driftline.

`decode` decodes each value with fastavro, `bytes` looks at its length alone. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.kit.resident import PEAK, resident_mb
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader

BATCH = 1_000
FRAME_BYTES = 5
"""Magic byte and schema id, before the Avro."""


def read(spec: dict[str, Any], decode: bool) -> tuple[int, float, float]:
    """How many records were read, and when the first had come: on the clock and of CPU."""
    schema = parse_schema(spec["schema"])
    consumer = Consumer(
        {
            "bootstrap.servers": spec["bootstrap"],
            "group.id": "bare",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(spec["topic"], p, OFFSET_BEGINNING) for p in range(spec["partitions"])])
    done = length = 0
    messages = consumer.consume(1, 30.0)
    began = time.perf_counter(), time.process_time()
    while done < spec["records"]:
        for message in messages:
            value: Any = message.value()
            if decode:
                schemaless_reader(BytesIO(value[FRAME_BYTES:]), schema, None)
            else:
                length += len(value)
            done += 1
        if done < spec["records"]:
            messages = consumer.consume(BATCH, 0.1)
    consumer.close()
    return done, *began


def main(spec: dict[str, Any], decode: bool) -> None:
    done, began, began_cpu = read(spec, decode)
    spent, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(json.dumps({"records": done, "seconds": spent, "cpu_s": cpu, "peak_mb": resident_mb(which=PEAK)}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2] == "decode")
