//! LLaVA-OneVision against transformers, from pixels to logits.

use std::collections::BTreeMap;

use dwindle_bundle::{Call, Tiling};
use serde_json::Value;

use super::super::golden::{Expected, Memory, Model, NO_OVERLAY, Overlay, check, config, difference, family};
use super::super::{Family, Function};
use super::TOLERANCE;
use crate::graph::eval::Tensor;

const NAME: &str = "llava_onevision";

/// All that see; those of one tile are tested in `center_crop`.
pub const MODELS: [&str; 2] = [NAME, super::center_crop::NAME];

/// Pictures, and rows and columns of their grids of tiles.
const IMAGES: [(&str, usize, usize); 4] = [("square", 1, 1), ("landscape", 2, 3), ("portrait", 4, 2), ("large", 4, 4)];

/// Runs the tower on all tiles and checks it.
fn encode(model: &mut Model<'_>, expected: &Expected, image: &str) {
    let (shape, pixels) =
        (expected.shape(&format!("{image}.pixel_values")), expected.floats(&format!("{image}.pixel_values")));
    let (tiles, tile) = (shape[0], shape[1] * shape[2] * shape[3]);
    let graph = model.graph(Function::EncodeImage).clone();
    let (mut tower, mut projected) = (Vec::new(), Vec::new());
    for (index, pixels) in pixels.chunks(tile).enumerate() {
        let pixels = Tensor::f32(vec![shape[1], shape[2] * shape[3]], pixels.to_vec());
        let call = Call { rows: 1, position: 0, tile: index as u32 };
        let outputs = model.evaluator.run(&graph, call, &BTreeMap::from([("pixels", pixels)])).unwrap();
        tower.extend_from_slice(outputs.floats("tower.2").unwrap());
        projected.extend_from_slice(outputs.floats("projected").unwrap());
    }
    assert!(tiles > 1);
    check(&format!("{image} tower"), &tower, &expected.floats(&format!("{image}.tower.2")), TOLERANCE);
    check(&format!("{image} projected"), &projected, &expected.floats(&format!("{image}.projected")), TOLERANCE);
}

/// Rows and weights of a picture's tokens, as `tests/golden/README.md` tells: the base tile, then the grid without padding,
/// scaled down if it is large, with a newline after each row.
fn layout(family: &dyn Family, size: (usize, usize), rows: usize, columns: usize) -> Vec<Overlay> {
    let image = family.image().unwrap();
    let Tiling::AnyRes { max_tiles: Some(max_tiles), .. } = image.tiling else { panic!("{:?}", image.tiling) };
    let edge = image.tile.rows as usize;
    let single = |row: usize| ([row as i32, 0, 0, 0], [1.0, 0.0, 0.0, 0.0]);
    let (height, width) = (rows * edge, columns * edge);
    let feature = |y: usize, x: usize| {
        let tile = 1 + y / edge * columns + x / edge;
        (tile * edge * edge + y % edge * edge + x % edge) as i32
    };
    let (mut top, mut left) = (0, 0);
    if size.1 * height > width * size.0 {
        top = (height - size.0 * width / size.1) / 2;
    } else {
        left = (width - size.1 * height / size.0) / 2;
    }
    let (height, width) = (height - 2 * top, width - 2 * left);
    let ratio = ((height * width) as f64 / (max_tiles as usize * edge * edge) as f64).sqrt();
    let scaled = |n: usize| if ratio > 1.1 { (n as f64 / ratio) as usize } else { n };
    let (out_height, out_width) = (scaled(height), scaled(width));
    let source = |at: usize, from: usize, to: usize| {
        let position = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
        let low = position as usize;
        (low, (low + 1).min(from - 1), position - low as f32)
    };
    let mut overlay: Vec<Overlay> = (0..edge * edge).map(single).collect();
    for y in 0..out_height {
        let (y0, y1, down) = source(y, height, out_height);
        for x in 0..out_width {
            let (x0, x1, right) = source(x, width, out_width);
            let at = |y: usize, x: usize| feature(top + y, left + x);
            overlay.push((
                [at(y0, x0), at(y0, x1), at(y1, x0), at(y1, x1)],
                [(1.0 - down) * (1.0 - right), (1.0 - down) * right, down * (1.0 - right), down * right],
            ));
        }
        overlay.push(single(image.newline.unwrap() as usize));
    }
    overlay
}

/// One entry a token: image tokens get rows of the layout in order.
fn overlays(
    family: &dyn Family,
    expected: &Expected,
    image: &str,
    rows: usize,
    columns: usize,
) -> (Vec<u32>, Vec<Overlay>) {
    let tokens = expected.integers(&format!("{image}.input_ids"));
    let size = expected.integers(&format!("{image}.image_sizes"));
    let mut layout = layout(family, (size[0] as usize, size[1] as usize), rows, columns).into_iter();
    let placeholder = family.image().unwrap().token;
    let of = |token: &u32| if *token == placeholder { layout.next().unwrap() } else { NO_OVERLAY };
    let overlays = tokens.iter().map(of).collect();
    assert_eq!(layout.next(), None, "{image}: rows are left");
    (tokens, overlays)
}

#[test]
fn pictures_from_pixels_to_tokens() {
    let (memory, expected) = (Memory::load(NAME), Expected::load(NAME));
    for file in ["config.json", "config_v4.json"] {
        let family = family(NAME, &config(NAME, file)).unwrap();
        let hidden = family.shape().hidden_size;
        for (image, rows, columns) in IMAGES {
            let mut model = Model::new(family.as_ref(), &memory);
            encode(&mut model, &expected, image);
            let (tokens, overlays) = overlays(family.as_ref(), &expected, image, rows, columns);
            let state = model.evaluator.state("image_rows").unwrap().floats().unwrap().to_vec();
            let mut packed = Vec::new();
            for (index, weight) in overlays.iter().filter(|overlay| **overlay != NO_OVERLAY) {
                packed.extend((0..hidden).map(|column| {
                    let term = |j: usize| weight[j] * state[index[j] as usize * hidden + column];
                    (0..4).map(term).sum::<f32>()
                }));
            }
            check(&format!("{image} packed"), &packed, &expected.floats(&format!("{image}.packed")), TOLERANCE);
            let outputs = model.call(Function::Score, &tokens, 0, &overlays);
            for key in ["hidden.0", "hidden.1", "hidden.2", "final_norm", "logits"] {
                let expected_key = format!("{image}.{key}");
                if expected.has(&expected_key) {
                    let found = outputs.floats(key).unwrap();
                    check(&expected_key, found, &expected.floats(&expected_key), TOLERANCE);
                }
            }
            assert!(expected.has(&format!("{image}.logits")));
            assert_eq!(
                model.greedy(&tokens, &overlays, 16),
                expected.integers(&format!("{image}.greedy_ids")),
                "{image}"
            );
        }
    }
}

#[test]
fn wrong_values_are_caught() {
    let (memory, expected) = (Memory::load(NAME), Expected::load(NAME));
    let right = config(NAME, "config.json");
    for (scope, key, value) in [
        ("", "projector_hidden_act", Value::from("quick_gelu")),
        ("", "vision_feature_layer", Value::from(-2)),
        ("vision_config", "layer_norm_eps", Value::from(1e-2)),
        ("vision_config", "hidden_act", Value::from("quick_gelu")),
        ("text_config", "rope_theta", Value::from(5000.0)),
    ] {
        let mut wrong = right.clone();
        let map = if scope.is_empty() { &mut wrong } else { wrong[scope].as_object_mut().unwrap() };
        map.insert(key.to_owned(), value).unwrap_or_else(|| panic!("no {key}"));
        let family = family(NAME, &wrong).unwrap();
        let mut model = Model::new(family.as_ref(), &memory);
        let graph = model.graph(Function::EncodeImage).clone();
        for (index, pixels) in expected.floats("square.pixel_values").chunks(3 * 16 * 16).enumerate() {
            let inputs = BTreeMap::from([("pixels", Tensor::f32(vec![3, 256], pixels.to_vec()))]);
            model.evaluator.run(&graph, Call { rows: 1, position: 0, tile: index as u32 }, &inputs).unwrap();
        }
        let (tokens, overlays) = overlays(family.as_ref(), &expected, "square", 1, 1);
        let outputs = model.call(Function::Score, &tokens, 0, &overlays);
        let difference = difference(outputs.floats("logits").unwrap(), &expected.floats("square.logits"));
        assert!(difference > 10.0 * TOLERANCE, "another {key} changes the logits by {difference:e} only");
    }
}
