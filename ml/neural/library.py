"""What the backends `torch` and `caffe` do: begin a training, and look at, load and ask models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml import registry, templates
from ml.backends.base import Previous, target_of
from ml.errors import BadInput, BadParameter, ModelUnusable
from ml.neural import device as devices
from ml.neural import saved as saving
from ml.neural.engine import NeuralEngine
from ml.neural.files import Files, files_of, newest, numbered, numbered_states
from ml.neural.saved import Saved
from ml.neural.task import outputs_of
from ml.neural.trainer import Design, NeuralTrainer, check_numbers
from ml.options.requests import ServiceOptions, TrainingOptions
from ml.options.target import Target
from ml.options.torch import TorchOptions
from ml.repository_files import best_iteration, is_state, iteration_of
from ml.tables import Table, TrainingData
from ml.templates import Network
from ml.templates.network import UNITS_MOST

Remarks = list[tuple[str, str]]


def warm() -> None:
    """Set up what torch sets up on first use: its memory, its threads, and the kernels of a small training."""
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    torch.autograd.backward(nn.functional.cross_entropy(network(torch.zeros(2, 2)), torch.zeros(2, dtype=torch.int64)))
    optimizer.step()


# ---- training


def start(
    options: TrainingOptions,
    data: TrainingData,
    *,
    threads: int,
    device: str,
    seed: int,
    scratch: Path,
    resume: Path | None,
    previous: Previous,
) -> tuple[NeuralTrainer, Remarks]:
    """A training on `data`, or the one that `resume` left off. See `ml.backends.base.Backend.start`."""
    wanted: TorchOptions = options.mllib
    chosen, remark = devices.choose(device, wanted.gpuid)
    remarks = [("parameters.mllib.gpu", remark)] if remark else []
    devices.set_up(threads, chosen, training=True)
    torch.manual_seed(seed)
    _check_tables(data, is_shuffled=options.input.shuffle)
    files = files_of(wanted)
    origin = _Origin(wanted, files, previous) if resume is None else None
    given = NeuralTrainer.network_of(resume) if resume is not None else None if origin is None else origin.saved
    design = _design(wanted, data.train.width, given)
    if given is not None and (wanted.resume or not wanted.finetuning):
        _check_same(design, given, is_resumed=wanted.resume)
    remarks += _passed_over(wanted, design)
    with devices.memory_errors("the network is too large for it; ask for fewer or smaller layers"):
        network = _built(design, chosen)
    if design.target.kind == "regression":
        _start_at_mean(network, data.train)
    frozen: list[nn.Module] = []
    if origin is not None and given is not None and not wanted.resume:
        remarks += _begin_from(network, given, is_finetuning=wanted.finetuning)
    if wanted.finetuning and wanted.freeze_traced:
        frozen = _freeze(network)
    mixed, remark = _mixed(wanted, chosen)
    if remark:
        remarks.append(("parameters.mllib.mixed_precision", remark))
    trainer = NeuralTrainer(
        wanted,
        data,
        network,
        design,
        files,
        device=chosen,
        seed=seed,
        scratch=scratch,
        mixed=mixed,
        is_shuffled=options.input.shuffle,
        frozen=frozen,
    )
    if resume is not None:
        trainer.load_state(resume)
    elif origin is not None and origin.state is not None and given is not None:
        trainer.go_on(given, origin.state)
        trainer.take_over(origin.models, origin.states, origin.best)
        if wanted.solver.rand_skip:
            trainer.skip(int(torch.randint(wanted.solver.rand_skip + 1, ())))
    return trainer, remarks


def _check_tables(data: TrainingData, *, is_shuffled: bool) -> None:
    names = data.fitted.inputs
    if data.train.width > UNITS_MOST:
        raise BadInput(
            f"{data.train.name} has {data.train.width} features, and networks take at most {UNITS_MOST}: number the "
            "features without gaps, or train with xgboost"
        )
    check_numbers(data.train, names, None if is_shuffled else 1)
    for test in data.tests:
        # What is split off follows the training set.
        first = 1 + len(data.train) if test.name == "split" else 1
        check_numbers(test, names, None if is_shuffled else first)


class _Origin:
    """What a training starts from that is no recovery: nothing, weights in the repository, or a training there.

    saved : the network, None for a fresh one. state : that of the solver, when a training goes on.
    models, states : the files that it left, by iterations done. best : the iterations of its best models.
    """

    def __init__(self, options: TorchOptions, files: Files, previous: Previous) -> None:
        """Raises BadParameter where the repository and the options do not go together, ModelUnusable."""
        self.saved: Saved | None = None
        self.state: dict[str, Any] | None = None
        self.models: dict[int, Path] = {}
        self.states: dict[int, Path] = {}
        self.best: set[int] = set()
        _check_resume(options, files, previous)
        folder = previous.folder
        if folder is None:
            return
        if options.resume:
            self._go_on(folder, files, (previous.description or {}).get("file"))
            return
        names = previous.files
        if any(name.endswith(files.endings) and not is_state(name) for name in names):
            file = (previous.description or {}).get("file")
            path = folder / file if file and (folder / file).is_file() else newest(folder, files)
            self.saved = files.read(path)

    def _go_on(self, folder: Path, files: Files, file: str | None) -> None:
        self.models, self.states = numbered(folder, files), numbered_states(folder)
        if not self.states:
            raise ModelUnusable("the names of the solver states in the repository tell no iteration to go on from")
        # The newest by what the repository says of itself, else by number: times are of when files were copied.
        newest_one = iteration_of(file) if file else None
        done = newest_one if newest_one in self.states else max(self.states)
        path, model = self.states[done], self.models.get(done)
        if model is None:
            raise ModelUnusable(
                f"{path.name} cannot be resumed: its network {files.model_name(done)} is not in the repository"
            )
        self.saved = files.read(model)
        self.state = saving.read_state(path)
        if self.state.get("done") != done:
            raise ModelUnusable(f"{path.name} is of iteration {self.state.get('done')}, unlike its name")
        for note in folder.glob("best_model*.txt"):
            iteration = best_iteration(note.read_text(encoding="utf-8", errors="replace"))
            if iteration is not None:
                self.best.add(iteration)


def _check_resume(options: TorchOptions, files: Files, previous: Previous) -> None:
    has_state = any(is_state(name) for name in previous.files)
    name = "parameters.mllib.resume"
    if options.resume and not has_state:
        raise BadParameter(
            name=name,
            section="mllib",
            message=f"resuming a model requires a solverstate (a file such as {files.state_name(100)}) in the "
            f"repository, and there is none; leave {name} out to begin anew",
        )
    if has_state and not options.resume:
        raise BadParameter(
            name=name,
            section="mllib",
            # The words from "requires" on are DeepDetect's, by which its clients know the error.
            message=f"{name} is not set, and the repository holds the state of a solver, which requires a resume "
            "argument for training, otherwise delete existing training state files (with clear=lib)",
        )
    has_weights = any(each.endswith(files.endings) and not is_state(each) for each in previous.files)
    if options.finetuning and not options.resume and not has_weights:
        raise BadParameter(
            name="parameters.mllib.finetuning",
            section="mllib",
            message="parameters.mllib.finetuning is true, but there are no weights to start from: put a file such as "
            f"{files.model_name(100)} into the repository, or name one with model.weights",
        )


def _design(options: TorchOptions, inputs: int, given: Saved | None) -> Design:
    """What the options ask for; without a template it is the network that is `given`, but for its inputs and outputs.

    Raises BadParameter when there is neither.
    """
    target = options.target
    outputs = outputs_of(target, inputs)
    if options.template:
        structure = templates.find(options.template).structure(options, inputs, outputs)
        return Design(options.template, structure, target)
    if given is None:
        raise BadParameter(
            name="parameters.mllib.template",
            section="mllib",
            message="parameters.mllib.template is missing; name the network to train, one of "
            + ", ".join(sorted(templates.listed())),
        )
    structure = {**completed(given, options).structure, "inputs": inputs, "outputs": outputs}
    return Design(given.template, structure, target)


def _passed_over(options: TorchOptions, design: Design) -> Remarks:
    """What to say where the activation asked for is not that of the network, whose file tells another one."""
    used = design.structure.get("activation")
    if options.template or not options.activation or not design.structure["hidden"] or options.activation == used:
        return []
    name = "parameters.mllib.activation"
    return [(name, f"{name} was ignored: no template is named, so the network is that of the repository, with {used}")]


def _check_same(design: Design, given: Saved, *, is_resumed: bool) -> None:
    """Refuse to start from a network that is another one. Raises BadParameter."""
    option = "resume" if is_resumed else "finetuning"
    advice = (
        "ask for the same network, or begin anew without resume once the model is deleted (with clear=lib)"
        if is_resumed
        else "give parameters.mllib.finetuning to start from what fits, ask for the same network, or delete the model "
        "(with clear=lib)"
    )
    parts = {name: (given.structure.get(name), wanted) for name, wanted in design.structure.items()}
    if not given.structure.get("activation") or not design.structure.get("hidden"):
        parts.pop("activation", None)  # the file leaves it open, or nothing has it
    for name in ("inputs", "outputs", "hidden", "bn", "activation"):
        found, wanted = parts.get(name, (None, None))
        if found != wanted:
            raise BadParameter(
                name=f"parameters.mllib.{option}",
                section="mllib",
                message=f"the model in the repository has {_words(name, found)}, the training asks for "
                f"{_words(name, wanted)}; {advice}",
            )


def _words(name: str, value: Any) -> str:
    """A part of a structure as it stands in a message."""
    match name:
        case "hidden":
            return f"hidden layers {value}" if value else "no hidden layers"
        case "bn":
            return "batch normalisation" if value else "no batch normalisation"
        case "activation":
            return f"the activation {value}"
        case _:
            return f"{value} {name}"


def _built(design: Design, device: torch.device) -> Network:
    """The network with fresh weights, drawn on the CPU so that they are the same on every device.

    Raises ModelUnusable where the structure is that of a file, and none.
    """
    try:
        with torch.device("meta"):
            network = templates.find(design.template).build(design.structure)
    except (AttributeError, TypeError, ValueError):
        raise ModelUnusable("the model in the repository tells of no network that could be built") from None
    network.to_empty(device="cpu")
    network.start()
    return network.to(device)


def _start_at_mean(network: Network, table: Table) -> None:
    """Let a network begin with the mean of every target, whatever its inputs: targets are seldom near zero.

    Weights of the last layer that begin with zero are moved in the first step; those below follow in the second.
    """
    head = network.get_submodule(network.head)
    if isinstance(head, nn.Linear) and table.labels is not None:
        means = np.asarray(table.labels, np.float64).reshape(len(table), -1).mean(axis=0)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.from_numpy(means))


def _begin_from(network: Network, given: Saved, *, is_finetuning: bool) -> Remarks:
    """Put the weights of `given` into a network wherever their shapes fit; raises BadParameter where none does."""
    own = network.state_dict()
    fitting = {
        name: tensor for name, tensor in given.weights.items() if name in own and own[name].shape == tensor.shape
    }
    if not any(tensor.dim() > 1 for tensor in fitting.values()):
        raise BadParameter(
            name="parameters.mllib.finetuning",
            section="mllib",
            message="no layer of the model in the repository fits the network that is asked for; ask for the same "
            "layers, or delete the model (with clear=lib) to begin anew",
        )
    network.load_state_dict(fitting, strict=False)
    if not is_finetuning:
        return [("model.repository", "the training starts from the weights that lie in the repository")]
    fresh = sorted({name.partition(".")[0] for name in own.keys() - fitting.keys()} - {network.head})
    if fresh:
        text = "of the weights in the repository, these layers do not fit and start anew: " + ", ".join(fresh)
        return [("parameters.mllib.finetuning", text)]
    return []


def _freeze(network: Network) -> list[nn.Module]:
    """Let only the last layer learn; returns the modules that hold still."""
    frozen = [module for name, module in network.named_children() if name != network.head]
    for module in frozen:
        module.requires_grad_(False)
    # Dropout goes on: it is what the last layer is trained with.
    return [module for module in frozen if not isinstance(module, nn.Dropout)]


def _mixed(options: TorchOptions, device: torch.device) -> tuple[str, str | None]:
    """The type of most numbers in training, and what to say where it is another one than was asked for."""
    wanted = options.mixed_precision
    if wanted == "fp16" and device.type == "cpu":
        return "bf16", "fp16 needs a GPU: bf16 is used"
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "fp16", "this GPU has no bf16: fp16 is used"
    return wanted, None


# ---- models


def facts(path: Path, files: Files) -> dict[str, Any]:
    """What a model file says of itself, after its network was built and asked. Raises ModelUnusable."""
    saved = files.read(path)
    network = saving.built(completed(saved, None))
    with torch.inference_mode():
        outputs = network.eval()(torch.zeros(2, saved.inputs))
    weights: Sequence[Tensor] = list(saved.weights.values())
    if outputs.shape != (2, saved.outputs) or not all(bool(each.isfinite().all()) for each in weights):
        raise ModelUnusable(f"model file {path.name} is broken: its weights are not all finite numbers")
    return {
        "file": path.name,
        "target": None if saved.target is None else saved.target.as_json(),
        "template": saved.template,
        "structure": saved.structure,
        "params": saved.parameters,
        "frozen_params": 0,
        "inputs": [f"f{each}" for each in range(saved.inputs)],
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def settled(found: dict[str, Any], options: ServiceOptions) -> dict[str, Any]:
    """The facts of a model file as the service that it is for sees them. Raises ModelUnusable when it does not fit."""
    wanted: TorchOptions = options.mllib
    file, asked = found["file"], wanted.target
    saved = Saved(found["template"], found["structure"], {})
    holds = asked if found["target"] is None else Target.from_json(found["target"])
    if holds.kind != asked.kind:
        raise ModelUnusable(f"{file} was trained for {holds.kind}, the service is for {asked.kind}")
    outputs, needed = saved.outputs, outputs_of(asked, saved.inputs)
    if outputs != needed or (holds.classes, holds.targets) != (asked.classes, asked.targets):
        name = {"regression": "parameters.mllib.ntargets", "autoencoder": "its number of inputs"}.get(
            asked.kind, "parameters.mllib.nclasses"
        )
        raise ModelUnusable(f"{file} gives {outputs} values, {name} is {needed}")
    if wanted.template and wanted.template != saved.template:
        raise ModelUnusable(
            f"{file} holds a network of the template {saved.template}, parameters.mllib.template is {wanted.template}"
        )
    hidden = tuple(saved.structure["hidden"])
    if wanted.layers and wanted.layers != hidden and wanted.template != "lregression":
        raise ModelUnusable(
            f"{file} has hidden layers of {list(hidden)} units, parameters.mllib.layers is {list(wanted.layers)}"
        )
    return {**found, "target": holds.as_json(), "structure": completed(saved, wanted).structure}


def completed(saved: Saved, options: TorchOptions | None) -> Saved:
    """The network with what its file leaves open, the activation, as the options say."""
    structure = dict(saved.structure)
    if structure.get("activation") == "":
        structure["activation"] = (options.activation if options is not None else "") or "relu"
    return Saved(saved.template, structure, saved.weights, saved.target, saved.done)


def load(folder: Path, description: dict[str, Any], files: Files, *, device: str, threads: int) -> NeuralEngine:
    """The described model, ready to predict. Raises ModelUnusable."""
    mllib = description.get("parameters", {}).get("mllib") or {}
    gpuid = mllib.get("gpuid", 0)
    chosen, _ = devices.choose(device, gpuid if isinstance(gpuid, list) else [gpuid])
    devices.set_up(threads, chosen)
    saved = files.read(folder / description["file"])
    if isinstance(description.get("structure"), dict) and saved.structure.get("activation") == "":
        saved.structure = description["structure"]
    network = saving.built(completed(saved, None))
    target = target_of(description)
    if saved.outputs != outputs_of(target, saved.inputs):
        raise ModelUnusable(f"model file {description['file']} does not give what its description says")
    try:
        names = registry.connector(description["connector"]).fitted(description["fitted"]).inputs
    except (KeyError, TypeError):
        names = []
    return NeuralEngine(
        network,
        target,
        inputs=saved.inputs,
        names=names,
        device=chosen,
        temperature=mllib.get("scaling_temperature") or 1.0,
        datatype=str(mllib.get("datatype") or "fp32").lower(),
    )
