from datetime import UTC, datetime, timedelta

from src.generator.component import generator

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = START + timedelta(seconds=30)


def test_the_generator_writes_first_interactions_once(project, run_step):
    """50 decisions, 10 % of them without a reward, some with two; the second time nothing is new."""
    asked = {
        "config": project.parameter,
        "world": str(project.world_directory),
        "start": START.isoformat(),
        "end": END.isoformat(),
        "first": 50,
        "candidates": 5,
        "seed": 7,
    }
    first, second = (run_step(generator, **asked) for _ in range(2))
    rows = project.platform.warehouse.decisions(START, END, 5.0, 1.0)
    assert rows.num_rows == 50
    assert set(rows["policy_version"].to_pylist()) == {"uniform"}
    assert set(rows["propensity"].to_pylist()) == {1 / 5}
    counted = first.artifacts["metrics"][1]
    assert counted == {"decisions": 50, "rewards": counted["rewards"], "written": 50 + counted["rewards"]}
    assert second.artifacts["metrics"][1] == counted | {"written": 0}
    assert first.parameters == second.parameters == {"Output": project.platform.warehouse.snapshot(START, END)}
