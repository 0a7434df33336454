//! Tests of the whole: one binary, so that it links once.

mod bench;
mod cli;
mod end_to_end;
mod golden;
mod hub;
mod kernels;
mod tidy;
mod workbench;
