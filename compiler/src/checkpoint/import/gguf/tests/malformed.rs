//! Files that break the format, each refused for its reason.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::super::architecture::Architecture;
use super::super::header::Header;
use super::super::metadata::Metadata;
use super::super::tokenizer::Vocabulary;
use super::model::{Golden, import};
use super::writer::{Gguf, Meta, Storage};

/// Two tensors and three keys.
fn small() -> Gguf {
    let mut gguf = Gguf::default();
    gguf.set("general.architecture", Meta::Text("llama".to_owned()));
    gguf.set("llama.block_count", Meta::U32(1));
    gguf.set("tokenizer.ggml.tokens", Meta::Texts(vec!["a".to_owned(), "b".to_owned()]));
    gguf.push("a.weight", &[2, 32], Storage::Q4_0, &[1.0; 64]);
    gguf.push("b.weight", &[3], Storage::F32, &[1.0; 3]);
    gguf
}

/// What the header says of a file that was changed.
#[track_caller]
fn check(change: impl FnOnce(&mut Vec<u8>), expected: Expect) {
    let mut bytes = small().bytes();
    change(&mut bytes);
    expected.assert_eq(&Header::parse(&bytes).map_or_else(|reason| reason, |header| format!("{header:?}")));
}

fn position(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn headers() {
    let header = Header::parse(&small().bytes()).unwrap();
    assert_eq!(header.metadata.len(), 3);
    let tensors: Vec<_> =
        header.tensors.iter().map(|(name, t)| (name.as_str(), t.kind.name(), t.shape.clone(), t.bytes.len())).collect();
    assert_eq!(tensors, [("a.weight", "Q4_0", vec![2, 32], 36), ("b.weight", "F32", vec![3], 12)]);
    let mut older = small();
    older.version = 2;
    assert_eq!(Header::parse(&older.bytes()).unwrap(), header);
    let mut aligned = small();
    aligned.alignment = 256;
    aligned.set("general.alignment", Meta::U32(256));
    assert_eq!(Header::parse(&aligned.bytes()).unwrap().tensors["b.weight"].bytes.start % 256, 0);
}

#[test]
fn beginnings() {
    check(|bytes| bytes.clear(), expect![[r#"not a GGUF file: it begins with ""; download the file again"#]]);
    check(
        |bytes| put(bytes, 0, b"ggjt"),
        expect![[r#"not a GGUF file: it begins with "ggjt"; download the file again"#]],
    );
    check(
        |bytes| bytes.truncate(6),
        expect!["the version takes 4 bytes, the file has 2 left: it is incomplete; download the file again"],
    );
    check(
        |bytes| put(bytes, 4, &3_u32.to_be_bytes()),
        expect![
            "a big-endian GGUF file; convert it with gguf-py's gguf_convert_endian.py, or download a little-endian one"
        ],
    );
    check(
        |bytes| put(bytes, 4, &1_u32.to_le_bytes()),
        expect!["GGUF version 1; versions 2 and 3 are read: make the file anew with a current llama.cpp"],
    );
    check(
        |bytes| put(bytes, 4, &4_u32.to_le_bytes()),
        expect!["GGUF version 4; versions 2 and 3 are read: make the file anew with a current llama.cpp"],
    );
    check(
        |bytes| bytes.truncate(20),
        expect![
            "the number of metadata entries takes 8 bytes, the file has 4 left: it is incomplete; download the file again"
        ],
    );
}

#[test]
fn counts() {
    check(
        |bytes| put(bytes, 8, &u64::MAX.to_le_bytes()),
        expect![
            "claims 18446744073709551615 tensors, more than the 308 bytes that follow can hold; download the file again"
        ],
    );
    check(
        |bytes| put(bytes, 8, &3_u64.to_le_bytes()),
        expect![
            "a tensor's name takes 755914244096 bytes, the file has 71 left: it is incomplete; download the file again"
        ],
    );
    check(
        |bytes| put(bytes, 16, &(1_u64 << 60).to_le_bytes()),
        expect![
            "claims 1152921504606846976 metadata entries, more than the 308 bytes that follow can hold; download the file again"
        ],
    );
    check(
        |bytes| {
            bytes.resize(3 << 20, 0);
            put(bytes, 16, &70_000_u64.to_le_bytes());
        },
        expect!["claims 70000 metadata entries, the most are 65536; download the file again"],
    );
    let tokens = |bytes: &[u8]| position(bytes, "tokenizer.ggml.tokens") + 21;
    check(
        |bytes| {
            let at = tokens(bytes) + 8;
            put(bytes, at, &(1_u64 << 61).to_le_bytes())
        },
        expect![
            "claims 2305843009213693952 values of metadata key `tokenizer.ggml.tokens`, more than the 185 bytes that follow can hold; download the file again"
        ],
    );
    check(
        |bytes| {
            let at = tokens(bytes) + 8;
            put(bytes, at, &9_u64.to_le_bytes())
        },
        expect![
            "metadata key `tokenizer.ggml.tokens` takes 137438953474 bytes, the file has 143 left: it is incomplete; download the file again"
        ],
    );
    check(
        |bytes| {
            let at = tokens(bytes) + 4;
            put(bytes, at, &12_u32.to_le_bytes())
        },
        expect!["a tensor's name takes 549376 bytes, the file has 161 left: it is incomplete; download the file again"],
    );
    check(
        |bytes| {
            let at = tokens(bytes) + 4;
            put(bytes, at, &13_u32.to_le_bytes())
        },
        expect![
            "metadata key `tokenizer.ggml.tokens` has a value of type 13, which is not known; download the file again"
        ],
    );
    check(
        |bytes| {
            let at = tokens(bytes) + 16;
            put(bytes, at, &u64::MAX.to_le_bytes())
        },
        expect![
            "metadata key `tokenizer.ggml.tokens` takes 18446744073709551615 bytes, the file has 177 left: it is incomplete; download the file again"
        ],
    );
}

#[test]
fn keys_and_values() {
    check(
        |bytes| {
            let at = position(bytes, "general.arch") - 8;
            put(bytes, at, &u64::MAX.to_le_bytes())
        },
        expect![
            "a metadata key takes 18446744073709551615 bytes, the file has 300 left: it is incomplete; download the file again"
        ],
    );
    check(
        |bytes| {
            let at = position(bytes, "general.arch");
            put(bytes, at, &[0xff])
        },
        expect!["a metadata key is not UTF-8; download the file again"],
    );
    check(
        |bytes| {
            let at = position(bytes, "llama.block_count") + 17;
            put(bytes, at, &99_u32.to_le_bytes())
        },
        expect!["metadata key `llama.block_count` has a value of type 99, which is not known; download the file again"],
    );
    let mut twice = small();
    twice.metadata.push(("llama.block_count".to_owned(), Meta::U32(2)));
    check(
        |bytes| *bytes = twice.bytes(),
        expect!["metadata key `llama.block_count` appears twice; download the file again"],
    );
    for alignment in [Meta::U32(0), Meta::U32(33), Meta::U64(32)] {
        let mut gguf = small();
        gguf.set("general.alignment", alignment);
        let reason = Header::parse(&gguf.bytes()).unwrap_err();
        assert!(reason.starts_with("`general.alignment` is") || reason.contains("is no u32"), "{reason}");
    }
    // Arrays in arrays in …, each with one item.
    check(
        |bytes| {
            let at = position(bytes, "tokenizer.ggml.tokens") + 21;
            let nested: Vec<u8> = std::iter::repeat_n([9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 20).flatten().collect();
            bytes.splice(at + 4..at + 4, nested);
        },
        expect!["metadata key `tokenizer.ggml.tokens` has arrays in arrays without end; download the file again"],
    );
}

#[test]
fn tensors() {
    let described = |bytes: &[u8], name: &str| position(bytes, name) + name.len();
    let a = move |bytes: &[u8]| described(bytes, "a.weight");
    check(
        |bytes| {
            let at = a(bytes);
            put(bytes, at, &5_u32.to_le_bytes())
        },
        expect!["tensor `a.weight` has 5 dimensions, the most are 4; download the file again"],
    );
    check(
        |bytes| {
            let at = a(bytes) + 4;
            put(bytes, at, &33_u64.to_le_bytes())
        },
        expect!["tensor `a.weight` cannot have the shape [2, 33] as Q4_0; download the file again"],
    );
    check(
        |bytes| {
            let at = a(bytes) + 4;
            put(bytes, at, &(u64::MAX / 32 * 32).to_le_bytes())
        },
        expect!["tensor `a.weight` cannot have the shape [2, 18446744073709551584] as Q4_0; download the file again"],
    );
    check(
        |bytes| {
            let at = a(bytes) + 12;
            put(bytes, at, &u64::MAX.to_le_bytes())
        },
        expect!["tensor `a.weight` cannot have the shape [18446744073709551615, 32] as Q4_0; download the file again"],
    );
    check(
        |bytes| {
            let at = a(bytes) + 12;
            put(bytes, at, &2000_u64.to_le_bytes())
        },
        expect![
            "tensor `a.weight` has 36000 bytes at offset 0, but the file has 76 after its header: it is incomplete; download the file again"
        ],
    );
    check(
        |bytes| {
            let at = a(bytes) + 20;
            put(bytes, at, &4_u32.to_le_bytes())
        },
        expect!["tensor `a.weight` is of type 4, which is not known: it is newer than this program, or damaged"],
    );
    check(
        |bytes| {
            let at = a(bytes) + 24;
            put(bytes, at, &7_u64.to_le_bytes())
        },
        expect!["tensor `a.weight` begins at 7, which is no multiple of 32; download the file again"],
    );
    check(
        |bytes| {
            let at = a(bytes) + 24;
            put(bytes, at, &(u64::MAX - 31).to_le_bytes())
        },
        expect![
            "tensor `a.weight` has 36 bytes at offset 18446744073709551584, but the file has 76 after its header: it is incomplete; download the file again"
        ],
    );
    check(
        |bytes| {
            let at = a(bytes) + 24;
            put(bytes, at, &(1_u64 << 20).to_le_bytes())
        },
        expect![
            "tensor `a.weight` has 36 bytes at offset 1048576, but the file has 76 after its header: it is incomplete; download the file again"
        ],
    );
    check(
        |bytes| {
            let at = described(bytes, "b.weight") + 16;
            put(bytes, at, &32_u64.to_le_bytes())
        },
        expect!["tensor `b.weight` overlaps `a.weight`; download the file again"],
    );
    check(
        |bytes| {
            let at = position(bytes, "b.weight");
            put(bytes, at, b"a")
        },
        expect!["tensor `a.weight` appears twice; download the file again"],
    );
    check(
        |bytes| {
            let length = bytes.len() - 1;
            bytes.truncate(length)
        },
        expect![
            "tensor `b.weight` has 12 bytes at offset 64, but the file has 75 after its header: it is incomplete; download the file again"
        ],
    );
}

/// What a whole file of a golden model says when it was changed.
#[track_caller]
fn check_import(family: &str, change: impl FnOnce(&mut Gguf), expected: Expect) {
    let mut gguf = Golden::load(family).gguf(Storage::F16);
    change(&mut gguf);
    let (root, model) = import(&gguf);
    let text = model.map_or_else(|error| error.to_string(), |(_, warnings)| format!("{warnings:?}"));
    expected.assert_eq(&text.replace(&root.path().display().to_string(), "DIR"));
}

fn with_type(gguf: &mut Gguf, name: &str, number: u32) {
    let tensor = gguf.tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap();
    // 256 values in each row, so that any type's blocks are whole; its content does not matter.
    (tensor.1, tensor.2, tensor.3) = (number, vec![256, 1], vec![0; 2048]);
}

#[test]
fn models() {
    check_import(
        "llama",
        |_| {},
        expect![[
            r#"["DIR/model.gguf: its metadata have no tokenizer; the model can be compiled, but not chat: put the Hugging Face checkpoint's tokenizer.json beside the file and convert again"]"#
        ]],
    );
    check_import(
        "llama",
        |gguf| gguf.unset("general.architecture"),
        expect!["DIR/model.gguf: metadata key `general.architecture` is missing"],
    );
    check_import(
        "llama",
        |gguf| gguf.set("general.architecture", Meta::Text("mamba".to_owned())),
        expect![
            "DIR/model.gguf: architecture `mamba` is not supported; supported are gemma, gemma2, gemma3, llama, phi3, qwen2, qwen3"
        ],
    );
    check_import(
        "llama",
        |gguf| gguf.set("split.count", Meta::U32(3)),
        expect![
            "DIR/model.gguf: one of 3 parts of a model, but its name does not end in `-00001-of-00003.gguf`, by which the others are found; rename the parts, or join them: `llama-gguf-split --merge FIRST-PART OUTPUT.gguf`"
        ],
    );
    check_import(
        "llama",
        |gguf| with_type(gguf, "output.weight", 21),
        expect![
            "DIR/model.gguf: tensors of types that are not read: IQ3_S (output.weight); F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, BF16, MXFP4 are: make such a file with `llama-quantize F16.gguf OUT.gguf Q4_K_M`, or convert the Hugging Face checkpoint"
        ],
    );
    check_import(
        "llama",
        |gguf| {
            with_type(gguf, "output.weight", 21);
            for name in ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.2.attn_q.weight", "blk.0.ffn_up.weight"] {
                with_type(gguf, name, 16);
            }
        },
        expect![
            "DIR/model.gguf: tensors of types that are not read: IQ2_XXS (blk.0.attn_q.weight, blk.0.ffn_up.weight, blk.1.attn_q.weight and 1 more), IQ3_S (output.weight); F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, BF16, MXFP4 are: make such a file with `llama-quantize F16.gguf OUT.gguf Q4_K_M`, or convert the Hugging Face checkpoint"
        ],
    );
    check_import(
        "llama",
        |gguf| gguf.tensors.retain(|tensor| !tensor.0.contains("attn_v")),
        expect![[r#"
        DIR/model.gguf does not hold the tensors of a `llama` model:
          missing      model.layers.0.self_attn.v_proj.weight [32, 64]
          missing      model.layers.1.self_attn.v_proj.weight [32, 64]
          missing      model.layers.2.self_attn.v_proj.weight [32, 64]"#]],
    );
    check_import(
        "llama",
        |gguf| gguf.push("blk.0.ffn_gate_exps.weight", &[2], Storage::F32, &[1.0; 2]),
        expect!["DIR/model.gguf: tensor `blk.0.ffn_gate_exps.weight` has no place in a `llama` model here"],
    );
    check_import(
        "llama",
        |gguf| gguf.push("blk.3.ffn_up.weight", &[2], Storage::F32, &[1.0; 2]),
        expect![[r#"
        DIR/model.gguf does not hold the tensors of a `llama` model:
          not expected model.layers.3.mlp.up_proj.weight [2]"#]],
    );
    check_import(
        "qwen2",
        |gguf| gguf.tensors.iter_mut().filter(|t| t.0 == "blk.1.ffn_down.weight").for_each(|t| t.2.reverse()),
        expect![[r#"
            DIR/model.gguf does not hold the tensors of a `qwen2` model:
              misshapen    model.layers.1.mlp.down_proj.weight: needs [64, 128], has [128, 64]"#]],
    );
    check_import(
        "phi3",
        |gguf| gguf.push("rope_factors_long.weight", &[2], Storage::F32, &[1.0; 2]),
        expect!["DIR/model.gguf: tensor `rope_factors_long.weight` has no place in a `phi3` model here"],
    );
    check_import(
        "llama",
        |gguf| {
            let tensor = gguf.tensors.iter_mut().find(|tensor| tensor.0 == "rope_freqs.weight").unwrap();
            tensor.3 = Storage::F32.encode(&[1.0, 3.0, 2.0, 7.0, 1.0, 1.0, 1.0, 1.0]);
        },
        expect![
            "DIR/model.gguf: config key `rope_scaling`: the divisors in `rope_freqs.weight` come of no scaling that is known; put the config.json of the Hugging Face checkpoint beside the GGUF file"
        ],
    );
    check_import(
        "qwen2",
        |gguf| {
            let norm = gguf.tensors.iter_mut().find(|tensor| tensor.0 == "output_norm.weight").unwrap();
            (norm.1, norm.3) = (8, Storage::Q8_0.encode(&[1.0; 64]));
        },
        expect![[r#"
            DIR/model.gguf does not hold the tensors of a `qwen2` model:
              unsupported  model.norm.weight is q8g32f16z128; needs F32, F16 or BF16"#]],
    );
}

proptest! {
    /// Any bytes in any place: a header or a reason, never a panic; and lists are no longer than the file can hold.
    #[test]
    fn damaged_headers(places in prop::collection::vec((0_usize..900, any::<u8>()), 0..8), length in 0_usize..1200) {
        let mut gguf = small();
        gguf.set("tokenizer.ggml.model", Meta::Text("llama".to_owned()));
        gguf.set("tokenizer.ggml.scores", Meta::F32s(vec![0.0, 1.0]));
        gguf.set("tokenizer.ggml.token_type", Meta::I32s(vec![1, 2]));
        gguf.set("general.alignment", Meta::U32(32));
        let mut bytes = gguf.bytes();
        for (place, byte) in places {
            if let Some(at) = bytes.get_mut(place) {
                *at = byte;
            }
        }
        bytes.truncate(length);
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert!(13 * header.metadata.len() + 24 * header.tensors.len() <= bytes.len());
            let metadata = Metadata { file: &bytes, values: &header.metadata };
            for key in header.metadata.keys() {
                let _ = (metadata.text(key), metadata.size(key), metadata.float(key), metadata.flag(key));
                let texts = metadata.texts(key).ok().flatten().unwrap_or_default();
                prop_assert!(8 * texts.len() <= bytes.len());
                let numbers = metadata.integers(key).ok().flatten().unwrap_or_default();
                prop_assert!(numbers.len() <= bytes.len());
                let _ = (metadata.floats(key), metadata.flags(key), metadata.count(key));
            }
            for tensor in header.tensors.values() {
                prop_assert!(tensor.bytes.end <= bytes.len());
            }
            let _ = Vocabulary::read(metadata, Architecture::of("llama").unwrap());
        }
    }
}
