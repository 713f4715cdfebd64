"""The SavedModel of a TF-Agents policy behind Vertex AI's default handler, as its documentation shows it."""

from recbandits.tf import tf

from google.cloud.aiplatform.prediction.predictor import Predictor
from tf_agents.trajectories import time_step as ts


class SavedModelPredictor(Predictor):
    """Instances are observations; predictions are numbers of arms."""

    def load(self, artifacts_uri, **_):
        self._policy = tf.saved_model.load(artifacts_uri)

    def predict(self, instances):
        observation = tf.constant(instances["instances"])
        step = self._policy.action(ts.restart(observation, len(observation)))
        return {"predictions": step.action.numpy().tolist()}
