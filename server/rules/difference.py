"""What changed between two programme files, in words: promotions added, removed and changed, and settings. Pure.

Files are compared as their authors wrote them, so that a line of the answer names a field of the file. Things with an
id are compared by it, wherever they stand; lists of words as sets; numbers as numbers (10 is 10.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from server.promotions import CURRENT_SEMANTICS, changed_defaults
from server.promotions.yaml_text import Plain

_KEYS: Final = ("id", "code", "unit", "sku")
"""Fields that name the items of a list, in the order in which they are tried."""
_SHOWN: Final = 8


class FieldChange(NamedTuple):
    """A field that changed; empty text stands for what is not there."""

    field: str
    before: str
    after: str

    def __str__(self) -> str:
        """Say it in words."""
        if not self.before:
            return f"{self.field}: {self.after} (new)"
        if not self.after:
            return f"{self.field}: no longer set (was {self.before})"
        return f"{self.field}: {self.before} → {self.after}"


class ListChange(NamedTuple):
    """A list of words of which some changed; their order does not matter."""

    field: str
    put_in: tuple[str, ...]
    taken_out: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in words."""
        sides = (("put in", self.put_in), ("taken out", self.taken_out))
        return f"{self.field}: " + "; ".join(
            f"{len(words)} {what} ({_first_words(words)})" for what, words in sides if words
        )


Change = FieldChange | ListChange


class ItemChange(NamedTuple):
    """A promotion that is in both files, and what changed in it."""

    item_id: str
    changes: tuple[Change, ...]


class Difference(NamedTuple):
    """What changed between two files; promotions as their ids with their names."""

    added: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]
    changed: tuple[ItemChange, ...]
    settings: tuple[Change, ...]

    @property
    def is_empty(self) -> bool:
        """Say whether nothing changed."""
        return not any(self)


def difference(
    before: Plain, after: Plain, semantics: tuple[int, int] = (CURRENT_SEMANTICS, CURRENT_SEMANTICS)
) -> Difference:
    """Return what changed between two programmes, as the plain data of their files.

    ``semantics`` are the numbers of their defaults: what both files leave out may mean something else in each.
    """
    old, new = (dict(data) if isinstance(data, dict) else {} for data in (before, after))
    olds, news = _by_id(old.pop("promotions", None)), _by_id(new.pop("promotions", None))
    changed = []
    for item_id in olds.keys() & news.keys():
        changes = tuple(_changes(olds[item_id], news[item_id], ""))
        if changes:
            changed.append(ItemChange(item_id, changes))
    return Difference(
        added=tuple((item_id, _name(news[item_id])) for item_id in sorted(news.keys() - olds.keys())),
        removed=tuple((item_id, _name(olds[item_id])) for item_id in sorted(olds.keys() - news.keys())),
        changed=tuple(sorted(changed)),
        settings=(*_changed_defaults(*semantics), *_changes(old, new, "")),
    )


def _changed_defaults(before: int, after: int) -> Iterator[Change]:
    old, new = changed_defaults(before), changed_defaults(after)
    return (FieldChange(field, old[field], new[field]) for field in old if old[field] != new[field])


def _changes(before: Plain, after: Plain, path: str) -> Iterator[Change]:
    if _equal_values(before, after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            yield from _changes(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _list_changes(before, after, path)
    else:
        yield FieldChange(path, _text(before), _text(after))


def _list_changes(before: list[Plain], after: list[Plain], path: str) -> Iterator[Change]:
    if all(isinstance(item, str) for item in (*before, *after)):
        more = tuple(str(item) for item in after if item not in before)
        less = tuple(str(item) for item in before if item not in after)
        if more or less:
            yield ListChange(path, more, less)
        return
    olds, news = _by_id(before), _by_id(after)
    if len(olds) == len(before) and len(news) == len(after):
        for item_id in dict.fromkeys((*olds, *news)):
            yield from _changes(olds.get(item_id), news.get(item_id), f"{path}[{item_id}]")
        return
    for number in range(max(len(before), len(after))):
        old = before[number] if number < len(before) else None
        new = after[number] if number < len(after) else None
        yield from _changes(old, new, f"{path}[{number}]")


def _first_words(words: Sequence[str]) -> str:
    more = ", …" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _by_id(items: Plain) -> dict[str, Plain]:
    """Return the items of a list by what names them; items that nothing names are left out."""
    found: dict[str, Plain] = {}
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping):
            name = next((item[key] for key in _KEYS if isinstance(item.get(key), str)), None)
            if isinstance(name, str):
                found.setdefault(name, item)
    return found


def _name(item: Plain) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""


def _equal_values(before: Plain, after: Plain) -> bool:
    if before == after:
        return True
    if isinstance(before, str) and isinstance(after, str):
        try:
            return Decimal(before) == Decimal(after)
        except InvalidOperation:
            return False
    return False


def _text(value: Plain) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_text(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        more = ", …" if len(value) > _SHOWN else ""
        return "[" + ", ".join(_text(part) for part in value[:_SHOWN]) + more + "]"
    return value
