"""Lists of class names: whether they tell classes apart, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmlt.errors import InputError

_SAME = 'Give all of them the same classes=...'


def check_same_classes(lists: Mapping[str, Sequence[str] | None], remedy: str = _SAME) -> None:
    """Refuse class lists that differ in a name or in the order.

    Args:
        lists (Mapping[str, Sequence[str] | None]): Class names by whose they
            are; None and empty ones, which tell nothing, are left out.
        remedy (str): Ends the sentence. Defaults to giving all the same.

    Raises:
        InputError: Names the first difference.
    """
    known = {name: [str(c) for c in classes] for name, classes in lists.items() if classes}
    # The labels' numbers stand for names where nobody gave any.
    named = [sorted(c) for c in known.values() if c != [str(i) for i in range(len(c))]]
    if any(sorted(c) not in named for c in known.values()) and len({len(c) for c in known.values()}) == 1 and named:
        known = {name: c for name, c in known.items() if sorted(c) in named}
    if len({len(classes) for classes in known.values()}) > 1:
        sizes = ', '.join(f'{name} {len(classes)}' for name, classes in known.items())
        raise InputError(f'There are different class lists: {sizes} classes. {remedy}')
    for name, classes in list(known.items())[1:]:
        first, reference = next(iter(known.items()))
        for i, (a, b) in enumerate(zip(reference, classes)):
            if a != b:
                raise InputError(
                    f"There are different class lists: class {i} is '{a}' in {first} and '{b}' in {name}. {remedy}"
                )


def check_twins(classes: Sequence[str], where: str) -> None:
    """Refuse two classes of one name: by the name nobody could tell them apart.

    Args:
        classes (Sequence[str]): C class names.
        where (str): What to name in the error.

    Raises:
        InputError: There are two.
    """
    if (twins := find_twins(classes)) is not None:
        first, second = twins
        raise InputError(
            f"{where}: classes {first} and {second} have one name, '{classes[first]}': give every class a name of its "
            'own, or make them one class.'
        )


def find_twins(classes: Sequence[str]) -> tuple[int, int] | None:
    """The first two classes of one name, None where there are none; white space does not count."""
    seen: dict[str, int] = {}
    for i, name in enumerate(classes):
        if (first := seen.setdefault(' '.join(str(name).split()), i)) != i:
            return first, i
    return None
