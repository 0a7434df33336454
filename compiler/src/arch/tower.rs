//! Vision towers: SigLIP's (Zhai et al. 2023, arXiv 2303.15343; transformers' `modeling_siglip.py`), without its head, and
//! CLIP's (Radford et al. 2021, arXiv 2103.00020; `modeling_clip.py`).
//!
//! Patches of the picture, embedded and with their position added, go through layers of layer norm, full attention and a
//! feed-forward network. The features are what leaves one of the layers. CLIP puts a class token before the patches, has a
//! norm before the first layer, and no bias of the patches' embedding.

use dwindle_schemes::Role;
use serde_json::{Map, Value};

use super::TensorSpec;
use super::keys::{ACTIVATIONS, Keys, Problems};
use super::weights::Weights;
use crate::graph::{Activation, Attention, DType, Type, ValueId};

const MAX_WIDTH: usize = 1 << 16;
const MAX_LAYERS: usize = 1 << 10;
const MAX_IMAGE: usize = 1 << 12;
const MAX_PATCHES: usize = 1 << 16;

/// The family of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Patches alone.
    Siglip,
    /// With a class token and a norm before the layers.
    Clip,
}

/// A tower.
#[derive(Clone, Debug, PartialEq)]
pub struct Tower {
    /// Which one.
    pub kind: Kind,
    /// Stands before all names: `vision_tower.vision_model.`.
    pub prefix: &'static str,
    /// Length of a feature.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers of the checkpoint.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Edge of the picture in pixels.
    pub image_size: usize,
    /// Edge of a patch in pixels.
    pub patch_size: usize,
    /// ε of the norms.
    pub layer_norm_eps: f32,
    /// Of the feed-forward layers.
    pub activation: Activation,
}

impl Tower {
    /// Reads a `vision_config`.
    pub fn read(kind: Kind, prefix: &'static str, config: &Map<String, Value>, problems: &mut Problems) -> Tower {
        let mut keys = Keys::new("vision_config.", config);
        let (model_type, eps, activation) = match kind {
            Kind::Siglip => ("siglip_vision_model", 1e-6, Activation::GeluTanh),
            Kind::Clip => ("clip_vision_model", 1e-5, Activation::QuickGelu),
        };
        keys.only("model_type", &Value::from(model_type));
        keys.only("num_channels", &Value::from(3));
        // Of SigLIP's head and of CLIP's other half; of training.
        keys.harmless(&["vision_use_head", "projection_dim", "vocab_size", "logit_scale_init_value", "dropout"]);
        let tower = Tower {
            kind,
            prefix,
            hidden_size: keys.size("hidden_size", MAX_WIDTH),
            intermediate_size: keys.size("intermediate_size", MAX_WIDTH),
            n_layers: keys.size("num_hidden_layers", MAX_LAYERS),
            n_heads: keys.size("num_attention_heads", 1 << 10),
            image_size: keys.size("image_size", MAX_IMAGE),
            patch_size: keys.size("patch_size", MAX_IMAGE),
            layer_norm_eps: keys.float("layer_norm_eps", eps) as f32,
            activation: keys.choice("hidden_act", activation, ACTIVATIONS),
        };
        if !tower.hidden_size.is_multiple_of(tower.n_heads) {
            keys.refuse("num_attention_heads", format!("a divisor of hidden_size, {}", tower.hidden_size));
        }
        if tower.patch_size > tower.image_size {
            keys.refuse("patch_size", format!("at most image_size, {}", tower.image_size));
        } else if tower.patches() > MAX_PATCHES && keys.is_fine() {
            keys.refuse("patch_size", format!("at most {MAX_PATCHES} patches in a picture, not {}", tower.patches()));
        }
        keys.finish(problems);
        tower
    }

    /// The layers up to the one that `vision_feature_layer` names, of which negative numbers count from the end.
    pub fn layers(&self, keys: &mut Keys<'_>, default: i64) -> usize {
        const KEY: &str = "vision_feature_layer";
        // A list of one layer is that layer; features of several would be concatenated.
        let number = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([only]) => only.as_i64(),
            _ => value.as_i64(),
        };
        let layers = keys.get(KEY).map_or(Some(default), number).and_then(|index| {
            let layers = if index < 0 { (self.n_layers as i64 + 1).checked_add(index)? } else { index };
            usize::try_from(layers).ok().filter(|layers| *layers <= self.n_layers)
        });
        if layers.is_none() {
            keys.refuse(KEY, format!("the number of one of {} layers", self.n_layers));
        }
        layers.unwrap_or(0)
    }

    /// Rows that are no patches: the class token.
    pub const fn class_rows(&self) -> usize {
        match self.kind {
            Kind::Siglip => 0,
            Kind::Clip => 1,
        }
    }

    /// Patches along an edge.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// The tensors that its first `layers` layers need.
    pub fn tensors(&self, layers: usize) -> Vec<TensorSpec> {
        let (hidden, wide, patch) = (self.hidden_size, self.intermediate_size, self.patch_size);
        let mut list = Vec::new();
        let mut add = |name: String, shape: &[usize], role| {
            list.push(TensorSpec { name: format!("{}{name}", self.prefix), shape: shape.to_vec(), role });
        };
        add("embeddings.patch_embedding.weight".into(), &[hidden, 3, patch, patch], Role::PatchEmbedding);
        let positions = self.class_rows() + self.patches();
        add("embeddings.position_embedding.weight".into(), &[positions, hidden], Role::Vector);
        match self.kind {
            Kind::Siglip => add("embeddings.patch_embedding.bias".into(), &[hidden], Role::Vector),
            Kind::Clip => {
                for name in ["embeddings.class_embedding", "pre_layrnorm.weight", "pre_layrnorm.bias"] {
                    add(name.into(), &[hidden], Role::Vector);
                }
            }
        }
        for layer in 0..layers {
            for norm in ["layer_norm1", "layer_norm2"] {
                for part in ["weight", "bias"] {
                    add(format!("encoder.layers.{layer}.{norm}.{part}"), &[hidden], Role::Vector);
                }
            }
            for (name, shape) in [
                ("self_attn.q_proj", [hidden, hidden]),
                ("self_attn.k_proj", [hidden, hidden]),
                ("self_attn.v_proj", [hidden, hidden]),
                ("self_attn.out_proj", [hidden, hidden]),
                ("mlp.fc1", [wide, hidden]),
                ("mlp.fc2", [hidden, wide]),
            ] {
                add(format!("encoder.layers.{layer}.{name}.weight"), &shape, Role::VisionLinear);
                add(format!("encoder.layers.{layer}.{name}.bias"), &shape[..1], Role::Vector);
            }
        }
        list
    }

    /// What only later layers than the first `layers`, or the head, would use.
    pub fn ignored(&self, name: &str, layers: usize) -> bool {
        let Some(name) = name.strip_prefix(self.prefix) else { return false };
        let unused_layer = || {
            let index = name.strip_prefix("encoder.layers.")?.split('.').next()?.parse::<usize>().ok()?;
            Some((layers..self.n_layers).contains(&index))
        };
        name.starts_with("post_layernorm.") || name.starts_with("head.") || unused_layer().unwrap_or(false)
    }

    /// Features `[class rows + patches, hidden]` of the input `pixels` `[3, image_size²]`, after each of the first `layers`
    /// layers; what enters them comes first.
    pub fn features(&self, weights: &mut Weights<'_>, layers: usize) -> Vec<ValueId> {
        let mut all = vec![self.embeddings(weights)];
        for layer in 0..layers {
            let x = self.layer(weights, all[layer], &format!("{}encoder.layers.{layer}", self.prefix));
            all.push(x);
        }
        for (index, &x) in all.iter().enumerate() {
            weights.graph.label(x, format!("tower.{index}"));
        }
        all
    }

    fn embeddings(&self, weights: &mut Weights<'_>) -> ValueId {
        let (prefix, hidden, edge, patch) = (self.prefix, self.hidden_size, self.image_size, self.patch_size);
        let pixels = weights.graph.input("pixels", Type::fixed(DType::F32, &[3, edge * edge]));
        let patches = weights.graph.patchify(pixels, edge, edge, patch);
        let embedding = format!("{prefix}embeddings.patch_embedding");
        let mut x = weights.linear(patches, &embedding, hidden, 3 * patch * patch, self.kind == Kind::Siglip);
        if self.kind == Kind::Clip {
            let class = weights.rows(&format!("{prefix}embeddings.class_embedding"), 1, hidden);
            x = weights.graph.concat_rows(&[class, x]);
        }
        let position = format!("{prefix}embeddings.position_embedding.weight");
        let position = weights.rows(&position, self.class_rows() + self.patches(), hidden);
        let x = weights.graph.add(x, position);
        match self.kind {
            Kind::Siglip => x,
            Kind::Clip => weights.layer_norm(x, &format!("{prefix}pre_layrnorm"), hidden, self.layer_norm_eps),
        }
    }

    fn layer(&self, weights: &mut Weights<'_>, x: ValueId, name: &str) -> ValueId {
        let (hidden, wide) = (self.hidden_size, self.intermediate_size);
        let normed = weights.layer_norm(x, &format!("{name}.layer_norm1"), hidden, self.layer_norm_eps);
        let mut project =
            |projection: &str| weights.linear(normed, &format!("{name}.self_attn.{projection}"), hidden, hidden, true);
        let (q, k, v) = (project("q_proj"), project("k_proj"), project("v_proj"));
        let head_dim = hidden / self.n_heads;
        let attention = Attention {
            n_heads: self.n_heads,
            n_kv_heads: self.n_heads,
            head_dim,
            scale: (head_dim as f64).powf(-0.5) as f32,
            soft_cap: None,
            window: None,
            causal: false,
        };
        let attended = weights.graph.attention(q, k, v, attention);
        let branch = weights.linear(attended, &format!("{name}.self_attn.out_proj"), hidden, hidden, true);
        let x = weights.graph.add(x, branch);
        let normed = weights.layer_norm(x, &format!("{name}.layer_norm2"), hidden, self.layer_norm_eps);
        let y = weights.linear(normed, &format!("{name}.mlp.fc1"), wide, hidden, true);
        let y = weights.graph.activate(y, self.activation);
        let branch = weights.linear(y, &format!("{name}.mlp.fc2"), hidden, wide, true);
        weights.graph.add(x, branch)
    }
}
