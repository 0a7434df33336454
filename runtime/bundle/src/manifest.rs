//! `bundle.json`: what is in a bundle and how its models work together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::memory::{Memory, MemoryPlan, Residency};
use crate::plan::Plan;
use crate::variant::Variant;

/// Version of everything in this crate; a reader refuses any other.
pub const FORMAT_VERSION: u32 = 4;

/// The name of the manifest's entry, always the last of the file.
pub const MANIFEST_ENTRY: &str = "bundle.json";

/// The contents of `bundle.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// What the plans in `models` were compiled for.
    pub target: Target,
    /// The models, each with its plan for `target`.
    pub models: Vec<Model>,
    /// How they work together; absent for a single model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Ensemble>,
    /// What running the bundle takes of memory.
    pub memory: MemoryPlan,
    /// The same models for other targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Variant>,
    /// Every other entry of the file: size and hash.
    pub entries: BTreeMap<String, Entry>,
}

/// What a bundle's plans need of the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `vulkan`, `metal`, `cpu`.
    pub name: String,
    /// Limits the plans were made within, by WebGPU's names (`max_storage_buffer_binding_size`, …): the least that
    /// a device has to offer, computed from the plans themselves.
    pub needs: BTreeMap<String, u64>,
    /// Optional device features that kernels use, by WebGPU's names.
    pub features: Vec<String>,
}

/// Size and hash of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Uncompressed, and stored so.
    pub bytes: u64,
    /// BLAKE3 of the contents, in hexadecimal.
    pub blake3: String,
}

/// One model of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Unique in the bundle: the directory's name, for people and for `--model`.
    pub name: String,
    /// What it was made from, for people: family, scheme, method, bits per weight.
    pub about: BTreeMap<String, String>,
    /// Positions that the KV cache holds.
    pub context: u32,
    /// Columns of the logits.
    pub vocab_size: u32,
    /// Length of an embedding.
    pub hidden_size: u32,
    /// What [`Plan::memory`] gives, which is checked when the bundle is opened.
    pub memory: Memory,
    /// How text becomes tokens; absent where the checkpoint had no tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// How pictures become rows; absent for text models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInput>,
    /// Defaults for sampling, from the checkpoint's `generation_config.json`.
    pub sampling: SamplingDefaults,
    /// What the runtime executes.
    pub plan: Plan,
}

/// How text becomes tokens and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Entry with the contents of `tokenizer.json`.
    pub tokenizer: String,
    /// Entry with the Jinja chat template, where the checkpoint has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Texts of special tokens that templates refer to: `bos_token`, `eos_token`, `pad_token`, `unk_token`.
    pub special_tokens: BTreeMap<String, String>,
    /// Token that `--raw` prompts begin with, where the tokenizer itself adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<u32>,
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
}

/// Sampling defaults of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingDefaults {
    /// `None`: greedy, unless the user asks for a temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Least probability mass kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Number of tokens kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Least probability relative to the likeliest token's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Penalty for tokens that occurred; 1 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
}

/// How a picture becomes tiles of pixels, and encoded tiles become rows between the embeddings.
///
/// `encode_image` runs once a tile: input `pixels` `[3, tile.height * tile.width]`, and leaves
/// `tile.rows * tile.columns` rows in the state `image_rows`, at row `call.tile` times that number. Where
/// `newline` is set, it also leaves the newline embedding at that row. `prefill` and `score` take, for each
/// token, four rows and weights (`image_index` `[rows, 4]` i32, `image_weight` `[rows, 4]` f32): an index of -1 in
/// the first place means that the token's own embedding is used, else the weighted sum of these rows replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInput {
    /// Token that stands for one image row.
    pub token: u32,
    /// Its text, which a chat template emits once a picture.
    pub placeholder: String,
    /// The input of the vision tower.
    pub tile: Tile,
    /// How a picture is cut into tiles.
    pub tiling: Tiling,
    /// Rows that the state `image_rows` holds, newline included.
    pub max_image_rows: u32,
    /// Row of the state `image_rows` with the newline embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newline: Option<u32>,
}

/// One input of the vision tower and the grid of features it becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tile {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Rows of the feature grid.
    pub rows: u32,
    /// Columns of the feature grid.
    pub columns: u32,
    /// Multiplies bytes before normalisation, mostly 1/255.
    pub rescale: f32,
    /// Subtracted, by channel.
    pub mean: [f32; 3],
    /// Divides, by channel.
    pub std: [f32; 3],
    /// How pictures are resized.
    pub resample: Resample,
}

/// A resampling filter, always with antialiasing when shrinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// Nearest neighbour.
    Nearest,
    /// Lanczos with three lobes.
    Lanczos3,
    /// Linear in both directions.
    Bilinear,
    /// Cubic with a = -0.5, as Pillow's and torchvision's antialiased one.
    Bicubic,
}

/// How a picture is cut into tiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tiling {
    /// One tile: the shorter edge is resized to `shortest_edge`, then the centre is cut out.
    CenterCrop {
        /// Pixels.
        shortest_edge: u32,
    },
    /// One tile: the whole picture is resized to the tile, whatever its aspect ratio.
    Stretch,
    /// The stretched picture as a base tile, then a grid of tiles chosen by aspect ratio; unpadded features with a
    /// newline after each row of the grid (LLaVA-NeXT, LLaVA-OneVision).
    AnyRes {
        /// Sizes the grid may have, as `[height, width]` in pixels.
        pinpoints: Vec<[u32; 2]>,
        /// Grids of more features than this many tiles' worth are scaled down (`anyres_max_N`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tiles: Option<u32>,
        /// Where it is set, a picture that is one of several in a conversation is one tile and a newline: centred in
        /// a square of this color, which is resized to the tile. Else each picture has its grid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        among_others: Option<[u8; 3]>,
    },
}

/// How two models work together: one describes each picture, the other talks about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// Name of the model that describes pictures.
    pub describe: String,
    /// Name of the model that chats.
    pub chat: String,
    /// What the describing model is asked, once a picture.
    pub describe_prompt: String,
    /// Jinja template of the chat model's user turn, given `descriptions` (a list of strings) and `message`.
    pub handover: String,
    /// What of the models is in memory at a time.
    pub residency: Residency,
}
