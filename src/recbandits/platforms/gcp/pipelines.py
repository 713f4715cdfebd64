"""Runs of compiled pipelines on Vertex AI Pipelines.

The request is the one of `google.cloud.aiplatform.PipelineJob`, without its checks of the bucket, which `provisioning`
has made.
"""

from recbandits.platforms import Resource
from recbandits.platforms.gcp import explained


def submit(config, clients, template, name, parameters=None, caching=True):
    """Start a run of a compiled pipeline.

    Args:
      config: Config
      clients: `Clients`
      template: file that KFP's compiler has written.
      name: of the run, for good.
      parameters: dict from input of the pipeline to value.
      caching: whether steps whose inputs were seen before may give what they gave then.

    Returns:
      Resource name of the run.

    Raises:
      PlatformError: Vertex AI refused, or has a run of that name.
    """
    parent = f"projects/{config.project}/locations/{config.region}"
    document = pipeline_job(config, template, parameters or {}, caching)
    with explained(Resource("pipeline run", name), "started"):
        request = {"parent": parent, "pipeline_job": document, "pipeline_job_id": name}
        return clients.vertex("Pipeline").create_pipeline_job(request=request, timeout=60).name


def pipeline_job(config, template, parameters, caching):
    """The request for a run, a dict in the shape of `google.cloud.aiplatform_v1.PipelineJob`.

    Args:
      config: Config
      template: as of `submit`.
      parameters: dict from input of the pipeline to value.
      caching: as of `submit`.
    """
    from google.protobuf.json_format import MessageToDict
    from kfp.components import load_component_from_file

    spec = MessageToDict(load_component_from_file(str(template)).pipeline_spec)
    for task in _tasks(spec):
        task["cachingOptions"] = {"enableCache": caching}
    return {
        "display_name": spec["pipelineInfo"]["name"],
        "pipeline_spec": spec,
        "runtime_config": {"gcs_output_directory": f"gs://{config.bucket}/pipelines", "parameter_values": parameters},
        "service_account": config.service_account,
        "labels": config.labels,
    }


def _tasks(spec):
    """Every step of a pipeline and of the pipelines in it."""
    parts = [spec["root"], *spec["components"].values()]
    return [task for part in parts for task in part.get("dag", {}).get("tasks", {}).values()]
