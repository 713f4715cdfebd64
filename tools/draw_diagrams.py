"""Draw the diagrams of the READMEs: python -m tools.draw_diagrams."""

from itertools import pairwise

from tools.diagrams import Arrow, Box, Frame, draw
from tools.notebooks import ROOT


def step_by_step():
    """The way of notebook 04-01, what each step is on this machine and on Vertex AI."""
    steps = {
        "local": ("train here", "src/training/local.py", "this process", "Workbench"),
        "tests": ("test", "pytest src", "pytest", "pytest, in CI"),
        "study": ("tune", "a study of trials", "Optuna, processes", "HyperparameterTuningJob"),
        "job": ("train in full", "best parameters, profiler", "a process, its record", "CustomJob, image train"),
        "policy": ("export", "policy with its version", "a directory", "Model, image serve"),
        "endpoint": ("deploy", "one endpoint", "server, UNIX socket", "Endpoint"),
        "answers": ("predict", "src/prediction", "client, curl, batch", "SDK, curl, gcloud, batch"),
    }
    boxes, arrows, names = {}, [], list(steps)
    for number, (name, (title, text, here, there)) in enumerate(steps.items()):
        x = 2.75 * number
        boxes[name] = Box(x, 0, f"{title}\n{text}")
        boxes[f"{name} here"] = Box(x, -1.45, here, "store", height=0.7)
        boxes[f"{name} there"] = Box(x, -2.95, there, "service", height=0.7)
    arrows += [Arrow(*pair) for pair in pairwise(names)]
    right = 2.75 * (len(steps) - 1) + 1.5
    lanes = [Frame(-1.5, -2.25, right, -0.95, "platform = local"), Frame(-1.5, -3.75, right, -2.45, "platform = gcp")]
    return draw(boxes, arrows, lanes)


def closed_loop():
    """The loop of notebook 04-02."""
    boxes = {
        "simulator": Box(0, 0, "simulator\nusers, later their rewards"),
        "endpoint": Box(0, -3.2, "endpoint\nserving, canary, control", "service"),
        "rewards": Box(5.0, 0, "topic rewards\nPub/Sub", "service"),
        "interactions": Box(5.0, -3.2, "topic interactions\nPub/Sub", "service"),
        "logger": Box(8.7, -1.6, "logger\ntwo functions, MERGE"),
        "warehouse": Box(12.3, -1.6, "warehouse\ninteractions, rewards,\nquarantine, verdicts", "store", height=1.2),
        "importer": Box(12.3, 0.4, "importer\na log, once"),
        "trigger": Box(15.9, -1.6, "trigger\ncron, or n new events"),
        "guard": Box(8.7, -4.4, "guardrail\npromotes, rolls back"),
        "deployer": Box(5.0, -6.3, "deployer\ncandidates that\npassed the gate"),
        "evaluator": Box(8.7, -6.3, "evaluator\noff-policy, interval"),
        "trainer": Box(12.3, -6.3, "trainer\nnew events, one pass"),
        "ingester": Box(15.9, -6.3, "ingester\nwindow, join, digest"),
        "monitor": Box(15.9, -8.1, "monitor\npropensities, drift"),
    }
    arrows = [
        Arrow("simulator", "endpoint", "asks", bend=0.25),
        Arrow("endpoint", "simulator", "answers", bend=0.25),
        Arrow("simulator", "rewards", "later"),
        Arrow("endpoint", "interactions", "propensity"),
        Arrow("interactions", "logger"),
        Arrow("rewards", "logger"),
        Arrow("logger", "warehouse"),
        Arrow("importer", "warehouse", "start-up", dashed=True),
        Arrow("warehouse", "trigger"),
        Arrow("trigger", "ingester", "starts"),
        Arrow("warehouse", "ingester", "snapshot", dashed=True),
        Arrow("ingester", "trainer"),
        Arrow("ingester", "monitor"),
        Arrow("trainer", "evaluator"),
        Arrow("evaluator", "deployer"),
        Arrow("deployer", "endpoint", "canary"),
        Arrow("warehouse", "guard", "rewards by version", dashed=True),
        Arrow("guard", "endpoint", "traffic", bend=-0.08, dashed=True),
    ]
    frame = Frame(3.5, -9.1, 17.4, -5.6, "re-training pipeline; that of start-up has the importer and no evaluator")
    return draw(boxes, arrows, [frame])


DIAGRAMS = {"04-01": step_by_step, "04-02": closed_loop}


def main():
    for name, make in DIAGRAMS.items():
        make().savefig(ROOT / "docs" / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
