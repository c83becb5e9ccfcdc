"""What a composed configuration must honour before anything is built from it."""

import copy
from collections.abc import Callable, Iterator

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedmia.errors import ConfigError, expect
from fedmia.explain import unknown
from fedmia.plugins import check_plugin, plugins
from fedmia.settings import Config, attack_names, check_ranges

_AT_ONCE = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")


def check(config: DictConfig, options: Callable[[str], list[str]]) -> None:
    """Check a whole configuration: its keys, what it refers to, its ranges, its plug-ins.

    Parameters
    ----------
    config
        As Hydra composed it.
    options
        Gives the options of a configuration group.

    Raises
    ------
    ConfigError
        For the first thing that is wrong.
    """
    known = list(Config.__dataclass_fields__)
    for key in map(str, config):
        if key not in known:
            raise ConfigError(unknown(str(key), "", known))
        if OmegaConf.is_missing(config, str(key)):
            raise ConfigError(f"{key}=???: expected one of {', '.join(options(str(key)))}")
    if not isinstance(config.attack, DictConfig) or not attack_names(config):
        raise ConfigError(f"attack=[]: expected one of {', '.join(options('attack'))}")
    try:
        OmegaConf.resolve(copy.deepcopy(config))
    except OmegaConfBaseException as error:
        reason, where = str(error).splitlines()[0], next(_unresolvable(config, ""), "${…}")
        raise ConfigError(f"{where}: expected to be resolvable ({reason})") from None
    check_ranges(config)
    for key, node in plugins(config):
        check_plugin(key, node)
        for name in _AT_ONCE:  # Flower waits for more nodes for ever
            wanted, there = node.get(name, 0), config.num_clients
            expect(wanted <= there, f"{key}.{name}", wanted, f"at most num_clients={there}")
        malicious, most = node.get("num_malicious_nodes", 0), max(config.num_clients - 3, 0)
        allowed = f"at most {most} (num_clients - 3: Krum needs a neighbour)"
        expect(malicious <= most, f"{key}.num_malicious_nodes", malicious, allowed)


def _unresolvable(node: DictConfig, path: str) -> Iterator[str]:
    """Yield ``key=value`` of everything that cannot be resolved."""
    raw = OmegaConf.to_container(node, resolve=False)
    assert isinstance(raw, dict)
    for key, value in ((str(k), v) for k, v in raw.items()):
        try:
            inner = node[key]
        except OmegaConfBaseException:
            yield f"{path}{key}={value}"
            continue
        if isinstance(inner, DictConfig):
            yield from _unresolvable(inner, f"{path}{key}.")
