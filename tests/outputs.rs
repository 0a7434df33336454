//! What commands are told to write to: never a source, never a file of another kind; a full disk is one plain message.

use crate::workbench::{Dwindle, golden};

fn with_checkpoint() -> Dwindle {
    let dwindle = Dwindle::new();
    std::fs::create_dir(dwindle.path("model")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("llama").join(name), dwindle.path("model").join(name)).unwrap();
    }
    std::fs::write(dwindle.path("thesis.txt"), "mine").unwrap();
    dwindle
}

#[test]
fn sources_and_other_files_stay() {
    let dwindle = with_checkpoint();
    dwindle.run(&["convert", "model", "--scheme", "q4f16_1", "-o", "packed"]);
    dwindle.run(&["compile", "packed", "--target", "cpu", "-o", "b.dwindle"]);
    dwindle.run(&["logits", "b.dwindle", "--tokens", "1,2", "-o", "l.safetensors"]);
    let weights = std::fs::read(dwindle.path("model/model.safetensors")).unwrap();
    let bundle = std::fs::read(dwindle.path("b.dwindle")).unwrap();
    for (arguments, expected) in [
        (&["compile", "model", "--target", "cpu", "-o", "thesis.txt"][..], "thesis.txt exists and is no bundle"),
        (&["compile", "model", "--target", "cpu", "-o", "l.safetensors"], "l.safetensors exists and is no bundle"),
        (&["compile", "model", "--target", "cpu", "-o", "model/model.safetensors"], "lies in model, which is read"),
        (&["compile", "model", "--target", "cpu", "-o", "model/new.dwindle"], "lies in model, which is read"),
        (&["compile", "model", "--target", "cpu", "-o", "model"], "lies in model, which is read"),
        (&["compile", "model", "--target", "cpu", "-o", "cache/x.dwindle"], "lies in the cache"),
        (&["compile", "model", "--target", "cpu", "-o", "hf/hub/x.dwindle"], "lies in the cache"),
        (&["convert", "model", "-o", "model/inside"], "lies in model, which is read"),
        (&["convert", "model", "-o", "."], "contains model, which is read"),
        (&["convert", "model", "-o", "thesis.txt"], "thesis.txt exists and is not a directory"),
        (&["quantize", "packed", "--scheme", "q4f16_1", "-o", "packed"], "lies in packed, which is read"),
        (&["logits", "b.dwindle", "--tokens", "1", "-o", "b.dwindle"], "lies in b.dwindle, which is read"),
        (&["logits", "b.dwindle", "--tokens", "1", "-o", "thesis.txt"], "thesis.txt exists and is no safetensors file"),
    ] {
        std::fs::create_dir_all(dwindle.path("cache")).unwrap();
        std::fs::create_dir_all(dwindle.path("hf/hub")).unwrap();
        let told = dwindle.fail(arguments);
        assert!(told.starts_with("exit code 3\n") && told.contains(expected), "{arguments:?}: {told}");
        assert!(std::fs::read(dwindle.path("model/model.safetensors")).unwrap() == weights, "{arguments:?}");
        assert!(std::fs::read(dwindle.path("b.dwindle")).unwrap() == bundle, "{arguments:?}");
        assert_eq!(std::fs::read_to_string(dwindle.path("thesis.txt")).unwrap(), "mine", "{arguments:?}");
    }
    // What was made before is replaced.
    dwindle.run(&["compile", "packed", "--target", "cpu", "-o", "b.dwindle"]);
    dwindle.run(&["logits", "b.dwindle", "--tokens", "1,2,3", "-o", "l.safetensors"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_one_message() {
    let dwindle = with_checkpoint();
    dwindle.run(&["convert", "model", "--scheme", "q4f16_1", "-o", "packed"]);
    for blocks in [1, 8, 20, 60] {
        let mut command = std::process::Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_dwindle")]);
        command.args(["compile", "packed", "--target", "cpu", "-o", "b.dwindle"]).current_dir(dwindle.path(""));
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && !dwindle.path("b.dwindle").exists(), "{blocks}: {told}");
        assert!(told.starts_with("error: ") && told.contains("b.dwindle") && told.contains("File too large"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

/// What a killed run had written aside does not stand in the way of the next.
#[test]
fn logits_go_on_where_a_killed_run_left_something() {
    let dwindle = with_checkpoint();
    dwindle.run(&["compile", "model", "--scheme", "q0f32", "--target", "cpu", "-o", "b.dwindle"]);
    let left = dwindle.path("l.safetensors.partial/new");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join(".partial-x.safetensors"), "half").unwrap();
    std::fs::write(dwindle.path("l.safetensors.partial/dwindle-journal"), "logits\n").unwrap();
    dwindle.run(&["logits", "b.dwindle", "--tokens", "1,2", "-o", "l.safetensors"]);
    assert!(dwindle.path("l.safetensors").is_file());
    assert!(!dwindle.path("l.safetensors.partial").exists());
}
