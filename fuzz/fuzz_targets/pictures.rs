//! Pictures: decoded, then made into tiles and rows by an image input that the first bytes choose.

#![no_main]

use dwindle_bundle::{ImageInput, Resample, Tile, Tiling};
use dwindle_runtime::image::{Picture, Prepared};
use libfuzzer_sys::fuzz_target;

/// Bytes that choose.
const CHOICES: usize = 16;

/// Larger pictures, tiles and grids take time alone.
const MAX_PIXELS: u64 = 1 << 14;

fn input(choices: &[u8; CHOICES]) -> ImageInput {
    // Mostly small, rarely absurd.
    let size = |at: usize| match choices[at] {
        255 => u32::MAX - u32::from(choices[15]),
        254 => 1 << (choices[15] % 32),
        byte => u32::from(byte) / 3,
    };
    let (width, height) = (size(0), size(1));
    let pinpoint = |at: usize| [height.wrapping_mul(size(at) % 6), width.wrapping_mul(size(at + 1) % 6)];
    ImageInput {
        token: 0,
        placeholder: "<image>".to_owned(),
        tile: Tile {
            width,
            height,
            rows: size(2),
            columns: size(3),
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
            resample: match choices[4] % 4 {
                0 => Resample::Nearest,
                1 => Resample::Lanczos3,
                2 => Resample::Bilinear,
                _ => Resample::Bicubic,
            },
        },
        tiling: match choices[5] % 4 {
            0 => Tiling::CenterCrop { shortest_edge: size(6) },
            1 => Tiling::Stretch,
            _ => Tiling::AnyRes {
                pinpoints: vec![pinpoint(7), pinpoint(9), [size(11), size(12)]],
                max_tiles: choices[13].is_multiple_of(2).then_some(size(13)),
                among_others: choices[13].is_multiple_of(3).then_some([choices[13]; 3]),
            },
        },
        max_image_rows: if choices[14] < 128 { 1 << 18 } else { u32::from(choices[14]) * 8 },
        newline: choices[15].is_multiple_of(2).then_some(u32::from(choices[14]) * 4),
    }
}

/// Whether it is what a model may want, but takes time alone.
fn is_large(input: &ImageInput) -> bool {
    let pixels = |height: u32, width: u32| u64::from(height) * u64::from(width);
    let largest = match &input.tiling {
        Tiling::CenterCrop { shortest_edge } => pixels(*shortest_edge, *shortest_edge),
        Tiling::Stretch => 0,
        Tiling::AnyRes { pinpoints, .. } => pinpoints.iter().map(|[height, width]| pixels(*height, *width)).max().unwrap_or(0),
    };
    input.check().is_ok() && largest.max(pixels(input.tile.height, input.tile.width)) > MAX_PIXELS
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choices, file)) = bytes.split_first_chunk::<CHOICES>() else { return };
    let Ok(picture) = Picture::decode(file) else { return };
    let input = input(choices);
    if u64::from(picture.width()) * u64::from(picture.height()) > MAX_PIXELS || is_large(&input) {
        return;
    }
    if let Ok(prepared) = Prepared::new(&picture, &input) {
        for is_among_others in [false, true] {
            let shown = prepared.shown(is_among_others);
            let tiles = shown.tiles().take(3).map(|tile| tile.len()).sum::<usize>();
            assert!(!shown.blends().is_empty() && tiles > 0);
        }
    }
});
