"""The campaign is run as `python -m tests.faults.campaign`; its tests import it under the same name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
