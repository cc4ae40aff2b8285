"""What must hold of everything that is applied to a cluster: each rule returns its complaints."""

from collections.abc import Callable, Sequence

from tests.unit.deploy.access_rules import rights
from tests.unit.deploy.monitoring_rules import monitoring
from tests.unit.deploy.network_rules import network
from tests.unit.deploy.object_rules import budgets, references, scaling, secrets, selectors
from tests.unit.deploy.pod_rules import confined, images, limits, probes, restricted
from tests.unit.deploy.rendering import Manifest
from tests.unit.deploy.schema_rules import quantities, schema

Rule = Callable[[Sequence[Manifest]], list[str]]
RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        schema,
        quantities,
        restricted,
        confined,
        limits,
        probes,
        images,
        secrets,
        selectors,
        references,
        scaling,
        budgets,
        network,
        rights,
        monitoring,
    )
}
