"""Alerts by e-mail: failing predictions, alarms of the loop's monitors, and the spending of a month.

Cloud Monitoring, Cloud Billing and Billing Budgets are called over REST: no other module needs their client libraries.
"""

from recbandits.config import Config
from recbandits.platforms.gcp.cloud import explained, labelled, patiently, rest
from recbandits.platforms.pipelines import ALARM
from recbandits.platforms.protocol import PlatformError

BUDGET = 200  # in the currency of the billing account, for a month; the loop's is in learning/google-cloud-costs.md
_MONITORING = "https://monitoring.googleapis.com/v3"
_BUDGETS = "https://billingbudgets.googleapis.com/v1"


def create_alerts(config: Config, project_number: str) -> list[tuple[str, str]]:
    """Have e-mails sent to `config.alert_email`; list (kind, name) of all alerts, of which those that exist are kept.

    Raises:
      PlatformError: Google Cloud refused, or the project has no billing account. To create a budget, the caller needs
        the role Billing Account Costs Manager on the billing account.
    """

    def create():
        labels = {"email_address": config.alert_email}
        email = {"type": "email", "displayName": config.base, "labels": labels, "userLabels": config.labels}
        (channel,) = _have(config, "notificationChannels", [email])
        _have(config, "alertPolicies", [_failing_predictions(config, channel), _monitor_alarms(config, channel)])
        if not _budgets(config):
            budget = {
                "displayName": _budget_name(config),
                "budgetFilter": {"projects": [f"projects/{project_number}"]},
                "amount": {"specifiedAmount": {"units": str(BUDGET)}},
                "thresholdRules": [{"thresholdPercent": share} for share in (0.5, 0.9, 1.0)],
                "notificationsRule": {"monitoringNotificationChannels": [channel]},
            }
            rest("POST", _budgets_address(config), budget)

    with explained(f"alerts to {config.alert_email}"):
        patiently(create)
    return find_alerts(config)


def find_alerts(config: Config) -> list[tuple[str, str]]:
    """List (kind, name) of our alerts in an order in which they can be deleted."""
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
    for resource in resources:
        if resource["displayName"] not in known:
            made = rest("POST", f"{_MONITORING}/projects/{config.project}/{kind}", resource)
            known[resource["displayName"]] = made["name"]
    return [known[resource["displayName"]] for resource in resources]


def _ours(config, kind):
    """List the resources of Cloud Monitoring of a kind that bear our labels."""
    query = {"filter": labelled(config).replace("labels.", "user_labels."), "pageSize": 1000}
    return rest("GET", f"{_MONITORING}/projects/{config.project}/{kind}", query=query).get(kind, [])


def _failing_predictions(config, channel):
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
    return _policy(config, channel, "predictions fail", {"conditionThreshold": condition})


def _monitor_alarms(config, channel):
    """Return the policy that alerts when a monitor in the re-training pipeline has written an alarm into its log."""
    condition = {"conditionMatchedLog": {"filter": f'"{ALARM} {config.base}:"'}}
    limit = {"notificationRateLimit": {"period": "3600s"}}  # policies on logs must have one
    return _policy(config, channel, "a monitor of the loop alarms", condition) | {"alertStrategy": limit}


def _policy(config, channel, title, condition):
    title = f"{config.base}: {title}"
    policy = {"displayName": title, "combiner": "OR", "conditions": [{"displayName": title, **condition}]}
    return policy | {"userLabels": config.labels, "notificationChannels": [channel]}


def _budgets(config):
    """List our budgets by their display name, for budgets have no labels."""
    address, listed, token = _budgets_address(config), [], ""
    while token is not None:
        page = rest("GET", address, query={"pageToken": token})
        listed, token = listed + page.get("budgets", []), page.get("nextPageToken") or None
    return [each for each in listed if each["displayName"] == _budget_name(config)]


def _budgets_address(config):
    info = rest("GET", f"https://cloudbilling.googleapis.com/v1/projects/{config.project}/billingInfo")
    if not info.get("billingAccountName"):
        raise PlatformError(f"project {config.project} has no billing account: link one, or leave alert_email empty")
    return f"{_BUDGETS}/{info['billingAccountName']}/budgets"


def _budget_name(config):
    return f"{config.base} in {config.project}"
