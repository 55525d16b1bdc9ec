"""What GitHub checks in a workflow beyond its schema: expressions, references, identifiers, forms and safety.

>>> for finding in check({"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [{"run": "${{ steps.b.outcome }}"}]}}}):
...     print(finding)
jobs.a.steps.0.run: there is no property 'b' in `steps.b.outcome` [undefined-property]
"""

from .checking import Finding, check
from .table import KNOWN_RULES, RULES, Rule, example

__all__ = ["KNOWN_RULES", "RULES", "Finding", "Rule", "check", "example"]
