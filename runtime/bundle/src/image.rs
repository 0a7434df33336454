//! Checks how a model wants its pictures, by itself and against its plan.

use crate::manifest::{ImageInput, Model, Tiling};
use crate::plan::{BufferKind, PortType};

/// Pixels of a tile: 2048 by 2048 is far more than any vision tower takes.
const MAX_TILE_PIXELS: u64 = 1 << 22;

/// Pixels of a grid of tiles: as bytes, 96 MiB.
const MAX_GRID_PIXELS: u64 = 1 << 25;

/// Tiles are at most so many times as long in one direction as in the other.
const MAX_TILE_ASPECT: u64 = 16;

/// The longest edge of a grid of tiles.
const MAX_GRID_EDGE: u32 = 1 << 16;

/// The most tiles of a grid, each of which the tower encodes; published grids have up to 36.
const MAX_TILES: u64 = 256;

/// The most image rows that a model may have: a multiple of what the largest published grids need.
pub const MAX_IMAGE_ROWS: u32 = 1 << 18;

/// The most sizes that a grid may be chosen from.
const MAX_PINPOINTS: usize = 4096;

/// The longest edge that the shorter edge of a picture is resized to.
const MAX_SHORTEST_EDGE: u32 = 1 << 14;

impl ImageInput {
    /// Says what makes no sense or takes more than any model does, whatever the plan.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence about the image input.
    pub fn check(&self) -> Result<(), String> {
        let tile = &self.tile;
        if tile.width == 0 || tile.height == 0 || tile.rows == 0 || tile.columns == 0 {
            return Err("its tiles are empty".to_owned());
        }
        let (width, height) = (u64::from(tile.width), u64::from(tile.height));
        if width * height > MAX_TILE_PIXELS || width.max(height) > MAX_TILE_ASPECT * width.min(height) {
            return Err(format!("its tiles have {} × {} pixels", tile.width, tile.height));
        }
        let rows = u64::from(tile.rows) * u64::from(tile.columns);
        if rows > u64::from(self.max_image_rows) {
            return Err(format!("a tile becomes {rows} rows, there is room for {}", self.max_image_rows));
        }
        if self.max_image_rows > MAX_IMAGE_ROWS {
            return Err(format!("it has {} image rows", self.max_image_rows));
        }
        if self.newline.is_some_and(|row| row >= self.max_image_rows) {
            return Err("its newline lies outside of the image rows".to_owned());
        }
        let numbers = [tile.mean, tile.std, [tile.rescale; 3]];
        if numbers.as_flattened().iter().any(|number| !number.is_finite()) || tile.std.contains(&0.0) {
            return Err("its pixels become no finite numbers".to_owned());
        }
        match &self.tiling {
            Tiling::Stretch => Ok(()),
            Tiling::CenterCrop { shortest_edge: 1..=MAX_SHORTEST_EDGE } => Ok(()),
            Tiling::CenterCrop { shortest_edge } => Err(format!("its shortest edge is {shortest_edge} pixels")),
            Tiling::AnyRes { max_tiles: Some(0), .. } => Err("its grids have no tiles".to_owned()),
            Tiling::AnyRes { pinpoints, .. } if pinpoints.is_empty() => {
                Err("it lists no sizes for the grid".to_owned())
            }
            Tiling::AnyRes { pinpoints, .. } if pinpoints.len() > MAX_PINPOINTS => {
                Err(format!("it lists {} sizes for the grid", pinpoints.len()))
            }
            Tiling::AnyRes { pinpoints, .. } => {
                let fits = |&[down, across]: &[u32; 2]| {
                    let tiles = (u64::from(across) / width).saturating_mul(u64::from(down) / height);
                    let pixels = u64::from(across) * u64::from(down);
                    (1..=MAX_GRID_PIXELS).contains(&pixels) && across.max(down) <= MAX_GRID_EDGE && tiles <= MAX_TILES
                };
                match pinpoints.iter().find(|size| !fits(size)) {
                    Some([height, width]) => Err(format!("a grid has {width} × {height} pixels")),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Says where a model's image input contradicts its plan, if it does.
pub(crate) fn validate_image(model: &Model) -> Result<(), String> {
    let Some(image) = &model.image else { return Ok(()) };
    image.check()?;
    let function = model.plan.functions.get("encode_image").ok_or("the plan has no function `encode_image`")?;
    let pixels = function.inputs.iter().find(|port| port.name == "pixels");
    let pixels = pixels.ok_or("`encode_image` has no input `pixels`")?;
    let tile = u64::from(image.tile.width) * u64::from(image.tile.height);
    if pixels.dtype != PortType::F32 || pixels.rows != Some(3) || u64::from(pixels.columns) != tile {
        let (width, height) = (image.tile.width, image.tile.height);
        return Err(format!(
            "its tiles have 3 × {width} × {height} values, `encode_image` takes {} × {}",
            pixels.rows.map_or("any".to_owned(), |rows| rows.to_string()),
            pixels.columns
        ));
    }
    let needed = u64::from(image.max_image_rows).saturating_mul(u64::from(model.hidden_size)).saturating_mul(4);
    let state = model.plan.buffers.iter().find(|b| b.name == "image_rows" && b.kind == BufferKind::State);
    let bytes = state.ok_or("the plan has no state `image_rows`")?.bytes;
    if needed > bytes || model.hidden_size == 0 {
        let (rows, columns) = (image.max_image_rows, model.hidden_size);
        return Err(format!("{rows} image rows of {columns} values do not fit into the {bytes} bytes of their state"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::manifest::{Resample, Tile};
    use crate::plan::{Buffer, Function, Port};

    /// Tiles of 32 x 16 pixels that become 2 rows of 4 values.
    fn model() -> Model {
        let mut plan = crate::tests::plan();
        plan.buffers.push(Buffer { name: "pixels".to_owned(), bytes: 3 * 512 * 4, kind: BufferKind::Input });
        plan.buffers.push(Buffer { name: "image_rows".to_owned(), bytes: 9 * 4 * 4, kind: BufferKind::State });
        let pixels = Port { name: "pixels".to_owned(), buffer: 3, dtype: PortType::F32, rows: Some(3), columns: 512 };
        let encode = Function { max_rows: 1, inputs: vec![pixels], ..Function::default() };
        plan.functions.insert("encode_image".to_owned(), encode);
        let tile = Tile {
            width: 32,
            height: 16,
            rows: 1,
            columns: 2,
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
            resample: Resample::Bicubic,
        };
        let tiling = Tiling::AnyRes { pinpoints: vec![[16, 32], [32, 64]], max_tiles: Some(9), among_others: None };
        let image = ImageInput {
            token: 1,
            placeholder: "<image>".to_owned(),
            tile,
            tiling,
            max_image_rows: 9,
            newline: Some(8),
        };
        Model { image: Some(image), ..crate::tests::manifest(plan).models.remove(0) }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Model, &mut ImageInput), expected: Expect) {
        let mut model = model();
        let mut image = model.image.take().unwrap();
        change(&mut model, &mut image);
        model.image = Some(image);
        expected.assert_eq(&validate_image(&model).map_or_else(|why| why, |()| "valid".to_owned()));
    }

    #[test]
    fn plans_take_the_tiles() {
        check(|_, _| (), expect!["valid"]);
        check(|_, i| (i.tile.width, i.tile.height) = (16, 32), expect!["valid"]);
        check(|_, i| i.tile.width = 64, expect!["its tiles have 3 × 64 × 16 values, `encode_image` takes 3 × 512"]);
        check(
            |m, _| m.plan.functions.get_mut("encode_image").unwrap().inputs[0].rows = None,
            expect!["its tiles have 3 × 32 × 16 values, `encode_image` takes any × 512"],
        );
        check(
            |m, _| m.plan.functions.get_mut("encode_image").unwrap().inputs.clear(),
            expect!["`encode_image` has no input `pixels`"],
        );
        check(|m, _| drop(m.plan.functions.remove("encode_image")), expect!["the plan has no function `encode_image`"]);
        check(
            |_, i| (i.max_image_rows, i.newline) = (10, None),
            expect!["10 image rows of 4 values do not fit into the 144 bytes of their state"],
        );
        check(|m, _| m.plan.buffers[4].name = "rows".to_owned(), expect!["the plan has no state `image_rows`"]);
        check(
            |m, _| m.hidden_size = u32::MAX,
            expect!["9 image rows of 4294967295 values do not fit into the 144 bytes of their state"],
        );
    }

    #[test]
    fn sizes_are_those_of_models() {
        check(|_, i| i.tile.rows = 0, expect!["its tiles are empty"]);
        check(|_, i| i.tile.height = 0, expect!["its tiles are empty"]);
        check(|_, i| (i.tile.width, i.tile.height) = (30_000, 30_000), expect!["its tiles have 30000 × 30000 pixels"]);
        check(
            |_, i| (i.tile.width, i.tile.height) = (u32::MAX, u32::MAX),
            expect!["its tiles have 4294967295 × 4294967295 pixels"],
        );
        check(|_, i| i.tile.width = 16 * 16 + 1, expect!["its tiles have 257 × 16 pixels"]);
        check(|_, i| i.tile.rows = 5, expect!["a tile becomes 10 rows, there is room for 9"]);
        check(
            |_, i| (i.tile.rows, i.tile.columns) = (u32::MAX, u32::MAX),
            expect!["a tile becomes 18446744065119617025 rows, there is room for 9"],
        );
        check(|_, i| i.max_image_rows = u32::MAX, expect!["it has 4294967295 image rows"]);
        check(|_, i| i.newline = Some(9), expect!["its newline lies outside of the image rows"]);
        check(|_, i| i.tile.std[1] = 0.0, expect!["its pixels become no finite numbers"]);
        check(|_, i| i.tile.mean[2] = f32::NAN, expect!["its pixels become no finite numbers"]);
        check(|_, i| i.tile.rescale = f32::INFINITY, expect!["its pixels become no finite numbers"]);
    }

    #[test]
    fn tilings_are_bounded() {
        let grid = |i: &mut ImageInput, pinpoints: &[[u32; 2]]| {
            i.tiling = Tiling::AnyRes { pinpoints: pinpoints.to_vec(), max_tiles: None, among_others: None };
        };
        check(|_, i| grid(i, &[[16, 32 * 256]]), expect!["valid"]);
        check(|_, i| grid(i, &[]), expect!["it lists no sizes for the grid"]);
        check(|_, i| grid(i, &[[16, 32], [0, 32]]), expect!["a grid has 32 × 0 pixels"]);
        check(|_, i| grid(i, &[[16, 32 * 257]]), expect!["a grid has 8224 × 16 pixels"]);
        check(|_, i| grid(i, &[[30_000, 30_000]]), expect!["a grid has 30000 × 30000 pixels"]);
        check(|_, i| grid(i, &[[u32::MAX, u32::MAX]]), expect!["a grid has 4294967295 × 4294967295 pixels"]);
        check(|_, i| grid(i, &[[1, 1 << 17]]), expect!["a grid has 131072 × 1 pixels"]);
        check(|_, i| grid(i, &vec![[16, 32]; 5000]), expect!["it lists 5000 sizes for the grid"]);
        check(
            |_, i| i.tiling = Tiling::AnyRes { pinpoints: vec![[16, 32]], max_tiles: Some(0), among_others: None },
            expect!["its grids have no tiles"],
        );
        check(|_, i| i.tiling = Tiling::Stretch, expect!["valid"]);
        check(|_, i| i.tiling = Tiling::CenterCrop { shortest_edge: 20 }, expect!["valid"]);
        check(
            |_, i| i.tiling = Tiling::CenterCrop { shortest_edge: 40_000 },
            expect!["its shortest edge is 40000 pixels"],
        );
        check(|_, i| i.tiling = Tiling::CenterCrop { shortest_edge: 0 }, expect!["its shortest edge is 0 pixels"]);
    }
}
