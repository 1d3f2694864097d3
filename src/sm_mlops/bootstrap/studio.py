"""Studio's domains of the region: each offers project templates of one place in S3, which a tag
names.

Only projects whose template is in S3 need it. What somebody has set otherwise is theirs.
Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-projects-templates-custom.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import needs, project
from sm_mlops.bootstrap.plan import Item, Tell, Todo
from sm_mlops.bootstrap.platform import S3, Options, Platform, outputs

TAG = "sagemaker:projectS3TemplatesLocation"


@dataclass(frozen=True)
class Domain:
    """`location` is where it takes templates from, empty for nowhere."""

    name: str
    arn: str
    location: str


def domains(aws: Aws) -> list[Domain]:
    found = []
    for item in aws.pages("list_domains", "Domains"):
        rows = aws.pages("list_tags", "Tags", ResourceArn=item["DomainArn"])
        tags = {tag["Key"]: tag["Value"] for tag in rows}
        found.append(Domain(item["DomainName"], item["DomainArn"], tags.get(TAG, "")))
    return found


def location(bucket: str) -> str:
    """Where the templates of the platform with this bucket are."""
    return f"s3://{bucket}/platform/"


@dataclass
class Studio:
    """A part of the plan."""

    aws: Aws
    options: Options = field(default_factory=Options)

    @property
    def _location(self) -> str:
        there = outputs(self.aws)
        return location(there["ArtifactBucket"] if there else self.aws.bucket)

    def _is_needed(self) -> bool:
        if self.options.template_provider == S3:
            return True
        found = project.find(self.aws)
        return bool(found and found.template_url)

    def look(self) -> list[Item]:
        if not self._is_needed():
            return []
        wanted, place = self._location, needs.place(self.aws)
        return [self._item(domain, wanted, place) for domain in domains(self.aws)]

    def _item(self, domain: Domain, wanted: str, place: str) -> Item:
        what = _words(domain)
        if domain.location in ("", wanted):
            todo = Todo.NOTHING if domain.location else Todo.CHANGE
            return Item(place, what, todo, f"tag {TAG}={wanted}")
        return Item(
            place,
            what,
            Todo.PERSON,
            f"it offers those of {domain.location}, and a domain has one place for them",
            f"copy project.yml there, or aws sagemaker add-tags --resource-arn {domain.arn} "
            f"--tags Key={TAG},Value={wanted}",
        )

    def act(self, tell: Tell) -> None:
        if not self._is_needed():
            return
        wanted = self._location
        for domain in domains(self.aws):
            if not domain.location:
                tags = [{"Key": TAG, "Value": wanted}]
                self.aws.sagemaker.add_tags(ResourceArn=domain.arn, Tags=tags)
                tell(f"{'set':<12} {_words(domain)} to {wanted}")

    # Taking it away

    def look_back(self) -> list[Item]:
        """While other projects use the platform, its templates stay on offer."""
        ours, place = self._ours(), needs.place(self.aws)
        others = Platform(self.aws).others() if ours else []
        todo = Todo.NOTHING if others else Todo.DELETE
        detail = f"stay: used by {', '.join(others)}" if others else f"tag {TAG}"
        return [Item(place, _words(domain), todo, detail) for domain in ours]

    def undo(self, tell: Tell) -> None:
        ours = self._ours()
        if not ours or Platform(self.aws).others():
            return
        for domain in ours:
            self.aws.sagemaker.delete_tags(ResourceArn=domain.arn, TagKeys=[TAG])
            tell(f"{'removed':<12} {_words(domain)}")

    def _ours(self) -> list[Domain]:
        wanted = self._location
        return [domain for domain in domains(self.aws) if domain.location == wanted]


def _words(domain: Domain) -> str:
    return f"templates in Studio domain {domain.name}"
