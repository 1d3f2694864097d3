"""Routes about users, organizations, teams and the installations of Apps."""

from __future__ import annotations

from sm_mlops.sandbox.github.access import NO_TOKEN, Access
from sm_mlops.sandbox.github.answers import Answer, Json, Refused, not_found
from sm_mlops.sandbox.github.routing import Request, route
from sm_mlops.sandbox.wire import public


class People(Access):
    """Answers about accounts."""

    @route("GET", "/user", scope="", permission=None)
    def own_account(self, request: Request) -> Json:
        if request.actor.kind == "nobody":
            raise Refused(401, NO_TOKEN)
        if request.actor.kind == "installation":
            raise Refused(403, "Resource not accessible by integration")
        return self.shown_account(request, self.accounts.account(request.actor.login))

    @route("GET", "/users/{login}")
    def user(self, request: Request, login: str) -> Json:
        return self.shown_account(request, self.accounts.account(login))

    @route("GET", "/orgs/{login}/teams/{team}")
    def team(self, request: Request, login: str, team: str) -> Json:
        found = self.accounts.account(login)["_teams"].get(team)
        if found is None or request.actor.kind == "nobody":
            raise not_found()
        if request.actor.kind == "classic" and not request.actor.has_scope("read:org"):
            raise not_found()
        return public(found) | {"url": f"{request.api}/orgs/{login}/teams/{team}"}

    @route("POST", "/app/installations/{installation}/access_tokens", app=True)
    def installation_token(self, request: Request, installation: str) -> Answer:
        if not installation.isdigit():
            raise not_found()
        token = self.accounts.installation_token(request.actor, int(installation), request.body)
        return Answer(token, 201)
