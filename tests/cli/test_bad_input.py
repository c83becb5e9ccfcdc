"""Whatever a user gets wrong: exit code 2 and one line, before anything is trained."""

import pytest

from fedmia import results
from fedmia.config import Config

ANY_KEY = ", ".join(Config.__dataclass_fields__)

REFUSED = [
    # unknown override or option
    (
        "strateggy=fedavg",
        f"strateggy: unknown key; did you mean strategy? expected one of {ANY_KEY}",
    ),
    ("+foo=1", f"foo: unknown key; expected one of {ANY_KEY}"),
    ("train.lrr=1", "train.lrr: unknown key; did you mean lr? expected one of local_epochs, "),
    ("+train.lrr=1", "train.lrr: unknown key; did you mean lr? expected one of local_epochs, "),
    (
        "candidates.foo=1",
        "candidates.foo: unknown key; expected one of nonmembers, reserve",
    ),
    ("model=mpl", "model=mpl: expected one of cnn, logistic, mlp, resnet18 (did you mean mlp?)"),
    ("attack=[fedmia,x]", "attack=x: expected one of aggregate_cosine, attack_r, "),
    (
        "experiment=x",
        "experiment=x: expected one of central_dp_secagg, dp_central, dp_sgd, dp_sgd_secagg, "
        "grouped_krum, hybrid, local_dp, local_dp_secagg, null_run, quick",
    ),
    ("client/defenses=[x]", "client/defenses="),
    ("num_rounds", "num_rounds: expected key=value in Hydra's override syntax"),
    ("~foo", "~foo: expected a key that is there to be deleted"),
    ("+model=cnn", "+model: expected without the +, it has a value already"),
    # one value where several, or several where one
    ("seed=0,1", "seed=0,1: expected one value, or -m to run each of them"),
    ("dataset=[wine,digits]", "dataset=[wine,digits]: expected one option, not a list"),
    ("train=null", "train=null: expected one of local_sgd"),
    # wrong type
    ("num_rounds=many", "num_rounds=many: expected an integer"),
    ("num_rounds=2.5", "num_rounds=2.5: expected an integer"),
    ("num_rounds=null", "num_rounds=null: expected a value, not null"),
    ("metrics.null_run=perhaps", "metrics.null_run=perhaps: expected true or false"),
    ("train.lr=fast", "train.lr=fast: expected a number"),
    ("train.lr=null", "train.lr=null: expected a value, not null"),
    ("metrics.fprs=all", "metrics.fprs=all: expected a list"),
    ("metrics.fprs=[a]", "metrics.fprs=['a']: expected a number in every place"),
    ("num_rounds=${foo}", "num_rounds=${foo}: expected to be resolvable ("),
    # out of range
    ("num_rounds=-1", "num_rounds=-1: expected at least 1"),
    ("num_clients=0", "num_clients=0: expected at least 1"),
    ("num_threads=0", "num_threads=0: expected at least 1"),
    ("seed=-1", "seed=-1: expected at least 0"),
    ("candidates.nonmembers=5", "candidates.nonmembers=5: expected at least 10"),
    ("strategy.fraction_train=1.5", "strategy.fraction_train=1.5: expected in (0, 1]"),
    ("strategy.min_train_nodes=5", "strategy.min_train_nodes=5: expected at most num_clients=4"),
    (
        "strategy.min_available_nodes=9",
        "strategy.min_available_nodes=9: expected at most num_clients=4",
    ),
    ("dataset.label_noise=1.2", "dataset.label_noise=1.2: expected a number in [0, 1]"),
    ("client.dropout=1", "client.dropout=1: expected in [0, 1)"),
    ("train.lr=-1", "train.lr=-1: expected more than 0 and finite"),
    ("pool.num_threads=0", "pool.num_threads=0: expected at least 1"),
    ("pool.timeout_s=0", "pool.timeout_s=0: expected null or more than 0"),
    ("metrics.confidence=2", "metrics.confidence=2: expected in (0, 1)"),
    # what does not fit together
    ("num_clients=5000", "num_clients=5000: expected in [1, 1797] (1797 records to share out)"),
    (
        "partition.samples_per_client=15",
        "partition.samples_per_client=15: expected a multiple of the 10 classes "
        "(stratified split impossible); try partition.samples_per_client=20",
    ),
    (
        "dataset=purchase_like partition.samples_per_client=20",
        "partition.samples_per_client=20: expected a multiple of the 100 classes "
        "(stratified split impossible); try partition.samples_per_client=100",
    ),
    (
        "partition.samples_per_client=2000",
        "partition.samples_per_client=2000: expected at most 449",
    ),
    ("dataset=breast_cancer model=cnn", "model=cnn: expected images (channels, height, width)"),
    ("observer.vantage=nowhere", "observer.vantage=nowhere: expected one of server, aggregate,"),
    (
        "observer.vantage=participant observer.participant=4",
        "observer.participant=4: expected in 0..3",
    ),
    (
        "attack=fedmia observer.vantage=participant",
        "attack=fedmia_i, fedmia_ii: needs client updates, updates of several clients; vantage "
        "'participant' shows ",
    ),
    # what the machine does not have
    (
        "pool=ray pool.address=127.0.0.1:1",
        "pool.address=127.0.0.1:1: expected a running Ray cluster",
    ),
    ("dataset=table", "dataset.path=???: expected a value"),
    ("dataset=table dataset.path=no.csv", "dataset.path=no.csv: expected an existing file"),
    ("--config-dir no", "--config-dir=no: expected a folder of configuration groups"),
    ("model._target_=no.Model", "model._target_=no.Model: expected to be importable (No module"),
]


def refused(ended, folder, said):
    assert ended.code == 2
    assert ended.err.startswith(f"error: {said}")
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert not list(folder.rglob("transcript"))


@pytest.mark.parametrize(("overrides", "said"), REFUSED, ids=[o for o, _ in REFUSED])
def test_what_cannot_be_is_said_in_one_line_before_training(run, tmp_path, overrides, said):
    refused(run(f"output_dir={tmp_path}", *overrides.split(" ")), tmp_path, said)


TABLES = {
    "a,b,label\n1,2,x\n3,oops,y\n5,6,x\n7,8,y": "row 3, column 'b': expected a number, got 'oops'",
    "a,b,label\n1,2,x\n3,4,\n5,6,x": "row 3, column 'label': expected a name or a whole number",
    "a,b,label\n1,,x\n3,4,y\n5,6,x": "row 2, column 'b': expected a number, got an empty cell",
}


@pytest.mark.parametrize("text", TABLES, ids=["word", "no label", "empty cell"])
def test_a_bad_cell_of_a_table_is_named_by_row_and_column(run, tmp_path, text):
    table = tmp_path / "table.csv"
    table.write_text(text)
    ended = run("dataset=table", f"dataset.path={table}", f"output_dir={tmp_path}")
    refused(ended, tmp_path, f"dataset.path={table}: {TABLES[text]}")


def test_a_class_without_records_is_named(run, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("a,label\n" + "\n".join(f"{i},x" for i in range(50)))
    ended = run("dataset=table", f"dataset.path={table}", f"output_dir={tmp_path}")
    refused(ended, tmp_path, "dataset.classes=['x']: expected at least 2 classes, got 1")
    # the only other class has a duplicate's features, which is dropped
    table.write_text("a,label\n" + "\n".join(f"{i},x" for i in range(50)) + "\n0,y")
    ended = run("dataset=table", f"dataset.path={table}", f"output_dir={tmp_path}")
    refused(ended, tmp_path, "dataset.classes=['x', 'y']: expected records of every class, 'y' is")


def test_an_output_folder_that_cannot_be_written_to_is_refused(run, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    ended = run(f"output_dir={file / 'runs'}")
    refused(ended, tmp_path, f"output_dir={file / 'runs'}: expected a writable folder (Not a dir")
    refused(run("output_dir="), tmp_path, "output_dir=: expected a folder")


def test_attacks_that_do_not_apply_are_rows_where_others_do(run):
    ended = run("attack=all", "observer.vantage=participant")
    assert ended.code == 0, ended.err
    rows = {r["name"]: r for r in results.read(ended.folder / "result.json")["attacks"]}
    assert rows["fedmia_i"]["status"] == "not_applicable"
    assert rows["fedmia_i"]["reason"].startswith("needs client updates")
    assert rows["yeom_loss"]["status"] == "ok"
