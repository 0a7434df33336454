//! `preprocessor_config.json`: how a picture becomes tiles of pixels.

use dwindle_bundle::{Resample, Tile, Tiling};
use serde_json::{Map, Value};

use super::keys::{Keys, Problems};

/// Edge of a grid of tiles, in pixels.
const MAX_PINPOINT: u64 = 1 << 14;

/// Sizes of grids.
const MAX_PINPOINTS: usize = 1 << 10;

/// Stands before each key in errors.
const PREFIX: &str = "preprocessor_config.json: ";

/// Keys that say nothing about pixels.
const HARMLESS: &[&str] = &[
    "data_format",
    "default_to_square",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_processor_type",
    "input_data_format",
    "processor_class",
    "return_tensors",
];

/// What an any-resolution processor says.
pub struct AnyRes {
    /// Mean, deviation, factor and filter; a square of `edge` pixels that becomes a grid of `grid` by `grid` features.
    pub tile: Tile,
    /// Sizes of grids as `[height, width]`, where the processor has its own.
    pub pinpoints: Option<Vec<[u32; 2]>>,
    /// What surrounds a picture that is made a square.
    pub background: [u8; 3],
}

/// Reads a processor that stretches each tile to `edge` pixels.
pub fn any_resolution(config: &Map<String, Value>, edge: usize, grid: usize, problems: &mut Problems) -> AnyRes {
    let mut keys = Keys::new(PREFIX, config);
    keys.harmless(&["crop_size"]);
    keys.only("do_pad", &Value::Bool(true));
    keys.only("do_center_crop", &Value::Bool(false));
    square(&mut keys, "size", edge);
    let tile = tile(&mut keys, edge, grid);
    let pinpoints = keys.get("image_grid_pinpoints").is_some().then(|| pinpoints(&mut keys));
    keys.finish(problems);
    AnyRes { tile, pinpoints, background: background(config) }
}

/// Reads CLIP's processor, which shrinks the shorter edge and cuts a square of `edge` pixels out of the centre, or stretches the
/// picture to that square where its size has both sides.
pub fn center_crop(config: &Map<String, Value>, edge: usize, grid: usize, problems: &mut Problems) -> (Tile, Tiling) {
    let mut keys = Keys::new(PREFIX, config);
    // Others of LLaVA's processors make the picture a square before.
    let names = ["CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"];
    let ours = names.map(|name| (name, ()));
    keys.choice("image_processor_type", (), &ours);
    keys.choice("feature_extractor_type", (), &ours);
    keys.only("do_pad", &Value::Bool(false));
    let side = |size: &Value, name: &str| size.get(name).and_then(Value::as_u64);
    let size = keys.get("size");
    // Both sides given: the picture is stretched to them, and there is nothing left to crop.
    let is_square = |size: &Value| ["height", "width"].iter().all(|name| side(size, name) == Some(edge as u64));
    let tiling = if size.is_some_and(is_square) {
        match keys.flag("do_center_crop", true) {
            true => square(&mut keys, "crop_size", edge),
            false => keys.harmless(&["crop_size"]),
        }
        Tiling::Stretch
    } else {
        keys.only("do_center_crop", &Value::Bool(true));
        square(&mut keys, "crop_size", edge);
        let shortest_edge = size.and_then(|size| match size {
            Value::Object(map) if ["height", "width"].iter().all(|name| map.get(*name).is_none_or(Value::is_null)) => {
                side(size, "shortest_edge")
            }
            other => other.as_u64(),
        });
        let shortest_edge = shortest_edge.filter(|n| (edge as u64..=MAX_PINPOINT).contains(n));
        if shortest_edge.is_none() {
            keys.refuse("size", format!("a shortest_edge of {edge}, the tower's image_size, or more"));
        }
        Tiling::CenterCrop { shortest_edge: shortest_edge.unwrap_or(1) as u32 }
    };
    let tile = tile(&mut keys, edge, grid);
    keys.finish(problems);
    (tile, tiling)
}

/// A key for a square of `edge` pixels.
fn square(keys: &mut Keys<'_>, key: &str, edge: usize) {
    let square = |size: &Value| match size {
        Value::Object(map) => ["height", "width", "shortest_edge"]
            .iter()
            .all(|side| map.get(*side).is_none_or(|n| n.is_null() || n.as_u64() == Some(edge as u64))),
        other => other.as_u64() == Some(edge as u64),
    };
    match keys.get(key) {
        None => keys.missing(key),
        Some(size) if !square(size) => keys.refuse(key, format!("the tower's image_size, {edge} by {edge}")),
        Some(_) => {}
    }
}

/// How the pixels of a tile become numbers.
fn tile(keys: &mut Keys<'_>, edge: usize, grid: usize) -> Tile {
    keys.harmless(HARMLESS);
    keys.only("do_resize", &Value::Bool(true));
    let rescale = match keys.flag("do_rescale", true) {
        true => keys.float("rescale_factor", 1.0 / 255.0) as f32,
        false => {
            keys.harmless(&["rescale_factor"]);
            1.0
        }
    };
    let normalize = keys.flag("do_normalize", true);
    let mean = channels(keys, "image_mean", normalize, false).unwrap_or([0.0; 3]);
    let std = channels(keys, "image_std", normalize, true).unwrap_or([1.0; 3]);
    // The codes of `PIL.Image.Resampling`.
    let resample = match keys.get("resample").map(Value::as_u64) {
        None | Some(Some(3)) => Resample::Bicubic,
        Some(Some(0)) => Resample::Nearest,
        Some(Some(1)) => Resample::Lanczos3,
        Some(Some(2)) => Resample::Bilinear,
        Some(_) => {
            keys.refuse("resample", "0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic)");
            Resample::Bicubic
        }
    };
    let (edge, grid) = (edge as u32, grid as u32);
    Tile { width: edge, height: edge, rows: grid, columns: grid, rescale, mean, std, resample }
}

/// The mean color, as transformers computes it for `pad_to_square`: from the processor's own mean, which is CLIP's
/// where it has none, cut off to bytes.
fn background(config: &Map<String, Value>) -> [u8; 3] {
    const CLIP: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
    let mean = config.get("image_mean").and_then(Value::as_array);
    std::array::from_fn(|channel| {
        let value = mean.and_then(|mean| mean.get(channel)?.as_f64()).unwrap_or(CLIP[channel]);
        // Beyond bytes and not numbers at all: the nearest byte, and 0.
        (value * 255.0) as u8
    })
}

/// Three numbers, of which deviations must not be 0; `None` where the processor does not normalise.
fn channels(keys: &mut Keys<'_>, key: &str, normalize: bool, deviation: bool) -> Option<[f32; 3]> {
    let value = keys.get(key);
    if !normalize {
        return None;
    }
    let Some(value) = value else {
        keys.missing(key);
        return None;
    };
    let read = |value: &Value| {
        let numbers: Option<Vec<f32>> = value.as_array()?.iter().map(|n| n.as_f64().map(|n| n as f32)).collect();
        let numbers = <[f32; 3]>::try_from(numbers?).ok()?;
        numbers.iter().all(|n| n.is_finite() && (!deviation || *n > 0.0)).then_some(numbers)
    };
    let numbers = read(value);
    if numbers.is_none() {
        keys.refuse(key, if deviation { "three positive numbers" } else { "three numbers" });
    }
    numbers
}

/// The key `image_grid_pinpoints`, which has to be there: sizes of grids as `[height, width]`.
pub fn pinpoints(keys: &mut Keys<'_>) -> Vec<[u32; 2]> {
    const KEY: &str = "image_grid_pinpoints";
    let Some(value) = keys.get(KEY) else {
        keys.missing(KEY);
        return Vec::new();
    };
    let side = |value: &Value| value.as_u64().filter(|n| (1..=MAX_PINPOINT).contains(n)).map(|n| n as u32);
    let read = |value: &Value| {
        let list = value.as_array().filter(|list| (1..=MAX_PINPOINTS).contains(&list.len()))?;
        let pair = |pair: &Value| match pair.as_array()?.as_slice() {
            [height, width] => Some([side(height)?, side(width)?]),
            _ => None,
        };
        list.iter().map(pair).collect::<Option<Vec<_>>>()
    };
    let pinpoints = read(value);
    if pinpoints.is_none() {
        keys.refuse(KEY, format!("up to {MAX_PINPOINTS} pairs [height, width] of up to {MAX_PINPOINT} pixels"));
    }
    pinpoints.unwrap_or_default()
}
