//! The bundle format: plans, buffers, kernels and weights in one file.
//!
//! A bundle is a ZIP file with stored (uncompressed) entries at page-aligned offsets, so any unzip lists it and
//! weights map straight into memory. The last entry, `bundle.json`, is the [`Manifest`]. This crate knows the
//! format and nothing of graphs, schemes or devices.

mod error;
mod image;
mod manifest;
mod mapping;
mod memory;
pub mod native;
mod plan;
mod reader;
mod record;
pub mod room;
mod rows16;
mod validate;
mod variant;
mod work;
mod writer;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use image::MAX_IMAGE_ROWS;
pub use manifest::*;
pub use mapping::{Mapping, exit_when_shortened};
pub use memory::*;
pub use plan::*;
pub use reader::{Bundle, SharedEntry};
pub use record::{
    ATTENTION_PIECE, FINE_ROWS, MAX_LOCAL_BYTES, RECORD_ROWS, Record, SHARE_BYTES, TILE_BYTES, TILE_DEPTH, TILE_ROWS,
    tile_bytes,
};
pub use room::Room;
pub use variant::{Variant, VariantModel};
pub use writer::{ENTRY_ALIGNMENT, Sink, Writer};
