"""Numbers of things in words."""


def amount(number: float, noun: str, plural: str = "") -> str:
    """``1 worker``, ``2 workers``.

    Args:
        noun: for one; it may begin with an adjective.
        plural: for all other numbers, where it is not the noun with an ``s``.
    """
    shown = number if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"
