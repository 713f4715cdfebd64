"""Alerts by e-mail: failing predictions, alarms of the loop's monitors, and the spending of a month.

Cloud Monitoring, Cloud Billing and Billing Budgets are called over REST: no other module needs their client libraries.
"""

from recbandits.config import Config
from recbandits.platforms.gcp.cloud import explained, patiently, rest
from recbandits.platforms.pipelines import ALARM
from recbandits.platforms.protocol import PlatformError

BUDGET = 200  # in the currency of the billing account, for a month; the loop's is in learning/google-cloud-costs.md
_MONITORING = "https://monitoring.googleapis.com/v3"
_BUDGETS = "https://billingbudgets.googleapis.com/v1"


def create_alerts(config: Config, project_number: str) -> list[tuple[str, str]]:
    """Have e-mails sent to `config.alert_email`; alerts that exist are kept.

    Args:
      config: Config
      project_number: of the project, for which the budget is.

    Returns:
      list of (kind, name) of all alerts.

    Raises:
      PlatformError: Google Cloud refused, or the project has no billing account. To create a budget, the caller needs
        the role Billing Account Costs Manager on the billing account.
    """

    def create():
        (channel,) = _have(config, "notificationChannels", [_channel(config)])
        policies = [_failing_predictions(config), _monitor_alarms(config)]
        _have(config, "alertPolicies", [policy | {"notificationChannels": [channel]} for policy in policies])
        if not _budgets(config):
            rest("POST", _budgets_address(config), _budget(config, project_number, channel))

    with explained(f"alerts to {config.alert_email}"):
        patiently(create)
    return find_alerts(config)


def find_alerts(config: Config) -> list[tuple[str, str]]:
    """List (kind, name) of our alerts in an order in which they can be deleted.

    Raises:
      PlatformError: Google Cloud refused.
    """
    with explained("alerts"):
        alerts = {"alert policy": _ours(config, "alertPolicies"), "channel": _ours(config, "notificationChannels")}
        alerts["budget"] = _budgets(config)
    return [(kind, alert["name"]) for kind, listed in alerts.items() for alert in listed]


def delete_alert(name: str) -> None:
    """Delete an alert that `find_alerts` has listed."""
    rest("DELETE", f"{_BUDGETS if name.startswith('billingAccounts/') else _MONITORING}/{name}")


def _have(config, kind, resources):
    """Create those resources of a kind that do not exist, by their display names; list of their names."""
    known = {each["displayName"]: each["name"] for each in _ours(config, kind)}
    address = f"{_MONITORING}/projects/{config.project}/{kind}"
    for resource in resources:
        title = resource["displayName"]
        if title not in known:
            known[title] = rest("POST", address, resource)["name"]
    return [known[resource["displayName"]] for resource in resources]


def _ours(config, kind):
    """List the resources of Cloud Monitoring of a kind that bear our labels."""
    condition = " AND ".join(f'user_labels.{key}="{text}"' for key, text in config.labels.items())
    address = f"{_MONITORING}/projects/{config.project}/{kind}"
    return rest("GET", address, query={"filter": condition, "pageSize": 1000}).get(kind, [])


def _channel(config):
    return {
        "type": "email",
        "displayName": config.base,
        "labels": {"email_address": config.alert_email},
        "userLabels": config.labels,
    }


def _failing_predictions(config):
    """Return the policy that alerts when more than 1 % of an endpoint's requests have failed for five minutes."""
    metric = "aiplatform.googleapis.com/prediction/online/{}_count"
    endpoint = f'resource.type="aiplatform.googleapis.com/Endpoint" AND resource.labels.endpoint_id="{config.endpoint}"'
    count = {"alignmentPeriod": "300s", "perSeriesAligner": "ALIGN_SUM", "crossSeriesReducer": "REDUCE_SUM"}
    condition = {
        "filter": f'{endpoint} AND metric.type="{metric.format("error")}"',
        "aggregations": [count],
        "denominatorFilter": f'{endpoint} AND metric.type="{metric.format("prediction")}"',
        "denominatorAggregations": [count],
        "comparison": "COMPARISON_GT",
        "thresholdValue": 0.01,
        "duration": "0s",
    }
    return _policy(config, "predictions fail", {"conditionThreshold": condition})


def _monitor_alarms(config):
    """Return the policy that alerts when a monitor in the re-training pipeline has written an alarm into its log."""
    condition = {"filter": f'"{ALARM} {config.base}:"'}
    limit = {"notificationRateLimit": {"period": "3600s"}}  # policies on logs must have one
    return _policy(config, "a monitor of the loop alarms", {"conditionMatchedLog": condition}) | {
        "alertStrategy": limit
    }


def _policy(config, title, condition):
    title = f"{config.base}: {title}"
    return {
        "displayName": title,
        "combiner": "OR",
        "conditions": [{"displayName": title, **condition}],
        "userLabels": config.labels,
    }


def _budgets(config):
    """List our budgets by their display name, for budgets have no labels."""
    listed = rest("GET", _budgets_address(config)).get("budgets", [])
    return [each for each in listed if each["displayName"] == _budget_name(config)]


def _budgets_address(config):
    info = rest("GET", f"https://cloudbilling.googleapis.com/v1/projects/{config.project}/billingInfo")
    if not info.get("billingAccountName"):
        raise PlatformError(f"project {config.project} has no billing account: link one, or leave alert_email empty")
    return f"{_BUDGETS}/{info['billingAccountName']}/budgets"


def _budget_name(config):
    return f"{config.base} in {config.project}"


def _budget(config, project_number, channel):
    return {
        "displayName": _budget_name(config),
        "budgetFilter": {"projects": [f"projects/{project_number}"]},
        "amount": {"specifiedAmount": {"units": str(BUDGET)}},
        "thresholdRules": [{"thresholdPercent": share} for share in (0.5, 0.9, 1.0)],
        "notificationsRule": {"monitoringNotificationChannels": [channel]},
    }
