"""Many predictions without a server: lines of JSON in, lines of JSON out, as batch prediction on Vertex AI."""

import json
from pathlib import Path
from typing import NamedTuple

from recbandits import checks
from recbandits.serving import versions
from recbandits.serving.schemas import Instance, Parameters, Prediction


class Answered(NamedTuple):
    """What became of the lines of a file.

    Attributes:
      predictions: `pathlib.Path` of the answers, each {"instance": ..., "prediction": ...}, in the order of the lines.
      answered: number of them.
      refusals: `pathlib.Path` of what was refused, each {"line": number from 1, "error": sentence}.
      refused: number of them.
    """

    predictions: Path
    answered: int
    refusals: Path
    refused: int


def check_exact(content):
    """Check that JSON lines have no integer that a double may round, as batch prediction on Vertex AI does.

    Args:
      content: bytes.

    Raises:
      ValueError: an integer of 2^53 or more; the sentence names the line and the number.
    """

    def read(digits):
        if abs(number := int(digits)) >= 2**53:
            raise OverflowError(digits)
        return number

    for row, line in enumerate(content.splitlines(), 1):
        try:
            json.loads(line, parse_int=read)
        except OverflowError as error:
            raise ValueError(f"line {row}: numbers must be below 2^53 for batch prediction, got {error}") from None
        except (ValueError, RecursionError):  # no JSON: the line gets its sentence when it is to be answered
            continue


def batch_predict(policy, source, destination):
    """Answer every line of a file, each an `Instance`; a bad line is written down, and the others are answered.

    Args:
      policy: directory of an exported policy.
      source: file of JSON lines; empty ones are passed over.
      destination: file for the answers, replaced when all are there; what was refused goes beside it, to the same name
        with `.errors`.

    Returns:
      `Answered`

    Raises:
      ValueError: there is no policy.
      OSError: a file cannot be read or written.
    """
    served = versions.find(policy)
    if served is None:
        raise ValueError(f"there is no policy in {policy}")
    good, bad = Path(destination), Path(f"{destination}.errors")
    counts = [0, 0]
    with (
        checks.replacing(good) as good_draft,
        checks.replacing(bad) as bad_draft,
        open(source, "rb") as lines,
        good_draft.open("w") as answers,
        bad_draft.open("w") as errors,
    ):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                recommendation = served.recommend(Instance.parse(line), Parameters())
            except ValueError as error:
                errors.write(json.dumps({"line": number, "error": str(error)}) + "\n")
                counts[1] += 1
                continue
            prediction = Prediction.model_validate(recommendation).model_dump()
            answers.write(json.dumps({"instance": json.loads(line), "prediction": prediction}) + "\n")
            counts[0] += 1
    return Answered(good, counts[0], bad, counts[1])
