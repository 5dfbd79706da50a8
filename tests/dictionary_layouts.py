"""Codebooks and sparse autoencoders as their libraries write them, one small file each.

Keys, shapes and orientations were read in the public source that each layout names. Nothing is
square, and each codebook has its own number of unique rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.planted import D, Head, Layouts, State, linear, noise, rows, under

CODEBOOKS = Layouts()
AUTOENCODERS = Layouts()


def usage(k: int, *, seed: int = 0) -> torch.Tensor:
    """Running averages of counts: uneven, and none of them dead."""
    return torch.rand(k, generator=torch.Generator().manual_seed(seed)) * 5 + 5


def lucidrains(embed: torch.Tensor) -> State:
    """The buffers of EuclideanCodebook: embed (h, K, D), counts (h, K)."""
    size = torch.stack([usage(embed.shape[1], seed=i) for i in range(len(embed))])
    return {
        "_codebook.initted": torch.tensor(True),
        "_codebook.cluster_size": size,
        "_codebook.embed_avg": embed * size[..., None],
        "_codebook.embed": embed,
    }


def encodec(m: int) -> State:
    """The buffers of EnCodec's: embed (K, D), counts (K)."""
    return {
        "inited": torch.ones(1),
        "cluster_size": usage(2 * m),
        "embed": rows(m),
        "embed_avg": noise(2 * m, D),
    }


def mimi(m: int, *, older: bool = False) -> State:
    """The buffers of Mimi's: sums, whose norms are those of the codes times their usage."""
    counts = usage(2 * m, seed=m)
    return {
        "initialized" if older else "_initialized": torch.ones(1),
        "cluster_usage": counts,
        "embed_sum" if older else "embedding_sum": rows(m) * counts[:, None],
    }


@CODEBOOKS.tree("vector-quantize-pytorch 1.32, VectorQuantize", Head("_codebook.embed", 30))
def lucidrains_vq() -> Any:
    return linear("project_in", D, 40) | lucidrains(rows(30)[None]) | linear("project_out", 40, D)


@CODEBOOKS.tree(
    "the same with heads=3, separate_codebook_per_head=True",
    *(Head("vq._codebook.embed", m, 60) for m in (12, 20, 30)),
)
def lucidrains_stack() -> Any:
    stack = torch.stack([rows(m, 60) for m in (12, 20, 30)])
    return {"model": under("vq.", lucidrains(stack)) | linear("encoder.conv", 40, 40)}


@CODEBOOKS.tree(
    "the same, ResidualVQ",
    *(Head(f"layers.{i}._codebook.embed", 12 + i) for i in range(11)),
)
def lucidrains_residual() -> Any:
    return under(
        "rvq.", *(under(f"layers.{i}.", lucidrains(rows(12 + i)[None])) for i in range(11))
    )


@CODEBOOKS.tree("the same, ResidualVQ(shared_codebook=True)", Head("layers.0._codebook.embed", 30))
def lucidrains_shared() -> Any:
    one = lucidrains(rows(30)[None])
    return under("layers.0.", one) | under("layers.1.", one)


@CODEBOOKS.tree(
    "the same, GroupedResidualVQ",
    *(Head(f"rvqs.{i}.layers.{j}._codebook.embed", 12 + 2 * i + j) for i in (0, 1) for j in (0, 1)),
)
def lucidrains_grouped() -> Any:
    return under("", *(
        under(f"rvqs.{i}.layers.{j}.", lucidrains(rows(12 + 2 * i + j)[None]))
        for i in (0, 1) for j in (0, 1)
    ))  # fmt: skip


@CODEBOOKS.tree(
    "encodec 0.1.1, quantization/core_vq.py; audiocraft",
    *(Head(f"layers.{i}._codebook.embed", 12 + i) for i in range(4)),
)
def encodec_original() -> Any:
    layers = (under(f"quantizer.vq.layers.{i}._codebook.", encodec(12 + i)) for i in range(4))
    return {"encoder.model.0.conv.conv.bias": noise(8)} | under("", *layers)


@CODEBOOKS.file(
    "transformers, modeling_encodec.py",
    *(Head(f"quantizer.layers.{i}.codebook.embed", 12 + i) for i in range(12)),
)
def encodec_transformers(folder: Path) -> Path:
    layers = (under(f"quantizer.layers.{i}.codebook.", encodec(12 + i)) for i in range(12))
    save_file(under("", *layers), folder / "model.safetensors")
    (folder / "config.json").write_text('{"codebook_size": 24, "codebook_dim": 24}')
    return folder


@CODEBOOKS.file(
    "kyutai-labs/moshi, quantization/core_vq.py and vq.py",
    Head("rvq_first.vq.layers.0._codebook.embedding_sum", 30),
    *(Head(f"rvq_rest.vq.layers.{i}._codebook.embedding_sum", 12 + i) for i in range(3)),
    note="embedding_sum / cluster_usage",
)
def mimi_original(folder: Path) -> Path:
    state = under("quantizer.rvq_first.vq.layers.0._codebook.", mimi(30))
    for i in range(3):
        state |= under(f"quantizer.rvq_rest.vq.layers.{i}._codebook.", mimi(12 + i))
    state["quantizer.rvq_first.input_proj.weight"] = noise(D, 40, 1)
    save_file(state, folder / "mimi.safetensors")
    return folder / "mimi.safetensors"


@CODEBOOKS.tree(
    "transformers, modeling_mimi.py",
    Head("semantic_residual_vector_quantizer.layers.0.codebook.embed_sum", 30),
    *(
        Head(f"acoustic_residual_vector_quantizer.layers.{i}.codebook.embed_sum", 12 + i)
        for i in range(3)
    ),
    note="embed_sum / cluster_usage",
)
def mimi_transformers() -> Any:
    acoustic = (under(f"acoustic_residual_vector_quantizer.layers.{i}.codebook.",
                      mimi(12 + i, older=True)) for i in range(3))  # fmt: skip
    semantic = under("semantic_residual_vector_quantizer.layers.0.codebook.", mimi(30, older=True))
    return under("quantizer.", semantic, *acoustic)


@CODEBOOKS.tree(
    "descript-audio-codec 1.0, dac/nn/quantize.py",
    *(Head(f"quantizers.{i}.codebook.weight", 12 + i) for i in range(9)),
)
def dac() -> Any:
    state: State = {}
    for i in range(9):
        place = f"quantizer.quantizers.{i}"
        state |= {f"{place}.codebook.weight": rows(12 + i)}
        for name, shape in (("in_proj", (D, 40)), ("out_proj", (40, D))):
            state[f"{place}.{name}.weight_g"] = noise(shape[0], 1, 1)
            state[f"{place}.{name}.weight_v"] = noise(*shape, 1)
            state[f"{place}.{name}.bias"] = noise(shape[0])
    return {"state_dict": state, "metadata": {"kwargs": {"n_codebooks": 9}}}


@CODEBOOKS.tree("CompVis/taming-transformers, vqvae/quantize.py", Head("embedding.weight", 30))
def taming() -> Any:
    return {"state_dict": {"quantize.embedding.weight": rows(30),
                           "quant_conv.weight": noise(D, 40, 1, 1),
                           "post_quant_conv.weight": noise(40, D, 1, 1),
                           "loss.discriminator.main.0.weight": noise(8, 3, 4, 4)}}  # fmt: skip


@CODEBOOKS.tree("the same, GumbelQuantize", Head("quantize.embed.weight", 30))
def taming_gumbel() -> Any:
    return {"state_dict": {"quantize.embed.weight": rows(30),
                           "quantize.proj.weight": noise(60, 40, 1, 1)}}  # fmt: skip


@CODEBOOKS.tree(
    "FoundationVision/LlamaGen, tokenizer_image/vq_model.py; codebook_used is a ring of indices",
    Head("quantize.embedding.weight", 30),
)
def llamagen() -> Any:
    return {"model": {"quantize.embedding.weight": rows(30),
                      "quantize.codebook_used": torch.zeros(65536),
                      "decoder.conv_in.weight": noise(8, D, 3, 3)}}  # fmt: skip


@CODEBOOKS.tree(
    "wav2vec 2.0 of fairseq, gumbel_vector_quantizer.py; project_q takes both groups",
    Head("quantizer.vars", 20, 50),
    Head("quantizer.vars", 30, 50),
)
def wav2vec_fairseq() -> Any:
    codes = torch.cat([rows(20, 50), rows(30, 50)])[None]
    state = {"quantizer.vars": codes} | linear("quantizer.weight_proj", 100, 40)
    return {"model": state | linear("project_q", 20, 2 * D) | linear("final_proj", 20, 40)}


@CODEBOOKS.tree(
    "transformers, modeling_wav2vec2.py",
    Head("quantizer.codevectors", 20, 50),
    Head("quantizer.codevectors", 30, 50),
)
def wav2vec_transformers() -> Any:
    codes = torch.cat([rows(20, 50), rows(30, 50)])[None]
    state = {"quantizer.codevectors": codes} | linear("quantizer.weight_proj", 100, 40)
    return state | linear("project_q", 20, 2 * D) | linear("project_hid", 20, 40)


@CODEBOOKS.tree(
    "vq-wav2vec of fairseq, without project_q",
    Head("vector_quantizer.vars", 42, 90),
    note="no project_q",
)
def wav2vec_of_unknown_groups() -> Any:
    return {"model": {"vector_quantizer.vars": rows(42, 90)[None]}}


@CODEBOOKS.tree(
    "fairseq, kmeans_vector_quantizer.py: K x groups x D",
    Head("vector_quantizer.embedding", 20, 50),
    Head("vector_quantizer.embedding", 30, 50),
    note="K x 2 x D",
)
def fairseq_kmeans() -> Any:
    codes = torch.stack([rows(20, 50), rows(30, 50)], dim=1)
    return {"model": {"vector_quantizer.embedding": codes,
                      "vector_quantizer.projection.0.weight": noise(2 * D, D, 1)}}  # fmt: skip


@CODEBOOKS.tree(
    "rosinality/vq-vae-2-pytorch, vqvae.py: D x K",
    Head("quantize_t.embed", 20),
    Head("quantize_b.embed", 30),
    note="transposed: stored as 24 x 60, and its usage has 60 values",
)
def vq_vae_2() -> Any:
    return under("", *(
        {f"{name}.embed": rows(m).T.contiguous(), f"{name}.cluster_size": usage(2 * m),
         f"{name}.embed_avg": noise(D, 2 * m)}
        for name, m in (("quantize_t", 20), ("quantize_b", 30))
    ))  # fmt: skip


@CODEBOOKS.tree("zalandoresearch/pytorch-vq-vae", Head("_vq_vae._embedding.weight", 30))
def zalando() -> Any:
    return {"_vq_vae._embedding.weight": rows(30), "_vq_vae._ema_w": noise(60, D),
            "_vq_vae._ema_cluster_size": usage(60)}  # fmt: skip


# --- sparse autoencoders: K = 60 latents of D = 24 inputs -----------------------------------------


def as_parameters(m: int = 30) -> State:
    """SAELens and Gemma Scope: x @ W_enc, latents @ W_dec."""
    return {"W_dec": rows(m), "W_enc": noise(D, 2 * m), "b_enc": noise(2 * m), "b_dec": noise(D)}


def as_layers(m: int = 30) -> State:
    """Two linear layers: the decoder lies inputs x latents."""
    return {"encoder.weight": noise(2 * m, D), "encoder.bias": noise(2 * m),
            "decoder.weight": rows(m).T.contiguous()}  # fmt: skip


def folder_of(folder: Path, weights: str, state: State, **configurations: object) -> Path:
    """A folder with weights and files of configuration, by name without suffix."""
    path = folder / weights
    path.parent.mkdir(parents=True, exist_ok=True)
    (torch.save if weights.endswith(".pt") else save_file)(state, path)
    for name, configuration in configurations.items():
        (folder / f"{name}.json").write_text(json.dumps(configuration))
    return folder


@AUTOENCODERS.file("sae-lens 6.54, saes/sae.py", Head("W_dec", 30))
def saelens(folder: Path) -> Path:
    save_file({"sparsity": noise(60)}, folder / "sparsity.safetensors")
    cfg = {"d_in": D, "d_sae": 60, "dtype": "float32", "sae_lens_version": "6.54.12"}
    return folder_of(folder, "sae_weights.safetensors", as_parameters(), cfg=cfg)


def weights_alone() -> State:
    return {key: tensor for key, tensor in as_parameters().items() if key.startswith("W_")}


@AUTOENCODERS.file("the same, two weights and a configuration", Head("W_dec", 30))
def saelens_without_biases(folder: Path) -> Path:
    cfg = {"d_in": D, "d_sae": 60}
    return folder_of(folder, "sae_weights.safetensors", weights_alone(), cfg=cfg)


@AUTOENCODERS.file("the same, two weights and nothing else", Head("W_dec", 30))
def saelens_weights_alone(folder: Path) -> Path:
    save_file(weights_alone(), folder / "sae_weights.safetensors")
    return folder / "sae_weights.safetensors"


@AUTOENCODERS.file("the same, gated_sae.py", Head("W_dec", 30))
def saelens_gated(folder: Path) -> Path:
    state = as_parameters() | {name: noise(60) for name in ("b_gate", "b_mag", "r_mag")}
    del state["b_enc"]
    return folder_of(folder, "sae_weights.safetensors", state, cfg={"d_in": D, "d_sae": 60})


@AUTOENCODERS.file("eai-sparsify 1.3, sparse_coder.py", Head("W_dec", 30))
def sparsify(folder: Path) -> Path:
    state = {"encoder.weight": noise(60, D), "encoder.bias": noise(60), "W_dec": rows(30),
             "b_dec": noise(D)}  # fmt: skip
    cfg = {"activation": "topk", "expansion_factor": 3, "num_latents": 60, "k": 4, "d_in": D}
    return folder_of(folder, "sae.safetensors", state, cfg=cfg)


@AUTOENCODERS.file("google/gemma-scope, params.npz", Head("W_dec", 30))
def gemma_scope(folder: Path) -> Path:
    arrays = {key: tensor.numpy() for key, tensor in as_parameters().items()}
    np.savez(folder / "params.npz", **arrays, threshold=np.abs(noise(60).numpy()))
    return folder


@AUTOENCODERS.file("the same, only decoder and thresholds", Head("W_dec", 30))
def gemma_scope_decoder(folder: Path) -> Path:
    np.savez(folder / "params.npz", W_dec=rows(30).numpy(), threshold=noise(60).numpy())
    return folder / "params.npz"


@AUTOENCODERS.file("google/gemma-scope-2, params.safetensors", Head("w_dec", 30))
def gemma_scope_2(folder: Path) -> Path:
    state = {key.lower(): tensor for key, tensor in as_parameters().items()}
    return folder_of(folder, "params.safetensors", state | {"threshold": noise(60)}, config={})


@AUTOENCODERS.file(
    "Llama Scope, checkpoints/final.safetensors and hyperparams.json",
    Head("decoder.weight", 30),
    note="transposed: stored as 24 x 60, and the bias of encoder has 60 values",
)
def llama_scope(folder: Path) -> Path:
    state = as_layers() | {"decoder.bias": noise(D)}
    hyperparams = {"d_model": D, "d_sae": 60, "jump_relu_threshold": 0.1}
    return folder_of(folder, "checkpoints/final.safetensors", state, hyperparams=hyperparams)


@AUTOENCODERS.file(
    "Llama Scope R1, sae_weights.safetensors and config.json", Head("decoder.weight", 30)
)
def llama_scope_r1(folder: Path) -> Path:
    state = as_layers() | {"decoder.bias": noise(D), "log_jumprelu_threshold": noise(60)}
    config = {"d_model": D, "expansion_factor": 2.5}
    return folder_of(folder, "sae_weights.safetensors", state, config=config)


@AUTOENCODERS.file(
    "dictionary-learning 0.1, AutoEncoder",
    Head("decoder.weight", 30),
    note="transposed: stored as 24 x 60",
)
def dictionary_learning(folder: Path) -> Path:
    config = {"trainer": {"dict_class": "AutoEncoder", "activation_dim": D, "dict_size": 60}}
    return folder_of(folder, "ae.pt", {"bias": noise(D)} | as_layers(), config=config)


@AUTOENCODERS.tree("the same, AutoEncoderTopK", Head("decoder.weight", 30), name="ae.pt")
def dictionary_learning_top_k() -> Any:
    return as_layers() | {"b_dec": noise(D), "k": torch.tensor(4), "threshold": torch.tensor(-1.0)}


@AUTOENCODERS.tree("the same, GatedAutoEncoder", Head("decoder.weight", 30), name="ae.pt")
def dictionary_learning_gated() -> Any:
    state = as_layers() | {name: noise(60) for name in ("r_mag", "gate_bias", "mag_bias")}
    del state["encoder.bias"]
    return state | {"decoder_bias": noise(D)}


@AUTOENCODERS.tree("the same, MatryoshkaBatchTopKSAE", Head("W_dec", 30), name="ae.pt")
def dictionary_learning_matryoshka() -> Any:
    return as_parameters() | {"group_sizes": torch.tensor([20, 40]), "threshold": torch.tensor(0.1)}


@AUTOENCODERS.tree(
    "Qwen Scope, layerN.sae.pt: both weights the other way round",
    Head("W_dec", 30),
    note="transposed: stored as 24 x 60, and b_enc has 60 values",
)
def qwen_scope() -> Any:
    state = as_parameters()
    return state | {key: state[key].T.contiguous() for key in ("W_dec", "W_enc")}


@AUTOENCODERS.tree("Goodfire, .pth", Head("decoder_linear.weight", 30))
def goodfire() -> Any:
    return {key.replace(".", "_linear."): tensor for key, tensor in as_layers().items()} | {
        "decoder_linear.bias": noise(D)
    }


@AUTOENCODERS.tree("mwhanna transcoders: an upright encoder", Head("W_dec", 30))
def transcoder() -> Any:
    return as_parameters() | {"W_enc": noise(60, D), "W_skip": noise(D, D)}
