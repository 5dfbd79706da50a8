"""Decoders of sparse autoencoders: one row for each latent, and which way round they are stored.

Libraries disagree about the orientation of a decoder, and some have both; docs/codebooks.md has the
sources. It is decided by what only fits one way: biases, the encoder, the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from collapse_audit.checkpoints.keys import Layer
from collapse_audit.checkpoints.locations import HeadLocation, plain_head
from collapse_audit.checkpoints.roles import branch_of, short_names
from collapse_audit.containers.tensors import Checkpoint

# SAELens, sparsify, Gemma Scope (1 and 2), Qwen Scope | Llama Scope, dictionary_learning | Goodfire
_PARAMETER, _LINEAR = re.compile(r"[wW]_dec"), re.compile(r"decoder(_linear)?")
_OF_LATENTS = (
    *("b_enc", "threshold", "log_threshold", "log_jumprelu_threshold"),
    *("b_gate", "b_mag", "r_mag", "gate_bias", "mag_bias"),
)
_OF_INPUTS = ("b_dec", "decoder_bias")
_LARGEST = 1 << 40  # no configuration says more
_LATENTS, _INPUTS = ("d_sae", "dict_size", "num_latents"), ("d_in", "activation_dim", "d_model")


class _Evidence(NamedTuple):
    what: str
    size: int
    of_latents: bool  # or of inputs


def find_decoders(checkpoint: Checkpoint, layers: Sequence[Layer]) -> list[HeadLocation]:
    """The decoder of every sparse autoencoder among the layers of a checkpoint, in file order."""
    places = {layer.scope: layer for layer in layers}
    found = [layer for layer in layers if _is_decoder(layer, places)]
    names = short_names([layer.scope for layer in found])
    return [
        _located(checkpoint, layer, name, places) for layer, name in zip(found, names, strict=True)
    ]


def _encoder(layer: Layer, places: Mapping[tuple[str, ...], Layer]) -> Layer | None:
    name = layer.name.replace("dec", "enc")
    encoder = places.get((*layer.owner, name)) or places.get((*layer.owner, "encoder"))
    usable = encoder is not None and encoder.weight is not None and encoder.weight.is_float_matrix
    return encoder if usable else None


def _is_decoder(layer: Layer, places: Mapping[tuple[str, ...], Layer]) -> bool:
    weight = layer.parts.get("weight")
    if weight is None or not weight.is_float_matrix:
        return False
    if layer.raw:
        return _PARAMETER.fullmatch(layer.name) is not None
    # an encoder and a decoder that are layers make a sparse autoencoder only if there are more
    # latents than inputs; in a language model both are stored alike
    encoder = _encoder(layer, places)
    if not _LINEAR.fullmatch(layer.name) or encoder is None or encoder.weight is None:
        return _LINEAR.fullmatch(layer.name) is not None and len(places) == 1  # a decoder alone
    return encoder.weight.shape == weight.shape[::-1] and weight.shape[0] < weight.shape[1]


def _located(
    checkpoint: Checkpoint, layer: Layer, name: str, places: Mapping[tuple[str, ...], Layer]
) -> HeadLocation:
    weight = layer.parts["weight"]
    rows, columns = weight.shape
    head = replace(plain_head(weight), name=name, branch=branch_of(layer.scope), scope=layer.scope)
    evidence = list(_evidence(checkpoint, layer, places))
    for what, size, of_latents in evidence:
        if of_latents and size not in weight.shape:
            stored = f"is stored as {rows:,} x {columns:,}"
            return replace(head, undecided=f"{stored}, but {what} has {size:,} latents")
    fitting = [one for one in evidence if rows != columns and one.size in weight.shape]
    upright = {(one.size == rows) == one.of_latents for one in fitting}
    if len(upright) != 1:
        why = "contradict one another" if upright else "do not tell"
        tells = "its biases, its encoder and the configuration"
        return replace(head, undecided=f"{tells} {why} whether its latents are rows or columns")
    if upright == {True}:
        return head
    why = f"{fitting[0].what} has {fitting[0].size:,} values"
    note = f"transposed: stored as {rows:,} x {columns:,}, and {why}"
    return replace(head, k=columns, d=rows, transposed=True, notes=(note,))


def _evidence(
    checkpoint: Checkpoint, layer: Layer, places: Mapping[tuple[str, ...], Layer]
) -> Iterator[_Evidence]:
    """What tells how many latents or inputs there are, the strongest first."""
    certain = False
    encoder = _encoder(layer, places)
    for other, of_latents in ((encoder, True), (layer, False), (places.get(layer.owner), False)):
        if other is not None and "bias" in other.parts:
            certain = True
            what = f"the bias of {other.name}" if other.name else "the bias"
            yield _Evidence(what, other.parts["bias"].size, of_latents)
    for vectors, of_latents in ((_OF_LATENTS, True), (_OF_INPUTS, False)):
        for name in vectors:
            vector = places.get((*layer.owner, name))
            if vector is not None and vector.weight is not None and len(vector.weight.shape) == 1:
                certain = True
                yield _Evidence(name, vector.weight.size, of_latents)
    for names, of_latents in ((_LATENTS, True), (_INPUTS, False)):
        for name in names:
            size = _option(checkpoint.options, name)
            if isinstance(size, int) and 1 < size < _LARGEST:
                certain = True
                yield _Evidence(f"the configuration ({name})", size, of_latents)
    if encoder is not None and encoder.weight is not None:
        if not encoder.raw:  # a linear layer is stored as outputs x inputs
            yield _Evidence("its encoder", encoder.weight.shape[0], True)
        elif not certain:  # x @ W_enc, in every library that calls it so and has no bias
            yield _Evidence("its encoder", encoder.weight.shape[1], True)


def _option(options: Mapping[str, Any], name: str) -> Any:
    """A value of a configuration, or of the trainer in it (dictionary_learning)."""
    trainer = options.get("trainer")
    return options.get(name) or (trainer.get(name) if isinstance(trainer, Mapping) else None)
