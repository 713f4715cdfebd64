"""A canary on one endpoint: deployed, ramped, promoted, rolled back or withdrawn by its rewards, each once."""

import dataclasses
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from true_policies import NOON, policy

from recbandits.evaluation.sequential import critical_value, difference
from recbandits.loop.canary import (
    _MISMATCH,
    _is_mismatch,
    collect_evidence,
    deploy,
    find_experiment,
    guard,
    serving_version,
    verdict_of,
)
from recbandits.loop.gate import Judgement, finite_or_none, predicted_values
from recbandits.loop.ingest import log_of
from recbandits.loop.rounds import MemoryEndpoint
from recbandits.loop.settings import Guardrail
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction, Reward

RULE = STARS
GUARDRAIL = Guardrail(canary=20, ramp=20, holdback=10, least=50, most=400, margin=0.07)  # of 4.2 stars: 0.294


def judgement(candidate, serving, outcome="passed"):
    return Judgement(outcome, f"It is {outcome}.", candidate.version, serving.version, 0.1, 0.0, 0.2)


@pytest.fixture(scope="module")
def policies(users):
    return [policy(users, quality) for quality in (0.2, 0.6, 1.0)]


class RacingEndpoint(MemoryEndpoint):
    """Calls `before_split` once, as another process could, and records the time of the last deployment."""

    before_split, deployment_time = None, None

    def split(self, traffic_split, expected=None):
        action, self.before_split = self.before_split, None
        if action is not None:
            action()
        super().split(traffic_split, expected)

    def deploy(self, policy, traffic_percentage=100):
        version = super().deploy(policy, traffic_percentage)
        self.deployment_time = datetime.now(UTC)
        return version


@pytest.fixture
def endpoint(policies):
    endpoint = RacingEndpoint()
    endpoint.deploy(policies[0])
    return endpoint


def release(endpoint, candidate, serving, now=NOON, **options):
    return deploy(
        endpoint, candidate, candidate.version, judgement(candidate, serving, **options), serving.version, now=now
    )


def test_the_first_version_serves_everybody(policies):
    endpoint = MemoryEndpoint()
    assert serving_version(endpoint) is None
    verdict = deploy(endpoint, policies[0], policies[0].version, None, None, now=NOON)
    assert (verdict.kind, verdict.against, verdict.difference) == ("deployed", "", None)
    assert endpoint.traffic_split == {policies[0].version: 100}


def test_a_candidate_that_passed_is_a_canary_and_doing_it_again_has_no_effect(endpoint, policies):
    first, second = (release(endpoint, policies[1], policies[0]) for _ in range(2))
    assert endpoint.traffic_split == {policies[0].version: 80, policies[1].version: 20}
    assert first.kind == second.kind == "deployed"
    assert first.verdict_id == second.verdict_id
    assert (first.difference, first.low, first.high) == (0.1, 0.0, 0.2)


@pytest.mark.parametrize("outcome", ["held", "refused"])
def test_a_candidate_that_did_not_pass_is_not_deployed_for_the_reason_of_the_gate(endpoint, policies, outcome):
    verdict = release(endpoint, policies[1], policies[0], outcome=outcome)
    assert (verdict.kind, verdict.why) == (outcome, f"It is {outcome}.")
    assert endpoint.traffic_split == {policies[0].version: 100}


@pytest.mark.parametrize(
    ("judge", "expected", "why"),
    [
        (lambda p: judgement(p[1], p[2]), lambda p: p[2].version, "served when it was trained"),
        (lambda p: judgement(p[1], p[2]), lambda p: p[0].version, "the judgement is of"),
        (lambda p: judgement(p[2], p[0]), lambda p: p[0].version, "the judgement is of"),
        (lambda p: None, lambda p: p[0].version, "it was not judged against"),
        (lambda p: None, lambda p: None, "nothing served when it was trained"),
    ],
)
def test_a_candidate_judged_against_a_policy_that_does_not_serve_is_refused(endpoint, policies, judge, expected, why):
    verdict = deploy(endpoint, policies[1], policies[1].version, judge(policies), expected(policies), now=NOON)
    assert verdict.kind == "refused"
    assert why in verdict.why
    assert endpoint.traffic_split == {policies[0].version: 100}


def test_the_serving_version_is_refused_as_a_candidate(endpoint, policies):
    verdict = release(endpoint, policies[0], policies[0])
    assert (verdict.kind, endpoint.traffic_split) == ("refused", {policies[0].version: 100})
    assert "nothing new was learnt" in verdict.why


def test_running_the_first_deployment_again_gives_the_same_verdict(endpoint, policies):
    version = policies[0].version
    first = deploy(MemoryEndpoint(), policies[0], version, None, None, now=NOON)
    second = deploy(endpoint, policies[0], version, None, version, now=NOON + timedelta(hours=1))
    assert (second.kind, second.verdict_id) == ("deployed", first.verdict_id)


def test_the_old_control_is_undeployed_before_the_next_canary(endpoint, policies):
    """Version 1 was promoted and version 0 has 10 %: version 2 is deployed after version 0 is undeployed."""
    release(endpoint, policies[1], policies[0])
    endpoint.split({policies[0].version: 10, policies[1].version: 90})
    release(endpoint, policies[2], policies[1])
    assert endpoint.traffic_split == {policies[1].version: 80, policies[2].version: 20}
    assert set(endpoint.policies) == {policies[1].version, policies[2].version}


def test_a_verdict_has_the_time_after_its_deployment(endpoint, policies):
    """The experiment starts then: while a server starts, all decisions are of the other version."""
    assert endpoint.deployment_time <= release(endpoint, policies[1], policies[0], now=None).time
    first = RacingEndpoint()
    assert deploy(first, policies[0], policies[0].version, None, None).time >= first.deployment_time


def test_a_verdict_is_identified_by_the_data_of_its_candidate(endpoint, policies):
    """A refusal with the data of the next day is another verdict; a repeated run gives the same one."""
    version = policies[0].version
    own_judgement = judgement(policies[0], policies[0])

    def refusal(day, hour):
        until, now = (NOON + timedelta(days=day, hours=hours) for hours in (0, hour))
        return deploy(endpoint, policies[0], version, own_judgement, version, now=now, until=until)

    warehouse = LocalWarehouse()
    warehouse.write([refusal(0, 1), refusal(0, 2), refusal(1, 1), refusal(1, 3)])
    verdicts = warehouse.verdicts()
    assert set(verdicts["kind"]) == {"refused"}
    assert verdicts["time"].tolist() == [NOON + timedelta(hours=1), NOON + timedelta(days=1, hours=1)]


class CountingWarehouse(LocalWarehouse):
    """Records the most rows of a query, and calls `before_query` once, as another process could."""

    most, before_query = 0, None

    def query(self, text, parameters=None):
        table = super().query(text, parameters)
        self.most = max(self.most, len(table))
        return table

    def by_user(self, *arguments):
        action, self.before_query = self.before_query, None
        if action is not None:
            action()
        return super().by_user(*arguments)


class Traffic:
    """Users who rate one star with the probability of their version, else five, on a virtual clock."""

    def __init__(self, endpoint, verdict):
        self.endpoint, self.warehouse, self.now = endpoint, CountingWarehouse(), NOON
        self.warehouse.write([verdict])
        self._rng, self._count = np.random.default_rng(0), 0

    def serve(self, n, bad):
        users = self._rng.integers(1, 900, n)
        records = []
        for user in users.astype(str).tolist():
            self.now += timedelta(seconds=0.01)
            self._count += 1
            name, version = f"event {self._count}", self.endpoint._release.version(user)
            value = 1.0 if self._rng.random() < bad.get(version, 0.2) else 5.0
            records.append(Interaction(name, self.now, version, user, "{}", ("1", "2"), "1", 0.5))
            records.append(Reward(name, self.now + timedelta(seconds=1), value))
        self.warehouse.write(records)

    @property
    def experiment(self):
        """The running `Experiment`."""
        return find_experiment(self.endpoint.traffic_split, self.warehouse.verdicts())

    def guard(self, **fields):
        guardrail = dataclasses.replace(GUARDRAIL, **fields)
        return guard(self.endpoint, self.warehouse, self.now + timedelta(seconds=RULE.window), RULE, guardrail)


@pytest.fixture
def traffic(endpoint, policies):
    return Traffic(endpoint, release(endpoint, policies[1], policies[0]))


def test_users_without_an_id_are_each_a_user_to_the_guardrail(traffic, policies):
    """As one user they would be one group, which has no variance estimate; as many users they are independent."""
    rng, versions = np.random.default_rng(1), [policies[1].version, policies[0].version]
    values = {version: rng.choice([1.0, 5.0], 200) for version in versions}
    for version, rewards in values.items():
        for number, value in enumerate(rewards):
            name, time = f"{version} {number}", NOON + timedelta(seconds=number / 100)
            traffic.warehouse.write(
                [Interaction(name, time, version, None, "{}", ("1", "2"), "1", 0.5), Reward(name, time, value)]
            )
    trial = traffic.experiment
    evidence = collect_evidence(trial, traffic.warehouse, NOON + timedelta(seconds=60), RULE, GUARDRAIL)
    tightest = 100 * GUARDRAIL.most / GUARDRAIL.canary
    expected = difference(*values.values(), GUARDRAIL.alpha, tightest)
    assert evidence.decisions == (200, 200)
    assert evidence.difference == pytest.approx(expected)


def test_a_canary_is_not_changed_before_the_evidence_suffices(traffic, policies):
    traffic.serve(100, {policies[1].version: 1.0})
    assert traffic.guard() is None
    assert traffic.endpoint.traffic_split[policies[1].version] == 20


def test_decisions_count_once_their_window_has_closed(traffic, policies):
    traffic.serve(1000, {policies[1].version: 1.0})
    assert guard(traffic.endpoint, traffic.warehouse, traffic.now - timedelta(seconds=6), RULE, GUARDRAIL) is None
    assert traffic.guard().kind == "rolled back"


def test_a_canary_that_users_like_less_is_rolled_back(traffic, policies):
    traffic.serve(1000, {policies[1].version: 0.6})
    verdict = traffic.guard()
    assert (verdict.kind, verdict.version, verdict.against) == ("rolled back", policies[1].version, policies[0].version)
    assert verdict.high < -0.07 * 4.0
    assert traffic.endpoint.traffic_split == {policies[0].version: 100, policies[1].version: 0}
    assert traffic.guard() is None
    assert traffic.warehouse.verdicts()["kind"].tolist() == ["deployed", "rolled back"]


def test_a_canary_that_users_like_more_is_promoted_and_its_predecessor_kept_as_control(traffic, policies):
    traffic.serve(1000, {policies[1].version: 0.05})
    verdict = traffic.guard()
    assert verdict.kind == "promoted"
    assert "It is non-inferior by a margin of" in verdict.why
    assert traffic.endpoint.traffic_split == {policies[0].version: 10, policies[1].version: 90}
    assert serving_version(traffic.endpoint) == policies[1].version


def test_a_canary_without_enough_evidence_is_withdrawn_at_its_deadline_and_never_promoted(traffic, policies):
    """Alike, of a mean of 4.2 with a standard deviation of 1.6: 400 decisions do not tell a loss of 1 %, 0.042."""
    while (verdict := traffic.guard(margin=0.01)) is None:
        traffic.serve(200, {})
    assert verdict.kind == "withdrawn"
    assert verdict.low < -0.042 < verdict.high
    assert "the interval of the difference is wider than the margin" in verdict.why
    assert traffic.endpoint.traffic_split == {policies[0].version: 100, policies[1].version: 0}
    users = traffic.warehouse.by_user(NOON, traffic.now, RULE)
    assert 400 <= users.groupby("policy_version")["decisions"].sum()[policies[1].version] <= 450


@pytest.mark.parametrize(("default", "value"), [(None, None), (None, 9.0), (1.0, 9.0)])
def test_a_canary_without_rewards_is_withdrawn_at_its_deadline(traffic, policies, default, value):
    """No client reports, or all of them report a value outside the range: no decision has a reward that counts."""
    new, rule = policies[1].version, dataclasses.replace(RULE, default=default)
    write = traffic.warehouse.write

    def write_changed(records):
        changed = [dataclasses.replace(each, value=value) for each in records[1::2]] if value else []
        return write(records[::2] + changed)

    traffic.warehouse.write = write_changed
    traffic.serve(2200, {})
    look = traffic.now + timedelta(seconds=RULE.window)
    traffic.warehouse.write = write
    assert guard(traffic.endpoint, traffic.warehouse, look, rule, dataclasses.replace(GUARDRAIL, most=500)) is None
    verdict = guard(traffic.endpoint, traffic.warehouse, look, rule, GUARDRAIL)
    served = traffic.warehouse.served(NOON, look, new)
    assert 400 <= served < 500
    assert (verdict.kind, verdict.version, verdict.difference) == ("withdrawn", new, None)
    assert f"0 of {served} decisions have a reward" in verdict.why
    assert traffic.endpoint.traffic_split == {policies[0].version: 100, new: 0}


def test_the_share_of_a_canary_is_ramped_once_it_does_not_seem_worse_and_the_comparison_begins_anew(traffic, policies):
    new = policies[1].version
    traffic.serve(300, {new: 0.4})
    assert traffic.guard(ramp=49) is None, "it seems to be worse, by 0.8 stars of 4.2"
    traffic.serve(500, {new: 0.1})
    verdict = traffic.guard(ramp=49)
    assert verdict.kind == "ramped"
    assert traffic.endpoint.traffic_split == {policies[0].version: 51, new: 49}
    assert serving_version(traffic.endpoint) == policies[0].version
    trial = traffic.experiment
    assert trial == (new, policies[0].version, 49, verdict.time)
    assert traffic.guard(ramp=49) is None


def test_a_split_that_is_not_as_declared_withdraws_the_canary(traffic, policies):
    """Every second user of the canary is answered by the other version: 10 % instead of 20 %."""
    version = traffic.endpoint._release.version

    class WrongRelease:
        def version(self, user):
            return policies[0].version if int(user) % 2 else version(user)

    traffic.endpoint._release, release = WrongRelease(), traffic.endpoint._release
    traffic.serve(3000, {})
    traffic.endpoint._release = release
    verdict = traffic.guard()
    assert verdict.kind == "withdrawn"
    assert "of the decisions are of the newest version, the shares say 20 %" in verdict.why


def test_a_split_that_is_not_as_declared_withdraws_what_was_promoted(traffic, policies):
    """Three in four decisions of the new version are not logged, as where its server ends under load."""
    new, old = policies[1].version, policies[0].version
    traffic.serve(1000, {new: 0.05})
    assert traffic.guard().kind == "promoted"
    traffic.now += timedelta(seconds=RULE.window)  # the guardrail waited so long
    write = traffic.warehouse.write

    def write_in_part(records):
        pairs = zip(records[::2], records[1::2], strict=True)
        kept = [pair for pair in pairs if pair[0].policy_version == old or int(pair[0].user_id) % 4 == 0]
        return write([record for pair in kept for record in pair])

    traffic.warehouse.write = write_in_part
    traffic.serve(3000, {})
    traffic.warehouse.write = write
    verdict = traffic.guard()
    assert (verdict.kind, verdict.version, verdict.against) == ("withdrawn", new, old)
    assert "of the decisions are of the newest version, the shares say 90 %" in verdict.why
    assert traffic.endpoint.traffic_split == {old: 100, new: 0}


def test_requests_that_are_split_one_by_one_are_no_mismatch(traffic, policies):
    """Vertex AI draws a version for each request: most users get both."""
    rng = np.random.default_rng(3)

    class RandomRelease:
        def version(self, user):
            return policies[1].version if rng.random() < 0.2 else policies[0].version

    traffic.endpoint._release, release = RandomRelease(), traffic.endpoint._release
    traffic.serve(3000, {})
    traffic.endpoint._release = release
    trial = traffic.experiment
    assert not collect_evidence(trial, traffic.warehouse, traffic.now + timedelta(seconds=60), RULE, GUARDRAIL).mismatch


def test_a_small_side_without_users_yet_is_no_mismatch():
    """At 1 %, two of 200 users are expected and none has probability 0.13; of 2,000 users none has 2e-9."""
    none = np.zeros(0, int)
    assert not _is_mismatch((none, np.arange(200)), 1)
    assert not _is_mismatch((np.arange(200), none), 99)
    assert _is_mismatch((none, np.arange(2000)), 1)


def test_the_alarm_of_a_wrong_split_has_probability_0_001():
    """By hand for 400 users with a decision each, of whom half are expected: a standard error of 10 users."""
    assert _MISMATCH == 0.001
    limit = math.sqrt(100) * critical_value(400, 0.001)
    for excess, alarm in ((math.floor(limit), False), (math.ceil(limit), True)):
        for sign in (1, -1):
            newest = 200 + sign * excess
            assert _is_mismatch((np.arange(newest), np.arange(newest, 400)), 50) == alarm


@pytest.mark.parametrize(("share", "visits"), [(1, 1), (99, 1), (5, 10), (50, 1)])
def test_a_right_split_of_users_raises_the_alarm_in_at_most_one_of_300(share, visits):
    """17 looks at each of 300 splits: the probability of an alarm at any of them is at most 0.001."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(300):
        user = rng.permutation(np.repeat(np.arange(1000 // visits), visits))
        newest = (rng.random(1000) < share / 100)[user]
        looks = [(user[:n][newest[:n]], user[:n][~newest[:n]]) for n in range(200, 1001, 50)]
        alarms += any(_is_mismatch(look, share) for look in looks)
    assert alarms <= 1


def test_an_impossible_reward_changes_nothing_but_the_quarantine(traffic, policies):
    traffic.serve(1000, {policies[1].version: 0.05})
    end = traffic.now + timedelta(seconds=RULE.window)
    trial = traffic.experiment
    span = trial.start, end
    before = collect_evidence(trial, traffic.warehouse, end, RULE, GUARDRAIL)
    count = traffic.warehouse.counts(*span, RULE).quarantined
    decision = Interaction("x", traffic.now, policies[1].version, "7", "{}", ("1", "2"), "1", 0.5)
    traffic.warehouse.write([decision, Reward("x", traffic.now, 1e308)])
    assert collect_evidence(trial, traffic.warehouse, end, RULE, GUARDRAIL) == before
    assert traffic.warehouse.counts(*span, RULE).quarantined == count + 1


def test_decisions_right_after_a_change_of_the_shares_do_not_count(traffic, policies):
    traffic.serve(1000, {})
    trial, end = traffic.experiment, NOON + timedelta(seconds=60)
    settling = dataclasses.replace(GUARDRAIL, settling=4.0)
    assert sum(collect_evidence(trial, traffic.warehouse, end, RULE, GUARDRAIL).decisions) == 1000
    evidence = collect_evidence(trial, traffic.warehouse, end, RULE, settling)
    assert sum(evidence.decisions) == 601  # one each 10 ms from 10 ms on


def test_a_drop_of_both_versions_is_not_rolled_back(traffic, policies):
    """After the promotion the rewards of both versions fall alike, which the policy does not cause."""
    traffic.serve(1000, {policies[1].version: 0.05})
    assert traffic.guard().kind == "promoted"
    for _ in range(10):
        traffic.serve(200, dict.fromkeys([policies[0].version, policies[1].version], 0.6))
        assert traffic.guard() is None


def test_an_experiment_is_found_from_shares_and_verdicts(traffic, policies):
    old, new = policies[0].version, policies[1].version
    verdicts = traffic.warehouse.verdicts()
    assert find_experiment({old: 80, new: 20}, verdicts) == (new, old, 20, NOON)
    assert not find_experiment({old: 80, new: 20}, verdicts).promoted
    assert find_experiment({old: 10, new: 90}, verdicts).promoted
    assert find_experiment({old: 100, new: 0}, verdicts) is None
    assert find_experiment({old: 80, "unheard of": 20}, verdicts.iloc[:0]) is None
    assert find_experiment({new: 80, "deployed by a process that was killed": 20}, verdicts) is None


def test_intervals_narrow_as_decisions_arrive(traffic, policies):
    traffic.serve(1000, {})
    trial = traffic.experiment
    times = [NOON + timedelta(seconds=RULE.window + seconds) for seconds in (4, 7, 11)]
    evidence = [collect_evidence(trial, traffic.warehouse, time, RULE, GUARDRAIL) for time in times]
    assert [sum(each.decisions) for each in evidence] == [399, 699, 1000]
    assert (np.diff([each.difference.high - each.difference.low for each in evidence]) < 0).all()


def test_a_look_reads_one_row_for_each_user_and_not_for_each_decision(traffic, policies):
    """At most 899 users, each of them of one version here; a day of traffic is millions of decisions."""
    traffic.serve(3000, {})
    trial = traffic.experiment
    end = traffic.now + timedelta(seconds=RULE.window + 1)
    evidence = collect_evidence(trial, traffic.warehouse, end, RULE, GUARDRAIL)
    assert sum(evidence.decisions) == 3000
    assert traffic.warehouse.most < 900
    frame = traffic.warehouse.decisions(trial.start, end, RULE).to_pandas()
    sides = [frame[frame["policy_version"] == version] for version in (trial.newest, trial.other)]
    rewards, users = ([side[name] for side in sides] for name in ("reward", "user_id"))
    expected = difference(*rewards, GUARDRAIL.alpha, 100 * 400 / 20, users)
    assert evidence.difference == pytest.approx(expected, abs=1e-12)
    assert evidence.margin == pytest.approx(0.07 * rewards[1].mean())


def test_after_the_promotion_a_look_reads_one_row_for_each_user_although_there_are_policies(traffic, policies):
    """A canary ends at its deadline; the control after it stays until the next deployment, however long that is."""
    policy_of = {policy.version: policy for policy in policies}
    traffic.serve(1000, {policies[1].version: 0.05})
    assert traffic.guard().kind == "promoted"
    traffic.now += timedelta(seconds=RULE.window)  # the guardrail waited so long
    traffic.serve(3000, {})
    traffic.warehouse.most, end = 0, traffic.now + timedelta(seconds=RULE.window + 1)
    evidence = collect_evidence(traffic.experiment, traffic.warehouse, end, RULE, GUARDRAIL, policy_of.get)
    assert sum(evidence.decisions) == 3000
    assert traffic.warehouse.most < 1000


def test_predicted_rewards_of_the_policies_reduce_the_variance(traffic, users, policies):
    """Both sides get the same rewards; covariates are the predictions of each policy for a context."""
    rng, n = np.random.default_rng(0), 1000
    rows, items = visits = users.visits(n, rng, 5)
    versions = [traffic.endpoint._release.version(user) for user in users.user_ids[rows]]
    times = [NOON + timedelta(seconds=number / 100) for number in range(n)]
    names = [str(number) for number in range(n)]
    ratings = users.rate(users.expected(rows, items)[:, 0], rng)
    decisions = users.interactions(visits, names, times, versions, np.zeros(n, int), np.full(n, 0.2))
    traffic.warehouse.write([*decisions, *map(Reward, names, times, ratings)])
    trial, end = traffic.experiment, NOON + timedelta(seconds=60)

    def difference_with(policies):
        return collect_evidence(trial, traffic.warehouse, end, RULE, GUARDRAIL, policies).difference

    policy_of = {policy.version: policy for policy in policies}
    plain, reduced = difference_with(None), difference_with(policy_of.get)
    assert difference_with(lambda version: None) == pytest.approx(plain, abs=1e-12)
    assert reduced.high - reduced.low < 0.95 * (plain.high - plain.low)
    log = log_of(traffic.warehouse.decisions(NOON, end, RULE))
    values = np.stack([predicted_values(policy_of[version], log) for version in (trial.newest, trial.other)], axis=1)
    side = np.array(versions) == trial.newest
    columns = [(column[side], column[~side]) for column in (log.reward, log.user_id, values)]
    expected = difference(*columns[0], GUARDRAIL.alpha, 100 * 400 / 20, *columns[1:])
    assert reduced == pytest.approx(expected, abs=1e-9)


def prepare_race(traffic, policies):
    """Promote the second version and serve bad rewards with it; return the deployment of a third version.

    The guardrail would roll back the second version.
    """
    traffic.serve(1000, {policies[1].version: 0.05})
    assert traffic.guard().kind == "promoted"
    traffic.serve(3000, {policies[1].version: 0.9})
    return lambda: release(traffic.endpoint, policies[2], policies[1])


def test_the_guardrail_does_not_overwrite_a_concurrent_deployment(traffic, policies):
    """The deployer has undeployed the old control: nothing is rolled back, and no such verdict is written."""
    deploy_third = prepare_race(traffic, policies)
    traffic.warehouse.before_query = deploy_third
    assert traffic.guard() is None
    assert traffic.endpoint.traffic_split == {policies[1].version: 80, policies[2].version: 20}
    assert traffic.warehouse.verdicts()["kind"].tolist() == ["deployed", "promoted"]


def test_the_guardrail_does_not_overwrite_a_deployment_right_before_its_split(traffic, policies):
    deploy_third = prepare_race(traffic, policies)
    traffic.endpoint.before_split = deploy_third
    with pytest.raises(PlatformError, match=r"endpoint memory must have the shares .* still"):
        traffic.guard()
    assert traffic.endpoint.traffic_split == {policies[1].version: 80, policies[2].version: 20}


def test_a_deployment_does_not_overwrite_a_concurrent_guardrail(traffic, policies):
    """The version that the candidate was trained against was rolled back: it neither serves again nor is undeployed."""
    deploy_third = prepare_race(traffic, policies)
    traffic.endpoint.before_split = traffic.guard
    with pytest.raises(PlatformError, match=r"endpoint memory must have the shares .* still"):
        deploy_third()
    assert traffic.endpoint.traffic_split == {policies[0].version: 100, policies[1].version: 0}
    assert traffic.warehouse.verdicts()["kind"].tolist()[-1] == "rolled back"
    assert deploy_third().kind == "refused"


def test_a_guardrail_killed_before_its_split_decides_the_same_again(traffic, policies):
    traffic.serve(1000, {policies[1].version: 0.6})

    def interrupt():
        raise KeyboardInterrupt

    traffic.endpoint.before_split = interrupt
    with pytest.raises(KeyboardInterrupt):
        traffic.guard()
    traffic.now += timedelta(seconds=1)
    assert traffic.guard().kind == "rolled back"
    assert traffic.endpoint.traffic_split == {policies[0].version: 100, policies[1].version: 0}
    assert traffic.warehouse.verdicts()["kind"].tolist() == ["deployed", "rolled back"]


def test_a_second_canary_of_the_same_versions_is_another_experiment(traffic, policies):
    """Rolled back, undeployed, deployed with the data of the next day, and rolled back again: four verdicts."""
    for day in range(2):
        traffic.serve(1000, {policies[1].version: 0.6})
        assert traffic.guard().kind == "rolled back"
        if day == 0:
            traffic.endpoint.undeploy(policies[1].version)
            traffic.now += timedelta(days=1)
            candidate, serving, times = policies[1], policies[0], {"now": traffic.now, "until": traffic.now}
            gate_judgement = judgement(candidate, serving)
            verdict = deploy(traffic.endpoint, candidate, candidate.version, gate_judgement, serving.version, **times)
            traffic.warehouse.write([verdict])
    assert traffic.warehouse.verdicts()["kind"].tolist() == ["deployed", "rolled back"] * 2


def test_an_endpoint_in_memory_gives_traffic_to_deployed_versions_only(endpoint, policies):
    first, second = policies[0].version, endpoint.deploy(policies[1], 30)
    endpoint.split({second: 100})
    assert endpoint.traffic_split == {first: 0, second: 100}
    endpoint.undeploy(first)
    with pytest.raises(PlatformError, match=f"endpoint memory cannot use version {first}: deploy it first"):
        endpoint.split({first: 100})


def test_bounds_that_are_not_known_are_stored_as_none():
    """Neither version has a click: the difference is 0, and its interval is not known."""
    interval = difference(np.zeros(500), np.zeros(2000))
    verdict = verdict_of("promoted", "b", "a", "data", "why", NOON, *map(finite_or_none, interval))
    assert (verdict.difference, verdict.low, verdict.high) == (0.0, None, None)
