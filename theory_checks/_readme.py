"""The catalogue of theorems as a page, made from the checks themselves."""

from collections.abc import Mapping
from types import ModuleType

from rlkit.theory.checks import Check

HEAD = """# Theory checks

Theorems that run. Each has a prediction, a measurement that does not know of it, assumptions that
are verified on the data, and a control that breaks one of them and must be rejected.

    python -m theory_checks                 # all of them: a table, results.json, figure.pdf
    python -m theory_checks --only=stepwise # one family
    python -m theory_checks --embeddings=z.npy --labels=y.npy   # against embeddings of your own

This page is printed by `python -m theory_checks --readme`.
"""


def readme(modules: Mapping[str, ModuleType]) -> str:
    """The page, in Markdown."""
    count = sum(len(module.CHECKS) for module in modules.values())
    parts = [HEAD, f"{count} checks in {len(modules)} families.\n"]
    for name, module in modules.items():
        parts.append(f"## {name}\n\n{(module.__doc__ or '').strip()}\n")
        parts += [_section(check) for check in module.CHECKS]
    return "\n".join(parts)


def _section(check: Check) -> str:
    lines = [f"### {check.name}", "", f"`{check.statement}`", "", f"*{check.source}*", ""]
    lines += [f"- `{symbol}`: {meaning}" for symbol, meaning in check.symbols.items()]
    lines += [
        f"- data: {check.data}{'; or embeddings of your own' if check.adapt else ''}",
        f"- assumptions, verified on them: {'; '.join(check.assumptions) or 'none'}",
        f"- predicted: {check.predicted}",
        f"- measured ({check.relation} predicted): {check.measured}",
        f"- control: {check.broken}",
    ]
    return "\n".join(lines) + "\n"
