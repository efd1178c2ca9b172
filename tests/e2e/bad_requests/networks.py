"""Bad input of networks: their templates and solvers, and what they cannot be trained on."""

from __future__ import annotations

import math
from typing import Any

from tests.e2e.bad_requests.cases import Json, request, train
from tests.e2e.bad_requests.stage import (
    GOOD,
    LINES,
    NET,
    NET_TRAINED,
    NETWORK,
    WORDS,
    create,
    file,
    net_body,
    svm_body,
    training_body,
)
from tests.e2e.conftest import Answer, Client

# Networks and their solvers


def create_net(client: Client, **mllib: Any) -> Answer:
    """A creation of a service of torch that should fail."""
    options = {"input": {"connector": "csv"}, "mllib": {**NETWORK, **mllib}, "output": {}}
    return create(client, mllib="torch", model={"repository": NET}, parameters=options)


@request
def template_unknown(client: Client) -> Answer:
    return create_net(client, template="mpl")


@request
def activation_unknown(client: Client) -> Answer:
    return create_net(client, activation="rellu")


@request
def lr_policy_unknown(client: Client) -> Answer:
    return create_net(client, solver={"lr_policy": "stepp"})


@request
def solver_no_object(client: Client) -> Answer:
    return create_net(client, solver="ADAM")


@request
def solver_option_out_of_range(client: Client) -> Answer:
    return create_net(client, solver={"base_lr": -0.1})


@request
def solver_options_contradict(client: Client) -> Answer:
    return create_net(client, solver={"solver_type": "NESTEROV", "momentum": 0})


@request
def multistep_without_steps(client: Client) -> Answer:
    return create_net(client, solver={"lr_policy": "multistep"})


@request
def batch_size_0(client: Client) -> Answer:
    return create_net(client, net={"batch_size": 0})


@request
def layer_negative(client: Client) -> Answer:
    return create_net(client, layers=[50, -1])


@request
def layer_too_large(client: Client) -> Answer:
    return create_net(client, layers=[10**12])


@request
def dropout_out_of_range(client: Client) -> Answer:
    return create_net(client, dropout=1.5)


@request
def class_weight_not_finite(client: Client) -> Answer:
    return create_net(client, class_weights=[1, math.nan])


@request
def class_weights_negative(client: Client) -> Answer:
    return create_net(client, class_weights=[1, -2])


@request
def class_weights_of_wrong_length(client: Client) -> Answer:
    return create_net(client, class_weights=[1, 2, 3])


@request
def regression_with_classes(client: Client) -> Answer:
    return create_net(client, regression=True)


@train
def autoencoder_of_input_only(client: Client) -> Json:
    return net_body(client, input={"autoencoder": True})


@train
def batch_normalised_rows_alone(client: Client) -> Json:
    return net_body(client, mllib={"bn": True, "net": {"batch_size": 1}})


@train
def resume_without_state(client: Client) -> Json:
    return net_body(client, mllib={"resume": True})


@train
def resume_without_state_xgboost(client: Client) -> Json:
    return training_body(client, mllib={"resume": True})


@train
def state_without_resume(client: Client) -> Json:
    return net_body(client, service=NET_TRAINED)


@train
def finetuning_without_weights(client: Client) -> Json:
    return net_body(client, mllib={"finetuning": True})


@train
def class_weights_at_train(client: Client) -> Json:
    return net_body(client, mllib={"class_weights": [1, 2, 3]})


@train
def training_diverges(client: Client) -> Json:
    solver = {"base_lr": 1e30, "solver_type": "SGD", "iterations": 20}
    # Of the seed: with few other ones all units fall silent at once, and what is left is no number too large.
    return net_body(client, input={"shuffle": True, "seed": 2}, mllib={"solver": solver})


# What a network cannot be trained on


@train
def nan_in_row(client: Client) -> Json:
    return net_body(client, file(client, "nan", WORDS.replace("39,4,", "nan,4,")))


@train
def infinity_in_row(client: Client) -> Json:
    return net_body(client, file(client, "inf", WORDS.replace("39,4,", "inf,4,")))


@train
def infinity_in_row_xgboost(client: Client) -> Json:
    return training_body(client, file(client, "inf-trees", GOOD.replace("39,4,", "inf,4,")))


@train
def label_beyond_classes_torch(client: Client) -> Json:
    return net_body(client, file(client, "beyond", WORDS + "1,2,x,5\n"))


@train
def several_labels_not_0_or_1(client: Client) -> Json:
    given = {"label": ["a", "b"]}
    return net_body(client, input=given, mllib={"multi_label": True})


@train
def soft_label_out_of_range(client: Client) -> Json:
    return net_body(client, input={"label": ["a", "b"]}, mllib={"multi_label": True, "regression": True, "ntargets": 2})


@train
def test_category_unseen(client: Client) -> Json:
    return net_body(client, client.data / "words.csv", file(client, "unseen", WORDS.replace(",x,", ",q,")))


@train
def test_rows_with_other_columns(client: Client) -> Json:
    return net_body(client, client.data / "words.csv", client.data / "good.csv")


@train
def bounds_of_wrong_length(client: Client) -> Json:
    return net_body(client, input={"scale": True, "min_vals": [0], "max_vals": [1]})


@train
def bounds_half_given(client: Client) -> Json:
    return net_body(client, input={"scale": True, "min_vals": [0, 0, 0, 0]})


@train
def mapping_without_column(client: Client) -> Json:
    return net_body(client, input={"categoricals_mapping": {"nowhere": {"x": 0}}})


@train
def mapping_twice_one_number(client: Client) -> Json:
    return net_body(client, input={"categoricals_mapping": {"c": {"x": 0, "y": 0, "z": 1}}})


@train
def mapping_without_word(client: Client) -> Json:
    return net_body(client, input={"categoricals_mapping": {"c": {"x": 0, "y": 1}}})


@train
def svm_word_broken(client: Client) -> Json:
    return svm_body(client, file(client, "broken.svm", LINES + "1 2=3\n"))


@train
def svm_index_negative(client: Client) -> Json:
    return svm_body(client, file(client, "negative.svm", LINES + "1 -2:3\n"))


@train
def svm_index_twice(client: Client) -> Json:
    return svm_body(client, file(client, "same.svm", LINES + "1 2:3 2:4\n"))


@train
def svm_without_features(client: Client) -> Json:
    return svm_body(client, file(client, "bare.svm", "0\n1\n"))


@train
def svm_label_no_number(client: Client) -> Json:
    return svm_body(client, file(client, "word.svm", LINES + "yes 1:3\n"))


@train
def svm_label_out_of_range(client: Client) -> Json:
    return svm_body(client, file(client, "seven.svm", LINES + "7 1:3\n"))


@train
def svm_nan_in_row(client: Client) -> Json:
    return svm_body(client, file(client, "nan.svm", LINES + "1 1:nan\n"))
