//! Tensor names: every spelling that is published, to the one of transformers 4.
//!
//! Text models are spelled alike by all versions. For LLaVA's family there are three spellings:
//!
//! | transformers 4 (the hub's files) | `save_pretrained` of 4.52 and later | of 5 |
//! |---|---|---|
//! | `language_model.model.layers.…` | `model.language_model.layers.…` | as 4 |
//! | `language_model.lm_head.weight` | `lm_head.weight` | as 4 |
//! | `multi_modal_projector.…` | `model.multi_modal_projector.…` | as 4 |
//! | `vision_tower.vision_model.…` | `model.vision_tower.vision_model.…` | `vision_tower.…` |
//! | `image_newline` | `model.image_newline` | as 4 |

use std::borrow::Cow;

/// Beginnings of newer names, and what they become; none of them begins with another.
const PREFIXES: [(&str, &str); 5] = [
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
];

/// The name in transformers 4 of a tensor that a checkpoint calls `name`; `multimodal` tells whether the language model
/// is a part of a larger one (the configuration has a `text_config`).
pub fn canonical(name: &str, multimodal: bool) -> Cow<'_, str> {
    if !multimodal {
        return Cow::Borrowed(name);
    }
    let renamed = PREFIXES.iter().find_map(|(new, old)| Some(format!("{old}{}", name.strip_prefix(new)?)));
    let name = renamed.map_or(Cow::Borrowed(name), Cow::Owned);
    match name.strip_prefix("vision_tower.") {
        Some(rest) if !rest.starts_with("vision_model.") => Cow::Owned(format!("vision_tower.vision_model.{rest}")),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn spellings() {
        let table = [
            ("model.language_model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
            ("model.language_model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
            ("lm_head.weight", "language_model.lm_head.weight"),
            ("model.vision_tower.vision_model.post_layernorm.bias", "vision_tower.vision_model.post_layernorm.bias"),
            ("model.vision_tower.post_layernorm.bias", "vision_tower.vision_model.post_layernorm.bias"),
            ("vision_tower.post_layernorm.bias", "vision_tower.vision_model.post_layernorm.bias"),
            ("model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"),
            ("model.image_newline", "image_newline"),
        ];
        for (new, old) in table {
            assert_eq!(canonical(new, true), old);
            assert_eq!(canonical(old, true), old, "stable");
        }
        for name in ["model.layers.0.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight"] {
            assert_eq!(canonical(name, false), name);
        }
    }

    /// The names that transformers 5 saves, and those of the same tensors in checkpoints of transformers 4.
    #[test]
    fn golden_names() {
        for family in ["llava_1_5", "llava_onevision"] {
            let path = format!("{}/../tests/golden/{family}/names_v4.json", env!("CARGO_MANIFEST_DIR"));
            let names: BTreeMap<String, String> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            assert!(names.len() > 60);
            for (new, old) in names {
                assert_eq!(canonical(&new, true), old);
                assert_eq!(canonical(&old, true), old);
            }
        }
    }
}
