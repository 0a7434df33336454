//! What a tensor is for, which is what scheme rules choose formats by.

use serde::{Deserialize, Serialize};

/// What a tensor is for. A family assigns it where it names the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Token embedding `[vocab, hidden]`, also the head where they are tied.
    Embedding,
    /// Output head `[vocab, hidden]` of an untied model.
    Head,
    /// A linear layer of the language model `[out, in]`.
    Linear,
    /// The projector from the vision tower into the language model `[out, in]`.
    Projector,
    /// A linear layer of the vision tower `[out, in]`.
    VisionLinear,
    /// The patch embedding of the vision tower, a convolution seen as a matrix `[out, channels * patch * patch]`.
    PatchEmbedding,
    /// Norms, biases, position embeddings, single rows: always stored as floats.
    Vector,
}
