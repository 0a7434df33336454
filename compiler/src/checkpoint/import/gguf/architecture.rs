//! Architectures of llama.cpp: which family each is, and what its converter changes (`convert_hf_to_gguf.py`).

/// An architecture: `general.architecture`.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// llama.cpp's name, which also begins its metadata keys.
    pub name: &'static str,
    /// `model_type` in transformers.
    pub family: &'static str,
    /// Norms hold 1 + weight.
    pub norms_plus_one: bool,
    /// Rows of queries and keys lie in pairs that rotate together.
    pub paired_rows: bool,
    /// Layers have four norms.
    pub four_norms: bool,
    /// Gate and up are one matrix, queries, keys and values another.
    pub packed: bool,
}

const PLAIN: Architecture =
    Architecture { name: "", family: "", norms_plus_one: false, paired_rows: false, four_norms: false, packed: false };

const ALL: [Architecture; 7] = [
    Architecture { name: "gemma", family: "gemma", norms_plus_one: true, ..PLAIN },
    Architecture { name: "gemma2", family: "gemma2", norms_plus_one: true, four_norms: true, ..PLAIN },
    Architecture { name: "gemma3", family: "gemma3_text", norms_plus_one: true, four_norms: true, ..PLAIN },
    // Mistral's too: its windows are told by a key that Llama does not have.
    Architecture { name: "llama", family: "llama", paired_rows: true, ..PLAIN },
    Architecture { name: "phi3", family: "phi3", packed: true, ..PLAIN },
    Architecture { name: "qwen2", family: "qwen2", ..PLAIN },
    Architecture { name: "qwen3", family: "qwen3", ..PLAIN },
];

impl Architecture {
    /// The architecture of this name.
    pub fn of(name: &str) -> Option<&'static Architecture> {
        ALL.iter().find(|architecture| architecture.name == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        ALL.map(|architecture| architecture.name).join(", ")
    }
}

/// Where a row of queries or keys lies in a file with paired rows: row `j * half + i` of a head, which rotates with the other row of
/// the same `i`, lies at `2 i + j` (`LlamaModel.permute`).
pub fn paired_row(row: usize, head_dim: usize) -> usize {
    let (head, at, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + 2 * (at % half) + at / half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_pair_lie_side_by_side() {
        let places: Vec<_> = (0..12).map(|row| paired_row(row, 6)).collect();
        assert_eq!(places, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
