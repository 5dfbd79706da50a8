"""The recipes of docs/drop_in.md, run on digits: in lightly, and in the shape of official loops.

A section has three blocks: what is made once, what is added to the loss, and what is called after
the step. The stand-ins have the names of the official code and as much of its behaviour as counts.
"""

from __future__ import annotations

import copy
import csv
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from collapse_audit import PrototypeMonitor, audit_prototypes, koleo_proto_loss
from collapse_audit.prototypes import Prototypes
from tests.two_ranks import on_two_ranks

pytestmark = pytest.mark.filterwarnings("ignore")  # weight_norm, and those of the packages

K, D = 48, 16
NAMES = {"PrototypeMonitor": PrototypeMonitor, "koleo_proto_loss": koleo_proto_loss, "torch": torch}


def sections() -> dict[str, list[str]]:
    page = Path(__file__).resolve().parents[1].joinpath("docs", "drop_in.md").read_text("utf-8")
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {
        part.splitlines()[0]: re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL)
        for part in parts
    }


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return sections()


def run(code: str, names: dict[str, Any]) -> None:
    exec(code, names)  # noqa: S102 - our own page


def teacher_of(student: nn.Module, build: Callable[[], nn.Module]) -> Any:
    """A copy as the official code makes it; ``deepcopy`` refuses the old weight norm."""
    teacher = build()
    teacher.load_state_dict(student.state_dict())
    return teacher.requires_grad_(False)


def digits(step: int, views: int = 2) -> list[Tensor]:
    """Noisy views of a batch of digits, 64 pixels."""
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().data).float() / 16
    batch = images[64 * step : 64 * step + 64]
    return [batch + 0.1 * torch.randn(batch.shape) for _ in range(views)]


class Head(nn.Module):
    """DINOHead: an MLP, and a weight-normed last layer in the old way."""

    def __init__(self, inputs: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inputs, 32), nn.GELU(), nn.Linear(32, D))
        self.last_layer = nn.utils.weight_norm(nn.Linear(D, K, bias=False))
        self.last_layer.weight_g.data.fill_(1)
        self.last_layer.weight_g.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last_layer(nn.functional.normalize(self.mlp(x), dim=-1))
        return logits


class Wrapper(nn.Module):
    """MultiCropWrapper (``backbone`` and ``head``), and around it what DDP is to its user."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)


class MultiCrop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(64, 64), Head()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x))
        return logits


class DINOLoss(nn.Module):
    """With the buffer that it replaces at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(1, K))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        target = ((teacher - self.center) / 0.04).softmax(-1).detach()
        self.center = 0.9 * self.center + 0.1 * teacher.mean(0, keepdim=True).detach()
        return nn.functional.cross_entropy(student / 0.1, target)


def train(
    code: list[str], names: dict[str, Any], forward: Callable[[dict[str, Any], int], None],
    trained: Callable[[], Tensor], watched: Callable[[], Tensor], *, loss: str = "loss",
    weight: float = 0.1, parameters: list[nn.Parameter], after: Callable[[], None] = lambda: None,
) -> list[dict[str, str]]:  # fmt: skip
    """Three steps; the term is what the recipe says, and the monitor counts what an audit does."""
    once, add, watch = code
    names |= NAMES
    run(once, names)
    names["monitor"]._on_alarm = lambda alarm: pytest.fail(alarm.message)
    optimiser = torch.optim.SGD(parameters, lr=0.1)
    for step in range(3):
        forward(names, step)
        before = names[loss]
        run(add, names)
        term = weight * koleo_proto_loss(trained())
        torch.testing.assert_close(names[loss] - before, term, atol=1e-5, rtol=1e-4)
        optimiser.zero_grad()
        names[loss].backward()
        assert trained().grad is not None
        optimiser.step()
        after()
        for name in ("it", "iteration", "step", "itr"):
            names[name] = 100 * step
        run(watch, names)
    with Path("prototypes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "100", "200"]
    audit = audit_prototypes(Prototypes.from_weight(watched()), sweep=False, nearest=False)
    assert float(rows[-1]["unique.greedy"]) == audit.num_unique
    assert float(rows[-1]["k"]) == K
    assert float(rows[-1]["turned_degrees.max"]) > 0
    return rows


def distillation() -> tuple[dict[str, Any], Callable[[], None]]:
    """Student, teacher, and the update of the teacher."""
    student = Wrapper(MultiCrop())
    teacher = teacher_of(student.module, MultiCrop)
    names = {
        "student": student, "teacher": teacher, "teacher_without_ddp": teacher,
        "args": SimpleNamespace(teacher_temp=0.04),
    }  # fmt: skip

    def update() -> None:
        with torch.no_grad():
            for q, k in zip(student.module.parameters(), teacher.parameters(), strict=True):
                k.data.mul_(0.9).add_(0.1 * q.detach().data)

    return names, update


@pytest.mark.parametrize("section", ["DINO", "iBOT"])
def test_the_official_loops_of_self_distillation(
    blocks: dict[str, list[str]], section: str
) -> None:
    names, update = distillation()
    criterion = names["dino_loss"] = names["ibot_loss"] = DINOLoss()
    student, teacher = names["student"], names["teacher"]

    def forward(names: dict[str, Any], step: int) -> None:
        one, two = digits(step)
        output = teacher(one)
        names["loss"] = criterion(student(two), output)
        names["teacher_output"] = output if section == "DINO" else (output, None)

    rows = train(
        blocks[section], names, forward,
        trained=lambda: student.module.head.last_layer.weight_v,
        watched=lambda: teacher.head.last_layer.weight_v,
        parameters=list(student.parameters()), after=update,
    )  # fmt: skip
    assert float(rows[-1]["mlcd.k.perplexity"]) > 1
    assert 0 < float(rows[-1]["student_cosine"]) < 1


def test_the_official_loop_of_swav(blocks: dict[str, list[str]]) -> None:
    network = nn.Module()
    network.mlp, network.prototypes = nn.Linear(64, D), nn.Linear(D, K, bias=False)
    model = Wrapper(network)
    layer = network.prototypes

    def forward(names: dict[str, Any], step: int) -> None:
        with torch.no_grad():
            layer.weight.copy_(nn.functional.normalize(layer.weight, dim=1))
        one, two = (layer(nn.functional.normalize(network.mlp(x), dim=1)) for x in digits(step))
        names["loss"] = nn.functional.cross_entropy(one / 0.1, (two / 0.05).softmax(1).detach())

    train(
        blocks["SwAV"], {"model": model}, forward, trained=lambda: layer.weight,
        watched=lambda: layer.weight, parameters=list(model.parameters()),
    )  # fmt: skip


def test_the_official_loop_of_msn(blocks: dict[str, list[str]]) -> None:
    encoder, prototypes = nn.Linear(64, D), nn.Parameter(torch.randn(K, D))

    def forward(names: dict[str, Any], step: int) -> None:
        one, two = (
            nn.functional.normalize(encoder(x)) @ nn.functional.normalize(prototypes).T
            for x in digits(step)
        )
        names["loss"] = nn.functional.cross_entropy(one / 0.1, (two / 0.025).softmax(1).detach())

    names = {"prototypes": prototypes, "world_size": 4, "epoch": 0, "ipe": 1000}
    train(
        blocks["MSN"], names, forward, trained=lambda: prototypes, watched=lambda: prototypes,
        weight=0.1 / 4, parameters=[*encoder.parameters(), prototypes],
    )  # fmt: skip


# --- packages ------------------------------------------------------------------------------------


def test_lightly(blocks: dict[str, list[str]]) -> None:
    heads = pytest.importorskip("lightly.models.modules.heads")
    from lightly.loss import DINOLoss as LightlyLoss
    from lightly.models.utils import update_momentum

    model = nn.Module()

    def build() -> nn.Module:
        head: nn.Module = heads.DINOProjectionHead(64, 32, D, K)
        return head

    model.student_head = build()
    model.teacher_head = teacher_of(model.student_head, build)
    criterion = LightlyLoss(output_dim=K, warmup_teacher_temp_epochs=0, teacher_temp=0.04)

    def forward(names: dict[str, Any], step: int) -> None:
        views = digits(step)
        names["teacher_out"] = [model.teacher_head(view) for view in views]
        student_out = [model.student_head(view) for view in views]
        names["loss"] = criterion(names["teacher_out"], student_out, epoch=1)

    rows = train(
        blocks["lightly"], {"model": model, "criterion": criterion}, forward,
        trained=lambda: model.student_head.last_layer.weight_v,
        watched=lambda: model.teacher_head.last_layer.weight_v,
        parameters=list(model.student_head.parameters()),
        after=lambda: update_momentum(model.student_head, model.teacher_head, m=0.9),
    )  # fmt: skip
    assert float(rows[-1]["mlcd.k.perplexity"]) > 1


def test_the_prototypes_of_swav_in_lightly_are_where_the_page_says() -> None:
    heads = pytest.importorskip("lightly.models.modules.heads")
    model = nn.Module()
    model.prototypes = heads.SwaVPrototypes(D, K)
    seen = PrototypeMonitor(model.prototypes.heads[0], every=1).step()
    assert seen is not None
    assert seen.k == K
    assert koleo_proto_loss(model.prototypes.heads[0].weight).requires_grad


def test_solo_learn_in_a_trainer_of_lightning(
    blocks: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class DINO(lightning.LightningModule):  # type: ignore[name-defined, misc]
        """The attributes of solo-learn's, which needs a Lightning of 2021."""

        def __init__(self) -> None:
            super().__init__()
            self.head = Head()
            self.momentum_head = teacher_of(self.head, Head)
            self.dino_loss_func = DINOLoss()

        def training_step(self, batch: Any, _index: int) -> Tensor:
            loss: Tensor = self.dino_loss_func(self.head(batch[0]), self.momentum_head(batch[0]))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.head.parameters(), lr=0.1)

    for name, attributes in {"solo": {}, "solo.methods": {"DINO": DINO}}.items():
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    names: dict[str, Any] = NAMES | {
        "arguments": {},
        "options": {
            "max_steps": 3, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False,
        },
    }  # fmt: skip
    (code,) = blocks["solo-learn"]
    run(code.replace("student=model.head,", "student=model.head, every=1,"), names)
    model = names["model"]
    (view,) = digits(0, views=1)
    twins = [type(model)() for _ in range(2)]
    for twin in twins:
        twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        twins[0].training_step([view], 0) - DINO.training_step(twins[1], [view], 0),
        0.1 * koleo_proto_loss(model.head.last_layer.weight_v), atol=1e-5, rtol=1e-4,
    )  # fmt: skip
    data = torch.utils.data.TensorDataset(torch.cat(digits(0)))
    names["trainer"].fit(model, torch.utils.data.DataLoader(data, batch_size=16))
    with Path("prototypes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["student.turned_degrees.max"]) > 0


def test_stable_pretraining(blocks: dict[str, list[str]]) -> None:
    methods = pytest.importorskip("stable_pretraining.methods")

    class Backbone(nn.Module):
        """Images of any size -> features."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 32)

        def forward(self, images: Tensor) -> Tensor:
            small = nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 8)
            features: Tensor = self.linear(small.flatten(1))
            return features

    (code,) = blocks["stable-pretraining"]
    names: dict[str, Any] = NAMES | {
        "arguments": {
            "encoder_name": Backbone(), "projector_hidden_dim": 32, "projector_bottleneck_dim": D,
            "n_prototypes": K,
        }
    }  # fmt: skip
    run(code, names)
    model, callback = names["model"], names["callback"]
    layer = model.projector.student[-1]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    logger = SimpleNamespace(log_metrics=lambda *_, **__: None)
    for step in range(3):
        views = [x.reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1) for x in digits(step)]
        plain = methods.DINO.forward(copy.deepcopy(model), global_views=views).loss
        output = model(global_views=views)
        term = 0.1 * koleo_proto_loss(layer.weight)
        torch.testing.assert_close(output.loss - plain, term, atol=1e-5, rtol=1e-4)
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        callback.on_train_batch_end(
            SimpleNamespace(global_step=100 * step, loggers=[logger]),
            SimpleNamespace(log_dict=lambda *_, **__: None), {"loss": output.loss}, None, step,
        )  # fmt: skip
    with Path("prototypes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "100", "200"]
    assert float(rows[-1]["student.turned_degrees.max"]) > 0


# --- sharded loops, on two ranks -----------------------------------------------------------------

SHARDED = f"""
from pathlib import Path
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from collapse_audit import PrototypeMonitor, koleo_proto_loss
from collapse_audit.errors import ParameterError
from tests.test_drop_in import Head, sections

K, D = {K}, {D}
blocks = sections()
os.chdir(Path(__file__).parent)
torch.manual_seed(0)

class SSLMetaArch(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.student, self.teacher = (
            nn.ModuleDict({{"dino_head": Head()}}) for _ in range(2))
        if plain:
            for network in (self.student, self.teacher):
                network.dino_head.last_layer = nn.Linear(D, K, bias=False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.model_ema = self.teacher.requires_grad_(False)

def loss_of(model, x, names):
    names["self"], names["loss_accumulator"] = model, model.student.dino_head(x).square().mean()
    exec(blocks[name][1], names)
    return names["loss_accumulator"]

def go(model, whole, weight_of):
    names = {{"model": model, "PrototypeMonitor": PrototypeMonitor,
             "koleo_proto_loss": koleo_proto_loss}}
    exec(blocks[name][0], names)
    x = torch.randn(8, 64)  # the same on both ranks, so that means over them are those of one
    loss_of(model, x, names).backward()
    loss = whole.student.dino_head(x).square().mean()
    parameter = weight_of(whole.student.dino_head.last_layer)
    (loss + 0.1 * koleo_proto_loss(parameter)).backward()
    for step in range(3):
        names |= {{"it": 100 * step, "iteration": 100 * step, "total_loss": loss.detach(),
                  "losses_reduced": 1.5}}
        exec(blocks[name][2], names)
    return parameter.grad
"""


@pytest.mark.slow
@pytest.mark.parametrize("section", ["DINOv2", "DINOv3"])
def test_the_gradient_of_a_sharded_layer_is_that_of_the_whole_one(
    tmp_path: Path, section: str
) -> None:
    by_section = {
        "DINOv2": """
name = "DINOv2"
model, whole = SSLMetaArch(False), SSLMetaArch(False)
whole.load_state_dict(model.state_dict())
for network in (model.student, model.teacher):
    network["dino_head"] = FullyShardedDataParallel(
        network["dino_head"], use_orig_params=True, device_id=torch.device("cpu"))
expected = go(model, whole, lambda layer: layer.weight_v)
with FullyShardedDataParallel.summon_full_params(model.student.dino_head, with_grads=True):
    found = model.student.dino_head.last_layer.weight_v.grad.clone()
""",
        "DINOv3": """
name = "DINOv3"
model, whole = SSLMetaArch(True), SSLMetaArch(True)
whole.load_state_dict(model.state_dict())
mesh = init_device_mesh("cpu", (2,))
for network in (model.student, model.teacher):
    fully_shard(network.dino_head, mesh=mesh)
for weight in model.student.dino_head.parameters():
    try:
        koleo_proto_loss(weight)
        raise AssertionError("a shard is not the whole weight")
    except ParameterError as error:
        assert "got a shard. Take the loss in a forward hook" in str(error)
expected = go(model, whole, lambda layer: layer.weight)
found = model.student.dino_head.last_layer.weight.grad.full_tensor()
""",
    }
    answers = on_two_ranks(
        tmp_path,
        SHARDED + by_section[section] + "torch.testing.assert_close(found, expected)\n"
        "print(json.dumps({'rank': rank, 'norm': float(found.norm())}))\n",
    )
    assert [answer["rank"] for answer in answers] == [0, 1]
    assert answers[0]["norm"] == answers[1]["norm"] > 0
    with (tmp_path / "prototypes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], float(row["k"])) for row in rows] == [("0", K), ("100", K), ("200", K)]


def test_the_page_has_a_recipe_for_each_code_base() -> None:
    found = {name: len(code) for name, code in sections().items()}
    three = dict.fromkeys(("DINO", "iBOT", "DINOv2", "DINOv3", "SwAV", "MSN", "lightly"), 3)
    assert found == three | {"solo-learn": 1, "stable-pretraining": 1}
