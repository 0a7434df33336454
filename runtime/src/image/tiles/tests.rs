//! Pixels and layouts against what transformers computes for the golden pictures.

use std::path::PathBuf;

use dwindle_bundle::Resample;
use serde_json::Value;

use super::*;

/// Largest difference of a normalised value: less than one level of a byte.
const PIXELS: f32 = 1.0 / 128.0;
const PACKED: f32 = 1e-5;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn picture(path: &str) -> Picture {
    Picture::decode(&std::fs::read(repository(path)).unwrap()).unwrap()
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(repository(path)).unwrap()).unwrap()
}

/// The f32 or i64 tensors of a safetensors file: a length, a header in JSON, the data.
struct Tensors {
    header: Value,
    data: Vec<u8>,
}

impl Tensors {
    fn open(path: &str) -> Tensors {
        let bytes = std::fs::read(repository(path)).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Tensors { header: serde_json::from_slice(&bytes[8..8 + length]).unwrap(), data: bytes[8 + length..].to_vec() }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let entry = &self.header[name];
        assert_eq!(entry["dtype"], "F32", "{name}");
        let range =
            entry["data_offsets"][0].as_u64().unwrap() as usize..entry["data_offsets"][1].as_u64().unwrap() as usize;
        self.data[range].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

fn floats<const N: usize>(value: &Value) -> [f32; N] {
    std::array::from_fn(|i| value[i].as_f64().unwrap() as f32)
}

/// The input that a bundle of a folder with these files would describe.
fn input(folder: &str, patch: u32) -> ImageInput {
    let processor = json(&format!("{folder}/preprocessor_config.json"));
    let integer = |value: &Value| value.as_u64().unwrap() as u32;
    let (edge, tiling) = match processor.get("crop_size") {
        Some(crop) => (
            integer(&crop["height"]),
            Tiling::CenterCrop { shortest_edge: integer(&processor["size"]["shortest_edge"]) },
        ),
        None => {
            let pinpoints = processor["image_grid_pinpoints"].as_array().unwrap();
            let pinpoints: Vec<[u32; 2]> = pinpoints.iter().map(|p| [integer(&p[0]), integer(&p[1])]).collect();
            (
                integer(&processor["size"]["height"]),
                Tiling::AnyRes { pinpoints, max_tiles: Some(9), among_others: Some([127; 3]) },
            )
        }
    };
    let side = edge / patch;
    ImageInput {
        token: 126,
        placeholder: "<image>".into(),
        tile: Tile {
            width: edge,
            height: edge,
            rows: side,
            columns: side,
            rescale: processor["rescale_factor"].as_f64().unwrap() as f32,
            mean: floats(&processor["image_mean"]),
            std: floats(&processor["image_std"]),
            resample: Resample::Bicubic,
        },
        tiling,
        max_image_rows: 17 * side * side + 1,
        newline: Some(17 * side * side),
    }
}

#[track_caller]
fn check_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let worst = actual.iter().zip(expected).map(|(a, e)| (a - e).abs()).fold(0.0, f32::max);
    let different = actual.iter().zip(expected).filter(|(a, e)| (*a - *e).abs() > 1e-5).count();
    println!("{what}: worst {worst}, {different} of {} differ", actual.len());
    assert!(worst <= tolerance, "{what}: {worst} > {tolerance}, {different} of {} differ", actual.len());
}

#[test]
fn pixels_of_every_aspect_ratio_equal_those_of_transformers() {
    for (folder, patch, pictures) in [
        ("tests/golden/llava_onevision", 4, &["square", "landscape", "portrait", "large"][..]),
        ("tests/golden/llava_1_5", 7, &["landscape", "portrait"]),
    ] {
        let expected = Tensors::open(&format!("{folder}/expected.safetensors"));
        let input = input(folder, patch);
        for name in pictures {
            let picture = picture(&format!("{folder}/{name}.png"));
            let pixels: Vec<f32> = Prepared::new(&picture, &input).unwrap().tiles().flatten().collect();
            check_close(
                &format!("{folder}/{name}"),
                &pixels,
                &expected.floats(&format!("{name}.pixel_values")),
                PIXELS,
            );
        }
    }
}

#[test]
fn blended_rows_equal_the_packed_features_of_transformers() {
    let folder = "tests/golden/llava_onevision";
    let expected = Tensors::open(&format!("{folder}/expected.safetensors"));
    let weights = Tensors::open(&format!("{folder}/model.safetensors"));
    let newline = weights.floats("image_newline");
    let width = newline.len();
    let input = input(folder, 4);
    for name in ["square", "landscape", "portrait", "large"] {
        let picture = picture(&format!("{folder}/{name}.png"));
        let prepared = Prepared::new(&picture, &input).unwrap();
        let mut rows = expected.floats(&format!("{name}.projected"));
        assert_eq!(rows.len(), prepared.tiles().len() * 16 * width, "{name}");
        rows.resize(input.newline.unwrap() as usize * width, f32::NAN);
        rows.extend(&newline);
        let mut packed = Vec::new();
        for blend in prepared.blends() {
            for column in 0..width {
                packed.push((0..4).map(|i| blend.weight[i] * rows[blend.index[i] as usize * width + column]).sum());
            }
        }
        check_close(name, &packed, &expected.floats(&format!("{name}.packed")), PACKED);
    }
}

/// The form among others: the picture in the middle of a gray square, one tile, and a newline behind its features.
#[test]
fn several_pictures_are_a_tile_and_a_newline_each() {
    let input_of = input;
    let input = ImageInput { max_image_rows: 6 * 36 + 1, newline: Some(6 * 36), ..input("demo/pocket-llava", 16) };
    let gray = (127.0 / 255.0 - 0.5) / 0.5;
    for (file, is_gray_above) in [("09-strip-190x80.jpg", true), ("04-portrait-120x180.png", false)] {
        let alone = Prepared::new(&picture(&format!("demo/images/{file}")), &input).unwrap();
        let among = alone.shown(true);
        assert!(among.is_among_others() && !alone.is_among_others() && !among.shown(false).is_among_others());
        assert_eq!((among.tiles().len(), among.blends().len()), (1, 37));
        assert!(alone.tiles().len() > 1 && alone.blends().len() > 37);
        assert_eq!(among.blends()[36], Blend::row(216));
        let tile = among.tiles().next().unwrap();
        let is_gray = |value: f32| (value - gray).abs() < 0.01;
        let above = (10..86).all(|x| is_gray(tile[x]));
        let beside = (10..86).all(|y| is_gray(tile[y * 96]));
        assert_eq!((above, beside), (is_gray_above, !is_gray_above), "{file}");
        assert!(!is_gray(tile[48 * 96 + 48]) || file.contains("gray"), "{file}");
    }
    // Processors that know no such form show each picture as if it were alone.
    let clip = input_of("tests/golden/llava_1_5", 7);
    let alone = Prepared::new(&picture("demo/images/09-strip-190x80.jpg"), &clip).unwrap();
    assert!(!alone.shown(true).is_among_others());
    assert_eq!(alone.shown(true).blends(), alone.blends());
}

#[test]
fn demo_pictures_take_as_many_tokens_as_expected() {
    let expected = json("demo/images/expected.json");
    let input = ImageInput { max_image_rows: 6 * 36 + 1, newline: Some(6 * 36), ..input("demo/pocket-llava", 16) };
    for case in expected["images"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let picture = picture(&format!("demo/images/{file}"));
        assert_eq!(picture.width(), case["upright_size"][0], "{file}");
        assert_eq!(picture.height(), case["upright_size"][1], "{file}");
        let prepared = Prepared::new(&picture, &input).unwrap();
        assert_eq!(prepared.tiles().len() as u64, case["tiles"].as_u64().unwrap(), "{file}");
        // The prompt around the picture has 13 tokens; `chat::tests` counts them.
        assert_eq!(prepared.blends().len() as u64 + 13, case["prompt_tokens"].as_u64().unwrap(), "{file}");
    }
}

#[test]
fn extreme_pictures_are_bounded() {
    let onevision = input("tests/golden/llava_onevision", 4);
    let clip = input("tests/golden/llava_1_5", 7);
    for (width, height) in [(1, 1), (1, 50_000), (50_000, 1), (3, 2)] {
        let picture = Picture::from_rgb(width, height, vec![90; (width * height * 3) as usize]).unwrap();
        let prepared = Prepared::new(&picture, &onevision).unwrap();
        assert!(prepared.blends().iter().all(|b| b.index.iter().all(|&i| i <= onevision.newline.unwrap() as i32)));
        assert_eq!(prepared.tiles().count(), prepared.tiles().len());
        let cut: Vec<f32> = Prepared::new(&picture, &clip).unwrap().tiles().flatten().collect();
        assert_eq!(cut.len(), 3 * 28 * 28);
    }
}

#[test]
fn senseless_inputs_are_errors() {
    let good = input("tests/golden/llava_onevision", 4);
    let picture = Picture::from_rgb(64, 60, vec![0; 64 * 60 * 3]).unwrap();
    let check = |change: fn(&mut ImageInput), expected: &str| {
        let mut input = good.clone();
        change(&mut input);
        let error = Prepared::new(&picture, &input).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(|input| input.tile.rows = 0, "its tiles are empty");
    check(
        |input| input.tiling = Tiling::AnyRes { pinpoints: vec![], max_tiles: None, among_others: None },
        "lists no sizes",
    );
    check(
        |input| input.tiling = Tiling::AnyRes { pinpoints: vec![[17, 64]], max_tiles: None, among_others: None },
        "cannot be cut",
    );
    check(|input| input.newline = Some(20), "needs 272 image rows, the bundle has room for 20");
    check(|input| input.tiling = Tiling::CenterCrop { shortest_edge: 0 }, "its shortest edge is 0 pixels");
    check(|input| (input.tile.width, input.tile.height) = (30_000, 30_000), "its tiles have 30000 × 30000 pixels");
    check(|input| input.max_image_rows = u32::MAX, "it has 4294967295 image rows");
}
