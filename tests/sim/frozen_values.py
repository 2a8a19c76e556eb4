"""Frozen values that cost half as much to make.

A frozen dataclass sets each of its fields by a call. Here, one of many fields is made as what it becomes
without being frozen, in which a field costs next to nothing, and is frozen at the end by taking its class.
Values are the same, and as frozen as before; only `__init__` is another. A tenth of a simulation was this.

Absent here: classes with few fields, for which it would not pay, and those whose making does more.
"""

import inspect
import sys
from dataclasses import fields, is_dataclass
from typing import Any, Final

PACKAGES: Final = ("mesh.", "sidecar.")
#: With fewer, taking the class twice costs more than it saves.
FIELDS_MIN: Final = 4


def make_cheap() -> None:
    """Do it for every frozen dataclass that is loaded; what has it already is left alone."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith(PACKAGES):
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name and _is_meant(value):
                    make_one_cheap(value)


def _is_meant(kind: type) -> bool:
    own = vars(kind)
    return (
        is_dataclass(kind)
        and "__slots__" in own
        and "__init__" in own
        and hasattr(own["__init__"], "__annotations__")
        and own["__dataclass_params__"].frozen
        and not hasattr(kind, "__post_init__")
        and len(fields(kind)) >= FIELDS_MIN
        and not hasattr(own["__init__"], "is_cheap")
        and all(each.init for each in fields(kind))
    )


def make_one_cheap(kind: Any) -> None:
    """Give *kind* an `__init__` of the same signature that sets its fields on the class's open twin."""
    before = kind.__init__
    signature = inspect.signature(before)
    body = {"__slots__": kind.__slots__, "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    names: dict[str, Any] = {
        "_open": type(f"Open{kind.__name__}", kind.__bases__, body),
        "_kind": kind,
        "_set": object.__setattr__,
    }
    lines, parameters = ["_set(self, '__class__', _open)"], []
    factories = {each.name: each.default_factory for each in fields(kind)}
    for parameter in signature.parameters.values():
        name, shown = parameter.name, parameter.name
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        if parameter.default is not inspect.Parameter.empty:
            names[f"_default_{name}"] = parameter.default
            shown = f"{name}=_default_{name}"
        parameters.append(shown)
        if name == "self":
            continue
        if callable(factories[name]):
            names[f"_make_{name}"] = factories[name]
            lines.append(f"self.{name} = _make_{name}() if {name} is _default_{name} else {name}")
        else:
            lines.append(f"self.{name} = {name}")
    lines.append("self.__class__ = _kind")
    exec(f"def __init__({', '.join(parameters)}):\n  " + "\n  ".join(lines), names)
    made = names["__init__"]
    made.__qualname__, made.__annotations__, made.is_cheap = before.__qualname__, before.__annotations__, True
    kind.__init__ = made
