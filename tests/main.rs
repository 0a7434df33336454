//! Tests of the whole: one binary, so that it links once.

mod cli;
mod convert;
mod end_to_end;
mod gguf;
mod golden;
mod hub;
mod imports;
mod kernels;
mod mlc;
mod tidy;
mod workbench;
