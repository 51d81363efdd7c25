import os
import subprocess
import sys

PROGRAM = """
from driftline.detectors import ArmOutcome, Observation, SequentialJudge, planned_order
names = [f"workflow-{i % 37}" for i in range(90)]
judge = SequentialJudge(["s/t"], planned={"s/t": 90}, delta=1e-6, floor_runs=2)
for index in planned_order(names, seed=3):
    before = ArmOutcome(1.0, {"a=x": 1.0, names[index]: 2.0}, {"bytes": "x", "action": "x", "canonical": "x"})
    after = ArmOutcome(1.0, {"a=yz"[: 3 + index % 2]: 1.0, "n": index / 7}, {"bytes": "y", "action": str(index % 2)})
    if judge.decision is None:
        other = ArmOutcome(1.0, {}, {"bytes": "z", "canonical": str(index % 3), "state": names[index]})
        judge.observe(Observation("s/t", before, after, (before, other)))
print(judge.summary())
"""


def printed(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_judgement_does_not_depend_on_the_process_hash_seed() -> None:
    first = printed("1")
    assert "e_value" in first
    assert printed("2") == first
