"""What Vertex AI is asked for jobs, studies and runs of pipelines: pure functions that give dicts as in its API."""

from dataclasses import replace
from pathlib import Path

from recbandits.platforms.jobs import MACHINES, Choice, Float, Machine
from recbandits.platforms.pipelines import IMAGE, SNAPSHOT
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import with_parameters

REDUCTION_SERVER = "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"
_REDUCTION_MACHINE = "n1-highcpu-16"


def custom_job(config, job, tensorboard=""):
    """The request for a training job.

    Args:
      config: Config
      job: Job
      tensorboard: resource name of a managed TensorBoard, or empty.

    Returns:
      dict in the shape of `google.cloud.aiplatform_v1.CustomJob`.
    """
    return {"display_name": job.name, "job_spec": _job_spec(config, job, tensorboard), "labels": config.labels}


def tuning_job(config, study, tensorboard=""):
    """The request for a study.

    Args:
      config: Config
      study: Study; Vertex AI's search takes no seed.
      tensorboard: resource name of a managed TensorBoard, or empty.

    Returns:
      dict in the shape of `google.cloud.aiplatform_v1.HyperparameterTuningJob`.
    """
    kept = with_parameters(study.job.arguments, dict.fromkeys(study.parameters, ""))[: -len(study.parameters)]
    job = replace(study.job, arguments=kept)  # Vertex AI adds the parameters itself
    metric = {"metric_id": study.metric, "goal": "MAXIMIZE" if study.maximise else "MINIMIZE"}
    parameters = [{"parameter_id": name, **_parameter(values)} for name, values in study.parameters.items()]
    return {
        "display_name": study.job.name,
        "study_spec": {"metrics": [metric], "parameters": parameters},
        "max_trial_count": study.trials,
        "parallel_trial_count": min(study.parallel, study.trials),
        "trial_job_spec": _job_spec(config, job, tensorboard),
        "labels": config.labels,
    }


def machine_spec(machine):
    """A `Machine`, or one of `MACHINES` by its key, in the shape of Vertex AI's MachineSpec."""
    machine = machine if isinstance(machine, Machine) else MACHINES[machine]
    spec = {"machine_type": machine.type}
    if machine.accelerator:
        spec |= {"accelerator_type": machine.accelerator, "accelerator_count": machine.accelerators}
    return spec | ({"tpu_topology": machine.topology} if machine.topology else {})


def pipeline_job(config, template, parameters, caching, image):
    """The request for a run, a dict in the shape of `google.cloud.aiplatform_v1.PipelineJob`.

    Nothing comes from a cache where the pipeline has an input `SNAPSHOT` and is not told it: such a run reads what it
    finds when it begins, and its parameters, the cache's key, are those of the run before.

    Args:
      config: Config
      template: file that KFP's compiler has written.
      parameters: dict from input of the pipeline to value.
      caching: as of `pipelines.submit`.
      image: as of `pipeline_spec`; part of the cache's key, so that what may be cached needs one by its digest.
    """
    spec = pipeline_spec(template, image)
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    if not caching or (SNAPSHOT in inputs and not parameters.get(SNAPSHOT)):
        for task in _tasks(spec):
            task["cachingOptions"] = {"enableCache": False}
    return {
        "display_name": spec["pipelineInfo"]["name"],
        "pipeline_spec": spec,
        "runtime_config": {"gcs_output_directory": f"gs://{config.bucket}/pipelines", "parameter_values": parameters},
        "service_account": config.account("train"),
        "labels": config.labels,
    }


def pipeline_spec(template, image):
    """What a compiled pipeline says, with the configuration's own image for training in the place of `IMAGE`.

    Args:
      template: file that KFP's compiler has written.
      image: function without arguments that gives the URI of that image; called where the pipeline has such a place.

    Raises:
      PlatformError: the template is no compiled pipeline.
    """
    import yaml

    try:
        spec = next(yaml.safe_load_all(Path(template).read_text(encoding="utf-8")))
        containers = [executor["container"] for executor in spec["deploymentSpec"]["executors"].values()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, StopIteration, LookupError, TypeError) as error:
        raise PlatformError(f"template must be a compiled pipeline, got {template}: {error}") from error
    if ours := [container for container in containers if container["image"] == IMAGE]:
        uri = image()
        for container in ours:
            container["image"] = uri
    return spec


def _job_spec(config, job, tensorboard):
    """Pool 0 is the chief, pool 1 its workers, pool 2 the reduction servers."""
    machine = machine_spec(job.machine)
    ours = config.image("train-gpu" if "accelerator_type" in machine else "train")
    container = {"image_uri": job.image or ours, "args": list(job.arguments)}
    replica = {"machine_spec": machine, "container_spec": container}
    pools = [replica | {"replica_count": count} for count in (1, job.replicas - 1) if count]
    if job.reduction_servers:
        servers = {"machine_spec": {"machine_type": _REDUCTION_MACHINE}, "replica_count": job.reduction_servers}
        pools.append(servers | {"container_spec": {"image_uri": REDUCTION_SERVER}})
    spec = {
        "worker_pool_specs": pools,
        "service_account": config.account("train"),
        "base_output_directory": {"output_uri_prefix": f"gs://{config.bucket}/jobs/{job.name}"},
    }
    spec |= {"scheduling": {"strategy": "SPOT"}} if job.spot else {}
    return spec | ({"tensorboard": tensorboard} if tensorboard else {})


def _parameter(values):
    if isinstance(values, Float):
        scale = "UNIT_LOG_SCALE" if values.log else "UNIT_LINEAR_SCALE"
        return {"double_value_spec": {"min_value": values.low, "max_value": values.high}, "scale_type": scale}
    if not isinstance(values, Choice):
        return {"integer_value_spec": {"min_value": values.low, "max_value": values.high}}
    if isinstance(values.values[0], str):
        return {"categorical_value_spec": {"values": list(values.values)}}
    return {"discrete_value_spec": {"values": sorted(values.values)}}


def _tasks(spec):
    """Every step of a pipeline and of the pipelines in it."""
    parts = [spec["root"], *spec["components"].values()]
    return [task for part in parts for task in part.get("dag", {}).get("tasks", {}).values()]
