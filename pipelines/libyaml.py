"""Makes OmegaConf parse YAML with libyaml, in C.

Its own parser, in Python, takes a quarter of the time of a large composition. OmegaConf has no setting for that, so its
loader is replaced while a configuration is composed. The replacement is a subclass of OmegaConf's loader, so types,
duplicate keys and errors stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def libyaml() -> Iterator[None]:
    """Within, `OmegaConf.load` and `OmegaConf.create` parse in C, where PyYAML was built with libyaml."""
    import yaml
    from omegaconf import _utils

    if not yaml.__with_libyaml__:
        yield
        return
    own = _utils.get_yaml_loader
    _utils.get_yaml_loader = lambda: _in_c(own())
    try:
        yield
    finally:
        _utils.get_yaml_loader = own


def _in_c(loader: Any) -> Any:
    """A loader that constructs as `loader` does from what libyaml parses."""
    from yaml.constructor import SafeConstructor
    from yaml.cyaml import CParser
    from yaml.resolver import Resolver

    class Loader(CParser, loader):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            CParser.__init__(self, stream)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    return Loader
