"""The public surface of the room, and what its import may cost."""

import subprocess
import sys

import driftline.schemas


def test_all_names_are_there_and_sorted() -> None:
    names = driftline.schemas.__all__
    assert sorted(names) == list(names)
    assert all(hasattr(driftline.schemas, name) for name in names)


def test_the_room_imports_no_room_above_it_and_no_client_before_it_is_used() -> None:
    code = (
        "import sys, driftline.schemas, driftline.schemas.evolution, driftline.schemas.recorded\n"
        "rooms = {'log', 'producers', 'consumers', 'replay', 'detectors', 'console'}\n"
        "found = {f'driftline.{room}' for room in rooms} | {'confluent_kafka', 'avro', 'litellm', 'hypothesis'}\n"
        "sys.exit(', '.join(found & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
