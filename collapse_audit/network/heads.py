"""The layers in front of the prototypes, found among the tensors of a file and rebuilt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from collapse_audit.checkpoints.roles import branch_of
from collapse_audit.errors import CheckpointError
from collapse_audit.network.tensors import State, plain_key, read_tensor

if TYPE_CHECKING:
    from torch import nn

    from collapse_audit.checkpoints.locations import HeadLocation
    from collapse_audit.containers.tensors import Checkpoint, StoredTensor
    from collapse_audit.manifest.recipes import Recipe
    from collapse_audit.prototypes import Branch

_GIVE = "Give features at the bottleneck with data=FILE.npz instead."
# A layer's number, for MSN by its name: fc1, bn1, (GELU), fc2, ...
_MSN_NAMES = {"fc1": 0, "bn1": 1, "fc2": 3, "bn2": 4, "fc3": 6}
_NUMBERED = re.compile(rf"(?P<chain>.+)\.(?P<name>\d+|{'|'.join(_MSN_NAMES)})\.(?P<part>[^.]+)")
_ALONE = re.compile(r"(?P<chain>(?:.+\.)?(?:mlp|proj\w*))\.(?P<part>weight|bias)")
_SURROUNDINGS = frozenset({"state_dict", "model"})


@dataclass(frozen=True, slots=True, eq=False)
class _Chain:
    """Numbered layers that follow one another."""

    name: str
    layers: dict[int, dict[str, StoredTensor]]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the weights of the linear layers."""
        weights = (self.layers[number].get("weight") for number in sorted(self.layers))
        return [weight.shape for weight in weights if weight is not None and len(weight.shape) > 1]

    def ends_at(self, width: int) -> bool:
        """Whether each linear layer takes what the one before gives, and the last ``width``."""
        shapes = self.shapes
        flat = bool(shapes) and all(len(shape) == 2 for shape in shapes)
        return flat and [s[0] for s in shapes] == [*(s[1] for s in shapes[1:]), width]


def projection_of(checkpoint: Checkpoint, head: HeadLocation, recipe: Recipe) -> nn.Module:
    """Rebuild what stands before the prototypes: from backbone features to the bottleneck."""
    # It is found by structure: numbered linear and normalisation layers, each as wide as the next
    # one takes, that end at the dimension of the prototypes and stand in the same module as they do
    # or, failing that, beside a module around them. Without them it is the identity.
    from torch import nn

    tensors = {plain_key(tensor): tensor for tensor in checkpoint.tensors.values()}
    key = plain_key(checkpoint.tensors[head.weight_key])
    layer = re.sub(r"\.(?:weight\w*|parametrizations\.weight\.\w+)$", "", key)
    chains = _chains(tensors)
    chain = _nearest(chains, layer, head)
    if chain is None:
        return build_projection({}, activation=recipe.activation)
    state = {
        f"{number}.{part}": read_tensor(tensor)
        for number, parts in chain.layers.items()
        for part, tensor in parts.items()
    }
    for key, tensor in tensors.items():  # what is no layer of a known kind is refused by name
        inside = key.startswith(f"{chain.name}.") and not key.startswith(f"{layer}.")
        if inside and not (_NUMBERED.fullmatch(key) or _ALONE.fullmatch(key)):
            state[key.removeprefix(f"{chain.name}.")] = read_tensor(tensor)
    body = build_projection(
        state, activation=recipe.activation, final_activation=recipe.final_activation
    )
    return nn.Sequential(*_before(tensors, chains, chain), *body).eval()


def build_projection(
    state: State, *, activation: Literal["gelu", "relu"], final_activation: bool = False
) -> nn.Sequential:
    """Rebuild a projection head up to the bottleneck from tensors by ``index.part``."""
    # Linear layers stand where their indices say; an index in between is a normalisation if it has
    # tensors. An activation follows each linear layer (after its normalisation) but the last.
    # Unit norm and prototypes are no part of it; a tensor of another kind is an error.
    from torch import nn

    parts: dict[int, State] = {}
    for key, tensor in state.items():
        index, _, part = key.partition(".")
        if not index.isdigit():
            raise CheckpointError(
                f"the projection head has a layer {index!r} that this family's head lacks.",
                hint=_GIVE,
            )
        parts.setdefault(int(index), {})[part] = tensor
    between = nn.GELU if activation == "gelu" else nn.ReLU
    modules: list[nn.Module] = []
    for place in sorted(parts):
        module = _layer(place, parts[place])
        if isinstance(module, nn.Linear) and any(isinstance(m, nn.Linear) for m in modules):
            modules.append(between())
        modules.append(module)
    if final_activation and modules:
        modules.append(between())
    return nn.Sequential(*modules).eval().requires_grad_(requires_grad=False)


def input_width(projection: nn.Module) -> int | None:
    """Width of the features that a projection head takes; ``None`` for the identity."""
    from torch import nn

    first = next((m for m in projection.modules() if isinstance(m, nn.Linear)), None)
    return None if first is None else first.in_features


def _chains(tensors: Mapping[str, StoredTensor]) -> dict[str, _Chain]:
    """Every module with numbered layers, and every linear layer that is called a projection."""
    found: dict[str, _Chain] = {}
    for key, tensor in tensors.items():
        if match := _NUMBERED.fullmatch(key):
            name = match["name"]
            number = _MSN_NAMES[name] if name in _MSN_NAMES else int(name)
        elif match := _ALONE.fullmatch(key):
            number = 0
        else:
            continue
        chain = found.setdefault(match["chain"], _Chain(match["chain"], {}))
        chain.layers.setdefault(number, {})[match["part"]] = tensor
    return found


def _nearest(chains: Mapping[str, _Chain], layer: str, head: HeadLocation) -> _Chain | None:
    """The chain that ends at the prototypes; of several, the one in the innermost module."""
    owner, _, last = layer.rpartition(".")
    if last.isdigit() and owner in chains:  # the prototypes are the last layer of a chain
        before = {n: parts for n, parts in chains[owner].layers.items() if n < int(last)}
        if (chain := _Chain(owner, before)).ends_at(head.d):
            return chain
    for around in _ancestors(owner):
        prefix = f"{around}." if around else ""
        inside = [
            chain
            for name, chain in chains.items()
            if name.startswith(prefix)
            and name != owner
            and _is_close(name.removeprefix(prefix))
            and chain.ends_at(head.d)
        ]
        if inside:
            rest = layer.removeprefix(prefix)
            return min(inside, key=lambda c: _rank(c.name.removeprefix(prefix), rest, head.branch))
    return None


def _ancestors(module: str) -> Iterator[str]:
    while module:
        yield module
        module = module.rpartition(".")[0]
    yield ""


def _is_close(name: str) -> bool:
    """Whether a chain is a part of a head, going by where it stands: not deep in a backbone."""
    parts = name.split(".")
    own = [p for p in parts if not (p.isdigit() or p in _SURROUNDINGS or branch_of([p]))]
    return len(own) <= 2 and not any("backbone" in part or part == "encoder" for part in parts)


def _rank(name: str, layer: str, branch: Branch | None) -> tuple[bool, bool, bool]:
    """Order of chains in one module: same branch, same number, predictors last."""
    numbers = [re.findall(r"(?<=\.)\d+(?=\.|$)", f".{text}") for text in (name, layer)]
    other = branch_of(name.split(".")) not in (None, branch or "teacher")
    return (other, numbers[0] != numbers[1], "pred" in name)


def _before(
    tensors: Mapping[str, StoredTensor], chains: Mapping[str, _Chain], chain: _Chain
) -> Iterator[nn.Module]:
    """What feeds a chain, without an activation in between."""
    from torch import nn

    width = chain.shapes[0][1]
    for around in _ancestors(chain.name):  # TEMI standardises the embeddings it is given
        names = (f"{around}.embed_mean".lstrip("."), f"{around}.embed_std".lstrip("."))
        if all(name in tensors and tensors[name].size == width for name in names):
            mean, std = (read_tensor(tensors[name]) for name in names)
            norm = nn.BatchNorm1d(width, eps=0.0, affine=False, dtype=mean.dtype).eval()
            norm.load_state_dict({"running_mean": mean, "running_var": std**2}, strict=False)
            yield norm
    # Franca's nested heads: a linear layer of the same number, in a list beside that of the chains
    owner, _, number = chain.name.rpartition(".")
    for name, beside in chains.items():
        if number.isdigit() and name.rpartition(".")[0] == owner.rpartition(".")[0]:
            parts = beside.layers.get(int(number), {})
            if "weight" in parts and parts["weight"].shape[:1] == (width,):
                state = {f"0.{part}": read_tensor(tensor) for part, tensor in parts.items()}
                yield from build_projection(state, activation="gelu")


def _layer(index: int, tensors: State) -> nn.Module:
    from torch import nn

    weight = next(tensors[p] for p in ("weight", "running_mean", *tensors) if p in tensors)
    module: nn.Module
    if "running_mean" in tensors:
        module = nn.BatchNorm1d(len(tensors["running_mean"]), affine="weight" in tensors)
    elif weight.ndim == 2 and "weight" in tensors:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in tensors)
    elif weight.ndim == 1 and set(tensors) == {"weight", "bias"}:
        module = nn.LayerNorm(len(weight))
    else:
        raise CheckpointError(
            f"layer {index} of the projection head has tensors {', '.join(sorted(tensors))}, "
            "which fit no linear or normalisation layer.",
            hint=_GIVE,
        )
    if weight.is_floating_point():
        module.to(weight.dtype)
    loaded = module.load_state_dict(tensors, strict=False)
    missing = [key for key in loaded.missing_keys if key != "num_batches_tracked"]
    if missing or loaded.unexpected_keys:
        raise CheckpointError(
            f"layer {index} of the projection head: missing {missing}, "
            f"left over {loaded.unexpected_keys}."
        )
    return module
