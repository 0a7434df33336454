//! Pictures: decoded, then made into tiles and rows by an image input that the first bytes choose.

#![no_main]

use dwindle_bundle::{ImageInput, Resample, Tile, Tiling};
use dwindle_runtime::image::{Picture, Prepared};
use libfuzzer_sys::fuzz_target;

/// Bytes that choose.
const CHOICES: usize = 16;

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
                max_tiles: (choices[13] % 2 == 0).then_some(size(13)),
            },
        },
        max_image_rows: if choices[14] < 128 { 1 << 18 } else { u32::from(choices[14]) * 8 },
        newline: choices[15].is_multiple_of(2).then_some(u32::from(choices[14]) * 4),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choices, file)) = bytes.split_first_chunk::<CHOICES>() else { return };
    let Ok(picture) = Picture::decode(file) else { return };
    // Large pictures take time alone.
    if u64::from(picture.width()) * u64::from(picture.height()) > 1 << 20 {
        return;
    }
    if let Ok(prepared) = Prepared::new(&picture, &input(choices)) {
        let blends = prepared.blends().len();
        let tiles = prepared.tiles().take(3).map(|tile| tile.len()).sum::<usize>();
        assert!(blends > 0 && tiles > 0);
    }
});
