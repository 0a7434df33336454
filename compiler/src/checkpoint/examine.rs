//! What a checkpoint is, and all that stands in the way of converting it; nothing is written, and weights may be missing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::selection::{Needs, Selection};
use super::{IgnoredKeys, Source, config, import, json, processor};
use crate::arch;
use crate::error::{Error, Result};
use crate::note::Note;
use crate::size::Size;

/// Differences of one kind that are told before the rest is only counted.
const MOST_LINES: usize = 24;

/// Where support for a family is added.
const HOW_TO: &str = "compiler/src/arch/README.md";

/// What was found out about a checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    /// Whether it can be converted, as far as what is here tells.
    pub supported: bool,
    /// `model_type`; empty where the configuration has none.
    pub model_type: String,
    /// The classes of transformers that publish it.
    pub architectures: Vec<String>,
    /// What of the configuration is not supported: family, keys, values.
    pub problems: Vec<String>,
    /// Where the family is unknown: the known one whose configuration is the most alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closest: Option<Closest>,
    /// Its tensors.
    pub weights: Weights,
    /// What is accepted and worth a line.
    pub notes: Vec<Note>,
    /// The configuration, in the spelling of transformers 4 where it could be translated.
    pub config: Map<String, Value>,
}

/// A family that an unknown one resembles.
#[derive(Clone, Debug, Serialize)]
pub struct Closest {
    /// Its name.
    pub family: &'static str,
    /// What it would refuse of the configuration.
    pub problems: Vec<String>,
}

/// What is known of the tensors.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// They are not here, or cannot be read.
    Absent {
        /// Why.
        reason: String,
    },
    /// They are.
    Here {
        /// Files that hold them.
        files: usize,
        /// Element type and shape by their name in the files.
        tensors: BTreeMap<String, String>,
        /// Bytes of all of them.
        bytes: u64,
        /// The family that they were compared with: the nearest one where their own is not supported.
        #[serde(skip_serializing_if = "Option::is_none")]
        compared_with: Option<String>,
        /// How they differ from that family's.
        problems: Vec<String>,
    },
}

/// Whether the model at `path` is one that importing reads, whose weights are packed already, or means to be one and is damaged.
pub fn is_packed(path: &Path, ignored: &IgnoredKeys) -> bool {
    !matches!(import::open(path, ignored), Ok(None))
}

/// Examines the checkpoint in `directory`, of which `config.json` has to be there.
///
/// # Errors
/// There is no configuration, or it cannot be read at all. What is not supported is no error here.
pub fn examine(directory: &Path, ignored: &IgnoredKeys) -> Result<Examination> {
    let path = directory.join("config.json");
    let mut raw = json::read_object(&path)?;
    let mut removed = ignored.remove_from(&mut raw);
    let (mut config, mut problems) = match config::normalize(raw.clone()) {
        Ok(config) => (config, Vec::new()),
        Err(error @ Error::Config { .. }) => (raw, vec![error.to_string()]),
        Err(error) => return Err(error),
    };
    removed.extend(ignored.remove_from(&mut config));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let model_type = config.get("model_type").and_then(text).unwrap_or_default();
    let architectures = config.get("architectures").and_then(Value::as_array);
    let architectures = architectures.into_iter().flatten().filter_map(text).collect();
    let mut preprocessor = processor::read(directory)?;
    if let Some(Value::Object(processor)) = &mut preprocessor {
        removed.extend(ignored.remove_from(processor));
    }

    let mut closest = None;
    let mut family = model_type.clone();
    if problems.is_empty() && model_type.is_empty() {
        problems.push("`model_type`, which names the family, is absent".to_owned());
    } else if problems.is_empty() {
        match arch::parse(&model_type, &config, preprocessor.as_ref()) {
            Ok(_) => {}
            Err(arch::Error::UnknownFamily { .. }) => {
                let families = arch::families().collect::<Vec<_>>().join(", ");
                problems.push(format!("model_type `{model_type}`: expected one of {families}"));
                let (nearest, problems) = nearest(&config, preprocessor.as_ref());
                family = nearest.to_owned();
                closest = Some(Closest { family: nearest, problems });
            }
            Err(error) => problems.extend(lines(&error)),
        }
    }
    let mut notes = ignored.notes(&removed);
    let source = Source::open_ignoring(directory, ignored);
    if let Ok(source) = &source {
        notes = source.outline().notes().to_vec();
        config.clone_from(source.outline().config());
    }
    let needs = without_problems(&family, &config, preprocessor.as_ref());
    if problems.is_empty() {
        notes.extend(needs.iter().flat_map(|needs| needs.notes.clone()));
    }
    let needs = needs.map(|needs| (family, needs));
    let weights = match source {
        Ok(source) => weights(&source, needs)?,
        Err(Error::Config { .. } | Error::Json { .. }) if !problems.is_empty() => {
            Weights::Absent { reason: "the configuration has to be understood first".to_owned() }
        }
        Err(error) => Weights::Absent { reason: error.to_string() },
    };
    let fits = !matches!(&weights, Weights::Here { problems, .. } if !problems.is_empty());
    Ok(Examination {
        supported: problems.is_empty() && fits,
        model_type,
        architectures,
        problems,
        closest,
        weights,
        notes,
        config,
    })
}

/// Each thing that a family has against a configuration.
fn lines(error: &arch::Error) -> Vec<String> {
    match error {
        arch::Error::MissingKeys { keys, .. } => keys.iter().map(|key| format!("`{key}` is absent")).collect(),
        arch::Error::UnsupportedConfig { problems, .. } => problems.iter().map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    }
}

/// The family that has the least against the configuration, and what it has.
fn nearest(config: &Map<String, Value>, preprocessor: Option<&Value>) -> (&'static str, Vec<String>) {
    let judged = arch::families().map(|name| {
        let (lacks, problems) = match arch::parse(name, config, preprocessor) {
            Ok(_) => (false, Vec::new()),
            Err(error) => (matches!(error, arch::Error::MissingKeys { .. }), lines(&error)),
        };
        // A family that asks for keys that are not there is most likely another kind of model.
        (lacks, problems.len(), name, problems)
    });
    let best = judged.min_by_key(|(lacks, count, ..)| (*lacks, *count));
    best.map_or(("", Vec::new()), |(_, _, name, problems)| (name, problems))
}

/// What the family would need without the keys that it refuses, to tell at least about tensors.
fn without_problems(family: &str, config: &Map<String, Value>, preprocessor: Option<&Value>) -> Option<Needs> {
    let mut config = config.clone();
    // Refusals can hide others; a few rounds find them all, or there is no end to them.
    for _ in 0..4 {
        match Needs::of(family, &config, preprocessor) {
            Ok(needs) => return Some(needs),
            Err(arch::Error::UnsupportedConfig { problems, .. }) => {
                problems.iter().for_each(|problem| remove(&mut config, &problem.key));
            }
            Err(_) => return None,
        }
    }
    None
}

/// Removes a key of a nested configuration, dots between levels.
fn remove(config: &mut Map<String, Value>, key: &str) {
    match key.split_once('.') {
        None => drop(config.remove(key)),
        Some((outer, inner)) => {
            if let Some(Value::Object(nested)) = config.get_mut(outer) {
                remove(nested, inner);
            }
        }
    }
}

fn weights(source: &Source, needs: Option<(String, Needs)>) -> Result<Weights> {
    let described = |(_, view): (usize, super::safetensors::TensorView<'_>)| {
        (view.name.to_owned(), format!("{} {:?}", view.dtype_name, view.shape))
    };
    let mut problems = Vec::new();
    if let Some((_, needs)) = &needs {
        let mut selection = Selection::new(needs, source.outline());
        source.shards().iter().for_each(|shard| drop(selection.file(shard)));
        match selection.finish(source.outline()) {
            Ok(_) => {}
            Err(Error::Tensors { problems: found, .. }) => {
                problems.extend(found.to_string().lines().map(|line| line.trim_start().to_owned()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Weights::Here {
        files: source.shards().len(),
        tensors: source.tensors().map(described).collect(),
        bytes: source.tensors().map(|(_, view)| view.bytes.len() as u64).sum(),
        compared_with: needs.map(|(family, _)| family),
        problems,
    })
}

impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.supported { "" } else { " (not supported)" };
        let name = if self.model_type.is_empty() { "unknown" } else { &self.model_type };
        writeln!(f, "family     {name}{verdict}")?;
        if !self.architectures.is_empty() {
            writeln!(f, "published  as {}", self.architectures.join(", "))?;
        }
        match &self.weights {
            Weights::Absent { reason } => writeln!(f, "tensors    not looked at: {reason}")?,
            Weights::Here { files, tensors, bytes, .. } => {
                writeln!(f, "tensors    {}, {}, files {files}", tensors.len(), Size(*bytes))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note       {note}"))?;
        self.explain(f)?;
        writeln!(f, "\nconfiguration")?;
        for (key, value) in &self.config {
            let value = value.to_string();
            let shown: String = value.chars().take(100).collect();
            writeln!(f, "  {key} = {shown}{}", if shown.len() < value.len() { " …" } else { "" })?;
        }
        if let Weights::Here { tensors, .. } = &self.weights {
            writeln!(f, "\ntensors")?;
            tensors.iter().try_for_each(|(name, what)| writeln!(f, "  {what:<24} {name}"))?;
        }
        Ok(())
    }
}

impl Examination {
    /// All that is in the way, and what to do about it.
    fn explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.supported {
            return Ok(());
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nnot supported in the configuration")?;
            list(f, &self.problems)?;
        }
        if let Some(Closest { family, problems }) = &self.closest {
            match problems.is_empty() {
                true => {
                    writeln!(f, "\nthe configuration is one that `{family}` understands: perhaps it is the same model")?
                }
                false => {
                    writeln!(f, "\nthe family most alike is `{family}`, which does not understand")?;
                    list(f, problems)?;
                }
            }
        }
        if let Weights::Here { compared_with: Some(family), problems, .. } = &self.weights {
            match problems.is_empty() {
                true => writeln!(f, "\nthe tensors are those of `{family}`")?,
                false => {
                    writeln!(f, "\ntensors that differ from those of `{family}`")?;
                    list(f, problems)?;
                }
            }
        }
        writeln!(f, "\nhow to add support: {HOW_TO}")
    }
}

fn list(f: &mut fmt::Formatter<'_>, lines: &[String]) -> fmt::Result {
    lines.iter().take(MOST_LINES).try_for_each(|line| writeln!(f, "  - {line}"))?;
    match lines.len().saturating_sub(MOST_LINES) {
        0 => Ok(()),
        more => writeln!(f, "  - and {more} more"),
    }
}

#[cfg(test)]
mod published;
#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::super::fixture::golden;
    use super::super::safetensors::Element;
    use super::super::{fixture, json};
    use super::*;

    /// The text up to the configuration, of a golden with other keys.
    #[track_caller]
    fn check(name: &str, changes: &[(&str, Value)], with_weights: bool, expected: Expect) {
        let directory = tempfile::tempdir().unwrap();
        let mut config = json::read_object(&golden(name).join("config.json")).unwrap();
        config.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        config.retain(|_, value| !value.is_null());
        std::fs::write(directory.path().join("config.json"), Value::Object(config).to_string()).unwrap();
        if with_weights {
            std::fs::copy(golden(name).join("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
        }
        let preprocessor = golden(name).join("preprocessor_config.json");
        if preprocessor.is_file() {
            std::fs::copy(preprocessor, directory.path().join("preprocessor_config.json")).unwrap();
        }
        let text = examine(directory.path(), &IgnoredKeys::default()).unwrap().to_string();
        let text = text.replace(&directory.path().display().to_string(), "DIR");
        expected.assert_eq(text.split("\nconfiguration\n").next().unwrap());
    }

    #[test]
    fn supported() {
        check(
            "qwen2",
            &[],
            true,
            expect![[r#"
            family     qwen2
            published  as Qwen2ForCausalLM
            tensors    38, 467.2 KiB, files 1
        "#]],
        );
        check(
            "qwen2",
            &[],
            false,
            expect![[r#"
            family     qwen2
            published  as Qwen2ForCausalLM
            tensors    not looked at: DIR is not a checkpoint: it has neither model.safetensors nor model.safetensors.index.json; download the weights
        "#]],
        );
        let whole = examine(&golden("qwen2_untied_sharded"), &IgnoredKeys::default()).unwrap();
        assert!(whole.supported && matches!(whole.weights, Weights::Here { files: 2, .. }));
    }

    #[test]
    fn keys_and_values() {
        let scaling = json!({ "rope_type": "yarn", "factor": 4.0 });
        let changes = [("rope_parameters", scaling), ("partial_rotary_factor", json!(0.5))];
        check(
            "llama",
            &changes,
            true,
            expect![[r#"
                family     llama (not supported)
                published  as LlamaForCausalLM
                tensors    30, 461.8 KiB, files 1

                not supported in the configuration
                  - `partial_rotary_factor` is 0.5: expected 1: heads are rotated whole
                  - `rope_scaling.rope_type` is "yarn": expected default, linear, llama3

                the tensors are those of `llama`

                how to add support: compiler/src/arch/README.md
            "#]],
        );
        check(
            "llama",
            &[("hidden_size", Value::Null)],
            true,
            expect![[r#"
            family     llama (not supported)
            published  as LlamaForCausalLM
            tensors    30, 461.8 KiB, files 1

            not supported in the configuration
              - `hidden_size` is absent

            how to add support: compiler/src/arch/README.md
        "#]],
        );
        check(
            "llama",
            &[("dtype", json!("bfloat16")), ("torch_dtype", json!("float16"))],
            true,
            expect![[r#"
                family     llama
                published  as LlamaForCausalLM
                tensors    30, 461.8 KiB, files 1
            "#]],
        );
        check(
            "llama",
            &[("model_type", Value::Null)],
            true,
            expect![[r#"
                family     unknown (not supported)
                published  as LlamaForCausalLM
                tensors    not looked at: the configuration has to be understood first

                not supported in the configuration
                  - `model_type`, which names the family, is absent

                how to add support: compiler/src/arch/README.md
            "#]],
        );
    }

    #[test]
    fn unknown_families() {
        check(
            "qwen2",
            &[("model_type", json!("qwen9")), ("new_key", json!(3))],
            true,
            expect![[r#"
                family     qwen9 (not supported)
                published  as Qwen2ForCausalLM
                tensors    38, 467.2 KiB, files 1

                not supported in the configuration
                  - model_type `qwen9`: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3

                the configuration is one that `qwen2` understands: perhaps it is the same model

                the tensors are those of `qwen2`

                how to add support: compiler/src/arch/README.md
            "#]],
        );
        check(
            "llama",
            &[("model_type", json!("smollm9"))],
            false,
            expect![[r#"
            family     smollm9 (not supported)
            published  as LlamaForCausalLM
            tensors    not looked at: DIR is not a checkpoint: it has neither model.safetensors nor model.safetensors.index.json; download the weights

            not supported in the configuration
              - model_type `smollm9`: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3

            the configuration is one that `llama` understands: perhaps it is the same model

            how to add support: compiler/src/arch/README.md
        "#]],
        );
        check(
            "llava_onevision",
            &[("model_type", json!("llava_next"))],
            false,
            expect![[r#"
                family     llava_next (not supported)
                published  as LlavaOnevisionForConditionalGeneration
                tensors    not looked at: DIR is not a checkpoint: it has neither model.safetensors nor model.safetensors.index.json; download the weights

                not supported in the configuration
                  - model_type `llava_next`: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3

                the configuration is one that `llava_onevision` understands: perhaps it is the same model

                how to add support: compiler/src/arch/README.md
            "#]],
        );
    }

    #[test]
    fn other_tensors() {
        check(
            "llama",
            &[("num_hidden_layers", json!(1))],
            true,
            expect![[r#"
            family     llama (not supported)
            published  as LlamaForCausalLM
            tensors    30, 461.8 KiB, files 1

            tensors that differ from those of `llama`
              - not expected model.layers.1.input_layernorm.weight [64]
              - not expected model.layers.1.mlp.down_proj.weight [64, 112]
              - not expected model.layers.1.mlp.gate_proj.weight [112, 64]
              - not expected model.layers.1.mlp.up_proj.weight [112, 64]
              - not expected model.layers.1.post_attention_layernorm.weight [64]
              - not expected model.layers.1.self_attn.k_proj.weight [32, 64]
              - not expected model.layers.1.self_attn.o_proj.weight [64, 64]
              - not expected model.layers.1.self_attn.q_proj.weight [64, 64]
              - not expected model.layers.1.self_attn.v_proj.weight [32, 64]
              - not expected model.layers.2.input_layernorm.weight [64]
              - not expected model.layers.2.mlp.down_proj.weight [64, 112]
              - not expected model.layers.2.mlp.gate_proj.weight [112, 64]
              - not expected model.layers.2.mlp.up_proj.weight [112, 64]
              - not expected model.layers.2.post_attention_layernorm.weight [64]
              - not expected model.layers.2.self_attn.k_proj.weight [32, 64]
              - not expected model.layers.2.self_attn.o_proj.weight [64, 64]
              - not expected model.layers.2.self_attn.q_proj.weight [64, 64]
              - not expected model.layers.2.self_attn.v_proj.weight [32, 64]

            how to add support: compiler/src/arch/README.md
        "#]],
        );
        let names: Vec<String> = (0..40).map(|index| format!("model.layers.{index}.new.weight")).collect();
        let tensors: Vec<_> = names.iter().map(|n| (n.as_str(), Element::F32, &[2][..], vec![0.0; 2])).collect();
        let config = json::read_object(&golden("llama").join("config.json")).unwrap();
        let directory = fixture::checkpoint(&Value::Object(config), &tensors);
        let text = examine(directory.path(), &IgnoredKeys::default()).unwrap().to_string();
        assert!(text.contains("  - and "), "{text}");
    }

    #[test]
    fn without_a_configuration() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(examine(directory.path(), &IgnoredKeys::default()), Err(Error::Io { .. })));
        std::fs::write(directory.path().join("config.json"), "[]").unwrap();
        assert!(matches!(examine(directory.path(), &IgnoredKeys::default()), Err(Error::Json { .. })));
    }
}
