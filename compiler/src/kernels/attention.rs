//! Softmax attention: many query rows (`attention.wgsl`), one row split over the sequence (`attention_split.wgsl`), and the
//! merge of the splits (`attention_merge.wgsl`).

use dwindle_bundle::{Access, Extent};
use dwindle_schemes::FloatType;

use super::prelude::{
    ELEMENT_LANES, Prelude, check_finite, check_nonzero, check_state, name_float, name_rows, rows_per, soft_cap_text,
};
use super::spec::{AttentionMergeSpec, AttentionSpec, View};
use super::{Emitted, Error};
use crate::graph::Dim;

/// Lanes of a workgroup.
const LANES: usize = 64;
/// Query rows whose results a lane of `attention.wgsl` holds: as many sums as it spells out.
const LANE_ROWS: usize = 16;
/// Query heads that a workgroup of `attention_split.wgsl` serves: components of its vectors.
const SPLIT_HEADS: usize = 4;
/// Most positions a split may have: their scores lie in workgroup memory.
const MAX_SPLIT: usize = 256;
/// Widest head: a lane holds one vec4 of a head's columns.
const MAX_HEAD_DIM: usize = 4 * LANES;

/// The kernel of an attention.
pub(super) fn emit(spec: &AttentionSpec) -> Result<Emitted, Error> {
    check(spec)?;
    let attention = &spec.attention;
    let mut prelude = Prelude::new(spec.rows);
    let group = attention.n_heads / attention.n_kv_heads;
    prelude.constant("LANES", LANES).constant("HEADS", attention.n_heads).constant("GROUP", group);
    prelude.constant("HEAD_DIM", attention.head_dim).constant("COLUMNS", attention.head_dim.div_ceil(4));
    prelude.constant("KV_ROWS", spec.kv_rows).float("SCALE", attention.scale);
    load_text(&mut prelude, "q", FloatType::F32, spec.q, attention.head_dim);
    load_text(&mut prelude, "k", spec.kv_type, spec.k, attention.head_dim);
    load_text(&mut prelude, "v", spec.kv_type, spec.v, attention.head_dim);
    prelude.bind("y", Access::ReadWrite, "f32");
    prelude.push(soft_cap_text(attention.soft_cap)).push(range_text(spec));
    match spec.split {
        None => Ok(tiles(prelude, spec, group)),
        Some(split) => Ok(one_row(prelude, spec, group, split)),
    }
}

fn check(spec: &AttentionSpec) -> Result<(), Error> {
    let attention = &spec.attention;
    let unsupported = |what: String, advice| Err(Error::Unsupported { kernel: "attention", what, advice });
    check_nonzero(
        "attention",
        &[
            ("n_heads", attention.n_heads),
            ("n_kv_heads", attention.n_kv_heads),
            ("head_dim", attention.head_dim),
            ("kv_rows", spec.kv_rows),
            ("window", attention.window.unwrap_or(1)),
            ("split", spec.split.unwrap_or(1)),
        ],
    )?;
    check_finite("attention", "scale", attention.scale)?;
    check_finite("attention", "soft_cap", attention.soft_cap.unwrap_or_default())?;
    if !attention.n_heads.is_multiple_of(attention.n_kv_heads) {
        let what = format!("{} query heads over {} key heads", attention.n_heads, attention.n_kv_heads);
        return unsupported(what, "each key head serves the same number of query heads");
    }
    if attention.head_dim > MAX_HEAD_DIM {
        return unsupported(format!("head_dim {}", attention.head_dim), "heads are at most 256 wide");
    }
    for columns in [attention.head_dim, spec.k.stride, spec.k.offset, spec.v.stride, spec.v.offset] {
        check_state("attention", spec.kv_type, columns)?;
    }
    match spec.split {
        Some(_) if spec.rows != Dim::Fixed(1) || !attention.causal => {
            unsupported("a split over the sequence".to_owned(), "only causal attention of one row is split")
        }
        Some(split) if split > MAX_SPLIT => {
            unsupported(format!("splits of {split} positions"), "their scores must fit workgroup memory: at most 256")
        }
        _ => Ok(()),
    }
}

/// Binds `name` and declares `<name>4(row, head, column)`: four elements of a head, the `column`th vec4 of it; zero beyond
/// the head.
fn load_text(prelude: &mut Prelude, name: &str, float: FloatType, view: View, head_dim: usize) {
    let aligned = [head_dim, view.stride, view.offset].iter().all(|n| n.is_multiple_of(4));
    let (element, load) = match (float, aligned) {
        (FloatType::F32, true) => ("vec4<f32>", format!("return {name}[start / 4u];")),
        (FloatType::F32, false) => {
            let mut load = "var four = vec4<f32>();\n".to_owned();
            for i in 0..4 {
                load += &format!("    if (4u * column + {i}u < HEAD_DIM) {{ four[{i}] = {name}[start + {i}u]; }}\n");
            }
            ("f32", load + "    return four;")
        }
        (_, true) => (
            "vec2<u32>",
            format!(
                "let words = {name}[start / 4u];\n    \
                 return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));"
            ),
        ),
        (_, false) => (
            "u32",
            format!(
                "let low = unpack2x16float({name}[start / 2u]);\n    var high = vec2<f32>();\n    \
                 if (4u * column + 2u < HEAD_DIM) {{ high = unpack2x16float({name}[start / 2u + 1u]); }}\n    \
                 return vec4<f32>(low, high);"
            ),
        ),
    };
    prelude.bind(name, Access::ReadWrite, element);
    prelude.push(format_args!(
        "fn {name}4(row: u32, head: u32, column: u32) -> vec4<f32> {{\n    \
         let start = row * {}u + {}u + head * HEAD_DIM + 4u * column;\n    {load}\n}}",
        view.stride, view.offset
    ));
}

/// `keys_begin(t)` and `keys_end(t)`: the range of positions that query row t sees.
fn range_text(spec: &AttentionSpec) -> String {
    let attention = &spec.attention;
    let end = if attention.causal { "min(call.position + t + 1u, KV_ROWS)" } else { "KV_ROWS" };
    let begin = match attention.window {
        Some(window) => format!("max(keys_end(t), {window}u) - {window}u"),
        None => "0u".to_owned(),
    };
    format!("fn keys_begin(t: u32) -> u32 {{ return {begin}; }}\nfn keys_end(t: u32) -> u32 {{ return {end}; }}")
}

fn tiles(mut prelude: Prelude, spec: &AttentionSpec, group: usize) -> Emitted {
    let attention = &spec.attention;
    let lane_groups = (LANES / attention.head_dim.div_ceil(4)).clamp(1, 4);
    let tile_rows = LANE_ROWS * lane_groups;
    let tile_heads = group.min(tile_rows);
    let tile_tokens = tile_rows / tile_heads;
    let head_parts = group.div_ceil(tile_heads);
    prelude.constant("LANE_ROWS", LANE_ROWS).constant("TILE_ROWS", tile_rows);
    prelude.constant("TILE_KEYS", if tile_rows <= 48 { 64 } else { 32 });
    prelude.constant("TILE_HEADS", tile_heads).constant("TILE_TOKENS", tile_tokens);
    prelude.constant("HEAD_PARTS", head_parts);
    let grid =
        [rows_per(spec.rows, tile_tokens), Extent::Fixed((attention.n_kv_heads * head_parts) as u32), Extent::Fixed(1)];
    prelude.finish(name("attention", spec), include_str!("attention.wgsl"), LANES as u32, grid)
}

fn one_row(mut prelude: Prelude, spec: &AttentionSpec, group: usize, split: usize) -> Emitted {
    let attention = &spec.attention;
    let head_parts = group.div_ceil(SPLIT_HEADS);
    prelude.constant("SPLIT", split).constant("SPLITS", spec.kv_rows.div_ceil(split));
    prelude.constant("LANE_GROUPS", LANES / attention.head_dim.div_ceil(4)).constant("HEAD_PARTS", head_parts);
    let grid =
        [Extent::LengthPer(split as u32), Extent::Fixed((attention.n_kv_heads * head_parts) as u32), Extent::Fixed(1)];
    let name = format!("{}.split{split}", name("attention_split", spec));
    prelude.finish(name, include_str!("attention_split.wgsl"), LANES as u32, grid)
}

fn name(kind: &str, spec: &AttentionSpec) -> String {
    let attention = &spec.attention;
    let mut name = format!(
        "{kind}.{}.heads{}+{}x{}.scale{}",
        spec.kv_type,
        attention.n_heads,
        attention.n_kv_heads,
        attention.head_dim,
        name_float(attention.scale)
    );
    if let Some(cap) = attention.soft_cap {
        name += &format!(".cap{}", name_float(cap));
    }
    if let Some(window) = attention.window {
        name += &format!(".window{window}");
    }
    if attention.causal {
        name += ".causal";
    }
    for (letter, view) in [("q", spec.q), ("k", spec.k), ("v", spec.v)] {
        name += &format!(".{letter}{}+{}", view.stride, view.offset);
    }
    name + &format!(".of{}{}", spec.kv_rows, name_rows(spec.rows))
}

/// The kernel that merges split attention.
pub(super) fn emit_merge(spec: &AttentionMergeSpec) -> Result<Emitted, Error> {
    let AttentionMergeSpec { rows, n_heads, head_dim, split, max_splits } = *spec;
    check_nonzero(
        "attention_merge",
        &[("n_heads", n_heads), ("head_dim", head_dim), ("split", split), ("max_splits", max_splits)],
    )?;
    let mut prelude = Prelude::new(rows);
    prelude.constant("HEADS", n_heads).constant("HEAD_DIM", head_dim);
    prelude.constant("SPLIT", split).constant("SPLITS", max_splits);
    prelude.bind("partial", Access::ReadWrite, "f32").bind("y", Access::ReadWrite, "f32");
    let name = format!("attention_merge.heads{n_heads}x{head_dim}.split{split}of{max_splits}{}", name_rows(rows));
    let columns = head_dim.div_ceil(ELEMENT_LANES as usize) as u32;
    let grid = [Extent::Fixed(columns), Extent::Fixed(n_heads as u32), rows_per(rows, 1)];
    Ok(prelude.finish(name, include_str!("attention_merge.wgsl"), ELEMENT_LANES, grid))
}
