"""The shipped manifest: its rows, looking them up, and their local files."""

import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from collapse_audit.errors import ManifestError
from collapse_audit.manifest import CheckpointEntry, load_manifest
from collapse_audit.manifest.entries import Manifest, candidate_file_names, fetch_hint
from collapse_audit.manifest.reading import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = REPOSITORY / "checkpoints_manifest.yaml"
P24, P26 = "2410.14060", "2510.20108"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifest()


# The shipped manifest


def test_the_shipped_manifest_has_127_rows_with_unique_ids(manifest: Manifest) -> None:
    assert len(manifest.entries) == 127
    assert len({entry.id for entry in manifest.entries}) == 127


def test_every_row_states_family_source_evidence_and_licence_where_a_file_is_public(
    manifest: Manifest,
) -> None:
    for entry in manifest.entries:
        assert entry.family in manifest.families
        assert entry.source
        assert entry.evidence in "ABCN"
        assert (entry.licence is not None) == (entry.url is not None), entry.id


def test_every_row_has_k_and_d_or_a_note_that_says_why_not(manifest: Manifest) -> None:
    unknown = [e for e in manifest.entries if e.k is None or e.d is None]

    assert {e.family for e in unknown} == {"webssl", "dinov2"}
    for entry in unknown:
        assert entry.note is not None
        assert re.search(r"K and D are (not stated|stated nowhere)", entry.note), entry.id


def test_rows_without_a_public_head_are_exactly_the_five_known_ones(manifest: Manifest) -> None:
    assert {e.id for e in manifest.entries if not e.has_public_head} == {
        "dino_vmf_vitb16",
        "ibot_vmf_vitb16",
        "dinov2_vitg14",
        "dinov3_vit7b16",
        "pmsn_vits16",
    }


@pytest.mark.parametrize(
    ("checkpoint", "k", "counts"),
    [
        ("dino_vits16", 65536, [(1078, P24, False)]),
        ("dino_resnet50", 60000, [(984, P24, False), (908, P26, True)]),
        ("dino_vmf_vitb16", 65536, [(939, P24, True)]),
        ("ibot_vmf_vitb16", 8192, [(1170, P24, False)]),
        ("ibot_vitl16_in22k", 8192, [(969, P24, False)]),
        ("esvit_swin_t_w7", 65536, [(1157, P24, False)]),
        ("esvit_swin_b_w14", 65536, [(4088, P24, False)]),
        ("esvit_vil", 65536, [(1741, P24, False)]),
        ("esvit_cvt", 65536, [(1178, P24, False)]),
        ("swav_resnet50_800ep", 3000, [(1669, P24, False)]),
        ("carp_resnet50_400ep", 65536, [(7052, P26, True)]),
        ("capi_vitl14_lvd", 16384, [(16383, P26, True)]),
        ("dinov2_vitg14", 131072, [(2556, P26, True)]),
    ],
)
def test_published_counts_carry_their_paper_and_whether_they_are_second_hand(
    manifest: Manifest, checkpoint: str, k: int, counts: list[tuple[int, str, bool]]
) -> None:
    entry = manifest.get(checkpoint)

    assert entry.k == k
    assert len(entry.published) == len(counts)
    for published, (unique, paper, second_hand) in zip(entry.published, counts, strict=True):
        assert published.unique == unique
        assert paper in published.source
        assert published.second_hand is second_hand
        # only the second paper states its epsilon in what was read
        assert published.epsilon == (0.025 if paper == P26 else None)


def test_thirteen_rows_have_a_published_count(manifest: Manifest) -> None:
    assert sum(bool(e.published) for e in manifest.entries) == 13


def test_a_published_count_for_another_k_says_so(manifest: Manifest) -> None:
    other_k = {e.id: p.k for e in manifest.entries for p in e.published if p.k is not None}

    assert other_k == {"dinov2_vitg14": 262144}


def test_no_row_claims_more_unique_prototypes_than_it_has(manifest: Manifest) -> None:
    for entry in manifest.entries:
        for published in entry.published:
            assert entry.k is not None
            assert published.unique < (published.k or entry.k)


@pytest.mark.parametrize(
    ("checkpoint", "facts"),
    [
        # the one DINO head without weight norm
        (
            "dino_resnet50",
            {
                "tensor_keys": ("teacher/head.last_layer.weight",),
                "hidden_dim": 4096,
                "linear_layers": 2,
                "batch_norm": True,
                "patch_size": None,
            },
        ),
        (
            "deepclusterv2_800ep",
            {
                "tensor_keys": tuple(f"module.prototypes.prototypes{i}.weight" for i in range(3)),
                "container": "legacy",
                "epochs": 800,
                "mirrors": (
                    "https://dl.fbaipublicfiles.com/vissl/model_zoo/deepclusterv2_800ep_pretrain.pth.tar",
                ),
            },
        ),
        (
            "swav_rn50w5_400ep",
            {
                "mirrors": (
                    "https://dl.fbaipublicfiles.com/vissl/model_zoo/swav_rn50w5/swav_RN50w5_400ep_pretrain.pth.tar",
                ),
                "hidden_dim": 10240,
            },
        ),
        (
            "ibot_vitl16_in22k",
            {
                "centre_key": "ibot_loss/center",
                "patch_centre_key": "ibot_loss/center2",
                "expected_size_mb": 4996,
                "in_dim": 1024,
                "epochs": 50,
            },
        ),
        ("esvit_swin_b_w14", {"expected_size_mb": 2145, "norm_last_layer": True}),
        ("esvit_swin_b_w7_v", {"expected_size_mb": 1767, "patch_centre_key": None}),
        ("msn_vits16", {"tensor_keys": ("prototypes",)}),
        ("carp_resnet50_400ep", {"licence": "none stated"}),
        ("mugs_vitl16_250ep", {"norm_last_layer": True, "centre_key": "group-sup./center"}),
        ("franca_vitb14_in21k", {"nested_k": (8192, 16384, 32768, 65536, 131072), "k": 131072}),
        ("rad_dino", {"container": "safetensors"}),
        ("seer_rg10b", {"k": 16000, "d": 256, "licence": "SEER licence (non-commercial)"}),
        ("dinov3_vit7b16", {"k": 262144, "d": 512}),
    ],
)
def test_rows_keep_the_facts_that_differ_from_their_family(
    manifest: Manifest, checkpoint: str, facts: dict[str, object]
) -> None:
    entry = manifest.get(checkpoint)

    assert {name: getattr(entry, name) for name in facts} == facts


def test_dino_files_hold_no_centre_and_the_url_is_the_one_with_the_head(
    manifest: Manifest,
) -> None:
    entries = [row for row in manifest.filter(family="dino") if row.backbone_url is not None]
    assert len(entries) >= 5
    for entry in entries:
        assert entry.backbone_url is not None
        assert entry.url == entry.backbone_url.replace(".pth", "_full_checkpoint.pth")
        assert entry.centre_key is None


def test_esvit_links_hold_no_query_string_and_name_the_variable_for_it(manifest: Manifest) -> None:
    entries = manifest.filter(family="esvit")

    assert len(entries) == 19
    for entry in entries:
        assert entry.url is not None
        assert "?" not in entry.url
        assert entry.query_env == "COLLAPSE_AUDIT_ESVIT_QUERY"


def test_pages_and_files_in_parts_are_fetched_by_hand(manifest: Manifest) -> None:
    for entry in manifest.entries:
        by_hand = re.search(r"drive\.google|/tree/|part_aa", entry.url or "") is not None
        assert (entry.fetch == "manual") == by_hand, entry.id


def test_no_id_is_a_command(manifest: Manifest) -> None:
    assert COMMANDS.isdisjoint(entry.id for entry in manifest.entries)


def test_profiles_have_the_standard_deviation_that_swav_uses(manifest: Manifest) -> None:
    assert manifest.preprocessing["in1k_bicubic"].std == (0.229, 0.224, 0.225)
    assert manifest.preprocessing["in1k_bilinear_std228"].std == (0.228, 0.224, 0.225)
    assert manifest.preprocessing["rad_dino_518"].mean == (0.5307,) * 3
    recipes = [*manifest.recipes.values(), *(entry.recipe for entry in manifest.entries)]
    used = {recipe.preprocessing for recipe in recipes}
    assert used == set(manifest.preprocessing)


def test_the_head_of_the_file_explains_every_field() -> None:
    comments = "\n".join(
        line for line in SHIPPED.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    derived = {"original_name"}
    for name in set(CheckpointEntry.__slots__) - derived:
        assert re.search(rf"\b{name}\b", comments), name


def test_loading_and_listing_do_not_import_torch() -> None:
    code = (
        "import sys; from collapse_audit.manifest import load_manifest; load_manifest();"
        "heavy = {'torch', 'pandas', 'sklearn', 'matplotlib', 'timm'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


# Look-up


def test_entries_cannot_be_changed(manifest: Manifest) -> None:
    with pytest.raises(FrozenInstanceError, match="k"):
        manifest.entries[0].k = 1  # type: ignore[misc]


def test_filter_keeps_one_family_and_public_heads(manifest: Manifest) -> None:
    assert {e.id for e in manifest.filter(family="dinov2")} == {"rad_dino", "dinov2_vitg14"}
    assert [e.id for e in manifest.filter(family="dinov2", with_head=True)] == ["rad_dino"]
    assert len(manifest.filter(with_head=True)) == 122
    assert manifest.filter() == manifest.entries


def test_an_unknown_id_suggests_the_likely_one(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"'dino_vits61'.*Did you mean .*dino_vits16") as caught:
        manifest.get("dino_vits61")
    assert "`collapse-audit list`" in caught.value.hint


def test_an_unknown_id_like_no_other_gets_no_suggestion(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="No checkpoint is called 'zzz'") as caught:
        manifest.get("zzz")
    assert "Did you mean" not in str(caught.value)


def test_an_unknown_family_names_the_likely_one_and_all(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"'swaw'.*Did you mean swav.*Families: dino, ibot"):
        manifest.filter(family="swaw")


# Local files


def test_expected_file_names_are_unique_also_where_case_is_ignored(manifest: Manifest) -> None:
    owners: dict[str, str] = {}
    for entry in manifest.entries:
        for name in candidate_file_names(entry):
            assert owners.setdefault(name.lower(), entry.id) == entry.id
            assert "/" not in name
            assert "%" not in name


@pytest.mark.parametrize(
    ("checkpoint", "names"),
    [
        ("dino_vits16", ("dino_vits16.pth", "dino_deitsmall16_pretrain_full_checkpoint.pth")),
        ("swav_resnet50_800ep", ("swav_resnet50_800ep.pth.tar", "swav_800ep_pretrain.pth.tar")),
        # every iBOT file is called checkpoint.pth
        ("ibot_vits16", ("ibot_vits16.pth",)),
        # the address is a folder
        ("mugs_vits16_100ep", ("mugs_vits16_100ep.pth",)),
        ("dino_k4096", ("dino_k4096.pth",)),
        ("rad_dino", ("rad_dino.safetensors", "dino_head.safetensors")),
        ("lightly_dino_vits16_100ep", ("lightly_dino_vits16_100ep.ckpt",)),
        ("dinov2_vitg14", ("dinov2_vitg14.pth",)),
    ],
)
def test_a_local_copy_may_be_called_by_its_id_or_by_an_unambiguous_original_name(
    manifest: Manifest, checkpoint: str, names: tuple[str, ...]
) -> None:
    assert candidate_file_names(manifest.get(checkpoint)) == names


@pytest.mark.parametrize(
    ("checkpoint", "parts"),
    [
        (
            "dino_vits16",
            ["_full_checkpoint.pth (about 704 MB)", "save it as dino_vits16.pth in heads."],
        ),
        (
            "esvit_swin_t_w7",
            ["checkpoint_best.pth (about 1181 MB)", "query string", "COLLAPSE_AUDIT_ESVIT_QUERY"],
        ),
        ("carp_resnet50_100ep", ["Open https://drive.google.com/", "in a browser"]),
        ("franca_vitg14_in21k", ["in a browser", "three parts"]),
        ("dino_vmf_vitb16", ["No file with this head is public.", "No public weights found."]),
        ("msn_vits16", ["vits16_800ep.pth.tar and save it"]),
    ],
)
def test_the_hint_says_where_the_file_is_and_where_to_put_it(
    manifest: Manifest, checkpoint: str, parts: list[str]
) -> None:
    hint = fetch_hint(manifest.get(checkpoint), Path("heads"))

    assert "\n" not in hint
    for part in parts:
        assert part in hint


def test_the_hint_gives_the_exact_size_once_it_is_known(manifest: Manifest) -> None:
    entry = replace(manifest.get("dino_vits16"), size=703_600_000)

    assert "(704 MB)" in fetch_hint(entry, "heads")
