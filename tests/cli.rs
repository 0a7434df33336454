//! The command as a user meets it: help, the tour from checkpoint to answer, and what mistakes are told.

use expect_test::{Expect, expect};

use crate::workbench::{Dwindle, golden, has_adapter, root};

#[track_caller]
fn check_failure(arguments: &[&str], expected: Expect) {
    expected.assert_eq(&Dwindle::new().fail(arguments));
}

#[test]
fn mistakes_in_arguments() {
    check_failure(&["compile", "-o", "x.dwindle"], expect![[]]);
    check_failure(&["quantize", "nowhere", "--scheme", "q5", "-o", "x"], expect![[]]);
    check_failure(&["quantize", "nowhere", "--scheme", "q4f16_1", "-o", "x"], expect![[]]);
    check_failure(&["convert", "no/such/place", "-o", "x"], expect![[]]);
    check_failure(&["convert", "nobody/nothing", "-o", "x"], expect![[]]);
    check_failure(&["run", "no-such.dwindle", "--prompt", "x"], expect![[]]);
    check_failure(&["run", "--raw"], expect![[]]);
    check_failure(&["compile", "x", "--target", "cuda", "-o", "x.dwindle"], expect![[]]);
}

#[test]
fn files_of_the_wrong_kind() {
    let picture = root().join("demo/images/01-square-96.png").display().to_string();
    let weights = golden("gemma").join("model.safetensors").display().to_string();
    check_failure(&["run", &picture, "--prompt", "x"], expect![[]]);
    check_failure(&["inspect", &picture], expect![[]]);
    check_failure(&["compile", &weights, "-o", "x.dwindle"], expect![[]]);
    let not_a_picture = root().join("README.md").display().to_string();
    if has_adapter() {
        check_failure(&["run", "--image", &not_a_picture, "--prompt", "x"], expect![[]]);
        check_failure(&["run", "--image", "missing.png", "--prompt", "x"], expect![[]]);
    }
}

#[test]
fn the_list_of_schemes() {
    expect![[]].assert_eq(&Dwindle::new().run(&["schemes"]));
}

#[test]
fn help_of_each_command() {
    let dwindle = Dwindle::new();
    expect![[]].assert_eq(&dwindle.run(&["--help"]));
    for command in ["convert", "quantize", "compile", "run", "logits", "inspect", "schemes"] {
        assert!(dwindle.run(&[command, "--help"]).contains("Usage: dwindle"), "{command}");
    }
}

/// The four steps of the README, on the demo's chat model.
#[test]
fn from_checkpoint_to_answer() {
    let dwindle = Dwindle::new();
    let checkpoint = root().join("demo/pocket-gemma").display().to_string();
    dwindle.run(&["convert", &checkpoint, "-o", "model"]);
    let card = dwindle.run(&["quantize", "model", "--scheme", "q4f16_1", "-o", "model-q4"]);
    assert!(card.contains("bits per weight"), "{card}");
    let report = dwindle.run(&["compile", "model-q4", "--target", "vulkan", "-o", "model.dwindle"]);
    assert!(report.contains("KV"), "{report}");
    for stage in ["graph", "optimized", "plan", "kernels", "memory", "weights"] {
        assert!(!dwindle.run(&["inspect", "model-q4", "--stage", stage]).is_empty(), "{stage}");
    }
    dwindle.run(&["inspect", &checkpoint]);
    dwindle.run(&["inspect", "model.dwindle"]);
    if has_adapter() {
        assert_eq!(
            dwindle.run(&["run", "model.dwindle", "--prompt", "Hello!", "--temperature", "0"]),
            "Hello! Share an image with me or just chat.\n"
        );
    }
}

/// The same bytes from one thread and from two, for a model directory and a bundle.
#[test]
fn bytes_do_not_depend_on_threads() {
    let build = |threads: &str| {
        let dwindle = Dwindle::new();
        let steps: [&[&str]; 3] = [
            &["convert", &root().join("demo/pocket-llava").display().to_string(), "-o", "full"],
            &["quantize", "full", "--scheme", "q3f16_1", "--method", "search", "-o", "packed"],
            &["compile", "packed", "--target", "vulkan", "-o", "out.dwindle"],
        ];
        for step in steps {
            let output = dwindle.command(step).env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        ["full/model.json", "full/model.safetensors", "packed/model.json", "packed/model.safetensors", "out.dwindle"]
            .map(|file| std::fs::read(dwindle.path(file)).unwrap())
    };
    assert!(build("1") == build("2"), "the number of threads changed the bytes");
}

#[test]
fn damaged_bundles() {
    let dwindle = Dwindle::new();
    let checkpoint = golden("qwen2").display().to_string();
    dwindle.run(&["compile", &checkpoint, "-o", "good.dwindle"]);
    let good = std::fs::read(dwindle.path("good.dwindle")).unwrap();
    std::fs::write(dwindle.path("cut.dwindle"), &good[..good.len() / 2]).unwrap();
    let mut flipped = good.clone();
    // In the middle of the file lie weights.
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(dwindle.path("flipped.dwindle"), &flipped).unwrap();
    expect![[]].assert_eq(&dwindle.fail(&["inspect", "cut.dwindle"]));
    expect![[]].assert_eq(&dwindle.fail(&["inspect", "flipped.dwindle"]));
    if has_adapter() {
        expect![[]].assert_eq(&dwindle.fail(&["logits", "flipped.dwindle", "--tokens", "1,2", "-o", "x.safetensors"]));
        expect![[]].assert_eq(&dwindle.fail(&["logits", "good.dwindle", "--tokens", "1,200", "-o", "x.safetensors"]));
        // The golden has no tokenizer: logits work, chatting says what is missing.
        dwindle.run(&["logits", "good.dwindle", "--tokens", "1,2", "-o", "x.safetensors"]);
        expect![[]].assert_eq(&dwindle.fail(&["run", "good.dwindle", "--prompt", "x"]));
    }
}
