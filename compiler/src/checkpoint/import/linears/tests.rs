//! Import of checkpoints that the fixture writes: values, names, formats, and everything that can be wrong.

use std::path::PathBuf;

use dwindle_quant::{decode_rows, read_floats};
use expect_test::{Expect, expect};
use serde_json::json;
use tempfile::TempDir;

use super::fixture::{self, Tensors, VARIANTS, Variant};
use super::*;
use crate::checkpoint::fixture::golden;
use crate::checkpoint::{ModelDir, convert};
use crate::progress::Silent;

fn none() -> IgnoredKeys {
    IgnoredKeys::default()
}

/// A stored matrix as f32.
fn values(model: &ModelDir, name: &str) -> Vec<f32> {
    let info = &model.model.tensors[name];
    let Format::Grouped(grouped) = info.format else { return model.tensor(name).unwrap().to_f32().unwrap() };
    let (rows, columns) = matrix(&info.shape);
    let words = model.tensor(&format!("{name}.codes")).unwrap();
    let words: Vec<u32> = words.bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let mut scales = vec![0.0; rows * grouped.scales(columns)];
    read_floats(grouped.scale, model.tensor(&format!("{name}.scales")).unwrap().bytes, &mut scales).unwrap();
    let mut values = vec![0.0; rows * columns];
    decode_rows(&words, &scales, columns, &grouped, &mut values).unwrap();
    values
}

/// Nothing is rounded a second time: each layer decodes to the values that were published, bit for bit, whatever the method, the
/// family's way of fusing layers, and the spelling of names.
#[test]
fn values_are_those_that_were_published() {
    for name in ["qwen2", "llama", "phi3", "gemma2", "llava_onevision"] {
        for variant in &VARIANTS {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            fixture::both(&golden(name), variant, &at("packed"), &at("plain"));
            let (imported, report) = convert(&at("packed"), &at("imported"), &Silent).unwrap();
            let (plain, _) = convert(&at("plain"), &at("full"), &Silent).unwrap();
            assert_eq!(report.tensors, imported.model.tensors.len());
            assert!(!imported.model.config.contains_key(KEY), "it says nothing of the model any more");
            let mut layers = 0;
            for (tensor, info) in &plain.model.tensors {
                let mut expected = values(&plain, tensor);
                if let Some(Format::Plain(float)) = imported.format(tensor) {
                    // Kernels have no bf16.
                    expected.iter_mut().for_each(|value| *value = dwindle_quant::round(float, *value));
                }
                let same = values(&imported, tensor) == expected;
                assert!(same, "{name} {variant:?}: {tensor} of {:?}", info.shape);
                layers += usize::from(matches!(imported.format(tensor), Some(Format::Grouped(_))));
            }
            assert!(layers >= 8, "{name} {variant:?}: {layers} packed layers");
        }
    }
}

/// What each variant is called and how its layers are stored: zeros only where they differ.
#[test]
fn schemes_and_formats() {
    let mut table = String::new();
    for variant in &VARIANTS {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fixture::both(&golden("qwen2"), variant, &at("packed"), &at("plain"));
        let (model, _) = convert(&at("packed"), &at("out"), &Silent).unwrap();
        let format = |name: &str| model.format(name).unwrap().to_string();
        table += &format!(
            "{:14} {:12} {} {}\n",
            model.scheme().unwrap(),
            format("model.layers.0.mlp.down_proj.weight"),
            format("model.embed_tokens.weight"),
            format("model.layers.0.self_attn.q_proj.bias"),
        );
    }
    expect![[r#"
        awq_q4g32      q4g32f16z    f32 f32
        awq_q4row      q4g128f16z   f32 f32
        gptq_q4g32     q4g32f16z    f32 f32
        gptq_q4g128    q4g128f16z8  f32 f32
        gptq_q4g64     q4g64f16z    f32 f32
        gptq_q4row     q4g128f16z   f32 f32
        gptq_q8g32     q8g32f16z128 f32 f32
    "#]]
    .assert_eq(&table);
}

/// Blocks of rows that begin anywhere are those of the whole.
#[test]
fn any_rows_can_be_read() {
    for variant in &VARIANTS[..3] {
        let root = tempfile::tempdir().unwrap();
        fixture::both(&golden("llama"), variant, &root.path().join("packed"), &root.path().join("plain"));
        let source = open(&root.path().join("packed"), &none()).unwrap().unwrap();
        let name = "model.layers.1.mlp.up_proj.weight";
        let n = source.offers()[name].shape[0];
        let (mut whole, mut part) = (Rows::default(), Rows::default());
        source.read(name, 0..n, &mut whole).unwrap();
        let (words, floats) = (whole.words.len() / n, whole.floats.len() / n);
        for rows in [0..1, 5..18, 13..14, n - 3..n] {
            source.read(name, rows.clone(), &mut part).unwrap();
            assert_eq!(part.words, whole.words[rows.start * words..rows.end * words], "{rows:?}");
            assert_eq!(part.floats, whole.floats[rows.start * floats..rows.end * floats], "{rows:?}");
        }
    }
}

/// `quantize_config.json` and `quant_config.json` of older tools, and a checkpoint that says nothing.
#[test]
fn older_files_tell_the_same() {
    let files = [
        (
            &VARIANTS[0],
            "quant_config.json",
            json!({"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}),
        ),
        (&VARIANTS[2], "quantize_config.json", json!({"bits": 4, "group_size": 32, "desc_act": false, "sym": false})),
    ];
    for (variant, file, config) in files {
        let root = tempfile::tempdir().unwrap();
        let (layers, _) = fixture::tensors(&golden("qwen2"), variant);
        fixture::write(&golden("qwen2"), root.path(), &layers, |_| {});
        assert!(open(root.path(), &none()).unwrap().is_none());
        std::fs::write(root.path().join(file), config.to_string()).unwrap();
        assert_eq!(
            open(root.path(), &none()).unwrap().unwrap().offers()["model.layers.0.mlp.up_proj.weight"].shape,
            [128, 64]
        );
    }
}

/// A small checkpoint of which one thing is wrong.
struct Broken {
    variant: &'static Variant,
    tensors: Tensors,
    root: TempDir,
}

impl Broken {
    fn new(variant: &'static Variant) -> Broken {
        let (tensors, _) = fixture::tensors(&golden("qwen2"), variant);
        Broken { variant, tensors, root: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("in")
    }

    #[track_caller]
    fn check(self, change: impl FnOnce(&mut Value), expected: Expect) {
        fixture::write(&golden("qwen2"), &self.path(), &self.tensors, |config| {
            config[KEY] = (self.variant.config)();
            change(&mut config[KEY]);
        });
        let out = self.root.path().join("out");
        let error = convert(&self.path(), &out, &Silent).unwrap_err().to_string();
        expected.assert_eq(&error.replace(&self.root.path().display().to_string(), "DIR"));
        assert!(!out.exists());
    }
}

#[track_caller]
fn check_config(variant: usize, key: &str, value: Value, expected: Expect) {
    Broken::new(&VARIANTS[variant]).check(|config| config[key] = value, expected);
}

#[test]
fn configurations_that_are_not_imported() {
    for method in ["bitsandbytes", "fp8", "compressed-tensors", "mxfp4", "hqq", "quanto", "torchao"] {
        let broken = Broken::new(&VARIANTS[0]);
        fixture::write(&golden("qwen2"), &broken.path(), &broken.tensors, |config| {
            config[KEY] = json!({"quant_method": method});
        });
        let error = convert(&broken.path(), &broken.root.path().join("out"), &Silent).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("is `{method}`; packed weights of `awq` and `gptq`")), "{text}");
    }
    // The first ones of bitsandbytes do not name themselves.
    let broken = Broken::new(&VARIANTS[0]);
    fixture::write(&golden("qwen2"), &broken.path(), &broken.tensors, |config| {
        config[KEY] = json!({"load_in_4bit": true, "load_in_8bit": false});
    });
    let error = convert(&broken.path(), &broken.root.path().join("out"), &Silent).unwrap_err();
    assert!(error.to_string().contains("is `bitsandbytes`"), "{error}");
    check_config(
        0,
        "quant_method",
        Value::Null,
        expect![
            "config key `quantization_config.quant_method`: is absent; packed weights of `awq` and `gptq` are read: convert the unquantized checkpoint that this one was made from"
        ],
    );
    check_config(0, "bits", json!(3), expect!["config key `quantization_config.bits`: is 3; 4 is imported"]);
    check_config(2, "bits", json!(2), expect!["config key `quantization_config.bits`: is 2; 4 or 8 is imported"]);
    check_config(
        0,
        "version",
        json!("gemv"),
        expect![[
            r#"config key `quantization_config.version`: is "gemv"; the layout of `gemm` is imported: save the model with version="GEMM", or convert the unquantized checkpoint"#
        ]],
    );
    check_config(
        0,
        "group_size",
        json!(100),
        expect![
            "config key `quantization_config.group_size`: is 100; -1 (whole rows) and multiples of 8 up to 4096 are imported"
        ],
    );
    check_config(
        2,
        "group_size",
        json!("all"),
        expect![[
            r#"config key `quantization_config.group_size`: is "all"; -1 (whole rows) and multiples of 8 up to 4096 are imported"#
        ]],
    );
    check_config(
        2,
        "group_size",
        json!(8192),
        expect![
            "config key `quantization_config.group_size`: is 8192; -1 (whole rows) and multiples of 8 up to 4096 are imported"
        ],
    );
    check_config(
        2,
        "checkpoint_format",
        json!("marlin"),
        expect![[
            r#"config key `quantization_config.checkpoint_format`: is "marlin"; `gptq` and `gptq_v2` are imported, of others convert the unquantized checkpoint"#
        ]],
    );
    check_config(
        2,
        "format",
        json!(7),
        expect![
            "config key `quantization_config.checkpoint_format`: is 7; `gptq` and `gptq_v2` are imported, of others convert the unquantized checkpoint"
        ],
    );
    check_config(
        2,
        "dynamic",
        json!({"-:.*down.*": {}}),
        expect![[
            r#"config key `quantization_config.dynamic`: is {"-:.*down.*":{}}, which is not imported; convert the unquantized checkpoint"#
        ]],
    );
    check_config(
        2,
        "is_marlin_format",
        json!(true),
        expect![
            "config key `quantization_config.is_marlin_format`: is true, which is not imported; convert the unquantized checkpoint"
        ],
    );
}

/// Changes one tensor, or takes it out.
#[track_caller]
fn check_tensor(
    variant: usize,
    name: &str,
    change: impl FnOnce(&mut (Element, Vec<usize>, Vec<u8>)) -> bool,
    expected: Expect,
) {
    let mut broken = Broken::new(&VARIANTS[variant]);
    let name = format!("model.layers.1.mlp.down_proj.{name}");
    let mut tensor = broken.tensors.remove(&name).unwrap();
    if change(&mut tensor) {
        broken.tensors.insert(name, tensor);
    }
    broken.check(|_| {}, expected);
}

#[test]
fn tensors_that_do_not_fit() {
    let shape = |shape: &'static [usize]| {
        |tensor: &mut (Element, Vec<usize>, Vec<u8>)| {
            tensor.1 = shape.to_vec();
            true
        }
    };
    check_tensor(
        0,
        "qzeros",
        |_| false,
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.qzeros` is missing"#]],
    );
    check_tensor(
        0,
        "scales",
        |_| false,
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.scales` is missing"#]],
    );
    check_tensor(
        2,
        "qzeros",
        shape(&[2, 16]),
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.qzeros` has the shape [2, 16]; [4, 8] goes with 64 rows of 128 weights"#]],
    );
    check_tensor(
        2,
        "scales",
        shape(&[8, 32]),
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.scales` has the shape [8, 32]; [4, 64] goes with 64 rows of 128 weights"#]],
    );
    check_tensor(
        2,
        "scales",
        shape(&[256]),
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.scales` has the shape [256]; a matrix is needed"#]],
    );
    check_tensor(
        0,
        "qweight",
        shape(&[64, 16]),
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.qzeros` has the shape [4, 8]; [2, 16] goes with 128 rows of 64 weights
          - `model.layers.1.mlp.down_proj.scales` has the shape [4, 64]; [2, 128] goes with 128 rows of 64 weights"#]],
    );
    check_tensor(
        2,
        "qweight",
        shape(&[8, 128]),
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.qzeros` has the shape [4, 8]; [2, 16] goes with 128 rows of 64 weights
          - `model.layers.1.mlp.down_proj.scales` has the shape [4, 64]; [2, 128] goes with 128 rows of 64 weights
          - `model.layers.1.mlp.down_proj.g_idx` is I32 [128]; I32 [64] is needed"#]],
    );
    let float = |tensor: &mut (Element, Vec<usize>, Vec<u8>)| {
        tensor.0 = Element::F32;
        true
    };
    check_tensor(
        0,
        "qweight",
        float,
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.qweight` is F32; I32 is needed"#]],
    );
    let reorder = |tensor: &mut (Element, Vec<usize>, Vec<u8>)| {
        tensor.2.swap(0, 4 * 40);
        true
    };
    check_tensor(
        2,
        "g_idx",
        reorder,
        expect![
            "config key `quantization_config.desc_act`: 1 layers, of which `model.layers.1.mlp.down_proj.g_idx` is the first, sort columns by activation; quantize again with desc_act=False, or convert the unquantized checkpoint"
        ],
    );
    check_tensor(
        2,
        "g_idx",
        shape(&[64, 2]),
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.g_idx` is I32 [64, 2]; I32 [128] is needed"#]],
    );
    let infinite = |tensor: &mut (Element, Vec<usize>, Vec<u8>)| {
        tensor.2[..2].copy_from_slice(&[0x00, 0x7c]);
        true
    };
    check_tensor(
        2,
        "scales",
        infinite,
        expect![
            "tensor `model.layers.1.mlp.down_proj.scales`: 1 values are infinite or NaN; the checkpoint is damaged, download it again"
        ],
    );
}

#[test]
fn layers_that_are_missing_or_there_twice() {
    let mut broken = Broken::new(&VARIANTS[0]);
    broken.tensors.retain(|name, _| !name.starts_with("model.layers.1.mlp.down_proj."));
    broken.check(
        |_| {},
        expect![[r#"
        DIR/in does not hold the tensors of a `qwen2` model:
          missing      model.layers.1.mlp.down_proj.weight [64, 128]"#]],
    );

    let mut broken = Broken::new(&VARIANTS[0]);
    let floats = (Element::F16, vec![64, 128], vec![0; 64 * 128 * 2]);
    broken.tensors.insert("model.layers.1.mlp.down_proj.weight".to_owned(), floats);
    broken.check(
        |_| {},
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.1.mlp.down_proj.weight` is there twice, packed and as floats or under two names"#]],
    );

    let mut broken = Broken::new(&VARIANTS[2]);
    broken.tensors.insert("model.layers.0.order".to_owned(), (Element::I32, vec![4], vec![0; 16]));
    broken.check(
        |_| {},
        expect![[r#"
        DIR/in is a quantized checkpoint that does not hold what it should; download it again:
          - `model.layers.0.order` is I32, and no part of a packed layer"#]],
    );
}
