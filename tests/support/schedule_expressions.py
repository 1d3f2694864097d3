"""Expressions of EventBridge Scheduler, about which `mlops.yaml` and the sandbox agree."""

from __future__ import annotations

ACCEPTED = (
    *("rate(1 hour)", "rate(12 hours)", "rate(60 minutes)", "rate(1 day)"),
    *("cron(0 10 * * ? *)", "cron(15 12 ? * MON-FRI 2026-2030)", "cron(0 8 1,15 JAN,JUL ? *)"),
    *("cron(5 0/6 L * ? *)", "cron(0 1 ? * L *)", "cron(0 1 ? * 6L *)", "cron(0 1 ? * FRIL *)"),
    *("cron(0 1 ? * 3#2 *)", "cron(0 1 ? * MON#1 *)", "cron(0 1 ? 2 SAT#5 *)"),
    *("rate(365 days)", "cron(0 6 29 2 ? *)", "cron(0 6 30,31 2,3 ? *)", "cron(0 6 * * ? 2020/3)"),
)
REFUSED = (
    *("rate(0 days)", "rate(1 week)", "rate(2 day)", "rate(1 days)", "rate(1.5 hours)"),
    *("rate(99999999999 days)", "rate(366 days)", f"rate({'9' * 5000} minutes)"),
    *("Rate(1 day)", "rate(1  day)", "daily", "at(2026-01-01T00:00:00)"),
    *("cron(0 6 * * *)", "cron(0 6 * * * *)", "cron(0 6 ? * ? *)", "cron(60 6 * * ? *)"),
    *("cron(0  6 * * ? *)", "cron( 0 6 * * ? *)", "cron(0 6 * * ? * )"),
    *("cron(0  * * ? *)", "cron( 6 * * ? *)", "cron(0 6 * * ? )"),
    *("cron(0 10 0 * ? *)", "cron(0 10 * 13 ? *)", "cron(0 5-2 * * ? *)", "cron(0 ? * * ? *)"),
    *("cron(0 1 * * ? 1969)", "cron(0 1-2-3 * * ? *)", "cron(0 1 15W * ? *)"),
    *("cron(0 1 ? * MOO *)", "cron(0 1 ? * MOOL *)", "cron(0 1 ? * MON#6 *)", "cron(0 1 ? * 8L *)"),
)
# Expressions, but of no day that comes.
NEVER = (
    *("cron(0 6 31 2 ? *)", "cron(0 6 30,31 FEB ? *)", "cron(0 6 31 4,6,9,11 ? *)"),
    *("cron(0 6 29 2 ? 2029)", "cron(0 6 ? 2 MON#5 2028)", "cron(0 6 ? 2 MON#5 2029)"),
    *("cron(0 6 * * ? 2020)", "cron(0 6 1 1 ? 1970-2025)"),
)
