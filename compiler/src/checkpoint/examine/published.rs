//! Configurations as the hub holds them (keys as they are publicly documented): accepted, or refused for a reason that is true.

use std::fmt::Write;
use std::path::Path;

use expect_test::{Expect, expect};

use super::super::IgnoredKeys;
use super::examine;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/configs")
}

/// What is said of a configuration: `fine`, or all that is wrong; and notes.
fn verdict(name: &str, ignored: &[&str]) -> String {
    let ignored = IgnoredKeys::new(ignored.iter().map(|key| (*key).to_owned()).collect());
    let examination = examine(&root().join(name), &ignored).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut text = if examination.problems.is_empty() { "fine".to_owned() } else { examination.problems.join("; ") };
    for note in &examination.notes {
        write!(text, "\n  note: {note}").unwrap();
    }
    text
}

#[test]
fn table() {
    let mut names: Vec<String> =
        std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 30, "{}", names.len());
    let table: String = names.iter().map(|name| format!("{name}: {}\n", verdict(name, &[]))).collect();
    expect![[r#""#]].assert_eq(&table);
}

#[track_caller]
fn check(name: &str, ignored: &[&str], expected: Expect) {
    expected.assert_eq(&verdict(name, ignored));
}

/// What is refused can be overridden, which is said aloud.
#[test]
fn ignored_keys() {
    check("qwen2.5-7b-instruct-1m", &["dual_chunk_attention_config"], expect![[r#""#]]);
    check("yarn-llama-2-7b-64k", &["rope_scaling"], expect![[r#""#]]);
    check("gemma-2b", &["no_such_key"], expect![[r#""#]]);
    check("llava-1.5-7b", &["vision_config.projection_dim", "preprocessor_config.json: do_convert_rgb"], expect![[r#""#]]);
}
