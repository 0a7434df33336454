//! Models in parts, as llama.cpp's `gguf-split` writes them.

use std::path::Path;

use expect_test::{Expect, expect};

use super::model::{Golden, import};
use super::writer::{Gguf, Meta, Storage};
use crate::checkpoint::fixture::contents;
use crate::checkpoint::{ModelDir, convert, gguf_files};
use crate::error::Result;
use crate::progress::Silent;

/// The tensors of a golden model in three files: the first has the metadata and no tensor, as with `--no-tensor-first-split`.
fn parts() -> (Gguf, Vec<Gguf>) {
    let whole = Golden::load("llama").gguf(Storage::Q4_0);
    let half = whole.tensors.len() / 2;
    let shares = [vec![], whole.tensors[..half].to_vec(), whole.tensors[half..].to_vec()];
    let part = |(index, tensors): (usize, Vec<_>)| {
        let mut part = Gguf { tensors, ..Gguf::default() };
        if index == 0 {
            part.metadata.clone_from(&whole.metadata);
        }
        part.set("split.no", Meta::U32(index as u32));
        part.set("split.count", Meta::U32(3));
        part.set("split.tensors.count", Meta::U32(whole.tensors.len() as u32));
        part
    };
    let parts = shares.into_iter().enumerate().map(part).collect();
    (whole, parts)
}

fn name(number: usize) -> String {
    format!("llama-q4-{number:05}-of-00003.gguf")
}

fn write(directory: &Path, parts: &[Gguf]) {
    for (index, part) in parts.iter().enumerate() {
        std::fs::write(directory.join(name(index + 1)), part.bytes()).unwrap();
    }
}

fn converted(path: &Path) -> (tempfile::TempDir, Result<ModelDir>) {
    let out = tempfile::tempdir().unwrap();
    let model = convert(path, &out.path().join("out"), &Silent).map(|(model, _)| model);
    (out, model)
}

/// Any part, or the directory, is the whole model.
#[test]
fn parts_are_one_model() {
    let (whole, parts) = parts();
    let (_root, expected) = import(&whole);
    let expected = expected.unwrap().0;
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &parts);
    for path in [root.path().to_owned(), root.path().join(name(1)), root.path().join(name(3))] {
        let (_out, model) = converted(&path);
        let model = model.unwrap();
        let sources: Vec<_> = model.model.sources.iter().map(|source| source.name.clone()).collect();
        assert_eq!(sources, [name(1), name(2), name(3)]);
        let tensors = |model: &ModelDir| contents(model.path())["model.safetensors"].clone();
        assert!(tensors(&model) == tensors(&expected), "{}", path.display());
    }
    let files = gguf_files(&root.path().join(name(2)));
    assert_eq!(files.len(), 3);
    assert_eq!(gguf_files(Path::new("model.gguf")), [Path::new("model.gguf")]);
}

#[track_caller]
fn check(change: impl FnOnce(&mut Vec<Gguf>, &Path), named: &str, expected: Expect) {
    let (_, mut parts) = parts();
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &parts);
    change(&mut parts, root.path());
    write(root.path(), &parts);
    let error = converted(&root.path().join(named)).1.unwrap_err().to_string();
    expected.assert_eq(&error.replace(&root.path().display().to_string(), "DIR"));
}

#[test]
fn parts_that_do_not_fit() {
    check(
        |parts, directory| {
            parts.truncate(1);
            std::fs::remove_file(directory.join(name(2))).unwrap();
            std::fs::remove_file(directory.join(name(3))).unwrap();
        },
        &name(1),
        expect![
            "DIR/llama-q4-00001-of-00003.gguf: one of 3 parts; 2 missing: llama-q4-00002-of-00003.gguf, llama-q4-00003-of-00003.gguf; put all parts side by side"
        ],
    );
    check(
        |parts, directory| std::fs::write(directory.join("renamed.gguf"), parts[1].bytes()).unwrap(),
        "renamed.gguf",
        expect![
            "DIR/renamed.gguf: one of 3 parts of a model, but its name does not end in `-00001-of-00003.gguf`, by which the others are found; rename the parts, or join them: `llama-gguf-split --merge FIRST-PART OUTPUT.gguf`"
        ],
    );
    check(
        |parts, _| parts[2].set("split.no", Meta::U32(1)),
        &name(1),
        expect![
            "DIR/llama-q4-00003-of-00003.gguf: named as part 3 of 3, but its metadata say `split.no` 1 and `split.count` 3; download the parts again"
        ],
    );
    check(
        |parts, _| parts[1].unset("split.count"),
        &name(1),
        expect![
            "DIR/llama-q4-00002-of-00003.gguf: named as part 2 of 3, but its metadata say `split.no` 1 and `split.count` no number; download the parts again"
        ],
    );
    check(
        |parts, _| {
            let tensor = parts[1].tensors[0].clone();
            parts[2].tensors.push(tensor);
        },
        &name(1),
        expect![
            "DIR/llama-q4-00003-of-00003.gguf: tensor `output.weight` is in DIR/llama-q4-00002-of-00003.gguf as well; download the parts again"
        ],
    );
    check(
        |parts, _| {
            parts[2].tensors.pop();
        },
        &name(1),
        expect!["DIR/llama-q4-00001-of-00003.gguf: the parts have 30 tensors, not 31; download them again"],
    );
    check(
        |parts, _| parts[0].set("split.count", Meta::U32(4_000_000_000)),
        &name(1),
        expect![
            "DIR/llama-q4-00001-of-00003.gguf: one of 4000000000 parts of a model, but its name does not end in `-00001-of-4000000000.gguf`, by which the others are found; rename the parts, or join them: `llama-gguf-split --merge FIRST-PART OUTPUT.gguf`"
        ],
    );
}
