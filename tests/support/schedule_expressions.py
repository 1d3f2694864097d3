"""Expressions of EventBridge Scheduler, about which `mlops.yaml` and the sandbox agree."""

from __future__ import annotations

ACCEPTED = (
    *("rate(1 hour)", "rate(12 hours)", "rate(60 minutes)", "rate(1 day)"),
    *("cron(0 10 * * ? *)", "cron(15 12 ? * MON-FRI 2026-2030)", "cron(0 8 1,15 JAN,JUL ? *)"),
    *("cron(5 0/6 L * ? *)", "cron(0 1 ? * L *)", "cron(0 1 ? * 6L *)", "cron(0 1 ? * FRIL *)"),
    *("cron(0 1 ? * 3#2 *)", "cron(0 1 ? * MON#1 *)"),
)
REFUSED = (
    *("rate(0 days)", "rate(1 week)", "rate(2 day)", "rate(1 days)", "rate(1.5 hours)"),
    *("Rate(1 day)", "rate(1  day)", "daily", "at(2026-01-01T00:00:00)"),
    *("cron(0 6 * * *)", "cron(0 6 * * * *)", "cron(0 6 ? * ? *)", "cron(60 6 * * ? *)"),
    *("cron(0  6 * * ? *)", "cron( 0 6 * * ? *)", "cron(0 6 * * ? * )"),
    *("cron(0 10 0 * ? *)", "cron(0 10 * 13 ? *)", "cron(0 5-2 * * ? *)", "cron(0 ? * * ? *)"),
    *("cron(0 1 * * ? 1969)", "cron(0 1-2-3 * * ? *)", "cron(0 1 15W * ? *)"),
    *("cron(0 1 ? * MOO *)", "cron(0 1 ? * MOOL *)", "cron(0 1 ? * MON#6 *)", "cron(0 1 ? * 8L *)"),
)
