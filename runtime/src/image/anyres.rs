//! The arithmetic of the AnyRes tiling: which grid a picture gets, how it lies in it, which features remain.
//!
//! The formulas are those of transformers (`image_processing_utils.py`: `select_best_resolution`,
//! `get_patch_output_size`; `models/llava_onevision`: `unpad_image`, `pack_image_features`), with Python's rounding, because
//! the number of features of a picture has to come out equal.

use super::Size;

/// The `[height, width]` of `pinpoints` that keeps most of the picture, and of those the one that wastes least;
/// the first of equals. `None` if there are none.
pub(super) fn best_resolution(picture: Size, pinpoints: &[[u32; 2]]) -> Option<Size> {
    let (width, height) = (f64::from(picture.width), f64::from(picture.height));
    let mut best = None;
    let (mut most_kept, mut least_wasted) = (0u64, u64::MAX);
    for &[target_height, target_width] in pinpoints {
        let scale = (f64::from(target_width) / width).min(f64::from(target_height) / height);
        let scaled = (width * scale) as u64 * (height * scale) as u64;
        let kept = scaled.min(u64::from(picture.width) * u64::from(picture.height));
        let wasted = (u64::from(target_width) * u64::from(target_height)).saturating_sub(kept);
        if best.is_none() || kept > most_kept || (kept == most_kept && wasted < least_wasted) {
            (most_kept, least_wasted) = (kept, wasted);
            best = Some(Size { width: target_width, height: target_height });
        }
    }
    best
}

/// The size of the picture scaled into `target` with its aspect ratio kept.
pub(super) fn fitted(picture: Size, target: Size) -> Size {
    let across = f64::from(target.width) / f64::from(picture.width);
    let down = f64::from(target.height) / f64::from(picture.height);
    let scaled = |length: u32, scale: f64, most: u32| ((f64::from(length) * scale).ceil() as u32).clamp(1, most);
    if across < down {
        Size { width: target.width, height: scaled(picture.height, across, target.height) }
    } else {
        Size { width: scaled(picture.width, down, target.width), height: target.height }
    }
}

/// The part of a feature grid that shows the picture and no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpadded {
    pub left: u32,
    pub top: u32,
    pub size: Size,
}

/// Cuts the rows or columns off `grid` that only show padding around `picture`.
pub(super) fn unpad(picture: Size, grid: Size) -> Unpadded {
    let (width, height) = (f64::from(picture.width), f64::from(picture.height));
    let (columns, rows) = (f64::from(grid.width), f64::from(grid.height));
    // int(round(x, 7)): an integer that the product just misses is meant.
    let whole = |length: f64, most: u32| (((length * 1e7).round() / 1e7) as u32).min(most);
    if width / height > columns / rows {
        let padding = (grid.height - whole(height * (columns / width), grid.height)) / 2;
        Unpadded { left: 0, top: padding, size: Size { width: grid.width, height: grid.height - 2 * padding } }
    } else {
        let padding = (grid.width - whole(width * (rows / height), grid.width)) / 2;
        Unpadded { left: padding, top: 0, size: Size { width: grid.width - 2 * padding, height: grid.height } }
    }
}

/// The size that more than `max_tiles` tiles' worth of features are scaled down to (`anyres_max_N`); `None` where
/// they are at most 1.1² times as many.
pub(super) fn scaled_down(features: Size, tile: Size, max_tiles: u32) -> Option<Size> {
    let most = f64::from(max_tiles) * f64::from(tile.width) * f64::from(tile.height);
    let ratio = (f64::from(features.width) * f64::from(features.height) / most).sqrt();
    let scaled = |length: u32| floor_division(f64::from(length), ratio) as u32;
    (ratio > 1.1).then(|| Size { width: scaled(features.width), height: scaled(features.height) })
}

/// Python's `a // b` for positive floats: the floor of the exact quotient, not of the rounded one.
fn floor_division(a: f64, b: f64) -> f64 {
    ((a - a % b) / b).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn grids() {
        let pinpoints = [[96, 96], [96, 192], [96, 288], [192, 96], [192, 192], [288, 96]];
        for (picture, expected) in [
            ((96, 96), (96, 96)),
            ((200, 120), (192, 192)),
            ((190, 80), (192, 96)),
            ((120, 180), (192, 192)),
            ((128, 96), (192, 96)),
            ((1024, 768), (192, 192)),
            ((500, 20), (288, 96)),
            ((1, 10_000), (96, 96)), // nothing of it remains in any: the first
        ] {
            let best = best_resolution(size(picture.0, picture.1), &pinpoints);
            assert_eq!(best, Some(size(expected.0, expected.1)), "{picture:?}");
        }
        assert_eq!(best_resolution(size(1, 1), &[]), None);
    }

    #[test]
    fn fitting_rounds_up() {
        assert_eq!(fitted(size(45, 20), size(48, 32)), size(48, 22));
        assert_eq!(fitted(size(22, 61), size(32, 64)), size(24, 64));
        assert_eq!(fitted(size(10_000, 1), size(32, 32)), size(32, 1));
    }

    #[test]
    fn unpadding_takes_as_much_from_both_sides() {
        assert_eq!(unpad(size(45, 20), size(12, 8)), Unpadded { left: 0, top: 1, size: size(12, 6) });
        assert_eq!(unpad(size(22, 61), size(8, 16)), Unpadded { left: 1, top: 0, size: size(6, 16) });
        assert_eq!(unpad(size(16, 16), size(4, 4)), Unpadded { left: 0, top: 0, size: size(4, 4) });
        assert_eq!(unpad(size(10_000, 1), size(4, 4)), Unpadded { left: 0, top: 2, size: size(4, 0) });
    }

    #[test]
    fn scaling_down_floors_the_exact_quotient() {
        assert_eq!(scaled_down(size(16, 16), size(4, 4), 9), Some(size(12, 12)));
        assert_eq!(scaled_down(size(12, 12), size(4, 4), 9), None);
        assert_eq!(scaled_down(size(13, 13), size(4, 4), 9), None, "1.083 is not worth it");
        // 7.0 / 0.7 rounds to 10, but 0.7 is less than seven tenths of ten in binary: Python says 10; and 1 // 0.1 is 9.
        assert_eq!(floor_division(1.0, 0.1), 9.0);
        assert_eq!(floor_division(16.0, 4.0 / 3.0), 12.0);
    }
}
