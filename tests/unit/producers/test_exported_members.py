"""What the producers room offers, and what it does not drag along."""

import subprocess
import sys

import driftline.producers


def test_the_producers_room_offers_these_names() -> None:
    assert driftline.producers.__all__ == [
        "Delivery",
        "DeliveryFailed",
        "ImportSummary",
        "JudgeLine",
        "JudgedLine",
        "LineForm",
        "PublishSummary",
        "Publisher",
        "QueueFull",
        "import_recorded",
        "publish_lines",
    ]
    assert all(hasattr(driftline.producers, name) for name in driftline.producers.__all__)


def test_a_publisher_needs_no_model_and_no_analytics() -> None:
    heavy = "import sys, driftline.producers; print([m for m in ('litellm', 'duckdb', 'numpy') if m in sys.modules])"
    path = "import sys; sys.path[:0] = " + repr(sys.path) + "; "
    ran = subprocess.run([sys.executable, "-c", path + heavy], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
