//! Files that another program cuts while they are in use: one line that names the file, exit code 6.

#![cfg(unix)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::workbench::{Dwindle, root};

fn cut(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[track_caller]
fn check(output: &Output, name: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    let line = format!("error: `{name}` was shortened by another program while it was in use; copy or make it again\n");
    assert!(stderr.ends_with(&line), "{stderr}");
}

#[test]
fn a_bundle_in_a_chat() {
    for model in ["pocket-gemma", "pocket-llava"] {
        for length in [0, 4096, 100_000] {
            let dwindle = Dwindle::new();
            let source = root().join("demo").join(model);
            dwindle.run(&["compile", source.to_str().unwrap(), "--target", "cpu", "-o", "b.dwindle"]);
            let mut command = dwindle.command(&["run", "b.dwindle"]);
            let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut chat = piped.spawn().unwrap();
            let mut stdin = chat.stdin.take().unwrap();
            writeln!(stdin, "Hello!").unwrap();
            let mut stdout = BufReader::new(chat.stdout.take().unwrap());
            stdout.read_line(&mut String::new()).unwrap();
            cut(&dwindle.path("b.dwindle"), length);
            writeln!(stdin, "My name is Ana.").unwrap();
            drop(stdin);
            check(&chat.wait_with_output().unwrap(), "b.dwindle");
        }
    }
}

/// A checkpoint of one layer whose embedding and head take a while: zeros that take no room on the disk.
fn checkpoint(folder: &Path) {
    let (vocabulary, hidden) = (1 << 16, 256_u64);
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "float32", "hidden_act": "silu",
        "hidden_size": hidden, "intermediate_size": hidden, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": vocabulary, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    let mut tensor = |name: &str, shape: &[u64]| {
        let bytes = 4 * shape.iter().product::<u64>();
        let place = [end, end + bytes];
        header.insert(name.to_owned(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": place}));
        end += bytes;
    };
    tensor("model.embed_tokens.weight", &[vocabulary, hidden]);
    tensor("lm_head.weight", &[vocabulary, hidden]);
    tensor("model.norm.weight", &[hidden]);
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        tensor(&format!("model.layers.0.{norm}.weight"), &[hidden]);
    }
    for part in ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"] {
        tensor(&format!("model.layers.0.{part}_proj.weight"), &[hidden, hidden]);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

/// Whether a folder holds a file that is not empty: the source is in use.
fn is_written(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| match entry.metadata() {
        Ok(info) if info.is_dir() => is_written(&entry.path()),
        Ok(info) => info.len() > 0 && entry.file_name().to_string_lossy().contains("safetensors"),
        Err(_) => false,
    })
}

/// Runs the command, and cuts `source` when tensors are written into the folder `partial`.
fn cut_during(dwindle: &Dwindle, arguments: &[&str], partial: &str, source: &str) -> Output {
    // What the last one left: it ended at once.
    let _ = std::fs::remove_dir_all(dwindle.path(partial));
    let mut command = dwindle.command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while !is_written(&dwindle.path(partial)) {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing appeared");
        std::thread::sleep(Duration::from_millis(1));
    }
    cut(&dwindle.path(source), 4096);
    child.wait_with_output().unwrap()
}

#[test]
fn sources_of_every_step() {
    let dwindle = Dwindle::new();
    let again = || checkpoint(&dwindle.path("checkpoint"));
    again();
    let convert = ["convert", "checkpoint", "-o", "model"];
    let output = cut_during(&dwindle, &convert, "model.partial", "checkpoint/model.safetensors");
    check(&output, "model.safetensors");
    assert!(!dwindle.path("model").exists(), "nothing half is there");
    again();
    let quantizing = ["convert", "checkpoint", "--scheme", "q4f16_1", "-o", "model"];
    let output = cut_during(&dwindle, &quantizing, "model.partial", "checkpoint/model.safetensors");
    check(&output, "model.safetensors");
    again();
    dwindle.run(&convert);
    let compile = ["compile", "model", "--target", "cpu", "-o", "b.dwindle"];
    let output = cut_during(&dwindle, &compile, "b.dwindle.partial", "model/model.safetensors");
    check(&output, "model.safetensors");
    assert!(!dwindle.path("b.dwindle").exists(), "nothing half is there");
}
