"""The closed loop: serve users, log decisions and rewards, join, learn, judge a candidate, deploy it, guard it.

- `settings.Settings`, `Join`, `Gate`, `Guardrail`: the numbers of a loop.
- `core.Core`: one loop on any endpoint and warehouse; `tick(now)` does what is due.
- `rounds`: the core on a virtual clock, in memory; `live`: with processes, as `python -m recbandits.loop` runs it.
- `ingest`, `train`, `gate`: the steps from logged decisions to a judgement; `models`: their results.
- `canary`: deploys a candidate, and promotes it, rolls it back or withdraws it by its rewards.
- `components`, `pipelines`: these steps for KFP, compiled in `templates`; `functions`: what Cloud Functions runs.
- `deployment`: the loop on Google Cloud.
- `monitors`: propensities, drift and the join; `page`: their pictures.
- `simulated_users`, `simulate`: users whose preferences are known, their visits, and logs of them.
"""
