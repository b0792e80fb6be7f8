"""Declared rules inside the sequence: their step as a method of the class that learns by them."""

from __future__ import annotations

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import ClassWriter
from nldsl.codegen.emit.rule_functional import inner_step
from nldsl.codegen.emit.rule_state import safe
from nldsl.resolve.algorithm import Algorithm


def rule_method(owner: ClassWriter, rule: Algorithm) -> c.Code:
    """`self.adamw_step`, a static method of the class, written once for each rule with its numbers."""
    for known, method in owner.rules:
        if known == rule:
            return c.name(f"self.{method}")
    method = owner.attributes.fresh(f"{safe(rule.name)}_step")
    function, kernels = inner_step(rule, method)
    owner.rules.append((rule, method))
    owner.methods += [c.Blank(), c.Verbatim("    @staticmethod"), function]
    for name, file in kernels.items():
        owner.kernel(name, file)
    return c.name(f"self.{method}")
