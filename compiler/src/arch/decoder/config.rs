//! Keys that the configurations of all decoders have.

use serde_json::Value;

use super::super::Shape;
use super::super::keys::Keys;

/// Greatest sizes that are accepted: beyond all published models, and no product of three overflows.
const MAX_WIDTH: usize = 1 << 17;
const MAX_VOCAB: usize = 1 << 22;
const MAX_POSITIONS: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 10;
const MAX_HEAD_DIM: usize = 1 << 10;

impl Shape {
    /// Reads the sizes. `head_dim` and `positions` are the family's defaults; without the former it is hidden / heads.
    pub fn read(keys: &mut Keys<'_>, head_dim: Option<usize>, positions: usize) -> Shape {
        let hidden_size = keys.size("hidden_size", MAX_WIDTH);
        let n_heads = keys.size("num_attention_heads", MAX_HEADS);
        let n_kv_heads = keys.size("num_key_value_heads", MAX_HEADS);
        if !n_heads.is_multiple_of(n_kv_heads) {
            keys.refuse("num_key_value_heads", format!("a divisor of num_attention_heads, {n_heads}"));
        }
        let given = keys.maybe_size("head_dim", MAX_HEAD_DIM).or(head_dim);
        if given.is_none() && keys.is_fine() && !hidden_size.is_multiple_of(n_heads) {
            keys.refuse("hidden_size", format!("a multiple of num_attention_heads, {n_heads}"));
        }
        let head_dim = given.unwrap_or(hidden_size / n_heads);
        // Where a size is missing or wrong, what was computed from it says nothing.
        if !head_dim.is_multiple_of(2) && keys.is_fine() {
            keys.refuse("head_dim", format!("an even number, not {head_dim}"));
        }
        Shape {
            hidden_size,
            vocab_size: keys.size("vocab_size", MAX_VOCAB),
            intermediate_size: keys.size("intermediate_size", MAX_WIDTH),
            max_position_embeddings: keys.maybe_size("max_position_embeddings", MAX_POSITIONS).unwrap_or(positions),
            n_layers: keys.size("num_hidden_layers", MAX_LAYERS),
            n_heads,
            n_kv_heads,
            head_dim,
        }
    }

    /// The window of a sliding layer, in tokens; `default` where the key is absent.
    pub fn window(keys: &mut Keys<'_>, default: usize) -> usize {
        keys.maybe_size("sliding_window", MAX_POSITIONS).unwrap_or(default)
    }
}

/// Keys that may change the maths of any decoder, with the only values that do not.
pub fn plain(keys: &mut Keys<'_>) {
    keys.only("attention_bias", &Value::Bool(false));
    keys.only("mlp_bias", &Value::Bool(false));
    keys.only("pretraining_tp", &Value::from(1));
    keys.only("rope_scaling", &Value::Null);
    keys.only("use_bidirectional_attention", &Value::Bool(false));
}
