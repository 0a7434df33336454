//! What reaches a terminal: no escape sequence of an untrusted file, no panic where nobody reads, an end by signals.

use std::fs::File;
use std::process::Stdio;

use serde_json::json;

use crate::workbench::{Dwindle, golden, root};

const ESCAPE: &str = "\u{1b}]52;c;ZXZpbA==\u{7}\u{9b}2J\u{202e}";

#[track_caller]
fn check_harmless(dwindle: &Dwindle, arguments: &[&str]) -> String {
    let output = dwindle.output(arguments);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let acts = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
    assert!(!text.contains(acts), "{arguments:?}: {text:?}");
    text
}

/// A golden checkpoint, copied to `model`, with changes to its configuration.
fn checkpoint(dwindle: &Dwindle, change: impl FnOnce(&mut serde_json::Value)) {
    std::fs::create_dir(dwindle.path("model")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("llama").join(name), dwindle.path("model").join(name)).unwrap();
    }
    let path = dwindle.path("model/config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

#[test]
fn names_are_cleaned() {
    let dwindle = Dwindle::new();
    checkpoint(&dwindle, |config| {
        config["model_type"] = json!(ESCAPE);
        config["architectures"] = json!([ESCAPE]);
        config[ESCAPE] = json!(ESCAPE);
    });
    let shown = check_harmless(&dwindle, &["inspect", "model"]);
    assert!(shown.contains("\\u{1b}]52;c;ZXZpbA==\\u{7}"), "what it is called is shown: {shown}");
    for arguments in [
        &["inspect", "model", "--json"][..],
        &["convert", "model", "-o", "out"],
        &["convert", "model", "-o", &format!("out{ESCAPE}")],
        &["run", "model", "--device", "cpu", "-p", "x", "--image", &format!("{ESCAPE}.png")],
        &["run", "no such model", "-p", "x", "--image", &format!("{ESCAPE}.png")],
        &["compile", &format!("no {ESCAPE}"), "-o", "x"],
        &["compile", "model", "--target", ESCAPE, "-o", "x"],
        &["inspect", ESCAPE],
        &[ESCAPE],
        &["-vv", "inspect", "model"],
    ] {
        check_harmless(&dwindle, arguments);
    }
}

#[test]
fn names_of_tensors_are_cleaned() {
    let dwindle = Dwindle::new();
    checkpoint(&dwindle, |_| {});
    let path = dwindle.path("model/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let header = header.to_string().replace("layers.0.mlp", "\\u001b]0;x\\u0007\\u009blayers.0.mlp");
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend(header.as_bytes());
    changed.extend(&bytes[8 + length..]);
    std::fs::write(&path, changed).unwrap();
    check_harmless(&dwindle, &["inspect", "model"]);
    check_harmless(&dwindle, &["inspect", "model", "--json"]);
    let told = check_harmless(&dwindle, &["convert", "model", "-o", "out"]);
    assert!(told.contains("\\u{1b}]0;x\\u{7}"), "{told}");
}

/// Nobody reads stderr, or the disk behind it is full: the work is done all the same.
#[cfg(target_os = "linux")]
#[test]
fn stderr_that_cannot_be_written() {
    let dwindle = Dwindle::new();
    let source = golden("llama").display().to_string();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for (output, stderr) in [("closed", Stdio::from(writer)), ("full", Stdio::from(full))] {
        let status = dwindle.command(&["-v", "convert", &source, "-o", output]).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(0), "{output}");
        dwindle.run(&["inspect", output]);
    }
    // An error's code says what its message cannot.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = dwindle.command(&["inspect", "nowhere"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(3));
}

/// A reader that has left is no error; a full disk is one.
#[cfg(target_os = "linux")]
#[test]
fn stdout_that_cannot_be_written() {
    let dwindle = Dwindle::new();
    let model = root().join("demo/packed/pocket-gemma").display().to_string();
    dwindle.run(&["compile", &model, "--target", "cpu", "-o", "g.dwindle"]);
    for arguments in [
        &["schemes"][..],
        &["schemes", "--json"],
        &["inspect", "g.dwindle"],
        &["compile", &model, "--target", "cpu", "-o", "again.dwindle"],
        &["run", "g.dwindle", "-p", "Hello!"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = dwindle.command(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("error"), "{arguments:?}");
        if arguments[0] != "--help" {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = dwindle.command(arguments).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
            let output = output.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{arguments:?}: {told}");
            assert!(told.contains("error: cannot write to stdout: No space left on device"), "{told}");
        }
    }
}

/// SIGTERM and SIGHUP end a chat that waits, and one that computes; nothing stays behind.
#[cfg(target_os = "linux")]
#[test]
fn signals_end_a_chat() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    let dwindle = Dwindle::new();
    let model = root().join("demo/packed/pocket-gemma").display().to_string();
    dwindle.run(&["compile", &model, "--target", "cpu", "-o", "g.dwindle"]);
    std::fs::create_dir(dwindle.path("tmp")).unwrap();
    for (name, number, computes) in [("TERM", 15, false), ("HUP", 1, false), ("TERM", 15, true)] {
        let mut command = dwindle.command(&["run", "g.dwindle", "--max-tokens", "4000"]);
        command.env("TMPDIR", dwindle.path("tmp"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let told = if computes { "Tell me a story.\n" } else { "Hello!\n" };
        input.write_all(told.as_bytes()).unwrap();
        match computes {
            true => output.read_exact(&mut [0]).unwrap(),
            false => assert!(output.read_line(&mut String::new()).unwrap() > 1),
        }
        let started = Instant::now();
        let sent = std::process::Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "{name}: {status}");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}");
        drop(input);
    }
    assert_eq!(std::fs::read_dir(dwindle.path("tmp")).unwrap().count(), 0);
    // Started with the signal ignored, as by `nohup`, it goes on.
    let script = "trap '' HUP; printf 'Hello!\\n' | { \"$0\" run g.dwindle; }";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_dwindle")]).current_dir(dwindle.path(""));
    assert!(command.output().unwrap().status.success());
}
