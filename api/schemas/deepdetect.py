"""Answers in DeepDetect's envelope."""

from __future__ import annotations

from marshmallow import Schema, fields

from api.schemas.described import cursor, flag, number, one, several, table, text, whole


class StatusSchema(Schema):
    """How a request ended."""

    code = whole("The HTTP status.")
    msg = text("The HTTP status in words.")
    dd_code = whole("DeepDetect's own code of an error, where it has one.", required=False)
    dd_msg = text("DeepDetect's words for it, the reason after them where they are not fixed.", required=False)
    message = text("The reason, where DeepDetect's words are fixed or missing.", required=False)


class WarningSchema(Schema):
    """Something in a request that had no effect, or another one than asked."""

    parameter = text("Dotted path of the parameter.")
    message = text("What became of it.")


class ErrorAnswerSchema(Schema):
    """A request that failed, on DeepDetect's routes."""

    status = one(StatusSchema, "What was wrong.")
    head = table("What the request was about, where that is known.", required=False)


class DoneHeadSchema(Schema):
    """What a call that made or removed a service has to add."""

    method = text("The route.")
    task_id = whole("Number of the task that imported or cleared models.", required=False)
    warnings = several(WarningSchema, "What had no effect.", required=False)


class DoneSchema(Schema):
    """A call that made or removed a service."""

    status = one(StatusSchema, "How it ended.")
    head = one(DoneHeadSchema, "There only when there is something to add.", required=False)


class ModelStatsSchema(Schema):
    """The size of the newest version."""

    params = whole("Weights of a network.")
    frozen_params = whole("Those that a training leaves as they are.")
    data_mem_train = whole("Always 0.")
    data_mem_test = whole("Always 0.")
    size_bytes = whole("Bytes of all its files.", required=False)


class ServiceStatsSchema(Schema):
    """Counts of predictions; they may get lost with Redis."""

    inference_count = number("Rows predicted.")
    predict_count = number("Predictions asked for.")
    predict_success = number("Those answered.")
    predict_failure = number("Those that failed.")
    avg_batch_size = number("Rows of an answered prediction, or -1.")
    avg_predict_duration_ms = number("Milliseconds of an answered prediction, or -1.")
    avg_transform_duration_ms = number("Milliseconds of reading its data, or -1.")
    total_predict_duration_ms = number("Milliseconds of all answered predictions.")
    total_transform_duration_ms = number("Milliseconds of reading their data.")
    avg_predict_duration = number("Seconds of an answered prediction, or -1.")
    avg_transform_duration = number("Seconds of reading its data, or -1.")


class OpenJobSchema(Schema):
    """A training that is not over."""

    job = whole("Number within the service.")
    status = text("As GET /train tells it.", ["running"])
    time = number("Seconds since it was accepted.")
    task_id = whole("Number of its task.")
    state = text("State of its task.", ["queued", "running"])
    measure = table("The newest measures.")


class ServiceSchema(Schema):
    """A service."""

    name = text("Its name, in lower case.")
    description = text("Free text.")
    mllib = text("Its machine-learning library.")
    mltype = text("What it predicts.")
    type = text("Kind of learning.")
    predict = flag("Whether there is a version to predict with.")
    training = flag("Whether a job is open.")
    repository = text("Where its models lie.")
    parameters = table("Defaults of its calls, as posted.")
    model_stats = one(ModelStatsSchema, "The size of the newest version.")
    stats = one(ModelStatsSchema, "The same once more.")
    service_stats = one(ServiceStatsSchema, "Counts of predictions.")
    jobs = several(OpenJobSchema, "Trainings that are not over, running ones first.", required=False)
    width = whole("Always -1.", required=False)
    height = whole("Always -1.", required=False)
    labels = several(fields.String(), "Words of the label column, if it holds words.", required=False)


class ServiceAnswerSchema(Schema):
    """GET /services/NAME."""

    status = one(StatusSchema, "How it ended.")
    body = one(ServiceSchema, "The service.")


class ServicesPageSchema(Schema):
    """A page of services."""

    services = several(ServiceSchema, "Newest first.")
    next_cursor = cursor()


class ServicesAnswerSchema(Schema):
    """GET /services."""

    status = one(StatusSchema, "How it ended.")
    body = one(ServicesPageSchema, "The page.")


class InfoHeadSchema(Schema):
    """What the server is."""

    method = text("The route.")
    version = text("Version of the server.")
    branch = text("Always `main`.")
    commit = text("The version once more, or `unknown`.")
    build_type = text("Always `release`.", data_key="build-type")
    compile_flags = text("Always empty.")
    deps_version = text("Always empty.")
    services = several(ServiceSchema, "The services of the account.")


class InfoSchema(Schema):
    """GET /info."""

    status = one(StatusSchema, "How it ended.")
    head = one(InfoHeadSchema, "The server and its services.")


class JobHeadSchema(Schema):
    """A training, in short."""

    method = text("The route.")
    job = whole("Number within the service; not told by a blocking call.", required=False)
    status = text(
        "How it stands; absent when a DELETE found it over already.",
        ["running", "finished", "error", "terminated", "cancelling"],
        required=False,
    )
    time = number("Seconds since it was accepted, up to its end.", required=False)
    task_id = whole("Number of its task.")
    warnings = several(WarningSchema, "What had no effect.", required=False)


class JobModelSchema(Schema):
    """Where the model of a job goes."""

    repository = text("Its repository.")


class JobBodySchema(Schema):
    """What a training came to, or has come to so far. A failed one has `Error` and nothing else."""

    error = one(StatusSchema, "Why it failed.", data_key="Error", required=False)
    measure = table("The newest measures.", required=False)
    measures = several(fields.Dict(), "The measures of each test set, at the end.", required=False)
    parameters = table("What of the parameters is told at the end.", required=False)
    measure_hist = table("Histories of the measures, an array for each.", required=False)
    measure_sampling = table("Of histories that are thinned out, every which point they hold.", required=False)
    model = one(JobModelSchema, "Where the model goes.", required=False)
    mltype = text("What the service predicts.", required=False)
    sname = text("Name of the service.", required=False)
    description = text("Its free text.", required=False)


class JobSchema(Schema):
    """A training."""

    status = one(StatusSchema, "How the call ended.")
    head = one(JobHeadSchema, "The job.")
    body = one(JobBodySchema, "What it came to; absent from the answer that accepts it.", required=False)


class EndedJobSchema(Schema):
    """DELETE /train."""

    status = one(StatusSchema, "How the call ended.")
    head = one(JobHeadSchema, "The job.")


class ClassSchema(Schema):
    """A class that a row may have."""

    prob = number("Its probability.", allow_none=True)
    cat = text("Its name.")
    last = flag("Stands in the last one.", required=False)


class ValueSchema(Schema):
    """A number predicted for a row."""

    cat = text("Which target, counted from 0.")
    val = number("The number.", allow_none=True)
    last = flag("Stands in the last one.", required=False)


class LossSchema(Schema):
    """How far a row is from what an autoencoder made of it."""

    loss = number("Mean of the squared differences.", allow_none=True)
    last = flag("Stands in the last one.", required=False)


class PredictionSchema(Schema):
    """What is predicted for one row; which members it has depends on the service."""

    uri = text("Number of the row, or the value of its id column.")
    classes = several(ClassSchema, "Classes, most probable first.", required=False)
    vector = several(ValueSchema, "Numbers of a regression, largest first.", required=False)
    losses = several(LossSchema, "Of an autoencoder.", required=False)
    vals = fields.Raw(
        metadata={
            "description": "Values of an unsupervised service or of a layer: numbers, booleans, or a text of 0 and 1.",
            "type": ["array", "string"],
            "items": {"type": ["number", "boolean", "null"]},
        }
    )
    last = flag("Stands beside `vals` in the last prediction.", required=False)


class PredictHeadSchema(Schema):
    """A prediction, in short."""

    method = text("The route.")
    service = text("Name of the service.")
    time = number("Milliseconds that it took; absent from the answer that accepts a task.", required=False)
    task_id = whole("Number of its task, with `async`.", required=False)
    status = text("State of that task.", required=False)
    timings = table("Milliseconds of each part, if asked for.", required=False)
    warnings = several(WarningSchema, "What had no effect.", required=False)


class PredictBodySchema(Schema):
    """Predictions, or the measures that were asked for instead."""

    predictions = several(PredictionSchema, "One for each row.", required=False)
    measure = table("Measures of the predictions.", required=False)


class PredictAnswerSchema(Schema):
    """Predictions."""

    status = one(StatusSchema, "How it ended.")
    head = one(PredictHeadSchema, "The prediction, in short.")
    body = one(PredictBodySchema, "What was predicted.")


class PredictTaskSchema(Schema):
    """A prediction that was accepted as a task."""

    status = one(StatusSchema, "How the call ended.")
    head = one(PredictHeadSchema, "The task.")
