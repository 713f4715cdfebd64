"""Alerts: what Cloud Monitoring and Billing Budgets are asked for, once, and how it is found and deleted."""

from dataclasses import replace

import pytest
from google.api_core import exceptions

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.alerts import BUDGET, create_alerts, delete_alert, find_alerts
from recbandits.platforms.pipelines import ALARM
from recbandits.platforms.protocol import PlatformError

CONFIG = Config(platform="gcp", project="movie-lab-42", alert_email="ops@example.com")
MONITORING = "https://monitoring.googleapis.com/v3/projects/movie-lab-42"
BILLING = "https://cloudbilling.googleapis.com/v1/projects/movie-lab-42/billingInfo"
BUDGETS = "https://billingbudgets.googleapis.com/v1/billingAccounts/ABC-123/budgets"
COLLECTIONS = {
    "notificationChannels": f"{MONITORING}/notificationChannels",
    "alertPolicies": f"{MONITORING}/alertPolicies",
    "budgets": BUDGETS,
}


@pytest.fixture
def resources(cloud, no_pauses):
    """Resources by collection; the recorder lists them, and appends to them."""
    resources = {kind: [] for kind in COLLECTIONS}

    def create(kind):
        def answer(record):
            name = f"{COLLECTIONS[kind].partition('.com/v')[2].partition('/')[2]}/{len(resources[kind])}"
            resources[kind].append(record["body"] | {"name": name})
            return resources[kind][-1]

        return answer

    for kind, address in COLLECTIONS.items():
        cloud.answers[f"GET {address}"] = lambda _, kind=kind: {kind: list(resources[kind])}
        cloud.answers[f"POST {address}"] = create(kind)
    cloud.answers[f"GET {BILLING}"] = {"billingAccountName": "billingAccounts/ABC-123"}
    return resources


def test_alerts_are_of_failing_predictions_alarms_and_the_budget(resources):
    """A share of the endpoint's requests; the text that monitors log; the account's own currency."""
    create_alerts(CONFIG, "123456789")
    (channel,) = resources["notificationChannels"]
    assert (channel["type"], channel["labels"]) == ("email", {"email_address": "ops@example.com"})
    for policy in resources["alertPolicies"]:
        assert policy["notificationChannels"] == [channel["name"]]
        assert policy["userLabels"] == channel["userLabels"] == CONFIG.labels
        assert len(policy["conditions"]) == 1
    condition = resources["alertPolicies"][0]["conditions"][0]["conditionThreshold"]
    assert condition["thresholdValue"] == 0.01
    for key, metric in (("filter", "error_count"), ("denominatorFilter", "prediction_count")):
        assert f'metric.type="aiplatform.googleapis.com/prediction/online/{metric}"' in condition[key]
        assert 'resource.labels.endpoint_id="recbandits-v1"' in condition[key]
    policy = resources["alertPolicies"][1]
    assert policy["conditions"][0]["conditionMatchedLog"] == {"filter": f'"{ALARM} recbandits-v1:"'}
    assert policy["alertStrategy"] == {"notificationRateLimit": {"period": "3600s"}}
    (budget,) = resources["budgets"]
    assert budget["budgetFilter"] == {"projects": ["projects/123456789"]}
    assert budget["amount"] == {"specifiedAmount": {"units": str(BUDGET)}}
    assert [rule["thresholdPercent"] for rule in budget["thresholdRules"]] == [0.5, 0.9, 1.0]
    assert budget["notificationsRule"]["monitoringNotificationChannels"] == [channel["name"]]


def test_a_second_call_creates_nothing(cloud, resources):
    first = create_alerts(CONFIG, "123456789")
    cloud.calls.clear()
    assert create_alerts(CONFIG, "123456789") == first
    assert cloud.requests("POST .*") == []


def test_services_that_were_enabled_a_minute_ago_are_asked_again(cloud, resources):
    refusals = {}
    for address in COLLECTIONS.values():
        listing = cloud.answers[f"GET {address}"]
        refusals[address] = [exceptions.Forbidden("The API has not been used before or it is disabled.")]
        cloud.answers[f"GET {address}"] = lambda record, answers=refusals[address], listing=listing: (
            answers.pop() if answers else listing(record)
        )
    create_alerts(CONFIG, "123456789")
    assert [len(each) for each in resources.values()] == [1, 2, 1]
    assert not any(refusals.values())


def test_ours_are_listed_by_label_and_by_name_policies_before_the_channel_that_they_use(cloud, resources):
    create_alerts(CONFIG, "123456789")
    resources["budgets"].append({"name": "billingAccounts/ABC-123/budgets/9", "displayName": "of another project"})
    assert [kind for kind, _ in find_alerts(CONFIG)] == ["alert policy"] * 2 + ["channel", "budget"]
    expected_filter = 'user_labels.app="recbandits" AND user_labels.prefix="recbandits" AND user_labels.version="v1"'
    listings = [each["query"]["filter"] for each in cloud.requests(f"GET {MONITORING}/.*")]
    assert set(listings) == {expected_filter}


def test_a_budget_is_found_behind_a_hundred_of_other_projects(cloud, resources):
    """The list of a billing account comes in pages."""
    expected = create_alerts(CONFIG, "123456789")
    pages = {
        "": {"budgets": [{"name": "other", "displayName": "of another project"}] * 100, "nextPageToken": "next"},
        "next": {"budgets": resources["budgets"]},
    }
    cloud.answers[f"GET {BUDGETS}"] = lambda record: pages[record["query"].get("pageToken", "")]
    assert find_alerts(CONFIG) == expected


def test_an_alert_is_deleted_where_it_was_listed(cloud, resources):
    create_alerts(CONFIG, "123456789")
    cloud.answers["DELETE .*"] = {}
    for _, name in find_alerts(CONFIG):
        delete_alert(name)
    deleted = [method.removeprefix("DELETE ") for method in cloud.methods("DELETE")]
    assert deleted == [
        f"{MONITORING}/alertPolicies/0",
        f"{MONITORING}/alertPolicies/1",
        f"{MONITORING}/notificationChannels/0",
        f"{BUDGETS}/0",
    ]


def test_a_project_is_set_up_and_cleaned_up_with_its_alerts(cloud, resources):
    outcomes = GcpPlatform(CONFIG).create()
    alerts = [(outcome.kind, outcome.name) for outcome in outcomes][-4:]
    assert alerts == find_alerts(CONFIG)
    (request,) = cloud.requests("BatchEnableServices")
    assert {"cloudbilling.googleapis.com", "billingbudgets.googleapis.com"} <= set(request["serviceIds"])
    assert [(kind, name) for kind, name, _ in GcpPlatform(CONFIG).clean_up()][-4:] == alerts


def test_what_is_billed_is_removed_though_alerts_cannot_be_listed(cloud, resources):
    GcpPlatform(CONFIG).create()
    cloud.answers[f"GET {BILLING}"] = exceptions.Forbidden("no role on the billing account")
    with pytest.raises(PlatformError, match=r"alerts: 403 .*no role on the billing account"):
        GcpPlatform(CONFIG).clean_up(dry_run=False)
    assert f"/storage/v1/b/{CONFIG.bucket}" not in cloud.documents
    assert f"/v1/projects/movie-lab-42/serviceAccounts/{CONFIG.account('train')}" not in cloud.documents


def test_without_an_address_billing_is_not_asked_for(cloud):
    platform = GcpPlatform(replace(CONFIG, alert_email=""))
    platform.create()
    platform.clean_up()
    assert not [method for method, _ in cloud.calls if "billing" in method]


def test_a_project_without_a_billing_account_is_one_sentence(cloud, resources):
    cloud.answers[f"GET {BILLING}"] = {}
    with pytest.raises(
        PlatformError, match="movie-lab-42 has no billing account: link one, or leave alert_email empty"
    ):
        create_alerts(CONFIG, "123456789")


@pytest.mark.parametrize("address", ["a@b", "a@example.com\n"])
def test_an_alert_email_must_be_an_address(address):
    with pytest.raises(ValueError, match="alert_email must be an e-mail address, or empty for no alerts, got"):
        Config(alert_email=address)
