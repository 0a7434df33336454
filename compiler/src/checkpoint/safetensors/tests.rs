//! Hostile headers, mistaken files, full disks, and that what is written reads back.

use std::collections::BTreeMap;
use std::fs;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// A file of this header and so many bytes of tensors.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

#[track_caller]
fn check_header(bytes: &[u8], expected: Expect) {
    expected.assert_eq(&Header::parse(bytes).map_or_else(|error| error, |header| format!("{header:?}")));
}

#[test]
fn hostile_headers() {
    let one = |entry: &str, data| file(&format!("{{\"a\": {entry}}}"), data);
    check_header(b"", expect!["the file has 0 bytes, not even the 8 of the header's length"]);
    check_header(b"\x01\0\0\0", expect!["the file has 4 bytes, not even the 8 of the header's length"]);
    check_header(
        &u64::MAX.to_le_bytes(),
        expect!["it claims to be 18446744073709551615 bytes long, the limit is 100000000"],
    );
    check_header(
        &100_000_001_u64.to_le_bytes(),
        expect!["it claims to be 100000001 bytes long, the limit is 100000000"],
    );
    check_header(
        &[99, 0, 0, 0, 0, 0, 0, 0, b'{'],
        expect!["it claims to be 99 bytes long, the file has 1 after its length"],
    );
    check_header(&file("", 0), expect!["not valid JSON: EOF while parsing a value at line 1 column 0"]);
    check_header(
        &file("[]", 0),
        expect!["not valid JSON: invalid type: sequence, expected an object of tensors at line 1 column 0"],
    );
    check_header(
        &file("{\"a\": \"\u{1}\"}", 0),
        expect![[
            r#"not valid JSON: control character (\u0000-\u001F) found while parsing a string at line 1 column 8"#
        ]],
    );
    check_header(
        &file(&"[".repeat(5000), 0),
        expect!["not valid JSON: invalid type: sequence, expected an object of tensors at line 1 column 0"],
    );
    check_header(
        &file(&format!("{{\"__metadata__\": {}}}", "[".repeat(5000)), 0),
        expect!["not valid JSON: expected value at line 1 column 5018"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1]}"#, 4),
        expect!["not valid JSON: missing field `data_offsets` at line 1 column 36"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}"#, 4),
        expect!["not valid JSON: invalid value: integer `-1`, expected u64 at line 1 column 35"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}"#, 4),
        expect!["not valid JSON: invalid type: floating point `1.5`, expected u64 at line 1 column 36"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,1], "data_offsets": [0, 4]}"#, 4),
        expect!["not valid JSON: invalid length 9, expected at most 8 dimensions at line 1 column 51"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}"#, 4),
        expect!["not valid JSON: trailing characters at line 1 column 61"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "x": 1}"#, 4),
        expect![
            "not valid JSON: unknown field `x`, expected one of `dtype`, `shape`, `data_offsets` at line 1 column 64"
        ],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}"#, 4),
        expect!["tensor `a` has the offsets [4, 0], but 4 bytes follow the header"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}"#, 4),
        expect!["tensor `a` has the offsets [0, 8], but 4 bytes follow the header"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}"#, 4),
        expect!["tensor `a` has 4 bytes, but F32 [2] takes 8"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [18446744073709551612, 18446744073709551615]}"#, 4),
        expect![
            "tensor `a` has the offsets [18446744073709551612, 18446744073709551615], but 4 bytes follow the header"
        ],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [4294967296, 4294967296, 4294967296], "data_offsets": [0, 4]}"#, 4),
        expect!["tensor `a` has the shape [4294967296, 4294967296, 4294967296], whose size overflows"],
    );
    check_header(
        &one(r#"{"dtype": "X1", "shape": [4294967296, 4294967296, 4294967296], "data_offsets": [0, 4]}"#, 4),
        expect!["tensor `a` has the shape [4294967296, 4294967296, 4294967296], whose size overflows"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}"#, 8),
        expect!["tensor `a` leaves a gap before it: it begins at 4, expected 0"],
    );
    check_header(
        &one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#, 5),
        expect!["1 bytes after the last tensor belong to none"],
    );
    let entry = |range: &str| format!(r#"{{"dtype": "F32", "shape": [2], "data_offsets": {range}}}"#);
    let two = |a: &str, b: &str, [first, second]: [&str; 2]| {
        file(&format!("{{\"{a}\": {}, \"{b}\": {}}}", entry(first), entry(second)), 16)
    };
    check_header(
        &two("a", "b", ["[0, 8]", "[4, 12]"]),
        expect!["tensor `b` overlaps the tensor before it: it begins at 4, expected 8"],
    );
    check_header(&two("a", "a", ["[0, 8]", "[8, 16]"]), expect!["tensor `a` appears twice"]);
    check_header(&two("a", "\\u0061", ["[0, 8]", "[8, 16]"]), expect!["tensor `a` appears twice"]);
}

#[test]
fn what_is_valid() {
    check_header(&file("{}", 0), expect!["Header { entries: [] }"]);
    check_header(
        &file(
            r#"{"__metadata__": {"format": "pt"}, "a": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}}  "#,
            3,
        ),
        expect![[
            r#"Header { entries: [("a", Entry { element: Unknown, dtype: "F8_E4M3", shape: [3], bytes: 109..112 })] }"#
        ]],
    );
    check_header(
        &file(
            r#"{"b": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "a": {"dtype": "F16", "shape": [3, 0], "data_offsets": [4, 4]}}"#,
            4,
        ),
        expect![[
            r#"Header { entries: [("a", Entry { element: F16, dtype: "F16", shape: [3, 0], bytes: 136..136 }), ("b", Entry { element: F32, dtype: "F32", shape: [], bytes: 132..136 })] }"#
        ]],
    );
}

#[track_caller]
fn check_open(content: &[u8], expected: Expect) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    fs::write(&path, content).unwrap();
    let error = SafeTensors::open(&path).unwrap_err();
    expected.assert_eq(&error.to_string().replace(&directory.path().display().to_string(), "DIR"));
}

#[test]
fn mistaken_files() {
    check_open(
        b"",
        expect!["DIR/model.safetensors is not a safetensors file: it looks like an empty file; download it again"],
    );
    check_open(
        b"GGUF\x03\0\0\0\x10\0\0\0",
        expect![
            "DIR/model.safetensors is not a safetensors file: it looks like a GGUF file (llama.cpp); name it .gguf to convert it as such"
        ],
    );
    check_open(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        expect!["DIR/model.safetensors is not a safetensors file: it looks like a PNG image"],
    );
    check_open(
        b"PK\x03\x04\0\0\0\0\0\0\0\0",
        expect![
            "DIR/model.safetensors is not a safetensors file: it looks like a ZIP archive (PyTorch's .bin and .pt are ZIPs); save it with `save_pretrained(dir, safe_serialization=True)`"
        ],
    );
    check_open(
        b"\x80\x02}q\0(X\0\0\0",
        expect![
            "DIR/model.safetensors is not a safetensors file: it looks like a Python pickle (PyTorch's old format); save it with `save_pretrained(dir, safe_serialization=True)`"
        ],
    );
    check_open(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
        expect![
            "DIR/model.safetensors is not a safetensors file: it looks like a git-lfs pointer, not the file itself; run `git lfs pull` in the checkpoint's directory"
        ],
    );
    check_open(
        b"<!doctype html><html>",
        expect![
            "DIR/model.safetensors is not a safetensors file: it looks like an HTML or XML page; the download failed, perhaps for lack of a login"
        ],
    );
    check_open(
        b"{\"error\": \"not found\"}",
        expect![
            "DIR/model.safetensors is not a safetensors file: it looks like JSON without the 8 bytes of length before it"
        ],
    );
    check_open(
        b"\x01\x02",
        expect![
            "DIR/model.safetensors: malformed safetensors header: the file has 2 bytes, not even the 8 of the header's length. Download the file again"
        ],
    );
}

#[test]
fn truncated_files() {
    let path = format!("{}/../tests/golden/llama/model.safetensors", env!("CARGO_MANIFEST_DIR"));
    let whole = fs::read(path).unwrap();
    assert!(Header::parse(&whole).is_ok());
    for length in [0, 7, 8, 9, 1000, 4000, whole.len() / 2, whole.len() - 1] {
        assert!(Header::parse(&whole[..length]).is_err(), "{length}");
    }
    check_open(
        &whole[..whole.len() - 1],
        expect![
            "DIR/model.safetensors: malformed safetensors header: tensor `model.norm.weight` has the offsets [472576, 472832], but 472831 bytes follow the header. Download the file again"
        ],
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Header::parse(&bytes);
        let mut file = (bytes.len() as u64).to_le_bytes().to_vec();
        file.extend(&bytes);
        let _ = Header::parse(&file);
    }

    /// Bytes of a valid file replaced, removed and doubled: what is accepted lies within the file.
    #[test]
    fn damaged_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3, any::<u8>()), 1..6),
    ) {
        let mut bytes = file(
            r#"{"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]}}"#,
            22,
        );
        for (index, kind, byte) in edits {
            let index = index.index(bytes.len());
            match kind {
                0 => bytes[index] = byte,
                1 => drop(bytes.remove(index)),
                _ => bytes.insert(index, bytes[index]),
            }
        }
        if let Ok(header) = Header::parse(&bytes) {
            for (name, entry) in header.iter() {
                prop_assert!(bytes.get(entry.bytes.clone()).is_some(), "{}", name);
            }
        }
    }
}

fn layout() -> Layout {
    Layout::new(&BTreeMap::from([
        ("a".to_owned(), (Element::F16, vec![3])),
        ("b".to_owned(), (Element::F32, vec![2, 2])),
        ("c".to_owned(), (Element::I64, vec![1])),
        ("d".to_owned(), (Element::F32, vec![0, 5])),
    ]))
}

#[test]
fn what_is_written_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let writer = TensorWriter::create(&path, layout()).unwrap();
    writer.write("a", 2, &[3, 4, 5, 6]).unwrap();
    writer.write("b", 0, &(0..16).collect::<Vec<u8>>()).unwrap();
    writer.write("c", 0, &[9; 8]).unwrap();
    writer.write("a", 0, &[1, 2]).unwrap();
    assert!(!path.exists(), "not before it is whole");
    writer.finish().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

    let file = SafeTensors::open(&path).unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), layout().file_bytes());
    let a = file.tensor("a").unwrap();
    assert_eq!((a.dtype, a.shape, a.bytes), (Element::F16, &[3][..], &[1, 2, 3, 4, 5, 6][..]));
    for view in file.tensors().filter(|view| !view.is_empty()) {
        assert_eq!(view.bytes.as_ptr().addr() % view.dtype.bytes().unwrap(), 0, "{} is aligned", view.name);
    }
    assert!(file.tensor("e").is_none());
    file.release(a.bytes);
    assert_eq!(a.bytes, [1, 2, 3, 4, 5, 6], "released pages come back");
}

#[test]
#[should_panic(expected = "were never written")]
fn forgotten_tensors_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let _ = TensorWriter::create(&directory.path().join("x.safetensors"), layout()).unwrap().finish();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let temporary = tempfile::NamedTempFile::new_in(directory.path()).unwrap().into_temp_path();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let writer = TensorWriter::over(full, Some(temporary), &path, layout());
    let error = writer.write("c", 0, &[9; 8]).unwrap_err();
    let text = error.to_string().replace(&directory.path().display().to_string(), "DIR");
    expect![
        "cannot write DIR/x.safetensors: No space left on device (os error 28); free some space or choose another place"
    ]
    .assert_eq(&text);
    drop(writer);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Floats of every type, one by one and from the middle.
#[test]
fn floats_are_read_as_f32() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let tensors = [("bf16", Element::Bf16), ("f16", Element::F16), ("f32", Element::F32), ("u32", Element::U32)];
    let layout = tensors.iter().map(|(name, element)| ((*name).to_owned(), (*element, vec![3]))).collect();
    let writer = TensorWriter::create(&path, Layout::new(&layout)).unwrap();
    let values = [1.5_f32, -2.0, 0.25];
    writer.write("bf16", 0, bytemuck::cast_slice(&values.map(half::bf16::from_f32))).unwrap();
    writer.write("f16", 0, bytemuck::cast_slice(&values.map(half::f16::from_f32))).unwrap();
    writer.write("f32", 0, bytemuck::cast_slice(&values)).unwrap();
    writer.write("u32", 0, bytemuck::cast_slice(&[1_u32, 2, 3])).unwrap();
    writer.finish().unwrap();
    let file = SafeTensors::open(&path).unwrap();
    for name in ["bf16", "f16", "f32"] {
        let view = file.tensor(name).unwrap();
        assert_eq!(view.to_f32().unwrap(), values, "{name}");
        let mut last = [0.0; 2];
        view.read_f32(1, &mut last).unwrap();
        assert_eq!(last, values[1..], "{name}");
    }
    let error = file.tensor("u32").unwrap().to_f32().unwrap_err();
    expect!["tensor `u32` is stored as U32: expected F32, F16 or BF16; save the checkpoint in one of them"]
        .assert_eq(&error.to_string());
}
