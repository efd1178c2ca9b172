"""Options of torch and caffe: what they mean together, what is refused, and what is warned about."""

import pytest

from ml.errors import BadParameter
from ml.options import load_service, load_training
from ml.options.torch import CaffeOptions, TorchOptions


def loaded(mllib, library="torch"):
    return load_training(library, "csv", {"input": {"label": "y"}, "mllib": {"template": "mlp", **mllib}})


def options(library="torch", **mllib):
    return loaded(mllib, library).value.mllib


def warned(library="torch", **mllib):
    return {each.parameter.removeprefix("parameters.mllib."): each.message for each in loaded(mllib, library).warnings}


@pytest.mark.parametrize(
    ("mllib", "kind", "classes", "targets"),
    [
        ({"nclasses": 3}, "classification", 3, 0),
        ({"nclasses": 3, "ntargets": 2}, "classification", 3, 0),
        ({"ntargets": 2}, "regression", 0, 2),
        ({"ntargets": 2, "nclasses": 3, "regression": True}, "regression", 0, 2),
        ({"nclasses": 3, "multi_label": True}, "multi_label", 3, 0),
        ({"nclasses": 3, "multi_label": True, "regression": True}, "soft_labels", 3, 0),
        ({"ntargets": 3, "multi_label": True, "regression": True}, "soft_labels", 3, 0),
        ({"autoencoder": True}, "autoencoder", 0, 0),
        ({"autoencoder": True, "regression": True}, "autoencoder", 0, 0),
    ],
)
def test_flags_and_counts_say_what_is_learned(mllib, kind, classes, targets):
    target = TorchOptions(**mllib).target
    assert (target.kind, target.classes, target.targets) == (kind, classes, targets)


def test_the_ignored_label_is_part_of_what_is_learned():
    assert options(nclasses=3, ignore_label=255).target.ignored == 255
    assert options(nclasses=3).target.ignored is None


def test_torch_and_caffe_differ_in_their_defaults():
    torch, caffe = TorchOptions(nclasses=2), CaffeOptions(nclasses=2)
    assert (torch.batch_size, caffe.batch_size) == (1, 32)
    assert (torch.iterations, caffe.iterations) == (1, 400_000)
    assert (torch.test_interval, caffe.test_interval) == (1, 100)
    assert (torch.solving.base_lr, caffe.solving.base_lr) == (0.0001, 0.1)
    assert CaffeOptions(template="lregression", nclasses=2).solving.lr_policy == "inv"


@pytest.mark.parametrize(
    ("library", "mllib", "distance"),
    [
        (TorchOptions, {"ntargets": 1}, "L1"),
        (TorchOptions, {"ntargets": 1, "loss": "L2"}, "L2"),
        (TorchOptions, {"autoencoder": True}, "L2"),
        (TorchOptions, {"autoencoder": True, "loss": "L1"}, "L1"),
        (CaffeOptions, {"ntargets": 1}, "euclidean"),
        (CaffeOptions, {"ntargets": 1, "loss": "L1"}, "L1"),
        (CaffeOptions, {"autoencoder": True}, "L2"),
    ],
)
def test_the_loss_of_numbers_is_that_of_the_library_unless_it_is_named(library, mllib, distance):
    assert library(**mllib).distance == distance


def test_words_may_be_written_in_capitals_or_not():
    made = options(ntargets=1, loss="l2", activation="PReLU", mixed_precision="BF16", datatype="FP16")
    assert (made.loss, made.activation, made.mixed_precision, made.datatype) == ("L2", "prelu", "bf16", "fp16")
    assert options(nclasses=2, template="MLP").template == "mlp"


def test_layers_and_dropout_are_one_or_many():
    assert options(nclasses=2).hidden == (50,)
    assert options(nclasses=2, layers=30).hidden == (30,)
    made = options(nclasses=2, layers=[150, 100], dropout=0.5)
    assert (made.hidden, made.dropouts) == ((150, 100), (0.5, 0.5))
    assert options(nclasses=2, layers=[150, 100], dropout=[0.1, 0.2]).dropouts == (0.1, 0.2)
    assert options(nclasses=2, template="lregression").hidden == ()


@pytest.mark.parametrize("mllib", [{"resume": True}, {"solver": {"resume": True}}])
def test_resume_is_taken_in_both_places(mllib):
    assert options(nclasses=2, **mllib).resume
    assert not options(nclasses=2).resume
    assert options(nclasses=2).wants_previous


def test_solver_and_net_are_options_of_their_own():
    made = options(nclasses=2, solver={"iterations": 7, "test_interval": 3, "test_initialization": True})
    assert (made.iterations, made.test_interval, made.test_initialization) == (7, 3, True)
    assert options(nclasses=2, net={"batch_size": 16}).batch_size == 16


@pytest.mark.parametrize("gpuid", [1, [1, 0]])
def test_gpuid_is_a_number_or_a_list(gpuid):
    assert options(nclasses=2, gpuid=gpuid).gpuid[0] == 1


@pytest.mark.parametrize(
    ("mllib", "name", "text"),
    [
        ({}, "nclasses", "number of classes is unknown (nclasses == 0)"),
        ({"multi_label": True}, "nclasses", "nclasses == 0"),
        ({"nclasses": 1}, "nclasses", "must be at least 2"),
        ({"regression": True}, "ntargets", "number of regression targets is unknown (ntargets == 0)"),
        ({"autoencoder": True, "multi_label": True}, "autoencoder", "no labels"),
        ({"nclasses": 2, "template": "resnet"}, "template", "invalid torch model template resnet"),
        ({"nclasses": 2, "class_weights": [1, 2, 3]}, "class_weights", "3 weights for 2 classes"),
        ({"nclasses": 2, "class_weights": [0, 0]}, "class_weights", "all 0"),
        ({"nclasses": 2, "class_weights": [1, -1]}, "class_weights", "at least 0"),
        ({"nclasses": 2, "dropout": 1}, "dropout", "below 1"),
        ({"nclasses": 2, "dropout": -0.1}, "dropout", "at least 0"),
        ({"nclasses": 2, "layers": [5, 5], "dropout": [0.1, 0.1, 0.1]}, "dropout", "3 values for 2 hidden layers"),
        ({"nclasses": 2, "layers": [0]}, "layers", "at least 1"),
        ({"nclasses": 2, "layers": ["1CR32"]}, "layers", "a whole number"),
        ({"nclasses": 2, "bn": True}, "bn", "batch_size of at least 2"),
        ({"nclasses": 2, "activation": "gelu"}, "activation", "one of relu"),
        ({"nclasses": 2, "scaling_temperature": 0}, "scaling_temperature", "above 0"),
        ({"nclasses": 2, "mixed_precision": "fp8"}, "mixed_precision", "one of fp16, bf16"),
        ({"nclasses": 2, "datatype": "int8"}, "datatype", "one of fp16, fp32, fp64"),
        ({"nclasses": 2, "net": {"batch_size": 0}}, "net.batch_size", "at least 1"),
        ({"nclasses": 2, "net": {"test_batch_size": "all"}}, "net.test_batch_size", "a whole number"),
        ({"nclasses": 2, "solver": {"base_lr": -1}}, "solver.base_lr", "above 0"),
        ({"ntargets": 1, "loss": "L3"}, "loss", "one of L1, L2"),
    ],
)
def test_what_cannot_work_is_refused(mllib, name, text):
    with pytest.raises(BadParameter) as caught:
        loaded(mllib)
    assert caught.value.name == f"parameters.mllib.{name}"
    assert caught.value.section == "mllib"
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("mllib", "names"),
    [
        ({"nclasses": 2}, set()),
        ({"nclasses": 2, "template": "lregression"}, set()),
        ({"nclasses": 2, "template": "lregression", "layers": [5], "dropout": 0.5, "bn": True, "activation": "relu"},
         {"layers", "dropout", "bn", "activation"}),
        ({"nclasses": 2, "template": "", "layers": [5]}, {"layers"}),
        ({"nclasses": 2, "ntargets": 1}, {"ntargets"}),
        ({"nclasses": 2, "ntargets": 1, "regression": True}, {"nclasses"}),
        ({"nclasses": 2, "ntargets": 1, "autoencoder": True}, {"nclasses", "ntargets"}),
        ({"ntargets": 1, "class_weights": [1], "ignore_label": 0, "scaling_temperature": 2},
         {"class_weights", "ignore_label", "scaling_temperature"}),
        ({"nclasses": 2, "loss": "L1", "freeze_traced": True}, {"loss", "freeze_traced"}),
        ({"nclasses": 2, "gpuid": [0, 1]}, {"gpuid"}),
        ({"nclasses": 2, "solver": {"snapshot_prefix": "mine"}}, {"solver.snapshot_prefix"}),
        ({"nclasses": 2, "solver": {"power": 2}}, {"solver.power"}),
        ({"nclasses": 2, "net": {"reg_weight": 0.5}}, {"net.reg_weight"}),
        ({"nclasses": 2, "engine": "CUDNN", "mirror": True, "template_params": {}, "objective": "x"},
         {"engine", "mirror", "template_params", "objective"}),
        ({"nclasses": 2, "mirror": False, "rotate": False, "crop_size": None}, set()),
        ({"nclasses": 2, "laers": [5]}, {"laers"}),
    ],
)  # fmt: skip
def test_what_nothing_uses_comes_back_as_a_warning(mllib, names):
    assert warned(**mllib).keys() == names


def test_later_options_say_when_they_come():
    found = warned(nclasses=2, timesteps=10, ssd_keep_top_k=5, self_supervised="mask", laers=[5])
    assert "later, with time series" in found["timesteps"]
    assert "later, with detection" in found["ssd_keep_top_k"]
    assert "later, with models of texts" in found["self_supervised"]
    assert "did you mean 'layers'?" in found["laers"]


def test_errors_of_caffe_name_caffe():
    with pytest.raises(BadParameter, match="invalid caffe model template resnet"):
        loaded({"nclasses": 2, "template": "resnet"}, "caffe")
    assert warned("caffe", nclasses=2, solver={"snapshot_prefix": "mine"}) == {}


def test_a_service_may_ask_for_batch_normalisation_before_a_training_says_how_large_batches_are():
    body = {
        "mllib": "torch",
        "description": "batches come later",
        "model": {"repository": "any"},
        "parameters": {"input": {"connector": "csv"}, "mllib": {"template": "mlp", "nclasses": 2, "bn": True}},
    }
    assert load_service(body).value.mllib.bn
    assert options(nclasses=2, bn=True, net={"batch_size": 2}).batch_size == 2


def test_resuming_what_finetuning_began_needs_no_weights_of_others():
    assert set(warned(nclasses=2, finetuning=True, resume=True)) == {"finetuning"}
    assert warned(nclasses=2, finetuning=True, resume=True, freeze_traced=True) == {}
