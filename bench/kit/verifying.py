"""Mode `verify` in a process of its own: `python verifying.py SPEC.json` prints one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.kit.app import make_app
from bench.kit.resident import PEAK, resident_mb

from driftline.log import KafkaReader, Record, Settings, Span
from driftline.replay import AppSubject, Selection
from driftline.replay.verify import verify_log
from driftline.schemas import Codec, Registry


class FromFirst(KafkaReader):
    """Notes when its first record came."""

    began = began_cpu = 0.0

    def read(self, span: Span, headers: bool = True) -> Iterator[Record]:
        records = super().read(span, headers)
        first = next(records)
        self.began, self.began_cpu = time.perf_counter(), time.process_time()
        yield first
        yield from records


def main(spec: dict[str, Any]) -> None:
    settings = Settings(home=Path(spec["home"]), bootstrap_servers=spec["bootstrap"], registry_url=spec["registry"])
    app = make_app(spec["app"])
    subject = AppSubject(app, {})
    memory: list[float] = []
    reader = FromFirst(settings)
    codec = Codec(Registry(settings.require_registry()), app.contracts)
    result = verify_log(reader, codec, subject, Selection(), lambda _: memory.append(resident_mb()))
    spent, cpu = time.perf_counter() - reader.began, time.process_time() - reader.began_cpu
    told = {"records": result.decisions, "seconds": spent, "cpu_s": cpu, "peak_mb": resident_mb(which=PEAK)}
    print(json.dumps({**told, "verdict": result.verdict, "other_attempt": result.other_attempt, "memory_mb": memory}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
