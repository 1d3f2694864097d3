"""IAM's roles, policies, users and sign-in providers as resources of stacks."""

from __future__ import annotations

from collections.abc import Callable

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Name, Provider, ResourceFailed, Tagging
from sm_mlops.sandbox.cloudformation.expressions import Made

ROLES = Tagging("tag_role", "untag_role", "RoleName")
USERS = Tagging("tag_user", "untag_user", "UserName")
OIDC = Tagging(
    "tag_open_id_connect_provider", "untag_open_id_connect_provider", "OpenIDConnectProviderArn"
)
_ROLE = (
    "AssumeRolePolicyDocument",
    "Description",
    "MaxSessionDuration",
    "Path",
    "PermissionsBoundary",
    "Policies",
    "RoleName",
)
_USER = ("UserName", "Path", "PermissionsBoundary", "Policies")
_MANAGED = ("ManagedPolicyName", "Path", "Description", "PolicyDocument")

# Roles and managed policies.


def _role_create(call: Call) -> Made:
    calls.only(call, *_ROLE)
    iam, given = call.client("iam"), call.properties
    answer = iam.create_role(
        RoleName=call.name,
        AssumeRolePolicyDocument=calls.document(given["AssumeRolePolicyDocument"]),
        **calls.pick(given, "Path", "Description", "MaxSessionDuration", "PermissionsBoundary"),
        **calls.present(Tags=calls.pairs(call.tags)),
    )["Role"]
    call.made(call.name)
    _policies(call, "role", "RoleName")
    return Made(call.name, {"Arn": answer["Arn"]})


def _role_update(call: Call) -> Made:
    calls.only(call, *_ROLE)
    iam, given, name = call.client("iam"), call.properties, call.physical
    if call.changed("AssumeRolePolicyDocument"):
        iam.update_assume_role_policy(
            RoleName=name, PolicyDocument=calls.document(given["AssumeRolePolicyDocument"])
        )
    if call.changed("Description"):
        # https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1923
        iam.update_role_description(RoleName=name, Description=given.get("Description", ""))
    if call.changed("MaxSessionDuration"):
        iam.update_role(RoleName=name, MaxSessionDuration=given.get("MaxSessionDuration", 3600))
    if call.changed("PermissionsBoundary"):
        wanted = calls.pick(given, "PermissionsBoundary")
        change = "put" if wanted else "delete"
        getattr(iam, f"{change}_role_permissions_boundary")(RoleName=name, **wanted)
    _policies(call, "role", "RoleName")
    ROLES.apply(iam, name, call)
    answer = iam.get_role(RoleName=name)["Role"]
    return Made(name, {"Arn": answer["Arn"]})


def _policies(call: Call, noun: str, argument: str) -> None:
    """Put the inline policies of a role or user, and delete the others."""
    iam, holder = call.client("iam"), {argument: call.physical}
    kept = call.properties.get("Policies", [])
    for policy in kept:
        getattr(iam, f"put_{noun}_policy")(
            **holder,
            PolicyName=policy["PolicyName"],
            PolicyDocument=calls.document(policy["PolicyDocument"]),
        )
    names = {policy["PolicyName"] for policy in kept}
    for gone in {policy["PolicyName"] for policy in call.previous.get("Policies", [])} - names:
        with calls.absent_is_fine():
            getattr(iam, f"delete_{noun}_policy")(**holder, PolicyName=gone)


def _holder_delete(noun: str, argument: str) -> Callable[[Call], None]:
    """Return a function that deletes a role or user with its policies."""

    def delete(call: Call) -> None:
        iam, holder = call.client("iam"), {argument: call.physical}
        attached = getattr(iam, f"list_attached_{noun}_policies")
        inline = getattr(iam, f"list_{noun}_policies")
        with calls.absent_is_fine():
            for policy in attached(**holder)["AttachedPolicies"]:
                getattr(iam, f"detach_{noun}_policy")(**holder, PolicyArn=policy["PolicyArn"])
            for name in inline(**holder)["PolicyNames"]:
                getattr(iam, f"delete_{noun}_policy")(**holder, PolicyName=name)
            getattr(iam, f"delete_{noun}")(**holder)

    return delete


def _managed_create(call: Call) -> Made:
    calls.only(call, *_MANAGED)
    iam, given = call.client("iam"), call.properties
    found = iam.create_policy(
        PolicyName=call.name,
        PolicyDocument=calls.document(given["PolicyDocument"]),
        **calls.pick(given, "Path", "Description"),
        **calls.present(Tags=calls.pairs(call.tags)),
    )["Policy"]["Arn"]
    call.made(found)
    return Made(found, {})


def _managed_update(call: Call) -> Made:
    calls.only(call, *_MANAGED)
    iam, found = call.client("iam"), call.physical
    if call.changed("PolicyDocument"):
        versions = iam.list_policy_versions(PolicyArn=found)["Versions"]
        if len(versions) >= 5:  # IAM's limit: the oldest that is not in use makes room.
            oldest = next(v for v in reversed(versions) if not v["IsDefaultVersion"])
            iam.delete_policy_version(PolicyArn=found, VersionId=oldest["VersionId"])
        iam.create_policy_version(
            PolicyArn=found,
            PolicyDocument=calls.document(call.properties["PolicyDocument"]),
            SetAsDefault=True,
        )
    iam.get_policy(PolicyArn=found)
    return Made(found, {})


def _managed_delete(call: Call) -> None:
    iam, found = call.client("iam"), call.physical
    with calls.absent_is_fine():
        for version in iam.list_policy_versions(PolicyArn=found)["Versions"]:
            if not version["IsDefaultVersion"]:
                iam.delete_policy_version(PolicyArn=found, VersionId=version["VersionId"])
        iam.delete_policy(PolicyArn=found)


# Sign-in: GitHub's OpenID Connect provider, or a user with an access key.


def _oidc_create(call: Call) -> Made:
    calls.only(call, "Url", "ClientIdList")
    given = call.properties
    found = call.client("iam").create_open_id_connect_provider(
        Url=given["Url"],
        **calls.present(
            ClientIDList=given.get("ClientIdList"),
            Tags=calls.pairs(call.tags),
        ),
    )["OpenIDConnectProviderArn"]
    call.made(found)
    return Made(found, {"Arn": found})


def _oidc_update(call: Call) -> Made:
    calls.fixed(call, "ClientIdList")
    OIDC.apply(call.client("iam"), call.physical, call)
    return Made(call.physical, {"Arn": call.physical})


def _user_create(call: Call) -> Made:
    calls.only(call, *_USER)
    call.client("iam").create_user(
        UserName=call.name,
        **calls.pick(call.properties, "Path", "PermissionsBoundary"),
        **calls.present(Tags=calls.pairs(call.tags)),
    )
    call.made(call.name)
    return _user(call)


def _user_update(call: Call) -> Made:
    calls.only(call, *_USER)
    calls.fixed(call, "Path", "PermissionsBoundary")
    USERS.apply(call.client("iam"), call.physical, call)
    return _user(call)


def _user(call: Call) -> Made:
    _policies(call, "user", "UserName")
    found = call.client("iam").get_user(UserName=call.physical)["User"]["Arn"]
    return Made(call.physical, {"Arn": found})


def _key_create(call: Call) -> Made:
    calls.only(call, "UserName", "Serial")
    user = call.properties["UserName"]
    made = call.client("iam").create_access_key(UserName=user)["AccessKey"]
    call.made(made["AccessKeyId"])
    return Made(made["AccessKeyId"], calls.pick(made, "SecretAccessKey"))


def _key_update(call: Call) -> Made:
    raise ResourceFailed(f"The sandbox does not change {call.kind} in place")


PROVIDERS: dict[str, Provider] = {
    "AWS::IAM::AccessKey": Provider(
        _key_create,
        calls.deletes(
            "iam",
            "delete_access_key",
            lambda call: calls.pick(call.properties, "UserName") | {"AccessKeyId": call.physical},
        ),
        _key_update,
        attributes=("SecretAccessKey",),
    ),
    "AWS::IAM::OIDCProvider": Provider(
        _oidc_create,
        calls.deletes("iam", "delete_open_id_connect_provider", "OpenIDConnectProviderArn"),
        _oidc_update,
        attributes=("Arn",),
    ),
    "AWS::IAM::User": Provider(
        _user_create,
        _holder_delete("user", "UserName"),
        _user_update,
        Name("UserName"),
        ("Arn",),
    ),
    "AWS::IAM::ManagedPolicy": Provider(
        _managed_create,
        _managed_delete,
        _managed_update,
        Name("ManagedPolicyName", 128),
        physical=lambda call: calls.arn(
            call, "iam", f"policy{call.properties.get('Path', '/')}{call.name}", region=False
        ),
    ),
    "AWS::IAM::Role": Provider(
        _role_create,
        _holder_delete("role", "RoleName"),
        _role_update,
        Name("RoleName"),
        ("Arn",),
    ),
}
