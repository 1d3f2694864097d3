"""The order of tests that start a sandbox of their own."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run them after the others of their module, whose sandbox has the same process: moto's state
    belongs to the process, and starting or ending a second one resets it."""
    modules: dict[str, int] = {}
    for item in items:
        modules.setdefault(item.path.as_posix(), len(modules))
    items.sort(
        key=lambda item: (
            modules[item.path.as_posix()],
            item.get_closest_marker("own_server") is not None,
        )
    )
