//! The command as a user meets it: help, the tour from checkpoint to answer, and what mistakes are told.

use dwindle_bundle::Bundle;
use expect_test::{Expect, expect};

use crate::workbench::{Dwindle, golden, has_adapter, root};

#[track_caller]
fn check_failure(arguments: &[&str], expected: Expect) {
    expected.assert_eq(&Dwindle::new().fail(arguments));
}

#[test]
fn mistakes_in_arguments() {
    check_failure(
        &["compile", "-o", "x.dwindle"],
        expect![[r#"
        exit code 2
        error: the following required arguments were not provided:
          <MODELS>...

        Usage: dwindle compile --output <FILE.dwindle> <MODELS>...

        For more information, try '--help'.
    "#]],
    );
    check_failure(
        &["quantize", "nowhere", "--scheme", "q5", "-o", "x"],
        expect![[r#"
        exit code 3
        error: there is no scheme `q5`; there are q0f32, q0f16, q8f16_1, q6f16_1, q5f16_min, q5f16_1, q4f32_1, q4f16_min, q4f16_1, q4f16_asym, q3f16_1
    "#]],
    );
    check_failure(
        &["quantize", "nowhere", "--scheme", "q4f16_1", "-o", "x"],
        expect![[r#"
        exit code 3
        error: nowhere is not a model directory: it has no model.json; name a directory that convert or quantize wrote
    "#]],
    );
    check_failure(
        &["convert", "no/such/place", "-o", "x"],
        expect![[r#"
        exit code 3
        error: there is no file or directory no/such/place, and it is no hub id like google/gemma-2-2b-it
    "#]],
    );
    check_failure(
        &["convert", "nobody/nothing", "-o", "x"],
        expect![[r#"
            exit code 3
            error: nobody/nothing (revision main): not in the cache hf/hub and HF_HUB_OFFLINE is set: unset it to download, or name a local directory
        "#]],
    );
    check_failure(
        &["run", "no-such.dwindle", "--prompt", "x"],
        expect![[r#"
        exit code 3
        error: there is no file or directory no-such.dwindle, and it is no hub id like google/gemma-2-2b-it
    "#]],
    );
    check_failure(
        &["run", "--raw"],
        expect![[r#"
        exit code 2
        error: the following required arguments were not provided:
          --prompt <TEXT>

        Usage: dwindle run --prompt <TEXT> --raw [MODELS]...

        For more information, try '--help'.
    "#]],
    );
    check_failure(
        &["compile", "x", "--target", "cuda", "-o", "x.dwindle"],
        expect![[r#"
            exit code 2
            error: invalid value 'cuda' for '--target <NAME,NAME>': unknown target `cuda`: expected vulkan, metal or cpu

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn files_of_the_wrong_kind() {
    let picture = root().join("demo/images/01-square-96.png").display().to_string();
    let weights = golden("gemma").join("model.safetensors").display().to_string();
    check_failure(
        &["run", &picture, "--prompt", "x"],
        expect![[r#"
            exit code 3
            error: cannot open demo/images/01-square-96.png: not a bundle: it looks like a PNG picture; `dwindle compile` makes bundles (*.dwindle)
        "#]],
    );
    check_failure(
        &["inspect", &picture],
        expect![[r#"
        exit code 3
        error: cannot open demo/images/01-square-96.png: not a bundle: it looks like a PNG picture; `dwindle compile` makes bundles (*.dwindle)
    "#]],
    );
    check_failure(
        &["compile", &weights, "-o", "x.dwindle"],
        expect![[r#"
        exit code 3
        error: tests/golden/gemma/model.safetensors is a file; a directory with a checkpoint or a model directory is expected here: try tests/golden/gemma
    "#]],
    );
    let not_a_picture = root().join("README.md").display().to_string();
    if has_adapter() {
        check_failure(
            &["run", "--image", &not_a_picture, "--prompt", "x"],
            expect![[r#"
                exit code 3
                error: cannot use the picture README.md: this is no picture that can be read, it looks like text; PNG, JPEG, WebP, GIF and BMP can be read
            "#]],
        );
        check_failure(
            &["run", "--image", "missing.png", "--prompt", "x"],
            expect![[r#"
                exit code 3
                error: cannot open the picture missing.png: No such file or directory (os error 2)
            "#]],
        );
    }
}

#[test]
fn the_list_of_schemes() {
    expect![[r#"
        scheme     bits/w  linear     vision     kv    summary
        q0f32      32.000  f32        f32        f32   32-bit floats throughout; the reference
        q0f16      16.000  f16        f16        f16   16-bit floats throughout
        q8f16_1     8.500  q8g32f16   q8g32f16   f16   8-bit weights in groups of 32, f16 scales
        q6f16_1     6.500  q6g32f16   q8g32f16   f16   6-bit weights in groups of 32, f16 scales
        q5f16_min   6.000  q5g32f16m  q8g32f16   f16   5-bit weights in groups of 32, f16 scales and minimums
        q5f16_1     5.500  q5g32f16   q8g32f16   f16   5-bit weights in groups of 32, f16 scales
        q4f32_1     5.000  q4g32f32   q8g32f32   f32   4-bit weights in groups of 32, f32 scales
        q4f16_min   5.000  q4g32f16m  q8g32f16   f16   4-bit weights in groups of 32, f16 scales and minimums
        q4f16_1     4.500  q4g32f16   q8g32f16   f16   4-bit weights in groups of 32, f16 scales
        q4f16_asym  4.250  q4g128f16z q8g32f16   f16   4-bit weights in groups of 128, f16 scales and zeros
        q3f16_1     3.656  q3g40f16   q8g32f16   f16   3-bit weights in groups of 40, f16 scales
    "#]]
    .assert_eq(&Dwindle::new().run(&["schemes"]));
}

#[test]
fn help_of_each_command() {
    let dwindle = Dwindle::new();
    expect![[r#"
        Shrinks language and vision models, compiles them into one file and runs them on small devices

        Usage: dwindle [OPTIONS] <COMMAND>

        Commands:
          convert   Make a model directory from a Hugging Face checkpoint
          quantize  Quantize a model directory
          compile   Compile model directories or checkpoints into one bundle
          run       Chat with a bundle, with model directories or checkpoints, or with the built-in demo
          serve     Serve a model on this machine: a chat page, and OpenAI's API
          bench     Measure tokens per second, load time and memory
          logits    Write the logits of given tokens, to compare with other implementations
          inspect   Show what is in a checkpoint, a model directory or a bundle, at any stage of compilation
          schemes   List the quantization schemes
          help      Print this message or the help of the given subcommand(s)

        Options:
          -v, --verbose...  Say more on stderr; twice for details. RUST_LOG filters finer
          -h, --help        Print help
          -V, --version     Print version

        Examples:
          dwindle run --image picture.png                       talk about a picture with the built-in demo
          models
          dwindle convert path/to/checkpoint -o model           the four steps, one by one
          dwindle quantize model --scheme q4f16_1 -o model-q4
          dwindle compile model-q4 --target vulkan -o model.dwindle
          dwindle run model.dwindle
          dwindle serve model.dwindle                           the same for a browser, a phone, or programs

        Exit codes: 2 usage, 3 bad input, 4 does not fit, 5 device, 6 damaged file, 130 interrupted, 143
        terminated.
    "#]]
    .assert_eq(&dwindle.run(&["--help"]));
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
    assert!(report.contains("memory"), "{report}");
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
    let bundle = Bundle::open(&dwindle.path("good.dwindle")).unwrap();
    let weights = &bundle.entry("models/qwen2/weights.0").unwrap()[..4096];
    let at = good.windows(weights.len()).position(|window| window == weights).unwrap();
    flipped[at + 100] ^= 1;
    std::fs::write(dwindle.path("flipped.dwindle"), &flipped).unwrap();
    expect![[r#"
        exit code 6
        error: cannot open cut.dwindle: the bundle is damaged or incomplete (invalid Zip archive: Could not find EOCD); copy or compile it again
    "#]].assert_eq(&dwindle.fail(&["inspect", "cut.dwindle"]));
    expect![[r#"
        exit code 6
        error: entry `models/qwen2/weights.0` of the bundle does not have the hash that its manifest promises: the file was damaged or changed; copy or compile it again
    "#]].assert_eq(&dwindle.fail(&["inspect", "flipped.dwindle"]));
    if has_adapter() {
        expect![[r#"
            exit code 6
            error: entry `models/qwen2/weights.0` of the bundle does not have the hash that its manifest promises: the file was damaged or changed; copy or compile it again
        "#]].assert_eq(&dwindle.fail(&["logits", "flipped.dwindle", "--tokens", "1,2", "-o", "x.safetensors"]));
        expect![[r#"
            exit code 3
            error: token 200 is out of range: the vocabulary has 128 tokens
        "#]]
        .assert_eq(&dwindle.fail(&["logits", "good.dwindle", "--tokens", "1,200", "-o", "x.safetensors"]));
        // The golden has no tokenizer: logits work, chatting says what is missing.
        dwindle.run(&["logits", "good.dwindle", "--tokens", "1,2", "-o", "x.safetensors"]);
        expect![[r#"
            exit code 3
            error: model `qwen2` has no tokenizer: its checkpoint came without tokenizer.json; add it and compile again
        "#]]
        .assert_eq(&dwindle.fail(&["run", "good.dwindle", "--prompt", "x"]));
    }
}

/// A prompt that does not fit says by how much, before anything is computed; in the chat it does not end the chat.
#[test]
fn a_prompt_longer_than_the_context() {
    if !has_adapter() {
        return;
    }
    let dwindle = Dwindle::new();
    let checkpoint = root().join("demo/pocket-gemma").display().to_string();
    dwindle.run(&["compile", &checkpoint, "--context", "32", "-o", "short.dwindle"]);
    let long = "red ".repeat(40);
    expect![[r#"
        exit code 4
        error: this message takes 49 positions with the instructions and what the chat template puts around it, the context has 32; shorten it, or compile with a longer `--context`
    "#]].assert_eq(&dwindle.fail(&["run", "short.dwindle", "--prompt", &long]));
    expect![[r#"
        exit code 3
        error: a context of 100000 is not possible: `pocket-gemma` was made for 1 to 1024 positions
    "#]]
    .assert_eq(&dwindle.fail(&["compile", &checkpoint, "--context", "100000", "-o", "long.dwindle"]));
}

/// Writing fails half-way: nothing is left under the final name, and nothing beside it.
#[test]
#[cfg(unix)]
fn a_full_disk() {
    let dwindle = Dwindle::new();
    let checkpoint = root().join("demo/pocket-gemma").display().to_string();
    dwindle.run(&["convert", &checkpoint, "-o", "model"]);
    dwindle.run(&["quantize", "model", "--scheme", "q4f16_1", "-o", "packed"]);
    let before = list(&dwindle);
    let steps: [(&str, &[&str]); 3] = [
        ("new", &["convert", &checkpoint, "-o", "new"]),
        ("new", &["quantize", "model", "--scheme", "q8f16_1", "-o", "new"]),
        ("new.dwindle", &["compile", "packed", "-o", "new.dwindle"]),
    ];
    for (output, arguments) in steps {
        // No file may grow beyond 1 MiB: writing more fails as on a full disk.
        let mut command = std::process::Command::new("sh");
        let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
        command.args(["-c", script, env!("CARGO_BIN_EXE_dwindle")]).args(arguments).current_dir(dwindle.path(""));
        let result = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert!(!result.status.success(), "{arguments:?}");
        assert!(stderr.contains("File too large"), "{stderr}");
        assert!(!dwindle.path(output).exists(), "{output} is there, though writing it failed");
        assert_eq!(list(&dwindle), before, "{arguments:?} left something behind");
    }
}

#[cfg(unix)]
fn list(dwindle: &Dwindle) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dwindle.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}
