"""Quantities: 100m, 1.5, 64Mi, 1e3. Pure. Follows apimachinery pkg/api/resource."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation

_SCALES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip


def quantity(written: int | float | str | object) -> Decimal | None:
    """The number a quantity stands for, or None when it can't be read."""
    text = str(written)
    digits = text.rstrip("numkKMGTPEi") if not text[-1:].isdigit() else text
    try:
        return Decimal(digits) * _SCALES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return None


def canonical(amount: Decimal, like: object = "") -> str:
    """A whole number as upstream writes one: with the largest suffix that divides it, binary where `like` is."""
    base, suffixes = (1024, "KMGTPE") if str(like).endswith("i") else (1000, "kMGTPE")
    whole, suffix = int(amount.to_integral_value(ROUND_CEILING)), ""
    for larger in suffixes:
        if not whole or whole % base:
            break
        whole, suffix = whole // base, larger + ("i" if base == 1024 else "")
    return f"{whole}{suffix}"
