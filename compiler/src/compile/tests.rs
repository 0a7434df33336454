//! Compilation of the golden checkpoints and the demo models.

use std::path::{Path, PathBuf};

use dwindle_bundle::Bundle;
use dwindle_quant::Method;
use dwindle_schemes::Scheme;
use expect_test::{expect, expect_file};
use tempfile::TempDir;

use super::*;
use crate::checkpoint::convert;
use crate::progress::Silent;
use crate::quantize::quantize;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A quantized model directory of a checkpoint in the repository, called like it.
fn quantized(work: &TempDir, checkpoint: &str, scheme: &str) -> ModelDir {
    let name = checkpoint.rsplit('/').next().unwrap();
    let (full, out) = (work.path().join("full").join(name), work.path().join(scheme).join(name));
    std::fs::create_dir_all(full.parent().unwrap()).unwrap();
    std::fs::create_dir_all(out.parent().unwrap()).unwrap();
    let (model, _) = convert(&repository().join(checkpoint), &full, &Silent).unwrap();
    quantize(&model, &Scheme::builtin(scheme).unwrap(), Method::Rtn, &out, &Silent).unwrap();
    std::fs::remove_dir_all(&full).unwrap();
    ModelDir::open(&out).unwrap()
}

fn vulkan() -> CompileOptions {
    CompileOptions::new(TargetName::Vulkan)
}

/// Plans of every family, as text: `UPDATE_EXPECT=1` writes them anew.
#[test]
fn plans_of_golden_families() {
    let work = tempfile::tempdir().unwrap();
    for family in [
        "gemma",
        "gemma2",
        "gemma3_text",
        "llava_1_5",
        "llava_onevision",
        "phi3",
        "qwen2",
        "qwen2_untied_sharded",
        "qwen3",
    ] {
        let model = quantized(&work, &format!("tests/golden/{family}"), "q4f16_1");
        let text = inspect(&model, Stage::Plan, &vulkan()).unwrap();
        let file = repository().join(format!("compiler/src/compile/plans/{family}.q4f16_1.txt"));
        expect_file![file].assert_eq(&text);
    }
}

/// Every family and every scheme compiles for every target, kernels valid and translated, and reads back.
#[test]
fn every_family_and_scheme_compiles() {
    let work = tempfile::tempdir().unwrap();
    for scheme in Scheme::names() {
        for family in ["gemma", "gemma2", "gemma3_text", "llama", "llava_1_5", "llava_onevision", "phi3", "qwen2"] {
            let model = quantized(&work, &format!("tests/golden/{family}"), scheme);
            for target in TargetName::ALL {
                let out = work.path().join("out.dwindle");
                let report = compile(std::slice::from_ref(&model), &CompileOptions::new(target), &out, &Silent)
                    .unwrap_or_else(|error| panic!("{family} {scheme} {target}: {error}"));
                let bundle = Bundle::open(&out).unwrap();
                bundle.verify().unwrap();
                assert_eq!(report.bytes, bundle.file_bytes());
                let needs = &bundle.manifest().target.needs;
                assert_eq!(needs.is_empty(), target == TargetName::Cpu);
                for (name, offered) in [("max_storage_buffer_binding_size", 128 << 20), ("max_buffer_size", 256 << 20)]
                {
                    assert!(needs.get(name).is_none_or(|&needed| needed <= offered));
                }
            }
        }
    }
}

#[test]
fn demo_ensemble() {
    let work = tempfile::tempdir().unwrap();
    let models = ["demo/pocket-llava", "demo/pocket-gemma"].map(|m| quantized(&work, m, "q4f16_1"));
    let out = work.path().join("demo.dwindle");
    let report = compile(&models, &vulkan(), &out, &Silent).unwrap();
    expect![[r#"
        bundle of 5.0 MiB, 56 kernels
        pocket-llava (llava_onevision q4f16_1 rtn), context 1024
          buffers: 4.1 MiB = weights 1.5 MiB + caches 1.1 MiB + work 1.6 MiB
          dispatches: decode 30 a token, encode_image 34, prefill 36, score 36
        pocket-gemma (gemma2 q4f16_1 rtn), context 1024
          buffers: 8.3 MiB = weights 2.1 MiB + caches 3.0 MiB + work 3.2 MiB
          dispatches: decode 56 a token, prefill 63, score 63
        memory while                         weights      caches        work  tokenizers     picture     staging     process       total
        pocket-llava describes a picture     3.6 MiB     4.1 MiB     4.7 MiB     1.2 MiB    34.7 MiB    32.0 MiB   128.0 MiB   208.3 MiB
        pocket-gemma answers                 3.6 MiB     4.1 MiB     4.7 MiB     1.2 MiB    34.7 MiB    32.0 MiB   128.0 MiB   208.3 MiB
        peak memory: 208.3 MiB"#]]
    .assert_eq(&report.to_string());
    let bundle = Bundle::open(&out).unwrap();
    bundle.verify().unwrap();
    let manifest = bundle.manifest();
    expect![[r#"
        Some(
            Ensemble {
                describe: "pocket-llava",
                chat: "pocket-gemma",
                describe_prompt: "Describe the image.",
                handover: "{% for description in descriptions %}The user shared an image. Image description: {{ description }}\n{% endfor %}{{ message }}",
                residency: Both,
            },
        )
    "#]].assert_debug_eq(&manifest.ensemble);
    let texts: Vec<_> = manifest.models.iter().map(|m| (&m.text, &m.sampling)).collect();
    expect![[r#"
        [
            (
                Some(
                    Text {
                        tokenizer: "models/pocket-llava/tokenizer.json",
                        chat_template: Some(
                            "models/pocket-llava/chat_template.jinja",
                        ),
                        special_tokens: {
                            "eos_token": "<|im_end|>",
                            "pad_token": "<|endoftext|>",
                        },
                        bos: None,
                        stop: [
                            765,
                        ],
                    },
                ),
                SamplingDefaults {
                    temperature: None,
                    top_p: None,
                    top_k: Some(
                        50,
                    ),
                    min_p: None,
                    repetition_penalty: None,
                },
            ),
            (
                Some(
                    Text {
                        tokenizer: "models/pocket-gemma/tokenizer.json",
                        chat_template: Some(
                            "models/pocket-gemma/chat_template.jinja",
                        ),
                        special_tokens: {
                            "bos_token": "<bos>",
                            "eos_token": "<eos>",
                            "mask_token": "<mask>",
                            "pad_token": "<pad>",
                            "unk_token": "<unk>",
                        },
                        bos: Some(
                            2,
                        ),
                        stop: [
                            1,
                            6,
                        ],
                    },
                ),
                SamplingDefaults {
                    temperature: None,
                    top_p: None,
                    top_k: Some(
                        50,
                    ),
                    min_p: None,
                    repetition_penalty: None,
                },
            ),
        ]
    "#]]
    .assert_debug_eq(&texts);
    let placeholder = manifest.models.iter().find_map(|m| m.image.as_ref()).map(|image| &image.placeholder[..]);
    assert_eq!(placeholder, Some("<image>"));
    let template = bundle.text("models/pocket-llava/chat_template.jinja").unwrap();
    assert!(template.contains("<|im_start|>"));
}

#[test]
fn same_bytes_from_one_and_two_threads() {
    let work = tempfile::tempdir().unwrap();
    let model = quantized(&work, "demo/pocket-gemma", "q3f16_1");
    let bytes = [1, 2].map(|threads| {
        let out = work.path().join(format!("{threads}.dwindle"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compile(std::slice::from_ref(&model), &vulkan(), &out, &Silent)).unwrap();
        std::fs::read(&out).unwrap()
    });
    assert!(bytes[0] == bytes[1]);
}

/// A target whose bindings hold 16 KiB: every large matrix is split, and every binding still fits.
#[test]
fn small_bindings_split_matrices() {
    let work = tempfile::tempdir().unwrap();
    let model = quantized(&work, "tests/golden/qwen2", "q4f16_1");
    let mut options = CompileOptions { max_rows: 8, context: Some(64), ..vulkan() };
    options.target.max_storage_buffer_binding_size = 4096;
    let out = work.path().join("split.dwindle");
    compile(std::slice::from_ref(&model), &options, &out, &Silent).unwrap();
    let bundle = Bundle::open(&out).unwrap();
    assert!(bundle.manifest().target.needs["max_storage_buffer_binding_size"] <= 4096);
    let plan = &bundle.manifest().models[0].plan;
    let steps = |name: &str| plan.functions[name].steps.len();
    let whole = Prepared::open(&model, &vulkan()).unwrap().lower(&vulkan()).unwrap().plan;
    assert!(steps("decode") > whole.functions["decode"].steps.len());
}

#[track_caller]
fn refused(models: &[ModelDir], options: &CompileOptions, work: &TempDir, message: expect_test::Expect) {
    let out = work.path().join("refused.dwindle");
    let error = compile(models, options, &out, &Silent).unwrap_err().to_string();
    message.assert_eq(&error.replace(&*work.path().to_string_lossy(), "WORK"));
    assert!(!out.exists());
}

#[test]
fn refusals() {
    let work = tempfile::tempdir().unwrap();
    let full = work.path().join("full-gemma");
    let (unquantized, _) = convert(&repository().join("tests/golden/gemma"), &full, &Silent).unwrap();
    refused(
        &[unquantized],
        &vulkan(),
        &work,
        expect![
            "WORK/full-gemma is not quantized; run `dwindle quantize` on it first (q0f32 and q0f16 keep the weights as floats)"
        ],
    );
    let model = |name: &str| quantized(&work, name, "q4f16_1");
    refused(&[], &vulkan(), &work, expect!["0 models are given, a bundle holds one or two"]);
    refused(
        &[model("tests/golden/gemma"), model("tests/golden/qwen2")],
        &vulkan(),
        &work,
        expect![
            "`gemma` and `qwen2` make no ensemble: none of them sees pictures; it takes one model that does and one text model"
        ],
    );
    refused(
        &[model("tests/golden/gemma"), model("tests/golden/gemma")],
        &vulkan(),
        &work,
        expect!["both models are called `gemma`: rename one of the directories"],
    );
    let long = CompileOptions { context: Some(1 << 20), ..vulkan() };
    refused(
        &[model("tests/golden/gemma")],
        &long,
        &work,
        expect!["a context of 1048576 is not possible: `gemma` was made for 1 to 256 positions"],
    );
    let mut tiny = vulkan();
    tiny.target.max_storage_buffer_binding_size = 256;
    refused(
        &[model("tests/golden/gemma")],
        &tiny,
        &work,
        expect![
            "buffer `logits` needs max_storage_buffer_binding_size 512, the target offers 256: compile for fewer rows a call"
        ],
    );
}

/// Bytes of entries by name, and the plan of each target.
fn written_for(model: &ModelDir, targets: &[TargetName], out: &Path) -> (Report, Bundle) {
    let also = targets[1..].iter().copied().map(Target::new).collect();
    let options = CompileOptions { also, ..CompileOptions::new(targets[0]) };
    let report = compile(std::slice::from_ref(model), &options, out, &Silent).unwrap();
    let bundle = Bundle::open(out).unwrap();
    bundle.verify().unwrap();
    (report, bundle)
}

fn weight_entries(bundle: &Bundle) -> std::collections::BTreeSet<&str> {
    bundle.manifest().used_entries().into_iter().filter(|name| name.contains("weights.")).collect()
}

#[test]
fn targets_share_what_is_equal() {
    let work = tempfile::tempdir().unwrap();
    // Biases, norms and a tower with position embeddings beside the matrices.
    let model = quantized(&work, "demo/pocket-llava", "q4f16_1");
    let out = work.path().join("several.dwindle");
    let (report, bundle) = written_for(&model, &[TargetName::Vulkan, TargetName::Metal, TargetName::Cpu], &out);
    let [vulkan, metal, cpu] = ["vulkan", "metal", "cpu"].map(|name| bundle.select(name).unwrap());
    // Tokenizer and template are there once.
    let tokenizers = bundle.manifest().entries.keys().filter(|name| name.ends_with("tokenizer.json"));
    assert_eq!(tokenizers.count(), 1);
    // GPUs read the same weights and texts; only translations differ.
    assert_eq!(weight_entries(&vulkan), weight_entries(&metal));
    let texts = |bundle: &Bundle| {
        let names = bundle.manifest().used_entries();
        names.into_iter().filter(|name| name.ends_with(".wgsl")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(texts(&vulkan), texts(&metal));
    // Matrices lie differently for a processor, everything else is shared.
    let (gpu, native) = (weight_entries(&vulkan), weight_entries(&cpu));
    let shared: Vec<_> = gpu.intersection(&native).collect();
    assert!(!shared.is_empty() && shared.len() < gpu.len(), "{gpu:?} and {native:?}");
    assert!(native.difference(&gpu).all(|name| name.contains("/cpu/weights.")));
    // The division adds up.
    let entries: u64 = bundle.manifest().entries.values().map(|entry| entry.bytes).sum();
    let own: u64 = report.targets.iter().map(|target| target.own_bytes.unwrap()).sum();
    assert_eq!(report.shared_bytes.unwrap() + own, entries);
    assert!(report.to_string().contains("for 3 targets"), "{report}");
    // Each target alone takes what it shares and what it has for itself.
    for (index, target) in [TargetName::Vulkan, TargetName::Metal, TargetName::Cpu].into_iter().enumerate() {
        let (_, alone) = written_for(&model, &[target], &work.path().join("alone.dwindle"));
        let (alone, together) = (alone.manifest(), [&vulkan, &metal, &cpu][index].manifest());
        assert_eq!(alone.target.name, together.target.name);
        // More, smaller segments.
        for (limit, needed) in &together.target.needs {
            assert!(*needed <= alone.target.needs[limit], "{limit}");
        }
        let [one, several] = [alone, together].map(|manifest| manifest.models[0].memory.weights);
        assert!(one.abs_diff(several) < 2048, "{one} bytes of weights alone, {several} together");
        for (name, function) in &alone.models[0].plan.functions {
            assert_eq!(function.steps.len(), together.models[0].plan.functions[name].steps.len());
        }
    }
    // Packing is the same every time.
    let bytes = std::fs::read(&out).unwrap();
    written_for(&model, &[TargetName::Vulkan, TargetName::Metal, TargetName::Cpu], &out);
    assert!(std::fs::read(&out).unwrap() == bytes);
}
