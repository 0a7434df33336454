//! `convert` and `quantize` as steps of a pipeline: quantization on the way, plans, refusals, arriving shards, killed runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use expect_test::expect;
use serde_json::{Value, json};

use crate::hub::server::{Fault, Hub};
use crate::workbench::{Dwindle, golden, root};

/// The content of all files of a directory.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
    };
    std::fs::read_dir(directory).unwrap().map(file).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_scheme_on_the_way_gives_the_bytes_of_two_steps() {
    let demo = root().join("demo/pocket-llava");
    for (source, scheme, method) in
        [(&demo, "q4f16_1", "rtn"), (&demo, "q3f16_1", "search"), (&golden("qwen2_untied_sharded"), "q0f16", "rtn")]
    {
        let (dwindle, source) = (Dwindle::new(), text(source));
        let with = ["--scheme", scheme, "--method", method];
        dwindle.run(&["convert", &source, "-o", "full"]);
        let card = dwindle.run(&[&["quantize", "full", "-o", "two"][..], &with].concat());
        assert_eq!(dwindle.run(&[&["convert", &source, "-o", "one"][..], &with].concat()), card);
        let arguments = [&["convert", &source, "-o", "threads"][..], &with].concat();
        assert!(dwindle.command(&arguments).env("RAYON_NUM_THREADS", "3").status().unwrap().success());
        let expected = contents(&dwindle.path("two"));
        for made in ["one", "threads"] {
            assert!(contents(&dwindle.path(made)) == expected, "{scheme} {made}");
        }
        assert_eq!(names(&dwindle.path("")), ["full", "one", "threads", "two"], "nothing else is left");
    }
}

#[test]
fn a_scheme_may_be_a_file() {
    let dwindle = Dwindle::new();
    let source = text(&golden("gemma"));
    let builtin = std::fs::read_to_string(root().join("schemes/q4f16_1.toml")).unwrap();
    let own = builtin.replace("\"q4f16_1\"", "\"mine\"").replace("linear = \"q4g32f16\"", "linear = \"q3g40f16\"");
    std::fs::write(dwindle.path("mine.toml"), &own).unwrap();
    dwindle.run(&["convert", &source, "--scheme", "mine.toml", "-o", "model"]);
    let model: Value = serde_json::from_slice(&std::fs::read(dwindle.path("model/model.json")).unwrap()).unwrap();
    assert_eq!((&model["scheme"], &model["kv"]), (&json!("mine"), &json!("f16")));
    assert_eq!(model["tensors"]["model.layers.0.mlp.up_proj.weight"]["format"], "q3g40f16");
    dwindle.run(&["compile", "model", "--target", "cpu", "-o", "model.dwindle"]);
    dwindle.run(&["compile", &source, "--scheme", "mine.toml", "--target", "cpu", "-o", "at-once.dwindle"]);

    std::fs::write(dwindle.path("false.toml"), own.replace("\"mine\"", "\"q4f16_1\"")).unwrap();
    expect![[r#"
        exit code 3
        error: false.toml calls itself q4f16_1, as a built-in scheme that is different: give it another name
    "#]]
    .assert_eq(&dwindle.fail(&["convert", &source, "--scheme", "false.toml", "-o", "x"]));
    expect![[r#"
        exit code 3
        error: cannot read the scheme none.toml: No such file or directory (os error 2)
    "#]]
    .assert_eq(&dwindle.fail(&["quantize", "model", "--scheme", "none.toml", "-o", "x"]));
    std::fs::write(dwindle.path("broken.toml"), own.replace("kv = \"f16\"", "kv = \"bf16\"")).unwrap();
    expect![[r#"
        exit code 3
        error: broken.toml: scheme `mine`, kv: bf16 is a type of checkpoints; kernels read f16 and f32, use one of these
    "#]]
    .assert_eq(&dwindle.fail(&["convert", &source, "--scheme", "broken.toml", "-o", "x"]));
}

#[test]
fn plans_are_told_and_nothing_is_written() {
    let dwindle = Dwindle::new();
    let source = text(&golden("gemma2"));
    dwindle.run(&["convert", &source, "-o", "full"]);
    for arguments in [
        &["convert", &source, "-o", "x", "--dry-run", "--json"][..],
        &["convert", &source, "--scheme", "q4f16_1", "-o", "x", "--dry-run", "--json"],
        &["quantize", "full", "--scheme", "q4f16_1", "-o", "x", "--dry-run", "--json"],
    ] {
        let told: Value = serde_json::from_str(&dwindle.run(arguments)).unwrap();
        assert_eq!(names(&dwindle.path("")), ["full"], "a dry run writes nothing");
        let wet: Vec<_> = arguments.iter().copied().filter(|argument| *argument != "--dry-run").collect();
        let done: Value = serde_json::from_str(&dwindle.run(&wet)).unwrap();
        assert_eq!(done["work"], told["work"]);
        // The description is the only file whose size is not known before.
        let mut written = contents(&dwindle.path("x"));
        written.remove("model.json").unwrap();
        let bytes: usize = written.values().map(Vec::len).sum();
        assert_eq!(told["work"]["bytes_out"], json!(bytes));
        assert_eq!(done["card"].is_null(), !arguments.contains(&"--scheme"));
        std::fs::remove_dir_all(dwindle.path("x")).unwrap();
    }
    let output = dwindle.output(&["quantize", "full", "--scheme", "q4f16_1", "-o", "x", "--dry-run"]);
    assert_eq!(output.stdout, b"");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("quantize: ") && told.contains(" of disk, ") && told.contains(" of memory"), "{told}");
}

/// A checkpoint of terabytes whose weights are a hole in a file; `None` where there are no such files, or room for its model.
#[cfg(target_os = "linux")]
fn huge_checkpoint(dwindle: &Dwindle) -> Option<PathBuf> {
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(golden("gemma").join("config.json")).unwrap()).unwrap();
    for (key, value) in [
        ("hidden_size", 16384),
        ("intermediate_size", 65536),
        ("num_attention_heads", 64),
        ("num_key_value_heads", 64),
        ("head_dim", 256),
        ("num_hidden_layers", 1000),
    ] {
        config[key] = json!(value);
    }
    let folder = dwindle.path("huge");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let config = dwindle_compiler::checkpoint::config::normalize(config.as_object().unwrap().clone()).unwrap();
    let family = dwindle_compiler::arch::parse("gemma", &config, None).unwrap();
    let (mut header, mut position) = (serde_json::Map::new(), 0);
    for tensor in family.tensors() {
        let bytes = 2 * tensor.shape.iter().product::<usize>() as u64;
        let entry = json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [position, position + bytes]});
        header.insert(tensor.name, entry);
        position += bytes;
    }
    let header = Value::Object(header).to_string();
    let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let path = folder.join("model.safetensors");
    std::fs::write(&path, &start).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let room = dwindle_compiler::room::disk(&folder).unwrap();
    (room < position / 5 && file.set_len(start.len() as u64 + position).is_ok()).then_some(folder)
}

#[cfg(target_os = "linux")]
#[test]
fn what_does_not_fit_is_refused_before_it_begins() {
    let dwindle = Dwindle::new();
    if huge_checkpoint(&dwindle).is_none() {
        println!("skipped: the file system has no files of terabytes, or room for more");
        return;
    }
    for arguments in [
        &["convert", "huge", "--scheme", "q4f16_1", "-o", "x"][..],
        &["convert", "huge", "--scheme", "q4f16_1", "-o", "x", "--dry-run"],
        &["convert", "huge", "-o", "x"],
        &["compile", "huge", "--target", "cpu", "-o", "x"],
    ] {
        let output = dwindle.output(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(told.contains("convert: ") && told.contains("the file system has"), "{told}");
        assert_eq!(names(&dwindle.path("")), ["huge"], "{told}");
    }
}

fn from_hub(hub: &Hub, dwindle: &Dwindle, arguments: &[&str]) -> Command {
    let mut command =
        dwindle.command(&[&["convert", "tiny/qwen2", "--scheme", "q4f16_1", "-o", "model"], arguments].concat());
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &hub.address).env("NO_PROXY", "127.0.0.1,localhost");
    command
}

#[track_caller]
fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What a checkpoint that arrives over the network becomes is what the local one becomes.
#[track_caller]
fn assert_like_local(dwindle: &Dwindle, source: &Path) {
    dwindle.run(&["convert", &text(source), "--scheme", "q4f16_1", "-o", "local"]);
    assert!(contents(&dwindle.path("model")) == contents(&dwindle.path("local")));
    std::fs::remove_dir_all(dwindle.path("local")).unwrap();
}

/// Bytes of weights below a folder.
fn weights_below(folder: &Path) -> u64 {
    let mut bytes = 0;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let Ok(metadata) = path.metadata() else { continue };
        // The golden checkpoints' configurations are far smaller than their weights.
        bytes += if metadata.is_dir() { weights_below(&path) } else { metadata.len() / 50_000 * 50_000 };
    }
    bytes
}

#[test]
fn shards_are_quantized_as_they_arrive_and_not_kept() {
    let source = golden("qwen2_untied_sharded");
    let hub = Hub::start(source.clone());
    let dwindle = Dwindle::new();
    let dry = succeed(from_hub(&hub, &dwindle, &["--dry-run"]));
    assert!(String::from_utf8(dry.stderr).unwrap().contains("to download"));
    assert!(hub.requests_of(".safetensors").iter().all(|request| request.contains("index.json")));
    assert!(!dwindle.path("model").exists());
    succeed(from_hub(&hub, &dwindle, &[]));
    assert_like_local(&dwindle, &source);
    assert_eq!(weights_below(&dwindle.path("hf")), 0, "no weights are left in the cache");
    assert!(!dwindle.path("model.partial").exists());
    // Kept, they are used from the cache, by others too.
    std::fs::remove_dir_all(dwindle.path("model")).unwrap();
    succeed(from_hub(&hub, &dwindle, &["--keep-source"]));
    assert_like_local(&dwindle, &source);
    assert!(weights_below(&dwindle.path("hf")) > 0);
    let before = hub.requests_of("stored/").len();
    std::fs::remove_dir_all(dwindle.path("model")).unwrap();
    succeed(from_hub(&hub, &dwindle, &[]));
    assert_eq!(hub.requests_of("stored/").len(), before);
    dwindle.run(&["convert", "tiny/qwen2", "-o", "offline"]);
}

#[test]
fn interrupted_downloads_go_on_and_finished_shards_do_not_come_again() {
    let source = golden("qwen2_untied_sharded");
    let hub = Hub::start(source.clone());
    let dwindle = Dwindle::new();
    let second = "model-00002-of-00002.safetensors";
    hub.fault(second, Fault::Status("404 Not Found", ""), 1);
    let output = from_hub(&hub, &dwindle, &[]).output().unwrap();
    assert!(!output.status.success());
    assert!(!dwindle.path("model").exists(), "nothing has its final name before it is whole");
    let first = hub.requests_of("stored/model-00001-of-00002.safetensors").len();
    assert_eq!(first, 1);
    let told = String::from_utf8(succeed(from_hub(&hub, &dwindle, &[])).stderr).unwrap();
    assert!(told.contains("1 of 2 files are done already"), "{told}");
    assert_eq!(hub.requests_of("stored/model-00001-of-00002.safetensors").len(), first, "it was finished");
    assert_like_local(&dwindle, &source);
    assert!(!dwindle.path("model.partial").exists());
}

/// A checkpoint of random weights large enough that a conversion takes a while.
fn large_checkpoint(dwindle: &Dwindle) -> PathBuf {
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(golden("qwen2").join("config.json")).unwrap()).unwrap();
    config["vocab_size"] = json!(24_000);
    config["hidden_size"] = json!(256);
    config["intermediate_size"] = json!(1024);
    std::fs::write(dwindle.path("shape.json"), config.to_string()).unwrap();
    dwindle.run(&["synth", "shape.json", "-o", "large"]);
    dwindle.path("large")
}

/// Killed at many moments: what has the final name is whole at each, the next run tidies up and gives the same bytes.
#[cfg(unix)]
#[test]
fn killed_conversions_leave_nothing_half_done() {
    let dwindle = Dwindle::new();
    large_checkpoint(&dwindle);
    let arguments =
        |scheme: &'static str| ["convert", "large", "--scheme", scheme, "--method", "search", "-o", "folder/out"];
    let started = Instant::now();
    dwindle.run(&arguments("q4f16_1"));
    let duration = started.elapsed();
    let new = contents(&dwindle.path("folder/out"));
    dwindle.run(&arguments("q3f16_1"));
    let old = contents(&dwindle.path("folder/out"));
    assert!(new != old);
    let moments = 12;
    let (mut killed, mut replaced) = (0, 0);
    for moment in 0..moments {
        let mut command = dwindle.command(&arguments("q4f16_1"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(duration.mul_f64((f64::from(moment) + 0.5) / f64::from(moments)) + Duration::from_millis(1));
        child.kill().unwrap();
        killed += i32::from(!child.wait().unwrap().success());
        let there = contents(&dwindle.path("folder/out"));
        replaced += i32::from(there == new);
        assert!(there == old || there == new, "the output is the old or the new one, whole");
        // A workplace may be left, nothing else.
        let left = names(&dwindle.path("folder"));
        assert!(left == ["out"] || left == ["out", "out.partial"], "{left:?}");
    }
    assert!(
        killed > moments / 2,
        "{killed} of {moments} were killed before they ended, {replaced} had replaced the output"
    );
    dwindle.run(&arguments("q4f16_1"));
    assert!(contents(&dwindle.path("folder/out")) == new);
    assert_eq!(names(&dwindle.path("folder")), ["out"], "what killed runs left is gone");
}

/// The same with a bundle.
#[cfg(unix)]
#[test]
fn killed_compilations_leave_nothing_half_done() {
    let dwindle = Dwindle::new();
    large_checkpoint(&dwindle);
    let arguments = ["compile", "large", "--target", "cpu", "-o", "folder/out.dwindle"];
    let started = Instant::now();
    dwindle.run(&arguments);
    let duration = started.elapsed();
    let whole = std::fs::read(dwindle.path("folder/out.dwindle")).unwrap();
    for moment in 0..6 {
        std::fs::remove_file(dwindle.path("folder/out.dwindle")).ok();
        let mut child = dwindle.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(duration.mul_f64((f64::from(moment) + 0.5) / 6.0));
        child.kill().unwrap();
        child.wait().unwrap();
        if let Ok(there) = std::fs::read(dwindle.path("folder/out.dwindle")) {
            assert!(there == whole);
        }
    }
    dwindle.run(&arguments);
    assert!(std::fs::read(dwindle.path("folder/out.dwindle")).unwrap() == whole);
    assert_eq!(names(&dwindle.path("folder")), ["out.dwindle"]);
}
