"""Studio's domains of the region: each shows project templates from one place in S3, named by a
tag.

Only projects whose template is in S3 need it. A tag that someone else has set is left alone.
Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-projects-templates-custom.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sm_mlops import projects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo
from sm_mlops.bootstrap.platform import S3, Options, others, outputs

TAG = "sagemaker:projectS3TemplatesLocation"


@dataclass(frozen=True)
class Domain:
    """`location` is where it takes templates from, empty for nowhere."""

    name: str
    arn: str
    location: str

    @property
    def what(self) -> str:
        return f"templates in Studio domain {self.name}"


def domains(aws: Aws) -> list[Domain]:
    """Return all domains of the region."""
    found = []
    for item in aws.pages("list_domains", "Domains"):
        rows = aws.pages("list_tags", "Tags", ResourceArn=item["DomainArn"])
        tags = {tag["Key"]: tag["Value"] for tag in rows}
        found.append(Domain(item["DomainName"], item["DomainArn"], tags.get(TAG, "")))
    return found


@dataclass
class Studio(Part):
    aws: Aws
    options: Options = field(default_factory=Options)

    @property
    def _location(self) -> str:
        """Where the platform's templates are."""
        there = outputs(self.aws)
        return f"s3://{there['ArtifactBucket'] if there else self.aws.bucket}/platform/"

    def _domains(self) -> list[Domain]:
        """Return the domains, or none if no template is in S3."""
        found = None if self.options.template_provider == S3 else projects.find(self.aws)
        needed = self.options.template_provider == S3 or bool(found and found.template_url)
        return domains(self.aws) if needed else []

    def look(self) -> list[Item]:
        return [self._item(domain, self._location) for domain in self._domains()]

    def _item(self, domain: Domain, wanted: str) -> Item:
        if domain.location in ("", wanted):
            todo = Todo.NOTHING if domain.location else Todo.CHANGE
            return Item(domain.what, todo, f"tag {TAG}={wanted}")
        return Item(
            domain.what,
            Todo.PERSON,
            f"it shows those of {domain.location}; a domain can show only one location",
            f"copy project.yml there, or aws sagemaker add-tags --resource-arn {domain.arn} "
            f"--tags Key={TAG},Value={wanted}",
        )

    def act(self, tell: Tell) -> None:
        wanted = self._location
        for domain in self._domains():
            if not domain.location:
                tags = [{"Key": TAG, "Value": wanted}]
                self.aws.sagemaker.add_tags(ResourceArn=domain.arn, Tags=tags)
                tell(f"{'set':<12} {domain.what} to {wanted}")

    def look_back(self) -> list[Item]:
        """Return the tags to delete, which stay while other projects use the platform."""
        ours = self._ours()
        users = others(self.aws) if ours else []
        todo = Todo.NOTHING if users else Todo.DELETE
        detail = f"kept: used by {', '.join(users)}" if users else f"tag {TAG}"
        return [Item(domain.what, todo, detail) for domain in ours]

    def undo(self, tell: Tell) -> None:
        ours = self._ours()
        if not ours or others(self.aws):
            return
        for domain in ours:
            self.aws.sagemaker.delete_tags(ResourceArn=domain.arn, TagKeys=[TAG])
            tell(f"{'deleted':<12} {domain.what}")

    def _ours(self) -> list[Domain]:
        wanted = self._location
        return [domain for domain in domains(self.aws) if domain.location == wanted]
